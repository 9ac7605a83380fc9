package ocidir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// failing fails steps of that kind whose name contains part.
func failing(step, part string) func(step, name string) error {
	return func(s, name string) error {
		if s == step && strings.Contains(name, part) {
			return syscall.EIO
		}
		return nil
	}
}

func TestSyncMakesEverythingDurable(t *testing.T) {
	for name, refuse := range map[string]bool{"together": false, "one by one": true} {
		t.Run(name, func(t *testing.T) {
			s := &steps{}
			o, r := open(t, withHook(s.hook), WithDurability(None)), place(t.TempDir())
			d := putBlob(t, o, r, []byte("blob"))
			relabel(t, o, r, d.Digest, map[string]string{"k": "v"})
			if err := schemetest.Image("image").Push(t.Context(), o, r.WithTag("v1")); err != nil {
				t.Fatal(err)
			}
			if got := s.syncs(); len(got) > 0 {
				t.Fatalf("something was synced before: %q", got)
			}
			if refuse {
				s.set(failing(stepSyncFS, ""))
			}
			if err := o.Sync(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if !refuse && canSyncFS {
				if !slices.Contains(s.seen, stepSyncFS+" .") {
					t.Errorf("the steps are %q", s.seen)
				}
				return
			}
			file, err := blobPath(d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range []string{
				stepSync + " " + file, stepSync + " " + indexName, stepSync + " " + markerName, stepSync + " " + labelsPath(d.Digest),
				stepSyncDir + " .", stepSyncDir + " blobs/sha256", stepSyncDir + " " + labelsDir + "/sha256",
			} {
				if !slices.Contains(s.seen, step) {
					t.Errorf("%s is missing in %q", step, s.seen)
				}
			}
		})
	}
	if err := open(t).Sync(t.Context(), place(t.TempDir())); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("no layout: got %v", err)
	}
}

// What is lost is lost: a second Sync must not say that all is well, however often it is asked.
func TestSyncTellsOfWhatIsLost(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook), WithDurability(Commit)), place(t.TempDir())
	data := []byte("lost")
	d := putBlob(t, o, r, data)
	file, err := blobPath(d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	s.set(func(step, name string) error {
		if step == stepSyncFS || step == stepSync && name == file {
			return syscall.EIO
		}
		return nil
	})
	if err := o.Sync(t.Context(), r); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	s.set(nil)
	for range 2 {
		if err := o.Sync(t.Context(), r); !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), file) {
			t.Errorf("got %v, want the file's name", err)
		}
	}
	putBlob(t, o, r, data)
	if err := o.Sync(t.Context(), r); err != nil {
		t.Errorf("after it was put again: %v", err)
	}
}

// A failure of the whole file system's sync may be a stranger's. Each file's own sync tells.
func TestFailedSyncOfAllIsFollowedByEach(t *testing.T) {
	if !canSyncFS {
		t.Skip("this system has no syncfs")
	}
	for name, lost := range map[string]bool{"a stranger's failure": false, "ours": true} {
		t.Run(name, func(t *testing.T) {
			s := &steps{}
			o, r := open(t, withHook(s.hook)), place(t.TempDir())
			putBlob(t, o, r, []byte("first"))
			var layers []func(*schemetest.Doc)
			var file string
			for i := range manyFiles {
				d, err := o.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader(fmt.Sprint(i)), deferred)
				if err != nil {
					t.Fatal(err)
				}
				if file, err = blobPath(d.Digest); err != nil {
					t.Fatal(err)
				}
				layers = append(layers, schemetest.Layer(d))
			}
			it := schemetest.Image("image", layers...)
			if err := it.PushContent(t.Context(), o, r); err != nil {
				t.Fatal(err)
			}
			s.set(func(step, name string) error {
				if step == stepSyncFS || lost && step == stepSync && name == file {
					return syscall.EIO
				}
				return nil
			})
			_, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest)
			if !lost {
				if err != nil || !s.has(stepSync+" "+file) {
					t.Errorf("got %v after %q", err, s.seen)
				}
				return
			}
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("got %v, want the disk's error", err)
			}
			s.set(nil)
			var detail *errs.Error
			if _, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest); !errors.As(err, &detail) || len(detail.Missing) != 1 {
				t.Errorf("got %v, want the lost blob to be missing", err)
			}
			if s.has(stepSyncFS) {
				t.Error("the file system's word was taken after it had failed")
			}
			if err := it.Push(t.Context(), o, r.WithTag("v1")); err == nil {
				t.Error("the image was pushed without the lost blob")
			}
			if _, err := o.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader(fmt.Sprint(manyFiles-1))); err != nil {
				t.Fatal(err)
			}
			if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
				t.Errorf("after it was put again: %v", err)
			}
		})
	}
}

// Many puts at once share a sync; when that fails, each one that is well succeeds.
func TestPutsWhoseCommonSyncFailsSucceedOneByOne(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	putBlob(t, o, r, []byte("first"))
	l, end, err := o.begin(t.Context(), "test", r)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	var calls []*call[*temp]
	for range manyFiles {
		tmp, err := l.writeTemp([]byte("content"))
		if err != nil {
			t.Fatal(err)
		}
		defer tmp.discard()
		calls = append(calls, &call[*temp]{arg: tmp, done: make(chan struct{})})
	}
	bad := calls[3].arg.name
	s.set(func(step, name string) error {
		if step == stepSyncFS || step == stepSync && name == bad {
			return syscall.EIO
		}
		return nil
	})
	l.runFiles(func() []*call[*temp] { return calls })
	for i, c := range calls {
		<-c.done
		if want := i == 3; errors.Is(c.err, syscall.EIO) != want || !want && c.err != nil {
			t.Errorf("put %d: got %v", i, c.err)
		}
	}
}

func TestSyncEndsWithItsContext(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{})
	o, r := open(t, WithDurability(None), withHook(func(step, _ string) error {
		if step == stepSyncFS {
			close(held)
			<-hold
		}
		return nil
	})), place(t.TempDir())
	if !canSyncFS {
		t.Skip("this system has no syncfs")
	}
	putBlob(t, o, r, []byte("blob"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- o.Sync(ctx, r) }()
	<-held
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(hold)
}

// A file whose sync failed stays suspect under every name it gets.
func TestALinkDoesNotClearASuspectFile(t *testing.T) {
	r, o := place(t.TempDir()), open(t)
	d := putBlob(t, o, r, []byte("suspect"))
	l := openedLayout(t, o, r)
	name, err := blobPath(d.Digest)
	must(t, err)
	id, err := l.vol.stat(name)
	must(t, err)
	o.mem.setSuspect(id)
	time.Sleep(20 * time.Millisecond)
	if err := os.Link(filepath.Join(r.Root, name), filepath.Join(t.TempDir(), "link")); err != nil {
		t.Skip(err)
	}
	if id, err = l.vol.stat(name); err != nil || !o.mem.isSuspect(id) {
		t.Errorf("it is trusted again: %v", err)
	}
}
