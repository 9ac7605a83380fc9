package ocidir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

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

// A note of children that a power loss has filled with zeros says nothing, and keeps nobody from putting the index.
func TestNotesOfChildrenMayBeTorn(t *testing.T) {
	r, o := place(t.TempDir()), open(t)
	ix := schemetest.Index([]*schemetest.Item{schemetest.Image("a")})
	must(t, pushWithChildren(t, o, r.WithTag("v1"), ix))
	note := filepath.Join(r.Root, childrenName(ix.Manifest.Digest()))
	must(t, os.WriteFile(note, make([]byte, 100_000), 0o644))
	must(t, pushWithChildren(t, open(t), r.WithTag("v2"), ix))
	if _, err := collect(t, r); err != nil {
		t.Error(err)
	}
}
