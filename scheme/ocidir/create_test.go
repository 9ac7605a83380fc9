package ocidir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// files lists all there is below dir.
func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		rel, rerr := filepath.Rel(dir, path)
		all = append(all, filepath.ToSlash(rel))
		return errors.Join(err, rerr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestReadingCreatesNothing(t *testing.T) {
	dir := t.TempDir()
	o, r := open(t), place(filepath.Join(dir, "absent", "layout"))
	d := desc("x")
	for op, do := range map[string]func() error{
		"blob get":        func() error { _, err := o.BlobGet(t.Context(), r, d); return err },
		"blob head":       func() error { _, err := o.BlobHead(t.Context(), r, d); return err },
		"blob delete":     func() error { return o.BlobDelete(t.Context(), r, d) },
		"blob list":       func() error { return o.BlobList(t.Context(), r, nil) },
		"blob open":       func() error { _, err := o.BlobOpen(t.Context(), r, d); return err },
		"manifest get":    func() error { _, err := o.ManifestGet(t.Context(), r); return err },
		"manifest head":   func() error { _, err := o.ManifestHead(t.Context(), r); return err },
		"manifest delete": func() error { return o.ManifestDelete(t.Context(), r.WithDigest(d.Digest)) },
		"tag list":        func() error { _, err := o.TagList(t.Context(), r); return err },
		"tag delete":      func() error { return o.TagDelete(t.Context(), r.WithTag("v1")) },
		"referrer list":   func() error { _, err := o.ReferrerList(t.Context(), r); return err },
		"repository list": func() error { return o.RepoList(t.Context(), r, "", nil) },
		"blob mount":      func() error { return o.BlobMount(t.Context(), r, place(dir+"/other"), d) },
	} {
		if err := do(); !errors.Is(err, errs.ErrNotFound) || !strings.HasPrefix(err.Error(), op+" ocidir://") {
			t.Errorf("%s of nothing: got %v, want ErrNotFound with operation and place", op, err)
		}
	}
	if res, err := o.Ping(t.Context(), r); err != nil || res.Exists || !res.Writable {
		t.Errorf("ping of what could be made: got %+v, %v", res, err)
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("there is now %q", got)
	}
}

func TestWhatMayBecomeALayout(t *testing.T) {
	layout := []string{"oci-layout=" + markerText, "index.json=" + emptyIndex}
	under := func(dir string, names []string) (out []string) {
		for _, n := range names {
			out = append(out, dir+"/"+n)
		}
		return out
	}
	for name, c := range map[string]struct {
		files  []string
		exists bool
		found  string // refused, and the message names it
	}{
		"an empty directory":               {nil, false, ""},
		"a layout":                         {layout, true, ""},
		"a tree of layouts":                {slices.Concat(under("a", layout), under("b/c", layout)), true, ""},
		"a layout that was never finished": {[]string{".ocisync/lock=", "index.json=" + emptyIndex, "blobs/sha256/="}, false, ""},
		"a tree in which one was begun":    {slices.Concat(under("a", layout), []string{".ocisync/lock=", "blobs/="}), true, ""},
		"the root of a disk":               {[]string{"lost+found/="}, false, ""},
		"somebody's files":                 {[]string{"thesis.tex=x"}, false, "thesis.tex"},
		"somebody's directories":           {[]string{"src/main.go=x"}, false, "src"},
		"layouts and files":                {slices.Concat(under("a", layout), []string{"README=x"}), false, "README"},
		"many files":                       {[]string{"1=", "2=", "3=", "4=", "5="}, false, "1, 2, 3 and 2 more"},
		"parts of a layout, not ours":      {[]string{"index.json=" + emptyIndex, "blobs/="}, false, "index.json"},
	} {
		t.Run(name, func(t *testing.T) {
			r := place(t.TempDir())
			for _, f := range c.files {
				file, text, _ := strings.Cut(f, "=")
				if strings.HasSuffix(file, "/") {
					if err := os.MkdirAll(filepath.Join(r.Root, file), 0o755); err != nil {
						t.Fatal(err)
					}
					continue
				}
				writeFile(t, r.Root, file, []byte(text))
			}
			before := files(t, r.Root)
			o := open(t)
			res, perr := o.Ping(t.Context(), r)
			err := schemetest.Image("a").Push(t.Context(), o, r.WithTag("v1"))
			if c.found == "" {
				if err != nil || perr != nil || res.Exists != c.exists || !res.Writable {
					t.Errorf("ping: %+v, %v; push: %v", res, perr, err)
				}
				return
			}
			for what, err := range map[string]error{"ping": perr, "push": err} {
				if !errors.Is(err, errs.ErrClobber) || !strings.Contains(err.Error(), c.found) || errs.Hint(err) == "" {
					t.Errorf("%s: got %v, want ErrClobber that names %q, and a hint", what, err, c.found)
				}
			}
			if diff := cmp.Diff(before, files(t, r.Root)); diff != "" {
				t.Errorf("something was made (-before +after):\n%s", diff)
			}
		})
	}
}

func TestAFileInTheWayIsNotOverwritten(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "file", []byte("x"))
	o := open(t)
	for _, r := range []ref.Ref{place(dir + "/file"), place(dir + "/file").WithRepo("a/b")} {
		if err := schemetest.Opaque("a").Push(t.Context(), o, r); !errors.Is(err, errs.ErrClobber) {
			t.Errorf("push to %s: got %v, want ErrClobber", r, err)
		}
		if _, err := o.Ping(t.Context(), r); !errors.Is(err, errs.ErrClobber) {
			t.Errorf("ping of %s: got %v, want ErrClobber", r, err)
		}
	}
}

func TestReservedNames(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	for _, repo := range []string{"blobs", "a/blobs", "blobs/a", "index.json", "a/index.json/b", "oci-layout", ".ocisync", "a/.ocisync", "../a", "a/../b", "A"} {
		if err := schemetest.Opaque("a").Push(t.Context(), o, r.WithRepo(repo)); !errors.Is(err, errs.ErrNameInvalid) {
			t.Errorf("%s: got %v, want ErrNameInvalid", repo, err)
		}
		if _, err := o.TagList(t.Context(), r.WithRepo(repo)); !errors.Is(err, errs.ErrNameInvalid) {
			t.Errorf("tags of %s: got %v, want ErrNameInvalid", repo, err)
		}
	}
	if got := files(t, r.Root); len(got) != 1 {
		t.Errorf("there is now %q", got)
	}
}

func TestPermissionsAreTheUsers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such permissions")
	}
	probe := filepath.Join(t.TempDir(), "probe")
	if err := os.WriteFile(probe, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	want := stat(t, probe).Mode().Perm()
	o, r := open(t), place(t.TempDir())
	it := schemetest.Image("a")
	if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{indexName, markerName, lockName, "blobs/sha256/" + it.Manifest.Digest().Encoded()} {
		if got := stat(t, filepath.Join(r.Root, f)).Mode().Perm(); got != want {
			t.Errorf("%s has %v, want %v", f, got, want)
		}
	}
}

func TestReadOnlyLayoutIsReadAsItIs(t *testing.T) {
	it := schemetest.Image("a")
	r := handmade(t, []string{itemJSON(it, named("v1"), "")}, it)
	o := open(t, withHook(func(step, name string) error {
		return fmt.Errorf("%s %s: %w", step, name, os.ErrPermission)
	}))
	if tags := tagsOf(t, o, r); len(tags) != 1 {
		t.Errorf("the tags are %q", tags)
	}
	if _, err := o.ManifestGet(t.Context(), r.WithTag("v1")); err != nil {
		t.Error(err)
	}
	ra, err := o.BlobOpen(t.Context(), r, types.Descriptor{Digest: it.Manifest.Digest()})
	if err != nil {
		t.Error(err)
	} else if err := ra.Close(); err != nil {
		t.Error(err)
	}
	for op, err := range map[string]error{
		"push":            it.Push(t.Context(), o, r.WithTag("v2")),
		"tag delete":      o.TagDelete(t.Context(), r.WithTag("v1")),
		"manifest delete": o.ManifestDelete(t.Context(), r.WithDigest(it.Manifest.Digest())),
		"blob delete":     o.BlobDelete(t.Context(), r, types.Descriptor{Digest: it.Manifest.Digest()}),
	} {
		if !errors.Is(err, errs.ErrReadOnly) || errs.Hint(err) == "" {
			t.Errorf("%s: got %v, want ErrReadOnly with a hint", op, err)
		}
	}
}

func TestRepositoriesAreListedInByteOrder(t *testing.T) {
	root := place(t.TempDir())
	o := open(t)
	want := []string{"", "a", "a-b", "a-b/c", "a.b", "a/b", "a/b/c", "a/b0", "a0", "a_b", "library/alpine", "z"}
	for _, repo := range want {
		writeFile(t, root.Root, join(repo, markerName), []byte(markerText))
		writeFile(t, root.Root, join(repo, indexName), []byte(emptyIndex))
	}
	writeFile(t, root.Root, "a/blobs/nested/oci-layout", []byte(markerText))
	writeFile(t, root.Root, "a/.ocisync/nested/oci-layout", []byte(markerText))
	writeFile(t, root.Root, "Upper/oci-layout", []byte(markerText))
	writeFile(t, root.Root, "plain/file", nil)
	if runtime.GOOS != "windows" {
		if err := os.Symlink(root.Root, filepath.Join(root.Root, "loop")); err != nil {
			t.Fatal(err)
		}
	}
	got, err := scheme.ListRepos(t.Context(), o, root)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	for i, last := range append(slices.Clone(want[1:]), "a/", "a/b/", "b", "a-", "zz") {
		var rest, expect []string
		err := o.RepoList(t.Context(), root, last, func(repo string) error { rest = append(rest, repo); return nil })
		for _, w := range want {
			if w > last {
				expect = append(expect, w)
			}
		}
		if diff := cmp.Diff(expect, rest); err != nil || diff != "" {
			t.Errorf("%d: after %q: %v (-want +got):\n%s", i, last, err, diff)
		}
	}
	enough := errors.New("enough")
	if err := o.RepoList(t.Context(), root, "", func(string) error { return enough }); err != enough {
		t.Errorf("the caller's error came back as %v", err)
	}
	if err := o.RepoList(t.Context(), root, "", func(string) error { return io.EOF }); err != nil {
		t.Errorf("io.EOF came back as %v", err)
	}
}

// A tree may have more layouts than the process may have files open.
func TestIdleLayoutsAreClosed(t *testing.T) {
	o, root := open(t, WithDurability(None)), place(t.TempDir())
	it := schemetest.Opaque("a")
	child := schemetest.Image("child")
	first := root.WithRepo("first")
	if err := child.PushContent(t.Context(), o, first); err != nil {
		t.Fatal(err)
	}
	if _, err := o.ManifestPut(t.Context(), first.WithDigest(child.Manifest.Digest()), child.Manifest, scheme.WithChild()); err != nil {
		t.Fatal(err)
	}
	for i := range maxIdle + 20 {
		if err := it.Push(t.Context(), o, root.WithRepo(fmt.Sprint("r", i)).WithTag("v1")); err != nil {
			t.Fatal(err)
		}
	}
	o.mu.Lock()
	n := len(o.layouts)
	o.mu.Unlock()
	if n > maxIdle+1 {
		t.Errorf("%d layouts are open", n)
	}
	if _, err := o.ManifestHead(t.Context(), root.WithRepo("r0").WithTag("v1")); err != nil {
		t.Errorf("one that was closed: %v", err)
	}
	if _, err := o.ManifestHead(t.Context(), first.WithDigest(child.Manifest.Digest())); err != nil {
		t.Errorf("a child that waits for its index was forgotten: %v", err)
	}
}

func TestDirectoryThatWasReplacedIsAnother(t *testing.T) {
	o, r := open(t), place(filepath.Join(t.TempDir(), "layout"))
	it := schemetest.Opaque("a")
	for i := range 3 {
		if _, err := o.TagList(t.Context(), r); !errors.Is(err, errs.ErrNameUnknown) {
			t.Errorf("%d: before: %v", i, err)
		}
		if err := it.Push(t.Context(), o, r.WithTag(fmt.Sprint("v", i))); err != nil {
			t.Fatal(err)
		}
		if tags := tagsOf(t, o, r); len(tags) != 1 {
			t.Errorf("%d: the tags are %q", i, tags)
		}
		if err := os.RemoveAll(r.Root); err != nil {
			t.Fatal(err)
		}
	}
}

func TestManyCreateOneLayout(t *testing.T) {
	r := place(filepath.Join(t.TempDir(), "a", "b"))
	var wg sync.WaitGroup
	for i := range 8 {
		o := open(t)
		wg.Go(func() {
			tag := fmt.Sprint("v", i)
			if err := schemetest.Image(tag).Push(t.Context(), o, r.WithTag(tag)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if tags := valid(t, r); len(tags) != 8 {
		t.Errorf("the tags are %q", tags)
	}
}

func TestRelativePathsAndDivisionsNameOneLayout(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	o := open(t)
	data := []byte("x")
	if _, err := o.BlobPut(t.Context(), place("tree").WithRepo("a/b"), types.Descriptor{}, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	for _, r := range []ref.Ref{place("./tree/a/b"), place(dir + "/tree").WithRepo("a/b"), place(dir + "/tree/a/b")} {
		if _, err := o.BlobHead(t.Context(), r, desc("x")); err != nil {
			t.Error(err)
		}
	}
	if len(o.layouts) != 1 {
		t.Errorf("%d layouts are open", len(o.layouts))
	}
}

func TestClosedAPIRefuses(t *testing.T) {
	o, r := New(), place(t.TempDir())
	if err := schemetest.Opaque("a").Push(t.Context(), o, r); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := o.TagList(t.Context(), r); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
}

// What another program leaves in our folder, under a name like ours, keeps nobody from writing.
func TestWhatIsNoFileAmongTemporaryFilesIsLeft(t *testing.T) {
	r := place(t.TempDir())
	push(t, open(t), r.WithTag("a"), schemetest.Opaque("a"))
	dir := filepath.Join(r.Root, ingestDir, "x"+tempSuffix)
	must(t, os.MkdirAll(filepath.Join(dir, "y"), 0o755))
	push(t, open(t), r.WithTag("b"), schemetest.Opaque("b"))
	if !stat(t, dir).IsDir() {
		t.Error("it is gone")
	}
}
