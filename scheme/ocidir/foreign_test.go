package ocidir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/testdata"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

func writeFile(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// handmade writes a layout as other tools do: the blobs of items and all below them, and the entries given.
func handmade(t *testing.T, entries []string, items ...*schemetest.Item) ref.Ref {
	t.Helper()
	dir := t.TempDir()
	var put func(it *schemetest.Item)
	put = func(it *schemetest.Item) {
		for _, b := range append(slices.Clone(it.Blobs), it.Manifest.Raw()) {
			writeFile(t, dir, "blobs/sha256/"+digest.FromBytes(b).Encoded(), b)
		}
		for _, c := range it.Children {
			put(c)
		}
	}
	for _, it := range items {
		put(it)
	}
	writeFile(t, dir, markerName, []byte("{\n  \"imageLayoutVersion\": \"1.0.0\"\n}\n"))
	writeFile(t, dir, indexName, []byte(indexJSON(entries...)))
	return place(dir)
}

func itemJSON(it *schemetest.Item, annotations map[string]string, more string) string {
	d := it.Manifest.Descriptor()
	notes, err := json.Marshal(annotations)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":%s%s}`, d.MediaType, d.Digest, d.Size, notes, more)
}

func named(name string) map[string]string { return map[string]string{types.AnnotationRefName: name} }

func tagsOf(t *testing.T, o *OCIDir, r ref.Ref) []string {
	t.Helper()
	l, err := o.TagList(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return l.Tags
}

func TestLayoutsOfOtherTools(t *testing.T) {
	a, b := schemetest.Image("a"), schemetest.Image("b")
	multi := schemetest.Index([]*schemetest.Item{a, b})
	sig := schemetest.Image("sig", schemetest.Subject(a.Descriptor()), schemetest.ArtifactType("application/x-sig"))
	stranger := schemetest.Image("stranger", schemetest.Subject(b.Descriptor()))
	list, err := referrer.Index([]types.Descriptor{sig.Descriptor(), stranger.Descriptor(), desc("absent")})
	if err != nil {
		t.Fatal(err)
	}
	fallback := &schemetest.Item{Manifest: mustManifest(t, list)}
	platform := `,"platform":{"architecture":"amd64","os":"linux"}`
	tests := map[string]struct {
		r         ref.Ref
		tags      []string
		referrers []digest.Digest // of a
		untagged  []*schemetest.Item
	}{
		"skopeo appends": {
			r:    handmade(t, []string{itemJSON(b, named("v1"), ""), itemJSON(a, named("v1"), platform)}, a, b),
			tags: []string{"v1"},
		},
		"containerd and nerdctl name in full": {
			r:    handmade(t, []string{itemJSON(a, map[string]string{types.AnnotationRefName: "v1", types.AnnotationImageName: "docker.io/library/a:v1"}, "")}, a),
			tags: []string{"v1"},
		},
		"regclient, with a full name and a fallback tag": {
			r: handmade(t, []string{
				itemJSON(a, map[string]string{types.AnnotationRefName: "ghcr.io/x/a:v1", "org.opencontainers.image.created": "2024"}, ""),
				itemJSON(fallback, named(referrer.FallbackTag(a.Manifest.Digest())), ""),
			}, a, b, sig, stranger, fallback),
			tags:      []string{"v1"},
			referrers: []digest.Digest{sig.Manifest.Digest()},
		},
		"oras lists everything": {
			r:         handmade(t, []string{itemJSON(sig, nil, `,"artifactType":"application/x-sig"`), itemJSON(a, named("v1"), ""), itemJSON(b, nil, "")}, a, b, sig),
			tags:      []string{"v1"},
			referrers: []digest.Digest{sig.Manifest.Digest()},
			untagged:  []*schemetest.Item{b, sig},
		},
		"crane and buildx list an index": {
			r:        handmade(t, []string{itemJSON(multi, nil, ""), itemJSON(a, named("v1"), "")}, multi),
			tags:     []string{"v1"},
			untagged: []*schemetest.Item{multi, b},
		},
		"umoci tags an index": {
			r:        handmade(t, []string{itemJSON(multi, named("all"), ""), itemJSON(a, named("v1"), platform)}, multi),
			tags:     []string{"all", "v1"},
			untagged: []*schemetest.Item{b},
		},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			o := open(t)
			if diff := cmp.Diff(c.tags, tagsOf(t, o, c.r)); diff != "" {
				t.Errorf("tags (-want +got):\n%s", diff)
			}
			m, err := o.ManifestGet(t.Context(), c.r.WithTag("v1"))
			if err != nil || m.Digest() != a.Manifest.Digest() {
				t.Errorf("v1: got %v, %v", m, err)
			}
			for _, it := range append(c.untagged, a) {
				d, err := o.ManifestHead(t.Context(), c.r.WithDigest(it.Manifest.Digest()))
				if diff := cmp.Diff(it.Descriptor(), d); err != nil || diff != "" {
					t.Errorf("by digest: %v (-want +got):\n%s", err, diff)
				}
			}
			l, err := o.ReferrerList(t.Context(), c.r.WithTag("v1"))
			var got []digest.Digest
			for _, d := range l.Descriptors {
				got = append(got, d.Digest)
			}
			if diff := cmp.Diff(c.referrers, got); err != nil || diff != "" {
				t.Errorf("referrers: %v (-want +got):\n%s", err, diff)
			}
			if _, err := os.Stat(filepath.Join(c.r.Root, stateDir)); err == nil {
				t.Error("reading made .ocisync")
			}
			if err := b.Push(t.Context(), o, c.r.WithTag("new")); err != nil {
				t.Fatal(err)
			}
			if got := tagsOf(t, open(t), c.r); !slices.Contains(got, "new") || len(got) != len(c.tags)+1 {
				t.Errorf("after a put the tags are %q", got)
			}
		})
	}
}

func TestDemoLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	if err := os.CopyFS(dir, testdata.Demo()); err != nil {
		t.Fatal(err)
	}
	o, r := open(t), place(dir)
	tags := tagsOf(t, o, r)
	if !slices.Contains(tags, "1.0") || !slices.Contains(tags, "latest") {
		t.Errorf("the tags are %q", tags)
	}
	l, err := o.ReferrerList(t.Context(), r.WithTag("latest"))
	if err != nil || len(l.Descriptors) == 0 {
		t.Errorf("the referrers are %v, %v", l.Descriptors, err)
	}
	m, err := o.ManifestGet(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.View()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range v.Manifests {
		if _, err := o.ManifestGet(t.Context(), r.WithDigest(d.Digest), scheme.WithExpected(d)); err != nil {
			t.Errorf("a platform: %v", err)
		}
	}
	valid(t, r)
}

func TestBrokenFilesAreRefusedAndLeftAlone(t *testing.T) {
	it := schemetest.Image("a")
	for name, c := range map[string]struct {
		file, text string
		kind       error
	}{
		"an empty index":             {indexName, "", errs.ErrCorrupt},
		"a torn index":               {indexName, `{"schemaVersion":2,"manifests":[{"media`, errs.ErrCorrupt},
		"garbage for an index":       {indexName, "\x00\x00\x00", errs.ErrCorrupt},
		"an empty oci-layout":        {markerName, "", errs.ErrCorrupt},
		"garbage for an oci-layout":  {markerName, "1.0.0", errs.ErrCorrupt},
		"an oci-layout of version 2": {markerName, `{"imageLayoutVersion":"2.0.0"}`, errs.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := handmade(t, []string{itemJSON(it, named("v1"), "")}, it)
			writeFile(t, r.Root, c.file, []byte(c.text))
			o := open(t)
			for op, do := range map[string]func() error{
				"head":   func() error { _, err := o.ManifestHead(t.Context(), r.WithTag("v1")); return err },
				"list":   func() error { _, err := o.TagList(t.Context(), r); return err },
				"ping":   func() error { _, err := o.Ping(t.Context(), r); return err },
				"put":    func() error { _, err := o.ManifestPut(t.Context(), r.WithTag("v2"), it.Manifest); return err },
				"delete": func() error { return o.TagDelete(t.Context(), r.WithTag("v1")) },
			} {
				err := do()
				if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), filepath.Join(r.Root, c.file)) {
					t.Errorf("%s: got %v, want %v that names the file", op, err, c.kind)
				}
				if c.kind == errs.ErrCorrupt && errs.Hint(err) == "" {
					t.Errorf("%s: no hint says what to do", op)
				}
			}
			got, err := os.ReadFile(filepath.Join(r.Root, c.file))
			if err != nil || string(got) != c.text {
				t.Errorf("the file was changed to %q, %v", got, err)
			}
		})
	}
}

func TestMissingIndex(t *testing.T) {
	it := schemetest.Image("a")
	r := handmade(t, nil, it)
	index := filepath.Join(r.Root, indexName)
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	o := open(t)
	if _, err := o.TagList(t.Context(), r); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("with blobs: got %v, want ErrCorrupt", err)
	}
	if err := it.Push(t.Context(), o, r.WithTag("v1")); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("a put: got %v, want ErrCorrupt", err)
	}
	if _, err := os.Stat(index); err == nil {
		t.Error("a put made a new index")
	}
	fresh := place(t.TempDir())
	writeFile(t, fresh.Root, markerName, []byte(markerText))
	if tags := tagsOf(t, o, fresh); len(tags) > 0 {
		t.Errorf("a fresh layout of another tool: the tags are %q", tags)
	}
	if err := it.Push(t.Context(), o, fresh.WithTag("v1")); err != nil {
		t.Errorf("a put into it: %v", err)
	}
	if tags := valid(t, fresh); len(tags) != 1 {
		t.Errorf("after it: the tags are %q", tags)
	}
}

func TestTornFileIsReadAgain(t *testing.T) {
	it := schemetest.Image("a")
	for _, file := range []string{indexName, markerName} {
		t.Run(file, func(t *testing.T) {
			r := handmade(t, []string{itemJSON(it, named("v1"), "")}, it)
			path := filepath.Join(r.Root, file)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, whole[:len(whole)/2], 0o644); err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() {
				time.Sleep(30 * time.Millisecond)
				done <- os.WriteFile(path, whole, 0o644)
			}()
			if tags := tagsOf(t, open(t), r); len(tags) != 1 {
				t.Errorf("the tags are %q", tags)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, whole[:len(whole)/2], 0o644); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if _, err := open(t).TagList(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the context's error before anything else", err)
			}
		})
	}
}

func TestChangesOfOthersAreSeen(t *testing.T) {
	a, b := schemetest.Opaque("a"), schemetest.Opaque("b")
	r := handmade(t, []string{itemJSON(a, named("v1"), "")}, a, b)
	o := open(t)
	head := func() digest.Digest {
		d, err := o.ManifestHead(t.Context(), r.WithTag("v1"))
		if err != nil {
			t.Fatal(err)
		}
		return d.Digest
	}
	texts := [][]byte{[]byte(indexJSON(itemJSON(a, named("v1"), ""))), []byte(indexJSON(itemJSON(b, named("v1"), "")))}
	if len(texts[0]) != len(texts[1]) {
		t.Fatal("the two must have one size, or the size gives them away")
	}
	for i := range 40 { // twice for every inode number that comes back
		path := filepath.Join(r.Root, indexName)
		if err := os.WriteFile(path+".new", texts[i%2], 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		if got, want := head(), []*schemetest.Item{a, b}[i%2].Manifest.Digest(); got != want {
			t.Fatalf("after change %d the tag is still %s", i, got)
		}
	}
}

// A program that takes no lock replaces the index between our reading it and our replacing it.
func TestForeignWriterBetweenReadAndRename(t *testing.T) {
	s := &steps{}
	a := schemetest.Opaque("a")
	r := handmade(t, []string{itemJSON(a, named("v1"), "")}, a)
	o := open(t, withHook(s.hook))
	done := false
	s.set(func(step, name string) error {
		if step == stepWrite && !done && strings.HasPrefix(name, ingestDir) {
			if raw, err := os.ReadFile(filepath.Join(r.Root, indexName)); err != nil || strings.Contains(string(raw), "theirs") {
				return err
			}
			done = true
			writeFile(t, r.Root, "index.new", []byte(indexJSON(itemJSON(a, named("v1"), ""), itemJSON(a, named("theirs"), ""))))
			return os.Rename(filepath.Join(r.Root, "index.new"), filepath.Join(r.Root, indexName))
		}
		return nil
	})
	if _, err := o.ManifestPut(t.Context(), r.WithTag("ours"), a.Manifest); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ours", "theirs", "v1"}, tagsOf(t, open(t), r)); diff != "" || !done {
		t.Errorf("%v, tags (-want +got):\n%s", done, diff)
	}
}

func TestLinksDoNotLeadOut(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege on Windows")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, filepath.Dir(secret), "secret", []byte("secret"))
	r := handmade(t, nil)
	d := types.Descriptor{Digest: digest.FromString("secret")}
	writeFile(t, r.Root, "blobs/sha256/x", nil)
	if err := os.Symlink(secret, filepath.Join(r.Root, "blobs", "sha256", d.Digest.Encoded())); err != nil {
		t.Fatal(err)
	}
	o := open(t)
	if rdr, err := o.BlobGet(t.Context(), r, d); err == nil {
		rdr.Close()
		t.Error("a blob was read through a link out of the layout")
	}
	if _, err := o.BlobHead(t.Context(), r, d); err == nil {
		t.Error("a blob was found through a link out of the layout")
	}
	outside := t.TempDir()
	if err := os.RemoveAll(filepath.Join(r.Root, blobsDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(r.Root, blobsDir)); err != nil {
		t.Fatal(err)
	}
	if err := schemetest.Image("a").Push(t.Context(), o, r.WithTag("v1")); err == nil {
		t.Error("a put went through a link out of the layout")
	}
	if files, err := os.ReadDir(outside); err != nil || len(files) > 0 {
		t.Errorf("outside of the layout there is %v, %v", files, err)
	}
}

func TestEntriesTakeNothingFromTheManifest(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	it := schemetest.Image("evil", schemetest.Annotation(types.AnnotationRefName, "stolen"), schemetest.Annotation("big", strings.Repeat("x", 1000)))
	if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(r.Root, indexName))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Manifests []map[string]json.RawMessage }
	if err := json.Unmarshal(raw, &doc); err != nil || len(doc.Manifests) != 1 {
		t.Fatalf("%v: %s", err, raw)
	}
	keys := slices.Sorted(maps.Keys(doc.Manifests[0]))
	if diff := cmp.Diff([]string{"annotations", "digest", "mediaType", "size"}, keys); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if got := string(doc.Manifests[0]["annotations"]); got != `{"org.opencontainers.image.ref.name":"v1"}` {
		t.Errorf("the annotations are %s", got)
	}
}

func TestPlainLayerInAnIndexIsNoManifest(t *testing.T) {
	layer := schemetest.Blob("layer", 100)
	d := types.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Digest: digest.FromBytes(layer), Size: 100}
	cache := schemetest.Index(nil, func(doc *schemetest.Doc) { doc.Manifests = append(doc.Manifests, d) })
	r := handmade(t, []string{itemJSON(cache, named("cache"), "")}, cache)
	writeFile(t, r.Root, "blobs/sha256/"+d.Digest.Encoded(), layer)
	if _, err := open(t).ManifestHead(t.Context(), r.WithDigest(d.Digest)); !errors.Is(err, errs.ErrManifestUnknown) {
		t.Errorf("got %v, want ErrManifestUnknown", err)
	}
}

func mustManifest(t *testing.T, raw []byte) *manifest.Manifest {
	t.Helper()
	m, err := manifest.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A manifest was put, and not deleted, when the index that listed it is.
func TestChildrenOutliveTheirIndex(t *testing.T) {
	a, b := schemetest.Image("a"), schemetest.Image("b")
	inner := schemetest.Index([]*schemetest.Item{b})
	outer := schemetest.Index([]*schemetest.Item{a, inner})
	r := handmade(t, []string{itemJSON(outer, named("v1"), "")}, outer)
	o := open(t)
	if err := o.ManifestDelete(t.Context(), r.WithDigest(outer.Manifest.Digest())); err != nil {
		t.Fatal(err)
	}
	for _, api := range []*OCIDir{o, open(t)} {
		for _, it := range []*schemetest.Item{a, b, inner} {
			if d, err := api.ManifestHead(t.Context(), r.WithDigest(it.Manifest.Digest())); err != nil || d.MediaType != it.Manifest.MediaType() {
				t.Errorf("a child: %v, %v", d, err)
			}
		}
		if tags := tagsOf(t, api, r); len(tags) > 0 {
			t.Errorf("the tags are %q", tags)
		}
	}
}
