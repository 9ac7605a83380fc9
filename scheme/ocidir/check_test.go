package ocidir

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// check returns the problems of a layout, in the order of their paths.
func check(t *testing.T, o *OCIDir, r ref.Ref, opts ...scheme.CheckOption) ([]scheme.Problem, scheme.CheckReport) {
	t.Helper()
	var all []scheme.Problem
	rep, err := o.Check(t.Context(), r, func(p scheme.Problem) error {
		if p.Err == nil || p.Path == "" {
			t.Errorf("%s: a problem without error or path: %+v", p.Kind, p)
		}
		all = append(all, p)
		return nil
	}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Problems != len(all) {
		t.Errorf("the report counts %d problems of %d", rep.Problems, len(all))
	}
	slices.SortFunc(all, func(a, b scheme.Problem) int { return strings.Compare(a.Path, b.Path) })
	return all, rep
}

// multi is a layout with an image under two tags, and in an index, and with a signature.
type multi struct {
	shared, other, index, sig *schemetest.Item
}

func pushMulti(t *testing.T, r ref.Ref) multi {
	t.Helper()
	o := open(t)
	m := multi{shared: schemetest.Image("shared"), other: schemetest.Image("other")}
	m.index = schemetest.Index([]*schemetest.Item{m.shared, m.other})
	m.sig = schemetest.Image("sig", schemetest.Subject(m.shared.Descriptor()), schemetest.ArtifactType("application/x-sig"))
	for tag, it := range map[string]*schemetest.Item{"one": m.shared, "two": m.shared, "all": m.index} {
		if err := it.Push(t.Context(), o, r.WithTag(tag)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.sig.Push(t.Context(), o, r.WithDigest(m.sig.Manifest.Digest())); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCheckOfAGoodLayout(t *testing.T) {
	r := place(t.TempDir())
	m := pushMulti(t, r)
	putBlob(t, open(t), r, []byte("nobody needs this"))
	var size int64
	for _, it := range []*schemetest.Item{m.shared, m.other, m.index, m.sig} {
		size += it.Manifest.Descriptor().Size
	}
	all, rep := check(t, open(t), r)
	want := scheme.CheckReport{Manifests: 4, Blobs: 9, Unneeded: 1, Bytes: size}
	if diff := cmp.Diff(want, rep); diff != "" || len(all) > 0 {
		t.Errorf("%v (-want +got):\n%s", all, diff)
	}
	seen := map[digest.Digest]int64{}
	_, rep = check(t, open(t), r, scheme.WithDeep(), scheme.WithCheckProgress(func(in blob.Info) { seen[in.Digest] = in.Size }))
	for _, it := range []*schemetest.Item{m.shared, m.other, m.sig} {
		for _, b := range it.Blobs {
			size += int64(len(b))
		}
	}
	want.Bytes, want.Blobs = size+int64(len("nobody needs this")), 10
	if diff := cmp.Diff(want, rep); diff != "" {
		t.Errorf("deep (-want +got):\n%s", diff)
	}
	if len(seen) != 14 {
		t.Errorf("progress told of %d blobs of 14", len(seen))
	}
}

// Whatever is wrong with a blob or manifest, it is named with all tags that need it, and with who names it.
func TestCheckNamesDamage(t *testing.T) {
	type kinds struct{ shallow, deep scheme.ProblemKind }
	spoils := map[string]struct {
		do             func(t *testing.T, path string)
		blob, manifest kinds
	}{
		"deleted":   {func(t *testing.T, path string) { must(t, os.Remove(path)) }, both(scheme.ProblemMissing), both(scheme.ProblemMissing)},
		"flipped":   {func(t *testing.T, path string) { damage(t, path, damages["flipped"]) }, kinds{"", scheme.ProblemDamaged}, both(scheme.ProblemDamaged)},
		"emptied":   {func(t *testing.T, path string) { damage(t, path, damages["emptied"]) }, both(scheme.ProblemSize), both(scheme.ProblemSize)},
		"truncated": {func(t *testing.T, path string) { damage(t, path, damages["truncated"]) }, both(scheme.ProblemSize), both(scheme.ProblemSize)},
		"grown":     {func(t *testing.T, path string) { damage(t, path, damages["grown"]) }, both(scheme.ProblemSize), both(scheme.ProblemSize)},
	}
	for name, spoil := range notFiles {
		want := both(scheme.ProblemNoFile)
		if name == "a link to another" {
			want = both(scheme.ProblemSize)
		}
		spoils[name] = struct {
			do             func(t *testing.T, path string)
			blob, manifest kinds
		}{func(t *testing.T, path string) { must(t, errors.Join(os.Remove(path), spoil(path))) }, want, want}
	}
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			r := place(t.TempDir())
			m := pushMulti(t, r)
			for what, c := range map[string]struct {
				d     digest.Digest
				by    *schemetest.Item
				tags  []string
				isMan bool
			}{
				"a shared layer":         {digest.FromBytes(m.shared.Blobs[1]), m.shared, []string{"all", "one", "two"}, false},
				"a config":               {digest.FromBytes(m.other.Blobs[0]), m.other, []string{"all"}, false},
				"a signature's layer":    {digest.FromBytes(m.sig.Blobs[1]), m.sig, []string{"all", "one", "two"}, false},
				"a manifest with tags":   {m.shared.Manifest.Digest(), m.index, []string{"all", "one", "two"}, true},
				"a manifest of an index": {m.other.Manifest.Digest(), m.index, []string{"all"}, true},
				"an index":               {m.index.Manifest.Digest(), nil, []string{"all"}, true},
				"a signature":            {m.sig.Manifest.Digest(), nil, nil, true}, // what it refers to cannot be read
			} {
				path := blobFileOf(r, c.d)
				good, err := os.ReadFile(path)
				must(t, err)
				spoil.do(t, path)
				for _, deep := range []bool{false, true} {
					want, opts := spoil.blob.shallow, []scheme.CheckOption{}
					if c.isMan {
						want = spoil.manifest.shallow
					}
					if deep {
						want, opts = spoil.blob.deep, append(opts, scheme.WithDeep())
						if c.isMan {
							want = spoil.manifest.deep
						}
					}
					all, _ := check(t, open(t), r, opts...)
					all = slices.DeleteFunc(all, func(p scheme.Problem) bool { return !p.Kind.Bad() })
					if what == "an index" || what == "a manifest with tags" || what == "a manifest of an index" {
						all = slices.DeleteFunc(all, func(p scheme.Problem) bool { return p.Digest != c.d }) // what it names is not needed any more
					}
					if want == "" {
						if len(all) > 0 {
							t.Errorf("%s, deep %v: %v", what, deep, all)
						}
						continue
					}
					if len(all) != 1 {
						t.Errorf("%s, deep %v: %d problems: %v", what, deep, len(all), all)
						continue
					}
					p := all[0]
					if p.Kind != want || p.Digest != c.d || p.Path != path || p.Manifest != c.isMan || p.Want.Digest != c.d || p.Want.Size != int64(len(good)) {
						t.Errorf("%s, deep %v: %+v, want %s of %s", what, deep, p, want, path)
					}
					if diff := cmp.Diff(c.tags, p.Tags); diff != "" {
						t.Errorf("%s, deep %v: tags (-want +got):\n%s", what, deep, diff)
					}
					if c.by != nil && !slices.Contains(p.Needed, c.by.Manifest.Digest()) {
						t.Errorf("%s, deep %v: named by %v", what, deep, p.Needed)
					}
				}
				must(t, os.RemoveAll(path))
				must(t, os.WriteFile(path, good, 0o644))
			}
			if all, _ := check(t, open(t), r, scheme.WithDeep()); len(all) > 1 { // what "a link to another" led to is left
				t.Errorf("after all was put right: %v", all)
			}
		})
	}
}

func both(k scheme.ProblemKind) struct{ shallow, deep scheme.ProblemKind } {
	return struct{ shallow, deep scheme.ProblemKind }{k, k}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheckOfSwappedBlobs(t *testing.T) {
	r := place(t.TempDir())
	m := pushMulti(t, r)
	a, b := blobFileOf(r, digest.FromBytes(m.shared.Blobs[1])), blobFileOf(r, digest.FromBytes(m.other.Blobs[1]))
	must(t, errors.Join(os.Rename(a, a+"x"), os.Rename(b, a), os.Rename(a+"x", b)))
	all, _ := check(t, open(t), r, scheme.WithDeep())
	if len(all) != 2 || all[0].Kind != scheme.ProblemDamaged || all[1].Kind != scheme.ProblemDamaged {
		t.Errorf("got %v, want both blobs damaged", all)
	}
}

// Deep reads the files, whatever this process remembers of them; a bit on the disk turns without any change of times.
func TestDeepCheckTrustsNoMemory(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	d := putBlob(t, o, r, schemetest.Blob("remembered", 5000))
	path := blobFileOf(r, d.Digest)
	damage(t, path, damages["flipped"])
	id, err := statOf(t, o, r, d.Digest)
	must(t, err)
	o.mem.setVerified(id, d.Digest) // as if the change had left no trace
	if all, _ := check(t, o, r, scheme.WithDeep()); len(all) != 1 || all[0].Kind != scheme.ProblemDamaged {
		t.Errorf("got %v, want the blob damaged", all)
	}
	if _, err := o.BlobHead(t.Context(), r, d); !errors.Is(err, errs.ErrBlobUnknown) {
		t.Errorf("head after the check: %v, want ErrBlobUnknown", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the check changed something: %v", err)
	}
	if all, _ := check(t, o, r); len(all) != 1 || all[0].Kind != scheme.ProblemDamaged {
		t.Errorf("got %v, want a check that is not deep to know what was found", all)
	}
}

func statOf(t *testing.T, o *OCIDir, r ref.Ref, d digest.Digest) (fileID, error) {
	t.Helper()
	l, end, err := o.begin(t.Context(), "test", r)
	must(t, err)
	defer end()
	return l.vol.stat(mustPath(d))
}

func TestCheckRemembersGoodFiles(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	d := putBlob(t, open(t), r, schemetest.Blob("good", 5000))
	check(t, o, r, scheme.WithDeep())
	id, err := statOf(t, o, r, d.Digest)
	if err != nil || !o.mem.isVerified(id, d.Digest) {
		t.Errorf("a file that was found to be good is not known as verified (%v)", err)
	}
}
