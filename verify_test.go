package ocisync_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// mirrored is an index of two images, in a registry and in a directory that was copied from it.
type mirrored struct {
	c        *ocisync.Client
	from, to ref.Ref
	index    *schemetest.Item
}

func mirror(t *testing.T) *mirrored {
	t.Helper()
	reg := newRegistry(t)
	index := schemetest.Index([]*schemetest.Item{schemetest.Image("one"), schemetest.Image("two")})
	at := ref.Ref{Scheme: "mem", Root: "store", Repo: "app"}
	for _, tag := range []string{"v1", "latest"} {
		if err := index.Push(t.Context(), reg.mem, at.WithTag(tag)); err != nil {
			t.Fatal(err)
		}
	}
	m := &mirrored{from: reg.ref("app"), to: ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}, index: index}
	m.reopen(t)
	if _, err := m.c.Copy(t.Context(), m.from, m.to, ocisync.WithAllTags()); err != nil {
		t.Fatal(err)
	}
	m.reopen(t)
	return m
}

// reopen makes a client that remembers nothing.
func (m *mirrored) reopen(t *testing.T) {
	t.Helper()
	c := ocisync.New()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	m.c = c
}

func (m *mirrored) path(d digest.Digest) string {
	return filepath.Join(m.to.Root, "blobs", "sha256", d.Encoded())
}

func (m *mirrored) verify(t *testing.T, opts ...ocisync.VerifyOption) *ocisync.VerifyReport {
	t.Helper()
	rep, err := m.c.Verify(t.Context(), m.to, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// read reads content as whoever pulls it does.
func (m *mirrored) read(d digest.Digest, isManifest bool) ([]byte, error) {
	if isManifest {
		got, err := m.c.API().ManifestGet(context.Background(), m.to.WithDigest(d))
		if err != nil {
			return nil, err
		}
		return got.Raw(), nil
	}
	rdr, err := m.c.API().BlobGet(context.Background(), m.to, types.Descriptor{Digest: d})
	if err != nil {
		return nil, err
	}
	defer rdr.Close()
	return io.ReadAll(rdr)
}

// Every kind of damage: the first read finds it, verify names it and the tags that need it, and it is healed by a put
// and from another place.
func TestDamageToADirectory(t *testing.T) {
	rewrite := func(change func([]byte) []byte) func(path, other string) error {
		return func(path, _ string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, change(data), 0o644)
		}
	}
	kinds := map[string]struct {
		do   func(path, other string) error
		kind scheme.ProblemKind
	}{
		"bit flip":      {rewrite(func(b []byte) []byte { b[len(b)/2] ^= 8; return b }), scheme.ProblemDamaged},
		"truncation":    {rewrite(func(b []byte) []byte { return b[:len(b)-1] }), scheme.ProblemSize},
		"zero length":   {rewrite(func([]byte) []byte { return nil }), scheme.ProblemSize},
		"deleted":       {func(path, _ string) error { return os.Remove(path) }, scheme.ProblemMissing},
		"swapped":       {func(path, other string) error { return swap(path, other) }, scheme.ProblemSize},
		"a directory":   {func(path, _ string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) }, scheme.ProblemNoFile},
		"a link out":    {func(path, _ string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/hostname", path)) }, scheme.ProblemNoFile},
		"a broken link": {func(path, _ string) error { return errors.Join(os.Remove(path), os.Symlink("x", path)) }, scheme.ProblemNoFile},
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && kind.kind == scheme.ProblemNoFile {
				t.Skip("symbolic links need a privilege on Windows")
			}
			m := mirror(t)
			child := m.index.Children[0]
			for what, c := range map[string]struct {
				data       []byte
				isManifest bool
			}{
				"layer": {child.Blobs[1], false}, "config": {child.Blobs[0], false},
				"image": {child.Manifest.Raw(), true}, "index": {m.index.Manifest.Raw(), true},
			} {
				d := digest.FromBytes(c.data)
				spoil := func() {
					t.Helper()
					if err := kind.do(m.path(d), m.path(digest.FromBytes(child.Blobs[2]))); err != nil {
						t.Fatal(err)
					}
					m.reopen(t)
				}
				sound := func(after string) {
					t.Helper()
					m.reopen(t)
					if got, err := m.read(d, c.isManifest); err != nil || !bytes.Equal(got, c.data) {
						t.Errorf("%s, after %s: %v", what, after, err)
					}
					if kind.kind == scheme.ProblemSize && name == "swapped" {
						return // the other file is still wrong
					}
					if rep := m.verify(t, ocisync.VerifyDeep()); len(rep.Bad()) > 0 {
						t.Errorf("%s, after %s: %v", what, after, rep.Bad())
					}
				}

				spoil()
				if got, err := m.read(d, c.isManifest); err == nil {
					t.Errorf("%s: the first read finds nothing wrong with %d bytes", what, len(got))
				}
				put := types.Descriptor{Digest: d, Size: int64(len(c.data))}
				if _, err := m.c.API().BlobPut(t.Context(), m.to, put, bytes.NewReader(c.data)); err != nil {
					t.Fatal(err)
				}
				sound("a put")

				if name == "swapped" {
					if _, err := m.c.Repair(t.Context(), m.to, m.from, ocisync.VerifyDeep()); err != nil {
						t.Fatal(err)
					}
				}
				spoil()
				rep := m.verify(t, ocisync.VerifyDeep())
				i := slices.IndexFunc(rep.Findings, func(f ocisync.Finding) bool { return f.Digest == d })
				if i < 0 || rep.Findings[i].Kind != kind.kind || rep.Findings[i].Path != m.path(d) {
					t.Fatalf("%s: found %+v, want %s of %s", what, rep.Findings, kind.kind, m.path(d))
				}
				if diff := cmp.Diff([]string{"latest", "v1"}, rep.Findings[i].Tags); diff != "" {
					t.Errorf("%s: tags (-want +got):\n%s", what, diff)
				}
				rep, err := m.c.Repair(t.Context(), m.to, m.from, ocisync.VerifyDeep())
				if err != nil || len(rep.Bad()) > 0 || !rep.Findings[0].Repaired {
					t.Errorf("%s: repair: %v, %+v", what, err, rep.Findings)
				}
				sound("a repair")
			}
		})
	}
}

func swap(a, b string) error {
	return errors.Join(os.Rename(a, a+".x"), os.Rename(b, a), os.Rename(a+".x", b))
}

// What is lost below a manifest that is lost itself is found once that is there again.
func TestRepairGoesDown(t *testing.T) {
	m := mirror(t)
	blobs, err := filepath.Glob(filepath.Join(m.to.Root, "blobs", "sha256", "*"))
	if err != nil || len(blobs) != 9 {
		t.Fatal(blobs, err)
	}
	for _, path := range blobs {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	var told []digest.Digest
	rep, err := m.c.Repair(t.Context(), m.to, m.from, ocisync.VerifyFindings(func(f ocisync.Finding) { told = append(told, f.Digest) }))
	if err != nil || len(rep.Bad()) > 0 || len(rep.Findings) != 9 || len(told) != 9 {
		t.Errorf("%v: %d findings, %d told, %d bad, want 9, 9 and 0", err, len(rep.Findings), len(told), len(rep.Bad()))
	}
	if rep := m.verify(t, ocisync.VerifyDeep()); len(rep.Findings) > 0 {
		t.Errorf("after the repair: %v", rep.Findings)
	}
}

func TestRepairReportsWhatTheSourceLacks(t *testing.T) {
	m := mirror(t)
	lost, index := digest.FromBytes(m.index.Children[0].Blobs[1]), filepath.Join(m.to.Root, "index.json")
	if err := os.Remove(m.path(lost)); err != nil {
		t.Fatal(err)
	}
	empty := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
	rep, err := m.c.Repair(t.Context(), m.to, empty)
	if err != nil || len(rep.Bad()) != 1 || !errors.Is(rep.Findings[0].RepairErr, errs.ErrNotFound) {
		t.Errorf("%v, %+v: want one finding that is left, as the source lacks it", err, rep.Findings)
	}
	asked := newRegistry(t)
	if err := os.Remove(m.path(digest.FromBytes(m.index.Children[0].Blobs[2]))); err != nil {
		t.Fatal(err)
	}
	rep, err = m.c.Repair(t.Context(), m.to, asked.ref("none"))
	if err != nil || len(rep.Bad()) != 2 || rep.Findings[0].RepairErr == nil || rep.Findings[1].RepairErr == nil {
		t.Errorf("%v, %+v: want two findings that are left", err, rep.Findings)
	}
	if n := len(asked.take()); n != 1 {
		t.Errorf("a repository that does not exist was asked %d times", n)
	}
	if err := os.WriteFile(index, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	rep, err = m.c.Repair(t.Context(), m.to, m.from)
	if err != nil || len(rep.Bad()) != 1 || rep.Bad()[0].RepairErr == nil {
		t.Errorf("%v, %+v: want the index to be left", err, rep.Findings)
	}
	if got, err := os.ReadFile(index); err != nil || string(got) != "{" {
		t.Errorf("index.json was replaced by %q, %v", got, err)
	}
}

func TestVerifyATree(t *testing.T) {
	m := mirror(t)
	tree, backup := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}, ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
	for _, root := range []ref.Ref{tree, backup} {
		for _, repo := range []string{"a", "b/c"} {
			if _, err := m.c.Copy(t.Context(), m.from.WithTag("v1"), root.WithRepo(repo).WithTag("v1")); err != nil {
				t.Fatal(err)
			}
		}
	}
	lost := digest.FromBytes(m.index.Children[0].Blobs[1])
	if err := os.Remove(filepath.Join(tree.Root, "b", "c", "blobs", "sha256", lost.Encoded())); err != nil {
		t.Fatal(err)
	}
	rep, err := m.c.Verify(t.Context(), tree)
	if err != nil || rep.Repositories != 2 || rep.Manifests != 6 || len(rep.Findings) != 1 || rep.Findings[0].Ref != tree.WithRepo("b/c") {
		t.Errorf("%v, %+v", err, rep)
	}
	if rep, err = m.c.Repair(t.Context(), tree, backup); err != nil || len(rep.Findings) != 1 || len(rep.Bad()) > 0 {
		t.Errorf("repair: %v, %+v", err, rep)
	}
	if _, err := m.c.Verify(t.Context(), ref.Ref{Scheme: ref.SchemeOCIDir, Root: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("a place that is not there: %v", err)
	}
}

// A place that cannot check itself is asked for everything.
func TestVerifyARegistry(t *testing.T) {
	reg := newRegistry(t)
	at := ref.Ref{Scheme: "mem", Root: "store", Repo: "app"}
	shared, other := schemetest.Image("shared"), schemetest.Image("other")
	index := schemetest.Index([]*schemetest.Item{shared, other})
	sig := schemetest.Image("sig", schemetest.Subject(shared.Descriptor()))
	for tag, it := range map[string]*schemetest.Item{"one": shared, "all": index, "sig": sig} {
		if err := it.Push(t.Context(), reg.mem, at.WithTag(tag)); err != nil {
			t.Fatal(err)
		}
	}
	c := ocisync.New()
	defer c.Close()
	seen := 0
	rep, err := c.Verify(t.Context(), reg.ref("app"), ocisync.VerifyDeep(), ocisync.VerifyProgress(func(blob.Info) { seen++ }))
	if err != nil || len(rep.Findings) > 0 || rep.Manifests != 4 || rep.Blobs != 9 || seen != 13 {
		t.Errorf("%v, %+v, told of %d", err, rep, seen)
	}
	for what, c2 := range map[string]struct {
		d    digest.Digest
		tags []string
	}{
		"a shared layer":      {digest.FromBytes(shared.Blobs[1]), []string{"all", "one"}},
		"a layer of one":      {digest.FromBytes(other.Blobs[1]), []string{"all"}},
		"a signature's layer": {digest.FromBytes(sig.Blobs[1]), []string{"all", "one", "sig"}},
	} {
		d := types.Descriptor{Digest: c2.d}
		data, err := io.ReadAll(open(t, reg.mem, at, d))
		if err != nil {
			t.Fatal(err)
		}
		if err := reg.mem.BlobDelete(t.Context(), at, d); err != nil {
			t.Fatal(err)
		}
		rep, err := c.Verify(t.Context(), reg.ref("app"))
		if err != nil || len(rep.Findings) != 1 || rep.Findings[0].Kind != scheme.ProblemMissing || rep.Findings[0].Digest != c2.d {
			t.Fatalf("%s: %v, %+v", what, err, rep.Findings)
		}
		if diff := cmp.Diff(c2.tags, rep.Findings[0].Tags); diff != "" {
			t.Errorf("%s: tags (-want +got):\n%s", what, diff)
		}
		source := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
		if _, err := c.API().BlobPut(t.Context(), source, d, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if rep, err := c.Repair(t.Context(), reg.ref("app"), source); err != nil || len(rep.Findings) != 1 || len(rep.Bad()) > 0 {
			t.Errorf("%s: repair: %v, %+v", what, err, rep)
		}
	}
	if _, err := c.Verify(t.Context(), reg.ref("none")); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("a repository that is not there: %v", err)
	}
	if _, err := c.Verify(t.Context(), reg.ref("app:none")); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("a tag that is not there: %v", err)
	}
}

func open(t *testing.T, api scheme.API, r ref.Ref, d types.Descriptor) io.Reader {
	t.Helper()
	rdr, err := api.BlobGet(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdr.Close() })
	return rdr
}

func TestVerifyOfASparseIndexInARegistry(t *testing.T) {
	reg := newRegistry(t)
	at := ref.Ref{Scheme: "mem", Root: "store", Repo: "app"}
	here, left := schemetest.Image("here"), schemetest.Image("left out")
	index := schemetest.Index([]*schemetest.Item{here, left})
	if err := here.Push(t.Context(), reg.mem, at, scheme.WithChild()); err != nil {
		t.Fatal(err)
	}
	if _, err := reg.mem.ManifestPut(t.Context(), at.WithTag("v1"), index.Manifest, scheme.WithSparse()); err != nil {
		t.Fatal(err)
	}
	c := ocisync.New()
	defer c.Close()
	if rep, err := c.Verify(t.Context(), reg.ref("app")); err != nil || len(rep.Findings) > 0 || rep.Sparse != 1 {
		t.Errorf("%v, %+v: one manifest was left out, which is no problem", err, rep)
	}
	if err := reg.mem.ManifestDelete(t.Context(), at.WithDigest(here.Manifest.Digest())); err != nil {
		t.Fatal(err)
	}
	if rep, err := c.Verify(t.Context(), reg.ref("app")); err != nil || len(rep.Findings) != 2 {
		t.Errorf("%v, %+v: nothing is left of the index", err, rep)
	}
}
