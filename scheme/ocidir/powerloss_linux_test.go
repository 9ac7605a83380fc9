package ocidir

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// lose runs a plan on the disk, with the power failing at step n, and returns what is wrong afterwards.
func (d *faultDisk) lose(p faultPlan, n int64) (outcome, []string) {
	d.t.Helper()
	p.Dir, p.Mount, p.How, p.At = filepath.Join(d.mnt, "tree"), d.mnt, "power", n
	got := runFault(d.t, p)
	d.powerOn()
	wrong := inspect(d.t.Context(), p.Dir, got.acked, disaster{power: true})
	d.empty()
	return got, wrong
}

// TestPowerLossAtEveryStep switches the power off at a step of the workload. What was acknowledged must be there.
func TestPowerLossAtEveryStep(t *testing.T) {
	needFaults(t)
	for _, kind := range slices.Sorted(maps.Keys(faultDisks)) {
		for name, plan := range map[string]faultPlan{
			"one after another": {},
			"at the same time":  {Parallel: true},
		} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				d := newFaultDisk(t, kind)
				plan.Dir = filepath.Join(d.mnt, "tree")
				total := runFault(t, plan).steps
				d.empty()
				stride := faultStride(t, 7)
				t.Logf("the workload has %d steps; every %d is tried", total, stride)
				for n := faultStart(t, stride); n <= total; n += stride {
					plan.Flag = logKept + int(n/stride%2)
					if stride == 1 {
						plan.Flag = logKept
					}
					for ; plan.Flag <= logLost; plan.Flag++ {
						got, wrong := d.lose(plan, n)
						for _, w := range wrong {
							t.Errorf("power lost at step %d, journal %d, %v acknowledged: %s", n, plan.Flag, got.acked, w)
						}
						if len(wrong) > 0 {
							return
						}
						if stride > 1 {
							break
						}
					}
				}
			})
		}
	}
}

// TestPowerLossSeesAMissingSync: with one kind of sync left out, the examination must find a loss somewhere. Otherwise
// it could not find any.
func TestPowerLossSeesAMissingSync(t *testing.T) {
	needFaults(t)
	for name, c := range map[string]struct {
		swallow string
		scripts []string
	}{
		"of a blob before its rename":         {`^sync \.ocisync/ingest/`, []string{"blobs"}},
		"of the name of a blob":               {`^syncdir blobs/sha256$`, []string{"damages"}},
		"of a blob that others wrote":         {`^sync blobs/`, []string{"dedup"}},
		"of the file system":                  {`^syncfs`, []string{"dedup"}},
		"of the directory that has the index": {`^syncdir \.$`, []string{"deletes"}},
		"of anything":                         {`^sync`, []string{"images"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newFaultDisk(t, "ext4")
			p := faultPlan{Swallow: c.swallow, Scripts: c.scripts}
			p.Dir = filepath.Join(d.mnt, "tree")
			total := runFault(t, p).steps
			d.empty()
			for i := range total {
				n := total + 1 - i
				if i == 0 {
					n = endOfWork
				}
				for _, p.Flag = range []int{logKept, logLost} {
					if got, wrong := d.lose(p, n); len(wrong) > 0 {
						t.Logf("found at step %d of %d, journal %d, %v acknowledged: %s", n, total, p.Flag, got.acked, strings.SplitN(wrong[0], "\n", 2)[0])
						return
					}
				}
			}
			t.Errorf("%d steps, and no loss of power did any harm without %s", total, c.swallow)
		})
	}
}

// TestPowerLossAfterAStoppedWriter: A is stopped at some step, such as between the rename of a blob and the sync of its
// name; B does the same work, finds what A has done, and commits. What B acknowledged survives the power loss.
func TestPowerLossAfterAStoppedWriter(t *testing.T) {
	needFaults(t)
	for _, kind := range slices.Sorted(maps.Keys(faultDisks)) {
		t.Run(kind, func(t *testing.T) {
			d := newFaultDisk(t, kind)
			p := faultPlan{Dir: filepath.Join(d.mnt, "tree"), Scripts: []string{"images", "mounts", "dedup"}}
			total := runFault(t, p).steps
			d.empty()
			tried, stops := 0, 0
			stride := faultStride(t, 9)
			for n := faultStart(t, stride); n <= total && !t.Failed(); n += stride {
				if tried++; d.stopped(p, n, logKept+int(n%2)) {
					stops++
				}
			}
			if stops <= tried/2 {
				t.Errorf("A was stopped %d times only, of %d", stops, tried)
			}
			t.Logf("A was stopped %d times in %d steps", stops, total)
		})
	}
}

// awaitStop waits until no thread of a process runs any more: it says that it stops before it does, and until then
// another thread may take a lock.
func awaitStop(t testing.TB, pid int) {
	t.Helper()
	for {
		all, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(all) == 0 {
			t.Fatal("the process is gone", err)
		}
		running := false
		for _, name := range all {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			_, state, _ := strings.Cut(string(text), ") ")
			running = running || !strings.HasPrefix(state, "T")
		}
		if !running {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// stopped runs A until it stops at step n or, if it has a lock then, at the first after it without; then B. It reports
// whether A was stopped, and B could work.
func (d *faultDisk) stopped(p faultPlan, n int64, flag int) bool {
	t := d.t
	a := p
	a.StopAt = n
	out := newWatched("stopped")
	cmd := startFault(t, a, out)
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, or came to its end
		close(ended)
	}()
	stopped := false
	select {
	case <-out.seen:
		stopped = true
		awaitStop(t, cmd.Process.Pid)
	case <-ended:
	}
	defer cmd.Process.Kill() // again, should B fail
	acked := map[string]int{}
	free := unlocked(p.Dir) // a goroutine of A may have taken the lock at the last moment: then B can do nothing
	if free {
		acked = runFault(t, p).acked
	}
	if err := powerOff(d.mnt, flag); err != nil {
		t.Fatal(err)
	}
	if stopped {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended
	}
	d.powerOn()
	if !free {
		d.empty()
		return false
	}
	for _, w := range inspect(t.Context(), p.Dir, acked, disaster{power: true}) {
		t.Errorf("A was stopped at step %d (%v), journal %d, B had %v acknowledged: %s", n, stopped, flag, acked, w)
	}
	d.empty()
	return stopped
}

// TestPowerLossWithLessDurability is every step of the script that uses the lower levels.
func TestPowerLossWithLessDurability(t *testing.T) {
	needFaults(t)
	for _, kind := range slices.Sorted(maps.Keys(faultDisks)) {
		t.Run(kind, func(t *testing.T) {
			d := newFaultDisk(t, kind)
			p := faultPlan{Dir: filepath.Join(d.mnt, "tree"), Scripts: []string{"levels"}}
			total := runFault(t, p).steps
			d.empty()
			t.Logf("the script has %d steps", total)
			for n := int64(1); n <= total && !t.Failed(); n += faultStride(t, 3) {
				p.Flag = logKept + int(n%2)
				got, wrong := d.lose(p, n)
				for _, w := range wrong {
					t.Errorf("power lost at step %d, journal %d, %v acknowledged: %s", n, p.Flag, got.acked, w)
				}
			}
		})
	}
}
