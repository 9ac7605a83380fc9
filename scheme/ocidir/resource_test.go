package ocidir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// scene is a layout that has something of everything, and what the writes below need.
type scene struct {
	r, src   ref.Ref
	old, new *schemetest.Item // tagged old; its content is there, and it has no tag
	blob     types.Descriptor // that no manifest needs, labelled
	mounted  types.Descriptor // of src
	index    []byte
	key      string // of an ingest that is closed
}

// memoryDir returns an empty directory, in memory if the system has one there: what is slow on a disk is not asked here.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "ocidir")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// copyTo returns the scene as it was made, in another directory.
func (s *scene) copyTo(t testing.TB, dir string) *scene {
	t.Helper()
	from, out := filepath.Dir(s.r.Root), *s
	err := filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(from, name)
		if err = errors.Join(err, rerr); err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		switch {
		case e.IsDir():
			return os.MkdirAll(to, 0o777)
		case strings.Contains(rel, blobsDir): // nothing is ever written into them
			return os.Link(name, to)
		}
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(to, raw, 0o666)
	})
	if err != nil {
		t.Fatal(err)
	}
	out.r, out.src = place(filepath.Join(dir, filepath.Base(s.r.Root))), place(filepath.Join(dir, filepath.Base(s.src.Root)))
	return &out
}

func newScene(t testing.TB, dir string) *scene {
	t.Helper()
	o := New(WithDurability(None))
	s := &scene{
		r: place(filepath.Join(dir, "layout")), src: place(filepath.Join(dir, "src")), key: "key",
		old: schemetest.Image("old"), new: schemetest.Image("new"),
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.old.Push(t.Context(), o, s.r.WithTag("old")))
	must(s.new.PushContent(t.Context(), o, s.r))
	var err error
	s.blob, err = o.BlobPut(t.Context(), s.r, types.Descriptor{}, strings.NewReader("unneeded"))
	must(err)
	_, err = o.BlobLabel(t.Context(), s.r, blob.Info{Digest: s.blob.Digest, Labels: map[string]string{"k": "old"}})
	must(err)
	s.mounted, err = o.BlobPut(t.Context(), s.src, types.Descriptor{}, strings.NewReader("mounted"))
	must(err)
	up, err := o.Ingest(t.Context(), s.r, s.key)
	must(err)
	_, err = up.Write([]byte("half"))
	must(err)
	must(up.Close())
	s.index, err = o.IndexGet(t.Context(), s.r)
	must(err)
	must(o.Close())
	return s
}

// writing is something that changes a layout.
type writing struct {
	do   func(t testing.TB, o *OCIDir, s *scene) error
	gone bool // done again after it failed, it may find that it was done
}

// reopened opens the scene's ingest, does something with it, and closes it.
func reopened(do func(t testing.TB, u scheme.Upload) error) func(t testing.TB, o *OCIDir, s *scene) error {
	return func(t testing.TB, o *OCIDir, s *scene) error {
		u, err := o.Ingest(t.Context(), s.r, s.key)
		if err != nil {
			return err
		}
		if err := do(t, u); err != nil {
			return errors.Join(err, u.Close())
		}
		return u.Close()
	}
}

var writes = map[string]writing{
	"BlobPut": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		_, err := o.BlobPut(t.Context(), s.r, types.Descriptor{}, strings.NewReader("a new blob"))
		return err
	}},
	"BlobPut, large": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		data := bytes.Repeat([]byte("large"), 1<<20)
		_, err := o.BlobPut(t.Context(), s.r, types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}, blob.SourceOf(bytes.NewReader(data), int64(len(data))))
		return err
	}},
	"BlobPut, deferred": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		_, err := o.BlobPut(t.Context(), s.r, types.Descriptor{}, strings.NewReader("a new blob"), deferred)
		return err
	}},
	"BlobPut, new layout": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		_, err := o.BlobPut(t.Context(), place(s.r.Root+"-new/a"), types.Descriptor{}, strings.NewReader("a new blob"))
		return err
	}},
	"BlobMount": {do: func(t testing.TB, o *OCIDir, s *scene) error { return o.BlobMount(t.Context(), s.src, s.r, s.mounted) }},
	"BlobDelete": {gone: true, do: func(t testing.TB, o *OCIDir, s *scene) error {
		return o.BlobDelete(t.Context(), s.r, s.blob)
	}},
	"ManifestPut": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		_, err := o.ManifestPut(t.Context(), s.r.WithTag("new"), s.new.Manifest)
		return err
	}},
	"ManifestPut, a tag moves": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		_, err := o.ManifestPut(t.Context(), s.r.WithTag("old"), s.new.Manifest)
		return err
	}},
	"ManifestPut, child": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		_, err := o.ManifestPut(t.Context(), s.r.WithDigest(s.new.Manifest.Digest()), s.new.Manifest, scheme.WithChild())
		return err
	}},
	"TagDelete": {gone: true, do: func(t testing.TB, o *OCIDir, s *scene) error { return o.TagDelete(t.Context(), s.r.WithTag("old")) }},
	"ManifestDelete": {gone: true, do: func(t testing.TB, o *OCIDir, s *scene) error {
		return o.ManifestDelete(t.Context(), s.r.WithDigest(s.old.Manifest.Digest()))
	}},
	"BlobLabel": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		_, err := o.BlobLabel(t.Context(), s.r, blob.Info{Digest: s.blob.Digest, Labels: map[string]string{"k": "new"}})
		return err
	}},
	"IndexPut": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		return o.IndexPut(t.Context(), s.r, nil, []byte(indexJSON(entryJSON("c", "new"))))
	}},
	"Ingest, new": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		u, err := o.Ingest(t.Context(), s.r, "another")
		if err != nil {
			return err
		}
		_, err = u.Write([]byte("more"))
		return errors.Join(err, u.Close())
	}},
	"Ingest, Write": {do: reopened(func(_ testing.TB, u scheme.Upload) error { _, err := u.Write([]byte("more")); return err })},
	"Ingest, Truncate": {do: reopened(func(t testing.TB, u scheme.Upload) error {
		return u.(scheme.Truncater).Truncate(t.Context(), 1)
	})},
	"Ingest, Commit": {gone: true, do: reopened(func(t testing.TB, u scheme.Upload) error {
		_, err := u.Commit(t.Context(), types.Descriptor{}, map[string]string{"l": "v"})
		return err
	})},
	"Ingest, Abort": {gone: true, do: reopened(func(t testing.TB, u scheme.Upload) error { return u.Abort(t.Context()) })},
	"IngestAbort":   {gone: true, do: func(t testing.TB, o *OCIDir, s *scene) error { return o.IngestAbort(t.Context(), s.r, s.key) }},
	"IngestExpire": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		_, err := o.IngestExpire(t.Context(), s.r, 0)
		return err
	}},
	"Lease": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		release, err := o.Lease(t.Context(), s.r, s.blob.Digest)
		if err == nil {
			release()
		}
		return err
	}},
	"Sync": {do: func(t testing.TB, o *OCIDir, s *scene) error { return o.Sync(t.Context(), s.r) }},
	"Clean": {do: func(t testing.TB, o *OCIDir, s *scene) error {
		_, err := o.Clean(t.Context(), s.r, 0)
		return err
	}},
	"Collect": {gone: true, do: func(t testing.TB, o *OCIDir, s *scene) error {
		_, err := o.Collect(t.Context(), s.r, scheme.WithGrace(0))
		return err
	}},
}

// visible is what a reader sees: the index and the labels. Blobs that nothing names may be there or not.
func visible(t testing.TB, o *OCIDir, s *scene) map[string]string {
	t.Helper()
	out := map[string]string{}
	l, err := o.TagList(t.Context(), s.r)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range l.Tags {
		d, err := o.ManifestHead(t.Context(), s.r.WithTag(tag))
		out["tag "+tag] = string(d.Digest)
		if err != nil {
			out["tag "+tag] = err.Error()
		}
	}
	err = o.BlobList(t.Context(), s.r, func(b blob.Info) error {
		for k, v := range b.Labels {
			out["label "+k+" of "+string(b.Digest)] = v
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// openFilesAbove counts the open files, once they are no more than n or a second has passed: a lock is given back after
// the commit that it was for was acknowledged.
func openFilesAbove(t testing.TB, n int) int {
	t.Helper()
	now := openFiles(t)
	for end := time.Now().Add(time.Second); now > n && time.Now().Before(end); now = openFiles(t) {
		runtime.Gosched()
	}
	return now
}

// kinds are the errors of a disk, and what they are to be told from.
var kinds = []struct {
	errno syscall.Errno
	want  error
}{{syscall.ENOSPC, errs.ErrNoSpace}, {syscall.EIO, syscall.EIO}, {syscall.EROFS, errs.ErrReadOnly}}

// Whatever the disk refuses at whichever step of a write: the error says so by its type, nothing half-done is seen,
// by nobody, nothing is left behind, and the same value goes on as soon as the disk does.
func TestRefusedSteps(t *testing.T) {
	base := memoryDir(t)
	made := newScene(t, filepath.Join(base, "made"))
	for name, w := range writes {
		t.Run(name, func(t *testing.T) {
			open := openFiles(t)
			defer func() {
				if now := openFilesAbove(t, open); now > open {
					t.Errorf("%d files are open, and %d were before", now, open)
				}
			}()
			dir := filepath.Join(base, strings.Map(func(r rune) rune {
				if r == ' ' || r == ',' {
					return '-'
				}
				return r
			}, name))
			done := made.copyTo(t, filepath.Join(dir, "done"))
			o := New(WithDurability(None))
			if err := w.do(t, o, done); err != nil {
				t.Fatal(err)
			}
			x := &refusal{w: w, after: visible(t, o, done)}
			o.Close()
			for more := true; more; {
				x.n++
				more = x.step(t, made.copyTo(t, filepath.Join(dir, fmt.Sprint(x.n))))
			}
		})
	}
}

// refusal is a write of which the nth step is refused, and what is like it from then on.
type refusal struct {
	w       writing
	n       int
	after   map[string]string // what is visible once it is done
	taken   int
	refused string
}

func (x *refusal) hook(errno syscall.Errno) hook {
	x.taken, x.refused = 0, ""
	return func(step, _ string) error {
		x.taken++
		if x.taken == x.n {
			x.refused = step
		}
		if x.taken >= x.n && step == x.refused {
			return errno
		}
		return nil
	}
}

// step reports whether there is an nth step.
func (x *refusal) step(t *testing.T, s *scene) bool {
	h, kind := &steps{}, kinds[x.n%len(kinds)]
	o := New(withHook(h.hook))
	defer o.Close()
	before := visible(t, o, s)
	h.set(x.hook(kind.errno))
	err := x.w.do(t, o, s)
	h.set(nil)
	if x.taken < x.n {
		if err != nil {
			t.Fatalf("no step was refused, and the write was: %v", err)
		}
		return false
	}
	where := fmt.Sprintf("%v at step %d, %s", kind.errno, x.n, x.refused)
	var typed *errs.Error
	if err != nil && (!errors.Is(err, kind.want) || !errors.As(err, &typed)) {
		t.Errorf("%s: got %v, want an error that is %v", where, err, kind.want)
	}
	other := New()
	defer other.Close()
	now := visible(t, o, s)
	if diff := cmp.Diff(visible(t, other, s), now); diff != "" {
		t.Errorf("%s: who failed and another one see different things: %s", where, diff)
	}
	if ok := maps.Equal(now, before) && err != nil || maps.Equal(now, x.after) && (err == nil || x.w.gone); !ok {
		t.Errorf("%s: got %v, and now: %s", where, err, cmp.Diff(before, now))
	}
	if x.refused != stepRemove {
		noTemps(t, s, where)
	}
	x.again(t, o, s, where)
	return true
}

// again expects the write to succeed now. What could not be made durable must be put again before.
func (x *refusal) again(t *testing.T, o *OCIDir, s *scene, where string) {
	err := x.w.do(t, o, s)
	if errors.Is(err, errs.ErrManifestBlobUnknown) && strings.HasPrefix(x.refused, stepSync) {
		err = errors.Join(s.new.PushContent(t.Context(), o, s.r), x.w.do(t, o, s))
	}
	if err != nil && !(x.w.gone && errors.Is(err, errs.ErrNotFound)) {
		t.Errorf("%s: when the disk was well again: %v", where, err)
	}
	if _, err := o.Clean(t.Context(), s.r, 0); err != nil {
		t.Errorf("%s: Clean: %v", where, err)
	}
	noTemps(t, s, where+", and cleaned")
}

// noTemps expects no file that was being written.
func noTemps(t *testing.T, s *scene, where string) {
	t.Helper()
	for _, name := range leftovers(t, s.r.Root) {
		if strings.HasSuffix(name, tempSuffix) {
			t.Errorf("%s: left behind: %q", where, name)
		}
	}
}
