package ocidir

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/internal/memdir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// The environment that makes the test binary a writer: it puts tags into a layout, and prints each when it was
// acknowledged.
const (
	writerDir   = "OCIDIR_TEST_WRITER"
	writerName  = "OCIDIR_TEST_NAME"
	writerCount = "OCIDIR_TEST_COUNT"
	writerCrowd = "OCIDIR_TEST_CROWD" // writers at once; it then waits for its standard input to end, and prints no tags
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		if err := write(dir, os.Getenv(writerName), os.Getenv(writerCount)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if args := os.Getenv(ingestEnv); args != "" {
		os.Exit(ingestMain(args))
	}
	if plan := os.Getenv(tortureEnv); plan != "" {
		os.Exit(tortureMain(plan))
	}
	if plan := os.Getenv(faultEnv); plan != "" {
		os.Exit(faultMain(plan))
	}
	remove := func() error { return nil }
	if os.Getenv("OCISYNC_FAULTS") == "" { // which are about disks
		remove = memdir.Use()
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(memdir.After(remove)))
}

func write(dir, name, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	o, r := New(), place(dir)
	defer o.Close()
	if crowd := os.Getenv(writerCrowd); crowd != "" {
		return writeAtOnce(o, r, name, n, crowd)
	}
	for i := range n {
		tag := fmt.Sprintf("%s-%d", name, i)
		if err := schemetest.Opaque(tag).Push(context.Background(), o, r.WithTag(tag)); err != nil {
			return err
		}
		fmt.Println(tag)
	}
	return nil
}

// writeAtOnce puts n tags by several writers, once the process that started this one says so.
func writeAtOnce(o *OCIDir, r ref.Ref, name string, n int, crowd string) error {
	writers, err := strconv.Atoi(crowd)
	if err != nil {
		return err
	}
	if _, err := o.TagList(context.Background(), r); err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	var next atomic.Int64
	var g errgroup.Group
	for range writers {
		g.Go(func() error {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				tag := fmt.Sprintf("%s-%d", name, i)
				if err := schemetest.Opaque(tag).Push(context.Background(), o, r.WithTag(tag)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// crowd is processes of several writers each that wait to be told to write.
type crowd struct {
	t    testing.TB
	all  []*exec.Cmd
	gate []io.Closer
}

// startCrowd starts processes, and returns when all have read the layout.
func startCrowd(t testing.TB, dir string, processes, writers, count int) *crowd {
	t.Helper()
	c := &crowd{t: t}
	for p := range processes {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerDir+"="+dir, fmt.Sprint(writerName, "=p", p, "-", count),
			fmt.Sprint(writerCount, "=", count), fmt.Sprint(writerCrowd, "=", writers))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c.all, c.gate = append(c.all, cmd), append(c.gate, in)
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal("a writer did not get ready:", err)
		}
	}
	return c
}

// run lets all write, and returns when they are done.
func (c *crowd) run() {
	c.t.Helper()
	for _, in := range c.gate {
		if err := in.Close(); err != nil {
			c.t.Error(err)
		}
	}
	for _, cmd := range c.all {
		if err := cmd.Wait(); err != nil {
			c.t.Error(err)
		}
	}
}

// startWriter starts a process that writes, and sends the tags that it acknowledges.
func startWriter(t *testing.T, dir, name string, count int) (*exec.Cmd, <-chan string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerDir+"="+dir, writerName+"="+name, writerCount+"="+strconv.Itoa(count))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tags := make(chan string, count)
	go func() {
		defer close(tags)
		for s := bufio.NewScanner(out); s.Scan(); {
			tags <- s.Text()
		}
	}()
	return cmd, tags
}

func TestProcessesLoseNothing(t *testing.T) {
	const processes, each = 4, 200
	dir := t.TempDir()
	var wg sync.WaitGroup
	for p := range processes {
		cmd, tags := startWriter(t, dir, fmt.Sprint("p", p), each)
		wg.Go(func() {
			for range tags { // until the process closes its output
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := len(valid(t, place(dir))); got != processes*each {
		t.Errorf("%d processes put %d tags each: %d of %d are there", processes, each, got, processes*each)
	}
}

func TestKilledProcessesLoseNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for p := range 3 {
		wg.Go(func() {
			for life := range 6 {
				cmd, tags := startWriter(t, dir, fmt.Sprintf("p%d-life%d", p, life), 1000)
				kill := 1 + rand.IntN(40)
				for tag := range tags {
					mu.Lock()
					acknowledged[tag] = true
					mu.Unlock()
					if kill--; kill == 0 {
						if err := cmd.Process.Kill(); err != nil {
							t.Error(err)
						}
					}
				}
				if err := cmd.Wait(); err == nil {
					t.Error("the process was not killed")
				}
			}
		})
	}
	wg.Wait()
	there := map[string]bool{}
	for _, tag := range valid(t, place(dir)) {
		there[tag] = true
	}
	for tag := range acknowledged {
		if !there[tag] {
			t.Errorf("%s was acknowledged and is lost", tag)
		}
	}
	if len(there) < len(acknowledged) || len(acknowledged) < 18 {
		t.Errorf("%d tags are there, %d were acknowledged", len(there), len(acknowledged))
	}
	if err := schemetest.Opaque("after").Push(t.Context(), open(t), place(dir).WithTag("after")); err != nil {
		t.Error(err)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("a writer that came later left %q of dead ones", left)
	}
}

func TestLiveWritersFilesAreNotSwept(t *testing.T) {
	dir := t.TempDir()
	r := place(dir)
	pr := &paused{data: schemetest.Blob("slow", 100_000), started: make(chan struct{}), goOn: make(chan struct{})}
	done := make(chan error, 1)
	slow := open(t)
	go func() {
		_, err := slow.BlobPut(t.Context(), r, types.Descriptor{}, pr)
		done <- err
	}()
	<-pr.started
	if err := os.WriteFile(filepath.Join(dir, ingestDir, "dead"+tempSuffix), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := schemetest.Opaque("other").Push(t.Context(), open(t), r.WithTag("other")); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, dir); len(left) != 1 || left[0] == "dead"+tempSuffix {
		t.Errorf("in ingest is %q, want the live writer's file only", left)
	}
	close(pr.goOn)
	if err := <-done; err == nil || strings.Contains(err.Error(), "no such file") {
		t.Errorf("the slow writer, whose content is wrong: %v", err)
	}
}

// paused reads one chunk, and the rest when it may.
type paused struct {
	data          []byte
	started, goOn chan struct{}
	once          sync.Once
}

func (p *paused) Read(b []byte) (int, error) {
	n := copy(b, p.data[:min(len(p.data), 1000)])
	p.data = p.data[n:]
	p.once.Do(func() {
		close(p.started)
	})
	if n == 0 || len(p.data) < 99_000 {
		<-p.goOn
	}
	if n == 0 {
		return 0, errors.New("enough")
	}
	return n, nil
}

func TestLockIsWaitedForNoLongerThanTheContext(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	it := schemetest.Opaque("a")
	if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	held := holdLock(t, r.Root)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := o.ManifestPut(ctx, r.WithTag("v2"), it.Manifest)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("while another process has the lock: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if l, err := o.TagList(t.Context(), r); err != nil || len(l.Tags) != 1 {
		t.Errorf("readers do not wait for the lock: got %v, %v", l, err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	held.Close()
	if _, err := o.ManifestPut(t.Context(), r.WithTag("v3"), it.Manifest); err != nil {
		t.Errorf("after the lock was given back: %v", err)
	}
	if l, err := o.TagList(t.Context(), r); err != nil || strings.Join(l.Tags, " ") != "v1 v3" {
		t.Errorf("the put that was given up is there: %v, %v", l.Tags, err)
	}
}

// holdLock takes a layout's lock as another process would.
func holdLock(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := lockFile(f, true); err != nil {
		t.Fatal(err)
	}
	return f
}

// Whoever deletes .ocisync takes the lock file out of the hands of who waits for it, or has it.
func TestStateMayBeDeletedAtAnyTime(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	it := schemetest.Opaque("a")
	if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(r.Root, stateDir)
	for name, when := range map[string]func(){
		"between puts": func() {
			if err := os.RemoveAll(state); err != nil {
				t.Fatal(err)
			}
		},
		"while the lock is held": func() {
			var once sync.Once
			s.set(func(step, name string) error {
				if step == stepCreate && strings.HasPrefix(name, ingestDir) {
					once.Do(func() {
						if err := os.RemoveAll(state); err != nil {
							t.Error(err)
						}
					})
				}
				return nil
			})
		},
	} {
		when()
		tag := strings.ReplaceAll(name, " ", "-")
		if _, err := o.ManifestPut(t.Context(), r.WithTag(tag), it.Manifest); err != nil {
			t.Errorf("deleted %s: %v", name, err)
		}
		s.set(nil)
		if d, err := open(t).ManifestHead(t.Context(), r.WithTag(tag)); err != nil || d.Digest != it.Manifest.Digest() {
			t.Errorf("deleted %s: the tag is %v, %v", name, d.Digest, err)
		}
		if _, err := os.Stat(filepath.Join(r.Root, lockName)); err != nil {
			t.Errorf("deleted %s: the index was written without the lock that others take: %v", name, err)
		}
	}
}

// What was there when it was looked for may be gone by the time the lock is there.
func TestContentThatGoesWhileTheLockIsWaitedFor(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	it := schemetest.Image("a")
	if err := it.PushContent(t.Context(), o, r); err != nil {
		t.Fatal(err)
	}
	path := blobFileOf(r, it.Manifest.Digest())
	for name, c := range map[string]struct {
		gone digest.Digest
		kind error
	}{
		"a layer":             {digest.FromBytes(it.Blobs[1]), errs.ErrManifestBlobUnknown},
		"the manifest itself": {it.Manifest.Digest(), nil},
	} {
		held := holdLock(t, r.Root)
		done := make(chan error)
		go func() {
			_, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest)
			done <- err
		}()
		for _, err := os.Stat(path); err != nil; _, err = os.Stat(path) {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(10 * time.Millisecond)
		if err := os.Remove(blobFileOf(r, c.gone)); err != nil {
			t.Fatal(err)
		}
		held.Close()
		if err := <-done; !errors.Is(err, c.kind) {
			t.Errorf("%s went: got %v, want %v", name, err, c.kind)
		}
		if err := it.PushContent(t.Context(), o, r); err != nil {
			t.Fatal(err)
		}
		_, err := open(t).ManifestGet(t.Context(), r.WithTag("v1"))
		if (err == nil) != (c.kind == nil) {
			t.Errorf("%s went: the tag is %v", name, err)
		}
		if err := o.ManifestDelete(t.Context(), r.WithDigest(it.Manifest.Digest())); err != nil && c.kind == nil {
			t.Error(err)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// The commit of a manifest stores it again when it went, and must not wait for itself then.
func TestMarkerThatGoesWhileTheLockIsHeld(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	it := schemetest.Opaque("a")
	if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	held := holdLock(t, r.Root)
	done := make(chan error)
	go func() {
		_, err := o.ManifestPut(t.Context(), r.WithTag("v2"), it.Manifest)
		done <- err
	}()
	time.Sleep(20 * time.Millisecond)
	for _, path := range []string{filepath.Join(r.Root, markerName), blobFileOf(r, it.Manifest.Digest())} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	held.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := it.Push(t.Context(), o, r.WithTag("v3")); err != nil {
		t.Error(err)
	}
	if tags := valid(t, r); len(tags) != 3 {
		t.Errorf("the tags are %q", tags)
	}
}
