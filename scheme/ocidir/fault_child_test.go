package ocidir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// faultEnv makes the test binary run the workload, and meet what its value, a faultPlan in JSON, says. It makes it a
// checker instead where the plan says so.
const faultEnv = "OCIDIR_TEST_FAULT"

// faultPlan is what a process that runs the workload meets.
type faultPlan struct {
	Dir      string   // where the layouts are made
	Acks     string   // the file that is told what was acknowledged; "" is standard output
	Scripts  []string // the scripts to run; none is all
	Parallel bool     // run them at the same time
	At       int64    // the step before which it ends; 0 is never
	How      string   // how it ends: kill, or power
	Mount    string   // power: the file system that loses it
	Flag     int      // power: what becomes of the journal (see powerOff)
	Swallow  string   // a pattern of steps ("sync NAME") that claim success and do nothing
	StopAt   int64    // from this step on it stops itself before the first that it has no lock at; 0 is never
	Tolerate bool     // operations may fail; their script ends there
	Check    bool     // do not run it, but compare Dir with the acknowledgements in Acks
}

// What differs by system; nil where it cannot be done.
var (
	powerOff func(mount string, flag int) error
	stopSelf func() error
)

func (p *faultPlan) environ() (string, error) {
	raw, err := json.Marshal(p)
	return faultEnv + "=" + string(raw), err
}

// faultMain is the process: it returns its exit code.
func faultMain(raw string) int {
	var p faultPlan
	if err := json.Unmarshal([]byte(raw), &p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if p.Check {
		return p.check()
	}
	if err := p.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// check prints what is wrong in a directory.
func (p *faultPlan) check() int {
	raw, err := os.ReadFile(p.Acks)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	out := parseAcks(string(raw))
	wrong := inspect(context.Background(), p.Dir, out.acked, disaster{power: p.How == "power"})
	for _, w := range wrong {
		fmt.Println(w)
	}
	if len(wrong) > 0 {
		return 1
	}
	return 0
}

func (p *faultPlan) run() error {
	acks := os.Stdout
	if p.Acks != "" {
		var err error
		if acks, err = os.OpenFile(p.Acks, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
			return err
		}
	}
	h, err := p.hook(acks)
	if err != nil {
		return err
	}
	s := newStage(p.Dir, withHook(h.hook))
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for _, sc := range workload() {
		if len(p.Scripts) > 0 && !strings.Contains(" "+strings.Join(p.Scripts, " ")+" ", " "+sc.name+" ") {
			continue
		}
		work := func() {
			if err := perform(s, sc, acks); err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		}
		if p.Parallel {
			wg.Go(work)
		} else {
			work()
		}
	}
	wg.Wait()
	fmt.Fprintf(acks, "steps %d\n", h.taken.Load())
	if err := failed.Load(); err != nil && !p.Tolerate {
		return *err
	}
	if h.die != nil && p.At == endOfWork {
		h.die()
	}
	return s.close()
}

// endOfWork is the step after the last.
const endOfWork = -1

// perform does the operations of a script. Each acknowledgement is one write, so that none is there in part.
func perform(s *stage, sc *script, acks io.Writer) error {
	for i, op := range sc.ops {
		if err := op.do(context.Background(), s); err != nil {
			return fmt.Errorf("%s: %s: %w", sc.name, op.name, err)
		}
		if _, err := fmt.Fprintf(acks, "ok %s %d\n", sc.name, i+1); err != nil {
			return err
		}
	}
	return nil
}

// saboteur is the hook of a process that meets a fault.
type saboteur struct {
	taken   atomic.Int64
	at      int64
	die     func()
	swallow *regexp.Regexp
	stopAt  int64
	dir     string
	stopped sync.Once
	acks    io.Writer
}

func (p *faultPlan) hook(acks io.Writer) (*saboteur, error) {
	h := &saboteur{at: p.At, stopAt: p.StopAt, dir: p.Dir, acks: acks}
	if p.Swallow != "" {
		var err error
		if h.swallow, err = regexp.Compile(p.Swallow); err != nil {
			return nil, err
		}
	}
	switch p.How {
	case "":
	case "kill":
		h.die = killSelf
	case "power":
		if powerOff == nil {
			return nil, errors.ErrUnsupported
		}
		h.die = func() {
			if err := powerOff(p.Mount, p.Flag); err != nil {
				fmt.Fprintln(os.Stderr, "the power could not be switched off:", err)
				os.Exit(3)
			}
			killSelf()
		}
	default:
		return nil, fmt.Errorf("%q is no way to end", p.How)
	}
	return h, nil
}

func killSelf() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill() // nobody is left to be told
	}
	select {}
}

func (h *saboteur) hook(step, name string) error {
	n := h.taken.Add(1)
	if n == h.at && h.die != nil {
		h.die()
	}
	if h.stopAt > 0 && n >= h.stopAt && unlocked(h.dir) {
		h.stopped.Do(func() {
			fmt.Fprintln(h.acks, "stopped")
			if err := stopSelf(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(3)
			}
		})
	}
	if h.swallow != nil && h.swallow.MatchString(step+" "+name) {
		return errPretend
	}
	return nil
}

// unlocked reports whether nobody has a lock in dir that others wait for.
func unlocked(dir string) bool {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || filepath.Base(filepath.Dir(path)) != stateDir || !strings.HasSuffix(e.Name(), "lock") {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return lockFile(f, false)
	})
	return err == nil
}

// watched is output in which a line is waited for.
type watched struct {
	mu   sync.Mutex
	text strings.Builder
	line string
	seen chan struct{} // closed once the line was there
	done bool
}

func newWatched(line string) *watched { return &watched{line: line, seen: make(chan struct{})} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if !w.done && slices.Contains(strings.Split(w.text.String(), "\n"), w.line) {
		w.done = true
		close(w.seen)
	}
	return len(p), nil
}

// outcome is what a process that ran the workload told.
type outcome struct {
	acked map[string]int // by script: how many operations
	steps int64          // how many it took; 0 unless it came to the end
}

func parseAcks(text string) outcome {
	out := outcome{acked: map[string]int{}}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 3 && f[0] == "ok":
			out.acked[f[1]], _ = strconv.Atoi(f[2])
		case len(f) == 2 && f[0] == "steps":
			out.steps, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	return out
}

// startFault starts a process with a plan; what it prints goes to out.
func startFault(t testing.TB, p faultPlan, out io.Writer) *exec.Cmd {
	t.Helper()
	env, err := p.environ()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// stall is how long a workload of a second may take before it is given up.
const stall = 2 * time.Minute

// runFault runs a process with a plan to its end, and expects it to die exactly if it did not come to its end.
func runFault(t testing.TB, p faultPlan) outcome {
	t.Helper()
	var out strings.Builder
	cmd := startFault(t, p, &out)
	stalled := time.AfterFunc(stall, func() {
		t.Errorf("the workload hangs: %+v", p)
		_ = cmd.Process.Signal(syscall.SIGABRT) // it prints where, and dies
	})
	err := cmd.Wait()
	stalled.Stop()
	got := parseAcks(out.String())
	switch {
	case err == nil && got.steps == 0:
		t.Fatal("the workload ended without an error, and before its end")
	case err != nil && cmd.ProcessState.ExitCode() != -1 && cmd.ProcessState.ExitCode() != 1:
		t.Fatalf("the workload could not be run: %v", err)
	case cmd.ProcessState.ExitCode() == 1 && p.How != "power":
		t.Fatalf("the workload failed: %v", err)
	}
	return got
}
