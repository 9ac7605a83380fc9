package ocidir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var deferred = scheme.WithDeferredSync()

var errKilled = errors.New("the process was killed here")

// crash is a hook that lets n steps pass and none after them, as for a process that is killed: it cleans nothing up.
func crash(n int64) (hook, *atomic.Int64) {
	var taken atomic.Int64
	return func(string, string) error {
		if taken.Add(1) > n {
			return errKilled
		}
		return nil
	}, &taken
}

// valid expects a layout that any tool can read: all tags lead to manifests whose content is there, and whole.
func valid(t *testing.T, r ref.Ref) (tags []string) {
	t.Helper()
	o := New()
	defer o.Close()
	l, err := o.TagList(t.Context(), r)
	if errors.Is(err, errs.ErrNameUnknown) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range l.Tags {
		m, err := o.ManifestGet(t.Context(), r.WithTag(tag))
		if err != nil {
			t.Fatal(err)
		}
		v, err := m.View()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range v.Children() {
			ra, err := o.BlobOpen(t.Context(), r, d) // verifies
			if err != nil {
				t.Fatal(err)
			}
			ra.Close()
		}
	}
	return l.Tags
}

func TestKilledAtEveryStep(t *testing.T) {
	before, after := schemetest.Image("before"), schemetest.Image("after")
	for name, prepare := range map[string]bool{"a new layout": false, "a tag that moves": true} {
		t.Run(name, func(t *testing.T) {
			for n := int64(0); ; n++ {
				dir := t.TempDir()
				r := place(filepath.Join(dir, "tree", "layout")).WithTag("v1")
				if prepare {
					if err := before.Push(t.Context(), open(t), r); err != nil {
						t.Fatal(err)
					}
				}
				h, taken := crash(n)
				o := New(withHook(h))
				err := after.Push(t.Context(), o, r)
				if taken.Load() <= n {
					if err != nil {
						t.Fatalf("no step failed, and the push did: %v", err)
					}
					if n < 15 {
						t.Fatalf("a push has only %d steps: they do not go through the volume", n)
					}
					return
				}
				if err == nil {
					t.Fatalf("killed at step %d, acknowledged all the same", n)
				}
				o.Close()
				tags := valid(t, r)
				if prepare && !slices.Equal(tags, []string{"v1"}) {
					t.Fatalf("killed at step %d: the tags are %q", n, tags)
				}
				if err := after.Push(t.Context(), open(t), r); err != nil {
					t.Fatalf("killed at step %d; the next push: %v", n, err)
				}
				if m, err := open(t).ManifestGet(t.Context(), r); err != nil || m.Digest() != after.Manifest.Digest() {
					t.Fatalf("killed at step %d; after the next push the tag is %v, %v", n, m, err)
				}
				if left := leftovers(t, r.Root); len(left) > 0 {
					t.Fatalf("killed at step %d; the next push left %q", n, left)
				}
				if gone := vanishedTags(t, open(t), r); len(gone) > 0 {
					t.Fatalf("killed at step %d; nobody dropped anything, and %q are said to be dropped", n, gone)
				}
			}
		})
	}
}

// leftovers lists what is in ingest, and exchanges of index.json that were not finished.
func leftovers(t *testing.T, layout string) (names []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(layout, swapPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	entries, err := os.ReadDir(filepath.Join(layout, ingestDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// steps is a hook that fails chosen steps, and notes all.
type steps struct {
	mu   sync.Mutex
	fail func(step, name string) error
	seen []string
}

func (s *steps) hook(step, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, step+" "+name)
	if s.fail != nil {
		return s.fail(step, name)
	}
	return nil
}

func (s *steps) set(fail func(step, name string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.seen = fail, nil
}

func (s *steps) has(step string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.seen, func(x string) bool { return strings.HasPrefix(x, step) })
}

func TestFullDisk(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	it, next := schemetest.Image("fits"), schemetest.Image("does not fit")
	if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{stepMkdir, stepCreate, stepWrite, stepSync} {
		s.set(func(st, _ string) error {
			if st == step {
				return syscall.ENOSPC
			}
			return nil
		})
		if step == stepMkdir {
			if err := next.Push(t.Context(), o, place(t.TempDir()+"/new")); !errors.Is(err, errs.ErrNoSpace) {
				t.Errorf("no room for a directory: got %v", err)
			}
			continue
		}
		err := next.Push(t.Context(), o, r.WithTag("v1"))
		if !errors.Is(err, errs.ErrNoSpace) || !strings.Contains(err.Error(), "bytes were to be written") || !strings.Contains(err.Error(), "are free") {
			t.Errorf("full at %s: got %v, want ErrNoSpace with what was needed and what is free", step, err)
		}
		_, err = o.ManifestPut(t.Context(), r.WithTag("v2"), it.Manifest)
		if !errors.Is(err, errs.ErrNoSpace) {
			t.Errorf("a tag on a disk that is full at %s: got %v", step, err)
		}
		if err := next.Push(t.Context(), o, place(t.TempDir()+"/new").WithTag("v1")); !errors.Is(err, errs.ErrNoSpace) {
			t.Errorf("a new layout on a disk that is full at %s: got %v", step, err)
		}
		if left := leftovers(t, r.Root); len(left) > 0 {
			t.Errorf("full at %s: %q are left behind", step, left)
		}
		s.set(nil)
		if tags := valid(t, r); !slices.Equal(tags, []string{"v1"}) {
			t.Errorf("full at %s: the tags are %q", step, tags)
		}
	}
	if err := next.Push(t.Context(), o, r.WithTag("v2")); err != nil {
		t.Errorf("after there was room again: %v", err)
	}
}

func TestFailedSyncOfTheDirectoryTakesTheChangeBack(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	a, b := schemetest.Opaque("a"), schemetest.Opaque("b")
	if err := a.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	s.set(func(step, name string) error {
		if step == stepSyncDir && name == "." {
			return syscall.EIO
		}
		return nil
	})
	if err := b.Push(t.Context(), o, r.WithTag("v1")); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v, want the disk's error", err)
	}
	s.set(nil)
	for who, api := range map[string]*OCIDir{"who failed": o, "another": open(t)} {
		if d, err := api.ManifestHead(t.Context(), r.WithTag("v1")); err != nil || d.Digest != a.Manifest.Digest() {
			t.Errorf("%s sees %v, %v; want what was there before", who, d.Digest, err)
		}
	}
	if err := b.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Error(err)
	}
}

// After a failed sync the system may report the next one of the same file as good, although the data is lost.
func TestFileWhoseSyncFailedIsWrittenAnew(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	it := schemetest.Image("image")
	other := open(t, WithDurability(None))
	if err := it.PushContent(t.Context(), other, r); err != nil {
		t.Fatal(err)
	}
	s.set(func(step, name string) error {
		if step == stepSync && strings.HasPrefix(name, blobsDir) {
			return syscall.EIO
		}
		return nil
	})
	if _, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v, want the disk's error", err)
	}
	s.set(nil)
	_, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest)
	var detail *errs.Error
	if !errors.As(err, &detail) || len(detail.Missing) == 0 {
		t.Fatalf("got %v, want the files that may be lost to be missing", err)
	}
	if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Errorf("put again: %v", err)
	}
	if !s.has(stepRename + " " + blobsDir) {
		t.Error("no file was replaced by a new one")
	}
}

func TestCommitMakesForeignBlobsDurable(t *testing.T) {
	for name, n := range map[string]int{"few": 2, "many": manyFiles + 1} {
		t.Run(name, func(t *testing.T) {
			s := &steps{}
			o, r := open(t, withHook(s.hook)), place(t.TempDir())
			var layers []func(*schemetest.Doc)
			other := open(t, WithDurability(None)) // another process, that did not sync yet
			for i := range n {
				data := schemetest.Blob(fmt.Sprint("layer ", i), 100)
				d, err := other.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader(string(data)))
				if err != nil {
					t.Fatal(err)
				}
				layers = append(layers, schemetest.Layer(d))
			}
			child := schemetest.Image("child", layers...)
			if err := child.PushContent(t.Context(), other, r); err != nil {
				t.Fatal(err)
			}
			if _, err := other.ManifestPut(t.Context(), r.WithDigest(child.Manifest.Digest()), child.Manifest); err != nil {
				t.Fatal(err)
			}
			ix := schemetest.Index([]*schemetest.Item{child})
			if _, err := o.ManifestPut(t.Context(), r.WithTag("v1"), ix.Manifest); err != nil {
				t.Fatal(err)
			}
			v, err := child.Manifest.View()
			if err != nil {
				t.Fatal(err)
			}
			last := ""
			for _, step := range s.seen {
				if step == stepRename+" "+indexName {
					break
				}
				last += step + "\n"
			}
			if strings.Contains(last, stepSyncFS) {
				return
			}
			for _, d := range v.Children() {
				path, err := blobPath(d.Digest)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(last, stepSync+" "+path) {
					t.Errorf("%s was not synced before the index named it", d.Digest)
				}
			}
			if !strings.Contains(last, stepSyncDir+" "+blobsDir+"/sha256") {
				t.Error("the names of the blobs were not synced before the index named them")
			}
		})
	}
}

func TestDeferredBlobsAreSyncedTogether(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	if err := schemetest.Opaque("first").Push(t.Context(), o, r.WithTag("first")); err != nil {
		t.Fatal(err)
	}
	s.set(nil)
	var layers []func(*schemetest.Doc)
	for i := range manyFiles {
		d, err := o.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader(fmt.Sprint(i)), deferred)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, schemetest.Layer(d))
	}
	if s.has(stepSync) {
		t.Errorf("a deferred blob was synced by itself: %q", s.seen)
	}
	it := schemetest.Image("image", layers...)
	if err := it.PushContent(t.Context(), o, r); err != nil {
		t.Fatal(err)
	}
	s.set(nil)
	if _, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest); err != nil {
		t.Fatal(err)
	}
	if canSyncFS && !s.has(stepSyncFS) {
		t.Errorf("%d files were not synced at once: %q", manyFiles, s.seen)
	}
	s.set(nil)
	if _, err := o.ManifestPut(t.Context(), r.WithTag("v2"), it.Manifest); err != nil {
		t.Fatal(err)
	}
	want := []string{stepSync + " " + ingestDir, stepSyncDir + " ."}
	var got []string
	for _, step := range s.seen {
		if strings.HasPrefix(step, stepSync) {
			got = append(got, strings.TrimSuffix(step, "/"+filepath.Base(step)))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a tag on durable content: syncs (-want +got):\n%s", diff)
	}
}

func TestStepsOfABlobPut(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	putBlob(t, o, r, []byte("first"))
	for name, c := range map[string]struct {
		opts []scheme.BlobPutOption
		want []string
	}{
		"durable":  {nil, []string{stepCreate, stepWrite, stepTimes, stepSync, stepWrite, stepRename, stepSyncDir}},
		"deferred": {[]scheme.BlobPutOption{deferred}, []string{stepCreate, stepWrite, stepTimes, stepWrite, stepRename}},
	} {
		s.set(nil)
		if _, err := o.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader(name), c.opts...); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, step := range s.seen {
			step, _, _ = strings.Cut(step, " ")
			got = append(got, step)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Who made the layout may have died before its directories and files were on the disk.
func TestFirstPutMakesTheWayDurable(t *testing.T) {
	s := &steps{}
	r := place(filepath.Join(t.TempDir(), "a", "b"))
	putBlob(t, open(t, WithDurability(None)), r, []byte("theirs"))
	o := open(t, withHook(s.hook))
	for i, want := range []bool{true, false} {
		s.set(nil)
		putBlob(t, o, r, fmt.Append(nil, "ours", i))
		for _, step := range []string{stepSyncDir + " " + blobsDir, stepSync + " " + markerName, stepSync + " " + indexName} {
			if got := slices.Contains(s.seen, step); got != want {
				t.Errorf("put %d: %s: %v, want %v", i, step, got, want)
			}
		}
	}
}
