package accept_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/umoci/oci/cas/dir"
	"github.com/opencontainers/umoci/oci/casext"
	"github.com/regclient/regclient"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"

	"github.com/ocisync/ocisync/scheme"
)

// writers are other projects' libraries that write layouts: each puts the image it under tag into the layout dir, which
// may be there already.
var writers = []struct {
	name  string
	write func(t *testing.T, dir string, it *item, tag string)
}{
	{"go-containerregistry", writeGGCR},
	{"oras-go", writeOras},
	{"regclient", writeRegclient},
	{"umoci", writeUmoci},
}

func TestLayoutsOfOthersAreReadExtendedAndStillRead(t *testing.T) {
	for _, w := range writers {
		t.Run(w.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "layout")
			theirs, more := image(t, "theirs", "amd64", digest.SHA256), image(t, "more", "amd64", digest.SHA256)
			w.write(t, dir, theirs, "theirs")
			addUnknown(t, dir)
			before := rawEntries(t, dir)

			// Ours reads it and extends it.
			api := open(t)
			r := place(dir)
			hasTags(t, api, dir, map[string]*item{"theirs": theirs})
			multi := index(t, "ours", digest.SHA256)
			sbom := artifact(t, "application/vnd.example.sbom", "sbom of theirs", theirs, digest.SHA256)
			push(t, api, r, multi, "ours")
			push(t, api, r, sbom)
			after := rawEntries(t, dir)
			for tag, entry := range before {
				if !reflect.DeepEqual(entry, after[tag]) {
					t.Errorf("the entry of %q was\n%v, is\n%v", tag, entry, after[tag])
				}
			}
			if !strings.Contains(string(file(t, dir, "index.json")), `"x-of-somebody"`) {
				t.Error("a field of the index that nobody knows is lost")
			}

			// They still read it, and go on writing.
			l := layoutOf{dir: dir, subject: theirs.desc, referrers: []digest.Digest{sbom.desc.Digest}, count: len(blobFiles(t, dir))}
			l.tags = map[string]digest.Digest{"theirs": theirs.desc.Digest, "ours": multi.desc.Digest}
			for _, j := range judges {
				t.Run("judged by "+j.name, func(t *testing.T) { j.judge(t, l) })
			}
			w.write(t, dir, more, "more")
			w.write(t, dir, more, "theirs") // the tag moves

			// And ours reads what became of it, with what it knows from before and without.
			for _, api := range []scheme.API{api, open(t)} {
				hasTags(t, api, dir, map[string]*item{"theirs": more, "ours": multi, "more": more})
				list, err := api.ReferrerList(t.Context(), r.WithDigest(theirs.desc.Digest))
				if err != nil || len(list.Descriptors) != 1 || list.Descriptors[0].Digest != sbom.desc.Digest {
					t.Errorf("the referrers are %v, %v", list.Descriptors, err)
				}
			}
			unharmed(t, dir)
		})
	}
}

// hasTags checks that the layout has exactly these tags, whole.
func hasTags(t *testing.T, api scheme.API, dir string, want map[string]*item) {
	t.Helper()
	list, err := api.TagList(t.Context(), place(dir))
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Tags) != len(want) {
		t.Errorf("the tags are %v", list.Tags)
	}
	for tag, it := range want {
		m, err := api.ManifestGet(t.Context(), place(dir).WithTag(tag))
		if err != nil || !bytes.Equal(m.Raw(), it.raw) {
			t.Errorf("%s: %v, or something else than what was put", tag, err)
		}
		for d := range it.blobs {
			if got := d.Algorithm().FromBytes(blobOf(t, dir, d)); got != d {
				t.Errorf("%s: the blob %s is %s", tag, d, got)
			}
		}
	}
}

// unharmed lets ours look at every byte: nothing may be missing or damaged. That they dropped the entry from which they
// moved a tag is told, and nothing bad.
func unharmed(t *testing.T, dir string) {
	t.Helper()
	checker, ok := open(t).(scheme.Checker)
	if !ok {
		t.Fatal("a directory cannot be checked")
	}
	report, err := checker.Check(t.Context(), place(dir), func(p scheme.Problem) error {
		if p.Kind.Bad() {
			t.Errorf("%s %s: %v", p.Kind, p.Digest, p.Err)
		}
		return nil
	}, scheme.WithDeep())
	if err != nil || report.Manifests == 0 || report.Blobs == 0 {
		t.Errorf("checked %+v, %v", report, err)
	}
}

// addUnknown adds a field that no tool knows to the index, and one to each of its entries.
func addUnknown(t *testing.T, dir string) {
	t.Helper()
	var idx map[string]any
	if err := json.Unmarshal(file(t, dir, "index.json"), &idx); err != nil {
		t.Fatal(err)
	}
	idx["x-of-somebody"] = map[string]any{"kept": []any{1, "two"}}
	for _, e := range idx["manifests"].([]any) {
		e.(map[string]any)["x-of-an-entry"] = "kept, too"
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), marshal(t, idx), 0o644); err != nil {
		t.Fatal(err)
	}
}

// rawEntries returns the entries of the index by tag, with all their fields.
func rawEntries(t *testing.T, dir string) map[string]map[string]any {
	t.Helper()
	var idx struct{ Manifests []map[string]any }
	if err := json.Unmarshal(file(t, dir, "index.json"), &idx); err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]any{}
	for _, e := range idx.Manifests {
		annotations, _ := e["annotations"].(map[string]any)
		if tag, _ := annotations[ocispec.AnnotationRefName].(string); tag != "" {
			all[tag] = e
		}
	}
	if len(all) == 0 {
		t.Fatal("there are no entries")
	}
	return all
}

func writeOras(t *testing.T, dir string, it *item, tag string) {
	store, err := oci.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	src := scratch(t, it, tag)
	from, err := oci.NewFromFS(t.Context(), os.DirFS(src))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := oras.Copy(t.Context(), from, tag, store, tag, oras.DefaultCopyOptions); err != nil || d.Digest != it.desc.Digest {
		t.Fatalf("%s, %v", d.Digest, err)
	}
}

func writeRegclient(t *testing.T, dir string, it *item, tag string) {
	if err := regclient.New().ImageCopy(t.Context(), rcRef(t, scratch(t, it, tag)).SetTag(tag), rcRef(t, dir).SetTag(tag)); err != nil {
		t.Fatal(err)
	}
}

func writeUmoci(t *testing.T, path string, it *item, tag string) {
	if _, err := os.Stat(path); err != nil {
		if err := dir.Create(path); err != nil {
			t.Fatal(err)
		}
	}
	engine, err := dir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, data := range append(slices.Collect(maps.Values(it.blobs)), it.raw) {
		if _, _, err := engine.PutBlob(t.Context(), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := casext.NewEngine(engine).UpdateReference(t.Context(), tag, it.desc); err != nil {
		t.Fatal(err)
	}
}

func writeGGCR(t *testing.T, dir string, it *item, tag string) {
	p, err := layout.FromPath(dir)
	if err != nil {
		if p, err = layout.Write(dir, empty.Index); err != nil {
			t.Fatal(err)
		}
	}
	src, err := layout.FromPath(scratch(t, it, tag))
	if err != nil {
		t.Fatal(err)
	}
	h, err := v1.NewHash(it.desc.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	img, err := src.Image(h)
	if err != nil {
		t.Fatal(err)
	}
	named := func(d v1.Descriptor) bool { return d.Annotations[ocispec.AnnotationRefName] == tag }
	err = p.ReplaceImage(img, named, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: tag}))
	if err != nil {
		t.Fatal(err)
	}
}

// scratch is a layout of ours with one image: where the others' libraries get it from.
func scratch(t *testing.T, it *item, tag string) string {
	t.Helper()
	dir := t.TempDir()
	push(t, open(t), place(dir), it, tag)
	return dir
}
