package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The file system is made for a disk that keeps nothing which was not flushed: without ext4's mercy on who does not sync.
var (
	mkfs    = []string{"mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-J", "size=8"}
	options = "loop,noauto_da_alloc,commit=600"
)

const diskSize = 96 << 20

// binary is ocidir's tests, which run the workload and look at what is left.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ocidir.test")
	cmd := exec.Command("go", "test", "-c", "-o", path, "./scheme/ocidir")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// plan is ocidir's faultPlan.
type plan map[string]any

// run runs the binary with a plan, and returns what it printed.
func (p plan) run(bin string) (string, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), "OCIDIR_TEST_FAULT="+string(raw))
	stalled := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer stalled.Stop()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func need(t *testing.T) {
	t.Helper()
	if os.Getenv("OCISYNC_FAULTS") == "" {
		t.Skip("SKIPPED: set OCISYNC_FAULTS=1, and be root, to lose power")
	}
	if err := Usable(); err != nil {
		t.Fatal(err)
	}
}

// points is how many places of a log are tried: all with OCISYNC_FAULTS=all.
func points(t *testing.T, otherwise int) int {
	t.Helper()
	if os.Getenv("OCISYNC_FAULTS") == "all" {
		return 1 << 30
	}
	return otherwise
}

// seed is printed, and can be given.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := rand.Uint64()
	if v := os.Getenv("OCISYNC_FAULTS_SEED"); v != "" {
		var err error
		if s, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("OCISYNC_FAULTS_SEED=%d", s)
	return s
}

func command(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// formatted is a disk with an empty file system.
func formatted(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fresh.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, diskSize); err != nil {
		t.Fatal(err)
	}
	command(t, append(mkfs, path)...)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// recordWorkload runs the workload on a disk, and returns what reached it.
func recordWorkload(t *testing.T, bin string, p plan, refuse func(request string, n int) bool) *Log {
	t.Helper()
	base := t.TempDir()
	served, mnt := filepath.Join(base, "served"), filepath.Join(base, "mnt")
	for _, dir := range []string{served, mnt} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Serve(served, formatted(t), refuse)
	if err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "-o", options, d.Image(), mnt)
	p["Dir"], p["Acks"] = filepath.Join(mnt, "tree"), d.Marks()
	out, err := p.run(bin)
	log := d.Log() // what umount writes comes too late
	command(t, "umount", mnt)
	if cerr := d.Close(); cerr != nil {
		t.Fatal(cerr)
	}
	if err != nil && refuse == nil {
		t.Fatalf("the workload: %v\n%s", err, out)
	}
	return log
}

// check looks at an image, and returns what is wrong with it, given what was acknowledged. A file system that met errors
// of its disk is repaired first, as an administrator would; any other must be whole once its journal was replayed.
func check(t *testing.T, bin, img, marks string, repair bool) string {
	t.Helper()
	mnt := filepath.Join(filepath.Dir(img), "mnt")
	if err := os.MkdirAll(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	acks := filepath.Join(filepath.Dir(img), "acks")
	if err := os.WriteFile(acks, []byte(marks), 0o600); err != nil {
		t.Fatal(err)
	}
	if !repair {
		command(t, "mount", "-o", options, img, mnt) // replays the journal
		command(t, "umount", mnt)
	}
	how := "-fn"
	if repair {
		how = "-fy"
	}
	cmd := exec.Command("e2fsck", how, img)
	if out, err := cmd.CombinedOutput(); err != nil && (!repair || cmd.ProcessState.ExitCode() != 1) { // 1: all is repaired
		return fmt.Sprintf("e2fsck: %v\n%s", err, out)
	}
	command(t, "mount", "-o", options, img, mnt)
	defer command(t, "umount", mnt)
	out, err := plan{"Dir": filepath.Join(mnt, "tree"), "Acks": acks, "Check": true, "How": "power"}.run(bin)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
		return out
	}
	if err != nil {
		t.Fatalf("the check: %v\n%s", err, out)
	}
	return ""
}

// replay tries n places of a log, each right behind a flush, and each with parts of what was written until the next one.
// It stops at the first at which something is wrong, and returns that.
func replay(t *testing.T, bin string, log *Log, n int, rng *rand.Rand) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "replay.img")
	places := append(log.Flushes(), log.Len())
	stride := max(1, len(places)/n)
	r := log.Replay()
	images, doubts := 0, 0
	for i := rng.IntN(stride); i < len(places); i += stride {
		next := log.Len()
		if i+1 < len(places) {
			next = places[i+1] - 1 // all but the flush
		}
		between := places[i] + rng.IntN(next-places[i]+1)
		for _, c := range []struct {
			at     int
			choice Choice
		}{{places[i], Nothing}, {between, Anything}, {next, Anything}, {next, Nothing}, {next, All}} {
			doubt, err := r.Image(img, c.at, c.choice, rng)
			if err != nil {
				t.Fatal(err)
			}
			if doubt == 0 && c.at != places[i] && log.Marks(c.at) == log.Marks(places[i]) {
				continue // the same as the first one
			}
			images++
			doubts += doubt
			if wrong := check(t, bin, img, log.Marks(c.at), false); wrong != "" {
				return fmt.Sprintf("power lost at %d of %d, behind flush %d of %d, with %d writes in doubt (%d): %s",
					c.at, log.Len(), i+1, len(places), doubt, c.choice, wrong)
			}
		}
	}
	t.Logf("%d flushes, %d requests; %d images with %d writes in doubt", len(places)-1, log.Len(), images, doubts)
	return ""
}

// TestPowerLossAtEveryFlush: whatever part of what was not flushed is on the disk, what was acknowledged is there.
func TestPowerLossAtEveryFlush(t *testing.T) {
	need(t)
	bin := binary(t)
	for name, p := range map[string]plan{"one after another": {}, "at the same time": {"Parallel": true}} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed(t), 1))
			log := recordWorkload(t, bin, p, nil)
			if wrong := replay(t, bin, log, points(t, 40), rng); wrong != "" {
				t.Error(wrong)
			}
		})
	}
}

// TestReplaySeesAMissingSync: a workload that leaves out one kind of sync must be found out.
func TestReplaySeesAMissingSync(t *testing.T) {
	need(t)
	bin := binary(t)
	for name, pattern := range map[string]string{"of contents": `^sync \.ocisync/ingest/`, "of everything": "^sync"} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed(t), 2))
			log := recordWorkload(t, bin, plan{"Swallow": pattern}, nil)
			wrong := replay(t, bin, log, 60, rng)
			if wrong == "" {
				t.Error("no loss was found")
			}
			t.Log(wrong[:min(len(wrong), 400)])
		})
	}
}

// TestPowerLossAfterErrors: requests fail with EIO, once or from then on, and then the power fails. What was acknowledged
// all the same is there.
func TestPowerLossAfterErrors(t *testing.T) {
	need(t)
	bin := binary(t)
	whole := recordWorkload(t, bin, plan{}, nil)
	counts := map[string]int{Flush: len(whole.Flushes())}
	for _, r := range whole.records {
		if r.kind == write {
			counts[Write]++
		}
	}
	s := seed(t)
	for _, request := range []string{Write, Flush} {
		for _, more := range []int{1, 3, 1 << 30} {
			for round := range min(4, points(t, 2)) {
				t.Run(fmt.Sprintf("%s, %d times, %d", request, more, round), func(t *testing.T) {
					rng := rand.New(rand.NewPCG(s, uint64(more)<<8|uint64(round)))
					first := 1 + rng.IntN(counts[request])
					log := recordWorkload(t, bin, plan{"Tolerate": true}, func(r string, n int) bool {
						return r == request && n >= first && n < first+more
					})
					t.Logf("from %s %d of %d on; acknowledged:\n%s", request, first, counts[request], strings.ReplaceAll(log.Marks(log.Len()), "\n", "; "))
					img := filepath.Join(t.TempDir(), "replay.img")
					for _, choice := range []Choice{Nothing, Anything, All} {
						if _, err := log.Replay().Image(img, log.Len(), choice, rng); err != nil {
							t.Fatal(err)
						}
						if wrong := check(t, bin, img, log.Marks(log.Len()), true); wrong != "" {
							t.Errorf("%s %d failed, %d times, then the power (%d): %s", request, first, more, choice, wrong)
						}
					}
				})
			}
		}
	}
}
