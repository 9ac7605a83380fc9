package faults

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content/oci"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types/ref"
)

// storm is a directory that processes of ours write, while worse things happen to it.
type storm struct {
	t   *testing.T
	bin string
	dir string

	mu    sync.Mutex
	acked map[string]bool
	fails []string            // of ours, that were not killed
	procs map[int]*os.Process // ours that run
	over  chan struct{}
}

func newStorm(t *testing.T, bin string) *storm {
	dir, err := os.MkdirTemp("", "storm") // regctl refuses paths with commas, which t.TempDir has
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &storm{
		t: t, bin: bin, dir: dir,
		acked: map[string]bool{}, procs: map[int]*os.Process{}, over: make(chan struct{}),
	}
}

// write runs one process of ours that puts tags, until it ends. With kill it is killed after some.
func (s *storm) write(name string, count, kill int) {
	cmd := exec.Command(s.bin)
	cmd.Env = append(os.Environ(), "OCIDIR_TEST_WRITER="+s.dir, "OCIDIR_TEST_NAME="+name, fmt.Sprint("OCIDIR_TEST_COUNT=", count))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Error(err)
		return
	}
	s.mu.Lock()
	s.procs[cmd.Process.Pid] = cmd.Process
	s.mu.Unlock()
	n := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		s.mu.Lock()
		s.acked[lines.Text()] = true
		s.mu.Unlock()
		if n++; n == kill {
			_ = cmd.Process.Kill()
		}
	}
	s.mu.Lock()
	delete(s.procs, cmd.Process.Pid) // before Wait: a process that was waited for may be another one's number
	s.mu.Unlock()
	if err := cmd.Wait(); err != nil && kill == 0 {
		s.mu.Lock()
		s.fails = append(s.fails, fmt.Sprintf("%s: %v: %s", name, err, stderr.String()))
		s.mu.Unlock()
	}
}

// writers runs processes, each of which puts each tags, in lives that end by SIGKILL.
func (s *storm) writers(processes, each int) {
	var wg sync.WaitGroup
	for p := range processes {
		wg.Go(func() {
			for life := range 4 {
				s.write(fmt.Sprintf("p%d-l%d", p, life), each, 1+rand.IntN(each/4))
			}
			s.write(fmt.Sprintf("p%d-last", p), each, 0)
		})
	}
	wg.Wait()
	close(s.over)
}

// until calls do again and again while ours write.
func (s *storm) until(do func(i int) error) (times int) {
	for i := 0; ; i++ {
		select {
		case <-s.over:
			return i
		default:
		}
		if err := do(i); err != nil {
			s.t.Logf("%d: %v", i, err)
		}
	}
}

// pause stops a process of ours, who may have the lock, for a moment.
func (s *storm) pause(int) error {
	s.mu.Lock()
	var all []*os.Process
	for _, p := range s.procs {
		all = append(all, p)
	}
	s.mu.Unlock()
	if len(all) > 0 {
		p := all[rand.IntN(len(all))]
		if err := p.Signal(syscall.SIGSTOP); err == nil {
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			if err := p.Signal(syscall.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
		}
	}
	time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
	return nil
}

// entries reads index.json, with nothing of ours: the digests by tag, and the tags whose manifest is not there, whole.
func (s *storm) entries() (tags map[string]string, damaged []string, err error) {
	var ix ocispec.Index
	raw, err := os.ReadFile(filepath.Join(s.dir, "index.json"))
	if err == nil {
		err = json.Unmarshal(raw, &ix)
	}
	tags = map[string]string{}
	for _, e := range ix.Manifests {
		tags[e.Annotations[ocispec.AnnotationRefName]] = string(e.Digest)
		path := filepath.Join(s.dir, "blobs", e.Digest.Algorithm().String(), e.Digest.Encoded())
		if data, rerr := os.ReadFile(path); rerr != nil || e.Digest.Algorithm().FromBytes(data) != e.Digest {
			damaged = append(damaged, e.Annotations[ocispec.AnnotationRefName])
		}
	}
	return tags, damaged, err
}

// account is what became of the tags that were acknowledged.
type account struct {
	there, vanished, missing int      // the last: their content is, and fsck says so
	lost                     []string // nobody says anything
}

// account looks at the directory. Others may only delete blobs, as regctl does, with deletes.
func (s *storm) account(deletes bool) (a account) {
	tags, damaged, err := s.entries()
	if err != nil {
		s.t.Error(err)
	}
	missing := map[string]bool{}
	api := ocidir.New()
	defer api.Close()
	vanished := map[string]bool{}
	_, err = api.Check(context.Background(), ref.Ref{Scheme: ref.SchemeOCIDir, Root: s.dir}, func(p scheme.Problem) error {
		switch {
		case p.Kind == scheme.ProblemVanished:
			for _, tag := range p.Tags {
				vanished[tag] = true
			}
		case p.Kind == scheme.ProblemMissing && deletes:
			for _, tag := range p.Tags {
				missing[tag] = true
			}
		case p.Kind.Bad():
			s.t.Errorf("fsck finds %+v", p)
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
	for tag := range s.acked {
		switch {
		case tags[tag] != "" && !slices.Contains(damaged, tag):
			a.there++
		case vanished[tag]:
			a.vanished++
		case missing[tag]:
			a.missing++
		default:
			a.lost = append(a.lost, tag)
		}
	}
	slices.Sort(a.lost)
	s.t.Logf("%d acknowledged: %d are there, %d reported as vanished, %d as missing, %d lost silently", len(s.acked), a.there, a.vanished, a.missing, len(a.lost))
	if len(a.lost) > 0 {
		s.t.Errorf("lost silently: %q", a.lost)
	}
	return a
}

// writeOras tags a manifest as oras-go does: index.json is read at New, and written in place from memory.
func (s *storm) writeOras(i int) error {
	ctx := context.Background()
	store, err := oci.New(s.dir)
	if err != nil {
		return err
	}
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.example.oras","n":%d}`, i)
	d := ocispec.Descriptor{MediaType: "application/vnd.example.oras", Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if err := store.Push(ctx, d, bytes.NewReader(raw)); err != nil {
		return err
	}
	return store.Tag(ctx, d, fmt.Sprint("oras-", i))
}

// writeGGCR appends an image as crane does.
func (s *storm) writeGGCR(i int) error {
	img, err := random.Image(100, 1)
	if err != nil {
		return err
	}
	return layout.Path(s.dir).AppendImage(img, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: fmt.Sprint("ggcr-", i)}))
}

// TestProcessesAndForeignWriters: while processes of ours are killed and stopped, oras-go, go-containerregistry and
// regctl write the same directory, without a lock. No tag of ours that was acknowledged is lost silently: it is there,
// or fsck says that another tool dropped it, or deleted what it names.
func TestProcessesAndForeignWriters(t *testing.T) {
	need(t)
	bin := binary(t)
	regctl := filepath.Join(t.TempDir(), "regctl")
	cmd := exec.Command("go", "build", "-o", regctl, "github.com/regclient/regclient/cmd/regctl")
	cmd.Dir = "../bench/peers"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	with := func(s *storm, i int) error { return s.writeRegctl(regctl, i) }
	for name, c := range map[string]struct {
		foreign func(s *storm, i int) error
		deletes bool
	}{
		"oras-go":              {(*storm).writeOras, false},
		"go-containerregistry": {(*storm).writeGGCR, false},
		"both": {func(s *storm, i int) error {
			return []func(*storm, int) error{(*storm).writeOras, (*storm).writeGGCR}[i%2](s, i)
		}, false},
		"regctl": {with, true}, // it ends with a garbage collection by the index it read at its start
	} {
		t.Run(name, func(t *testing.T) {
			s := newStorm(t, bin)
			s.write("first", 1, 0)
			var wg sync.WaitGroup
			wg.Go(func() { s.until(s.pause) })
			var times int
			wg.Go(func() {
				times = s.until(func(i int) error {
					err := c.foreign(s, i)
					time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
					return err
				})
			})
			s.writers(4, 60)
			wg.Wait()
			s.write("after", 1, 0)
			for _, f := range s.fails {
				if t.Log(f); !c.deletes { // what was deleted in the middle of a put makes it fail
					t.Fail()
				}
			}
			s.account(c.deletes)
			t.Logf("%s wrote %d times", name, times)
			if times < 3 {
				t.Errorf("%s wrote %d times only", name, times)
			}
		})
	}
}

// writeRegctl copies an image that ggcr made into the directory.
func (s *storm) writeRegctl(regctl string, i int) error {
	src, err := os.MkdirTemp("", "regctl")
	if err != nil {
		return err
	}
	defer os.RemoveAll(src)
	img, err := random.Image(100, 1)
	if err != nil {
		return err
	}
	p, err := layout.Write(src, empty.Index)
	if err == nil {
		err = p.AppendImage(img, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: "x"}))
	}
	if err != nil {
		return err
	}
	out, err := exec.Command(regctl, "image", "copy", "ocidir://"+src+":x", fmt.Sprintf("ocidir://%s:regctl-%d", s.dir, i)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// TestProcessesWhoseStateGoes: 4 processes put 200 tags each, with SIGKILL and SIGSTOP, while .ocisync/lock and all of .ocisync
// are deleted under them. Puts may fail then. Nothing that was acknowledged is lost.
func TestProcessesWhoseStateGoes(t *testing.T) {
	need(t)
	bin := binary(t)
	s := newStorm(t, bin)
	s.write("first", 1, 0)
	var wg sync.WaitGroup
	wg.Go(func() { s.until(s.pause) })
	var times int
	wg.Go(func() {
		times = s.until(func(i int) error {
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			what := []string{".ocisync/lock", ".ocisync"}[i%2]
			return os.RemoveAll(filepath.Join(s.dir, what))
		})
	})
	s.writers(4, 200)
	wg.Wait()
	failed := len(s.fails)
	s.fails = nil
	s.write("after", 1, 0)
	for _, f := range s.fails {
		t.Error(f)
	}
	t.Logf("state deleted %d times, %d writers failed", times, failed)
	if a := s.account(false); a.vanished > 0 {
		t.Errorf("%d vanished, and no other tool wrote", a.vanished)
	}
}
