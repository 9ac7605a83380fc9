package ocidir

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// disk mounts a small file system of its own, in memory. Only root may.
func disk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root mounts a disk that is full or read-only")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("NOT TESTED: no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all that is left of a disk; what it returns gives it back.
func fill(t *testing.T, dir string) (release func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// Every write on a disk that is really full: it fits, or is refused as ErrNoSpace and leaves nothing.
func TestFullDiskForReal(t *testing.T) {
	for name, w := range writes {
		t.Run(name, func(t *testing.T) {
			dir := disk(t, "8m")
			s := newScene(t, dir)
			if strings.Contains(name, "new layout") {
				s.r.Root += "-beside" // an empty directory is made with what a directory takes
			}
			o := New()
			defer o.Close()
			var before map[string]string
			if !strings.Contains(name, "new layout") {
				before = visible(t, o, s)
			}
			release := fill(t, dir)
			err := w.do(t, o, s)
			if err != nil && !errors.Is(err, errs.ErrNoSpace) {
				t.Errorf("got %v, want ErrNoSpace", err)
			}
			if before != nil && err != nil {
				if now := visible(t, o, s); !maps.Equal(before, now) {
					t.Errorf("it failed with %v, and changed: %s", err, cmp.Diff(before, now))
				}
			}
			for _, left := range leftovers(t, s.r.Root) {
				if strings.HasSuffix(left, tempSuffix) {
					t.Errorf("%s is left behind", left)
				}
			}
			release()
			if again := w.do(t, o, s); again != nil && !(err == nil && w.gone && errors.Is(again, errs.ErrNotFound)) {
				t.Errorf("when there was room: %v", again)
			}
		})
	}
}

// What did not fit is given back: a disk that was filled by puts that failed has as much room as before.
func TestFailedPutsGiveTheirSpaceBack(t *testing.T) {
	dir := disk(t, "8m")
	o, r := New(), place(filepath.Join(dir, "layout"))
	defer o.Close()
	putBlob(t, o, r, []byte("first"))
	free := func() uint64 {
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		n, err := freeSpace(root)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before, files := free(), openFiles(t)
	for i := range 5 {
		_, err := o.BlobPut(t.Context(), r, types.Descriptor{}, bytes.NewReader(make([]byte, 9<<20+i)))
		if !errors.Is(err, errs.ErrNoSpace) || !strings.Contains(err.Error(), "are free") {
			t.Fatalf("got %v, want ErrNoSpace with what is free", err)
		}
	}
	if now := free(); now != before {
		t.Errorf("%d bytes are free, and %d were before", now, before)
	}
	if now := openFilesAbove(t, files); now > files {
		t.Errorf("%d files are open, and %d were before", now, files)
	}
	putBlob(t, o, r, bytes.Repeat([]byte("fits"), 1<<20))
}

func TestReadOnlyDiskForReal(t *testing.T) {
	for name, w := range writes {
		t.Run(name, func(t *testing.T) {
			dir := disk(t, "8m")
			s := newScene(t, dir)
			remount := func(flags uintptr) {
				t.Helper()
				err := syscall.EBUSY // while a lock of the scene is given back
				for end := time.Now().Add(5 * time.Second); err == syscall.EBUSY && time.Now().Before(end); {
					err, _ = syscall.Mount("tmpfs", dir, "", syscall.MS_REMOUNT|flags, "").(syscall.Errno)
				}
				if err != 0 {
					t.Fatal(err)
				}
			}
			remount(syscall.MS_RDONLY)
			o := New()
			defer o.Close()
			before := visible(t, o, s)
			if err := w.do(t, o, s); err == nil && name != "Sync" || err != nil && !errors.Is(err, errs.ErrReadOnly) {
				t.Errorf("got %v, want ErrReadOnly", err)
			}
			if now := visible(t, o, s); !maps.Equal(before, now) {
				t.Errorf("a read-only layout changed: %s", cmp.Diff(before, now))
			}
			remount(0)
			if err := w.do(t, o, s); err != nil {
				t.Errorf("when it could be written to: %v", err)
			}
		})
	}
}

const noFilesEnv = "OCIDIR_TEST_NOFILES"

// The limit is the whole process's, so the test is a process of its own.
func TestOpenFilesRunOut(t *testing.T) {
	if os.Getenv(noFilesEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), noFilesEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	limit := func(n uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: was.Max}); err != nil {
			t.Fatal(err)
		}
	}
	base := memoryDir(t)
	made := newScene(t, filepath.Join(base, "made"))
	runtime.GC() // whatever was forgotten to be closed would be closed late
	for name, w := range writes {
		for more := range uint64(12) {
			s := made.copyTo(t, filepath.Join(base, strings.NewReplacer(" ", "-", ",", "").Replace(name), fmt.Sprint(more)))
			files := openFiles(t)
			o := New()
			before := visible(t, o, s)
			limit(uint64(openFiles(t)) - 1 + more) // but for the one that counts them
			err := w.do(t, o, s)
			limit(was.Cur)
			if err != nil && !errors.Is(err, errs.ErrUnavailable) {
				t.Errorf("%s with %d files more: got %v, want ErrUnavailable", name, more, err)
			}
			if now := visible(t, o, s); err != nil && !w.gone && !maps.Equal(before, now) {
				t.Errorf("%s failed with %v, and changed: %s", name, err, cmp.Diff(before, now))
			}
			if err := w.do(t, o, s); err != nil && !(w.gone && errors.Is(err, errs.ErrNotFound)) {
				t.Errorf("%s with %d files more, when there were enough: %v", name, more, err)
			}
			if err := o.Close(); err != nil {
				t.Error(err)
			}
			if now := openFilesAbove(t, files); now > files {
				t.Errorf("%s with %d files more: %d files are open, and %d were before", name, more, now, files)
			}
		}
	}
	manyPutsFewFiles(t, base, limit, was.Cur)
}

// manyPutsFewFiles is ulimit -n 64 with more writers than that.
func manyPutsFewFiles(t *testing.T, base string, limit func(uint64), was uint64) {
	o, r := New(), place(filepath.Join(base, "many"))
	defer o.Close()
	limit(64)
	put := func() (failed int) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				_, err := o.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader(fmt.Sprint(i)))
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed++
				}
				if err != nil && !errors.Is(err, errs.ErrUnavailable) {
					t.Errorf("got %v, want ErrUnavailable", err)
				}
			})
		}
		wg.Wait()
		return failed
	}
	t.Logf("with 64 files %d of 200 puts were refused", put())
	limit(was)
	if failed := put(); failed > 0 {
		t.Errorf("with enough files %d puts were refused", failed)
	}
}
