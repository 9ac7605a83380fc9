package ocidir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
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

// Manifests that an index lists may have been left out. Only what was here is missed.
func TestCheckOfSparseIndexes(t *testing.T) {
	here, left := schemetest.Image("here"), schemetest.Image("left out")
	index := schemetest.Index([]*schemetest.Item{here, left})
	sparse := func(t *testing.T) (ref.Ref, *OCIDir) {
		o, r := open(t), place(t.TempDir())
		must(t, here.Push(t.Context(), o, r, scheme.WithChild()))
		_, err := o.ManifestPut(t.Context(), r.WithTag("v1"), index.Manifest, scheme.WithSparse())
		must(t, err)
		return r, o
	}
	t.Run("left out", func(t *testing.T) {
		r, _ := sparse(t)
		if all, rep := check(t, open(t), r); len(all) > 0 || rep.Sparse != 1 {
			t.Errorf("%v, %+v: what was left out is no problem", all, rep)
		}
	})
	t.Run("left out by another tool", func(t *testing.T) {
		r := handmade(t, []string{itemJSON(index, named("v1"), "")}, index)
		must(t, os.Remove(blobFileOf(r, left.Manifest.Digest())))
		if all, rep := check(t, open(t), r); len(all) > 0 || rep.Sparse != 1 {
			t.Errorf("%v, %+v: what was left out is no problem", all, rep)
		}
	})
	missing := func(t *testing.T, r ref.Ref, it *schemetest.Item) {
		t.Helper()
		all, _ := check(t, open(t), r)
		all = slices.DeleteFunc(all, func(p scheme.Problem) bool { return !p.Kind.Bad() })
		if len(all) != 1 || all[0].Kind != scheme.ProblemMissing || all[0].Digest != it.Manifest.Digest() {
			t.Errorf("got %v, want one manifest to be missing", all)
		}
	}
	t.Run("lost", func(t *testing.T) {
		r, _ := sparse(t)
		must(t, os.Remove(blobFileOf(r, here.Manifest.Digest())))
		missing(t, r, here)
	})
	t.Run("put later, and lost", func(t *testing.T) {
		r, o := sparse(t)
		must(t, left.Push(t.Context(), o, r, scheme.WithChild()))
		_, err := o.ManifestPut(t.Context(), r.WithTag("v1"), index.Manifest, scheme.WithSparse())
		must(t, err)
		must(t, os.Remove(blobFileOf(r, left.Manifest.Digest())))
		missing(t, r, left)
	})
	t.Run("in quarantine", func(t *testing.T) {
		r := handmade(t, []string{itemJSON(index, named("v1"), "")}, index)
		rot(t, blobFileOf(r, left.Manifest.Digest()), damages["flipped"])
		if _, err := open(t).ManifestGet(t.Context(), r.WithDigest(left.Manifest.Digest())); err == nil {
			t.Fatal("a damaged manifest was read")
		}
		missing(t, r, left)
	})
	t.Run("with an entry of its own", func(t *testing.T) {
		r := handmade(t, []string{itemJSON(index, named("v1"), ""), itemJSON(left, nil, "")}, index)
		must(t, os.Remove(blobFileOf(r, left.Manifest.Digest())))
		missing(t, r, left)
	})
	t.Run("deleted on purpose", func(t *testing.T) {
		r, _ := sparse(t)
		must(t, open(t).ManifestDelete(t.Context(), r.WithDigest(here.Manifest.Digest())))
		if all, rep := check(t, open(t), r); len(all) > 0 || rep.Sparse != 2 {
			t.Errorf("%v, %+v: nobody misses what was deleted", all, rep)
		}
	})
	t.Run("in an index of an index", func(t *testing.T) {
		o, r := open(t), place(t.TempDir())
		outer := schemetest.Index([]*schemetest.Item{index})
		must(t, outer.Push(t.Context(), o, r.WithTag("v1")))
		must(t, os.Remove(blobFileOf(r, left.Manifest.Digest())))
		missing(t, r, left)
	})
}

func TestNotesOfIndexesGoWithThem(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	index := schemetest.Index([]*schemetest.Item{schemetest.Image("a")})
	must(t, index.Push(t.Context(), o, r.WithTag("v1")))
	note := filepath.Join(r.Root, filepath.FromSlash(childrenName(index.Manifest.Digest())))
	_, err := o.Clean(t.Context(), r, 0)
	must(t, err)
	if _, err := os.Stat(note); err != nil {
		t.Fatalf("the note of an index that is there: %v", err)
	}
	must(t, o.BlobDelete(t.Context(), r, index.Descriptor()))
	rep, err := o.Clean(t.Context(), r, 0)
	if _, serr := os.Stat(note); err != nil || serr == nil || rep.Files == 0 {
		t.Errorf("the note of an index that is gone is still there (%v, %+v)", err, rep)
	}
}

// What a collector that died left in the trash is not lost: the next reader takes it back.
func TestCheckLooksIntoTheTrash(t *testing.T) {
	r := place(t.TempDir())
	m := pushMulti(t, r)
	for _, d := range []digest.Digest{digest.FromBytes(m.shared.Blobs[1]), m.other.Manifest.Digest()} {
		to := filepath.Join(r.Root, filepath.FromSlash(trashName(d)))
		must(t, errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.Rename(blobFileOf(r, d), to)))
	}
	if all, rep := check(t, open(t), r, scheme.WithDeep()); len(all) > 0 || rep.Manifests != 4 {
		t.Errorf("%+v, %v", rep, all)
	}
}

func TestCheckLeavesOutWhatMayBeAbsent(t *testing.T) {
	gone := schemetest.Image("gone")
	foreign := types.Descriptor{MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest: digest.FromString("elsewhere"), Size: 9}
	it := schemetest.Image("it", schemetest.Subject(gone.Descriptor()), schemetest.Layer(foreign))
	list := schemetest.Index([]*schemetest.Item{gone})
	r := handmade(t, []string{
		itemJSON(it, named("v1"), ""), itemJSON(list, named(referrer.FallbackTag(it.Manifest.Digest())), ""),
	}, it, list)
	must(t, os.Remove(blobFileOf(r, gone.Manifest.Digest())))
	all, _ := check(t, open(t), r)
	all = slices.DeleteFunc(all, func(p scheme.Problem) bool { return p.Kind == scheme.ProblemForeign })
	if len(all) > 0 {
		t.Errorf("got %v", all)
	}
}

func TestCheckOfIndexAndMarker(t *testing.T) {
	garbage := map[string]string{
		"empty": "", "no JSON": "{]", "cut": `{"schemaVersion":2,"manifests":[{"mediaType"`, "another document": `{"a":1}`,
	}
	for name, text := range garbage {
		for _, file := range []string{indexName, markerName} {
			t.Run(file+", "+name, func(t *testing.T) {
				r := place(t.TempDir())
				m := pushMulti(t, r)
				layer := digest.FromBytes(m.shared.Blobs[1])
				damage(t, blobFileOf(r, layer), damages["flipped"])
				path := filepath.Join(r.Root, file)
				must(t, os.WriteFile(path, []byte(text), 0o644))
				all, _ := check(t, open(t), r, scheme.WithDeep())
				var kinds []scheme.ProblemKind
				for _, p := range all {
					kinds = append(kinds, p.Kind)
					if p.Kind == scheme.ProblemIndex && (p.Path != path || !errors.Is(p.Err, errs.ErrCorrupt) || errs.Hint(p.Err) == "") {
						t.Errorf("got %+v, want %s to be corrupt, with a hint", p, path)
					}
					if p.Kind == scheme.ProblemIndex && (name == "no JSON" || name == "cut" && file == indexName) && !strings.Contains(p.Err.Error(), "byte ") {
						t.Errorf("%v names no position", p.Err)
					}
				}
				slices.Sort(kinds)
				if diff := cmp.Diff([]scheme.ProblemKind{scheme.ProblemDamaged, scheme.ProblemIndex}, kinds); diff != "" {
					t.Errorf("kinds (-want +got):\n%s", diff)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != text {
					t.Errorf("the check changed %s (%v)", file, err)
				}
			})
		}
	}
}

func TestCheckOfMissingIndexAndMarker(t *testing.T) {
	for _, file := range []string{indexName, markerName} {
		r := place(t.TempDir())
		pushMulti(t, r)
		must(t, os.Remove(filepath.Join(r.Root, file)))
		if all, _ := check(t, open(t), r); len(all) != 1 || all[0].Kind != scheme.ProblemIndex || filepath.Base(all[0].Path) != file {
			t.Errorf("without %s: %v", file, all)
		}
	}
	for name, dir := range map[string]string{"an empty directory": t.TempDir(), "nothing": filepath.Join(t.TempDir(), "x")} {
		if _, err := open(t).Check(t.Context(), place(dir), nil); !errors.Is(err, errs.ErrNameUnknown) {
			t.Errorf("%s: %v, want ErrNameUnknown", name, err)
		}
	}
}

func TestCheckOfEntries(t *testing.T) {
	it := schemetest.Image("it")
	d := it.Manifest.Descriptor()
	entry := func(mediaType string, dig digest.Digest, size int64) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{%q:"v1"}}`, mediaType, dig, size, types.AnnotationRefName)
	}
	for name, c := range map[string]struct {
		entry string
		path  string
	}{
		"another size":       {entry(d.MediaType, d.Digest, d.Size+1), "blobs"},
		"another media type": {entry(types.MediaTypeImageIndex, d.Digest, d.Size), "blobs"},
		"no manifest at all": {entry(d.MediaType, digest.FromBytes(it.Blobs[1]), int64(len(it.Blobs[1]))), "blobs"},
		"no digest":          {entry(d.MediaType, "sha256:xyz", d.Size), indexName},
		"a path as digest":   {entry(d.MediaType, "sha256:../../../../etc/passwd", d.Size), indexName},
	} {
		t.Run(name, func(t *testing.T) {
			r := handmade(t, []string{c.entry}, it)
			damage(t, blobFileOf(r, digest.FromBytes(it.Blobs[2])), damages["flipped"])
			all, _ := check(t, open(t), r, scheme.WithDeep())
			i := slices.IndexFunc(all, func(p scheme.Problem) bool { return p.Kind == scheme.ProblemEntry })
			if i < 0 || !strings.Contains(all[i].Path, c.path) || !slices.Equal(all[i].Tags, []string{"v1"}) {
				t.Fatalf("got %+v, want an entry with the tag v1", all)
			}
			if len(all) != 2 { // what the manifest by itself names is looked at as well
				t.Errorf("got %v, want the damaged layer, too", all)
			}
		})
	}
}

func TestCheckOfUntidiness(t *testing.T) {
	r := place(t.TempDir())
	pushMulti(t, r)
	for _, name := range []string{"blobs/x", "blobs/md5/y", "blobs/sha256/z", "blobs/sha256/" + strings.Repeat("A", 64)} {
		writeFile(t, r.Root, name, []byte("x"))
	}
	writeFile(t, r.Root, ingestDir+"/dead.tmp", []byte("x"))
	writeFile(t, r.Root, ingestDir+"/young.tmp", []byte("x"))
	rot(t, filepath.Join(r.Root, filepath.FromSlash(ingestDir), "dead.tmp"), damages["zeroed"])
	writeFile(t, r.Root, quarantineDir+"/sha256-"+strings.Repeat("a", 64)+"-1", []byte("x"))
	all, _ := check(t, open(t), r)
	got := map[string]scheme.ProblemKind{}
	for _, p := range all {
		rel, err := filepath.Rel(r.Root, p.Path)
		must(t, err)
		got[filepath.ToSlash(rel)] = p.Kind
		if p.Kind.Bad() {
			t.Errorf("%s is called bad", p.Path)
		}
	}
	want := map[string]scheme.ProblemKind{
		"blobs/x": scheme.ProblemForeign, "blobs/md5": scheme.ProblemForeign, "blobs/sha256/z": scheme.ProblemForeign,
		"blobs/sha256/" + strings.Repeat("A", 64):                   scheme.ProblemForeign,
		ingestDir + "/dead.tmp":                                     scheme.ProblemAbandoned,
		quarantineDir + "/sha256-" + strings.Repeat("a", 64) + "-1": scheme.ProblemAbandoned,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(r.Root, filepath.FromSlash(ingestDir), "dead.tmp")); err != nil {
		t.Errorf("the check changed something: %v", err)
	}
}

func TestCheckOfOneTag(t *testing.T) {
	r := place(t.TempDir())
	m := pushMulti(t, r)
	damage(t, blobFileOf(r, digest.FromBytes(m.other.Blobs[0])), damages["emptied"])
	for at, want := range map[ref.Ref]int{r: 1, r.WithTag("all"): 1, r.WithTag("one"): 0, r.WithDigest(m.other.Manifest.Digest()): 1, r.WithDigest(digest.FromString("none")): -1, r.WithDigest(m.index.Manifest.Digest()): 1} {
		n := 0
		_, err := open(t).Check(t.Context(), at, func(scheme.Problem) error { n++; return nil })
		if want < 0 {
			if !errors.Is(err, errs.ErrManifestUnknown) {
				t.Errorf("%s: %v", at, err)
			}
			continue
		}
		if err != nil || n != want {
			t.Errorf("%s: %d problems, %v, want %d", at, n, err, want)
		}
	}
	if _, err := open(t).Check(t.Context(), r.WithTag("none"), nil); !errors.Is(err, errs.ErrManifestUnknown) {
		t.Errorf("a tag that is not there: %v", err)
	}
}

func TestCheckEndsWithItsCaller(t *testing.T) {
	r := place(t.TempDir())
	m := pushMulti(t, r)
	for _, b := range m.shared.Blobs {
		must(t, os.Remove(blobFileOf(r, digest.FromBytes(b))))
	}
	boom, n := errors.New("boom"), 0
	rep, err := open(t).Check(t.Context(), r, func(scheme.Problem) error { n++; return boom })
	if err != boom || n != 1 || rep.Problems != 1 {
		t.Errorf("got %v after %d calls, %+v", err, n, rep)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = open(t).Check(ctx, r, nil, scheme.WithDeep(), scheme.WithCheckProgress(func(blob.Info) { cancel() }))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after the context ended: %v", err)
	}
}

// What is deleted while Check runs is not missing.
func TestCheckWhileOthersDelete(t *testing.T) {
	r := place(t.TempDir())
	m := pushMulti(t, r)
	other, once := open(t), false
	all := []scheme.Problem{}
	_, err := open(t).Check(t.Context(), r, func(p scheme.Problem) error { all = append(all, p); return nil },
		scheme.WithCheckProgress(func(blob.Info) {
			if once {
				return
			}
			once = true
			for _, it := range []*schemetest.Item{m.index, m.other} {
				if err := other.ManifestDelete(context.Background(), r.WithDigest(it.Manifest.Digest())); err != nil {
					t.Error(err)
				}
			}
			for _, b := range m.other.Blobs {
				if err := other.BlobDelete(context.Background(), r, types.Descriptor{Digest: digest.FromBytes(b)}); err != nil {
					t.Error(err)
				}
			}
		}))
	if err != nil || len(all) > 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// However a graph is made, each manifest is read once.
func TestCheckOfHostileGraphs(t *testing.T) {
	leaf := schemetest.Image("leaf")
	level := []*schemetest.Item{leaf}
	items := []*schemetest.Item{leaf}
	for i := range 200 { // each index lists the next one many times
		var kids []*schemetest.Item
		for range 50 {
			kids = append(kids, level...)
		}
		next := schemetest.Index(kids, schemetest.Annotation("level", fmt.Sprint(i)))
		next.Children = nil
		level = []*schemetest.Item{next}
		items = append(items, next)
	}
	r := handmade(t, []string{itemJSON(level[0], named("deep"), "")}, items...)
	must(t, os.Remove(blobFileOf(r, digest.FromBytes(leaf.Blobs[1]))))
	all, rep := check(t, open(t), r)
	if rep.Manifests != 201 || len(all) != 1 || !slices.Equal(all[0].Tags, []string{"deep"}) || len(all[0].Needed) != 1 {
		t.Errorf("%+v, %v", rep, all)
	}

	doc := map[string]any{"schemaVersion": 2, "mediaType": types.MediaTypeImageIndex}
	var kids []types.Descriptor
	for i := range 10_000 {
		kids = append(kids, types.Descriptor{MediaType: types.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Size: 1})
	}
	doc["manifests"] = kids
	raw, err := json.Marshal(doc)
	must(t, err)
	r = place(t.TempDir())
	writeFile(t, r.Root, markerName, []byte(markerText))
	writeFile(t, r.Root, "blobs/sha256/"+digest.FromBytes(raw).Encoded(), raw)
	writeFile(t, r.Root, indexName, []byte(indexJSON(fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, types.MediaTypeImageIndex, digest.FromBytes(raw), len(raw)))))
	if all, rep := check(t, open(t), r); len(all) > 0 || rep.Sparse != 10_000 {
		t.Errorf("%+v, %v", rep, all)
	}
}

func BenchmarkDeepCheck(b *testing.B) {
	o, r := open(b, WithDurability(None)), place(b.TempDir())
	var total int64
	for i := range 16 {
		data := schemetest.Blob(fmt.Sprint(i), 16<<20)
		if _, err := o.BlobPut(b.Context(), r, types.Descriptor{}, bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		total += int64(len(data))
	}
	b.SetBytes(total)
	for b.Loop() {
		rep, err := o.Check(b.Context(), r, nil, scheme.WithDeep())
		if err != nil || rep.Bytes != total {
			b.Fatal(rep, err)
		}
	}
}

// Check may run at any time: what others put, move, delete and collect meanwhile is no problem.
func TestCheckWhileOthersWrite(t *testing.T) {
	r := place(t.TempDir())
	pushMulti(t, r)
	var writers, others sync.WaitGroup
	done := make(chan struct{})
	for w := range 3 {
		writers.Go(func() {
			o := open(t)
			for i := range 8 {
				a, b := schemetest.Image(fmt.Sprint(w, i)), schemetest.Image(fmt.Sprint(w, i, "b"))
				index := schemetest.Index([]*schemetest.Item{a, b})
				if err := index.Push(context.Background(), o, r.WithTag(fmt.Sprint("moves", w))); err != nil {
					t.Error(err)
				}
				var err error
				switch i % 3 {
				case 0:
					err = o.TagDelete(context.Background(), r.WithTag(fmt.Sprint("moves", w)))
				case 1:
					err = o.ManifestDelete(context.Background(), r.WithDigest(index.Manifest.Digest()))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	others.Go(func() {
		o := open(t)
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := o.Collect(context.Background(), r, scheme.WithGrace(0), scheme.WithUntagged()); err != nil {
				t.Error(err)
			}
		}
	})
	for _, opts := range [][]scheme.CheckOption{nil, {scheme.WithDeep()}} {
		others.Go(func() {
			for {
				_, err := open(t).Check(context.Background(), r, func(p scheme.Problem) error {
					if p.Kind.Bad() {
						t.Errorf("%s %s, named by %v, for %v: %v", p.Kind, p.Digest, p.Needed, p.Tags, p.Err)
					}
					return nil
				}, opts...)
				if err != nil {
					t.Error(err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	close(done)
	others.Wait()
}
