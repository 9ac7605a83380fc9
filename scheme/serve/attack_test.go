package serve_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// secret is the content of what lies around the served tree.
const secret = "nobody may read this"

// fort is a served tree with things around it that no request may reach: the directory above it is a layout itself, and
// so is its sibling.
type fort struct {
	*wire
	outer string
}

// besiege serves a tree and runs fn, after which nothing around the tree may have changed, and nothing in it but what fn
// says that it pushed.
func besiege(t *testing.T, fn func(f fort), opts ...serve.Option) {
	t.Helper()
	outer := t.TempDir()
	f := fort{outer: outer}
	for _, dir := range []string{".", "sibling"} {
		f.layout(t, filepath.Join(outer, dir))
	}
	f.write(t, filepath.Join(outer, "secret"), secret)
	store := ocidir.New(ocidir.WithDurability(ocidir.None))
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	root := filepath.Join(outer, "tree")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	f.wire = serving(t, store, ref.Ref{Scheme: ref.SchemeOCIDir, Root: root}, opts...)
	f.secrets = append(f.secrets, outer, secret)
	s := newSet()
	s.image(nil, "v1")
	f.pushBlobs("good", s)
	f.putManifest("good", s, s.manifests[0])
	before := f.files(t)
	fn(f)
	after := f.files(t)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if was, ok := before[name]; !ok {
			t.Errorf("%q was created", name)
		} else if was != after[name] {
			t.Errorf("%q was changed to %.100q", name, after[name])
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			t.Errorf("%q was removed", name)
		}
	}
}

// layout makes an image layout with one image under the tag v1.
func (f fort) layout(t *testing.T, dir string) {
	t.Helper()
	raw := imageDoc(v1.MediaTypeImageManifest, `,"annotations":{"a":"`+secret+`"}`)
	for _, text := range []string{raw, "{}", secret} {
		f.write(t, filepath.Join(dir, "blobs", "sha256", digest.FromString(text).Encoded()), text)
	}
	f.write(t, filepath.Join(dir, "oci-layout"), `{"imageLayoutVersion":"1.0.0"}`)
	f.write(t, filepath.Join(dir, "index.json"), fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}`,
		v1.MediaTypeImageManifest, digest.FromString(raw), len(raw)))
}

func (f fort) write(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// files are all files and links, with their content. What a store keeps for itself, and directories alone, do not count.
func (f fort) files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(f.outer, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(f.outer, path)
		switch {
		case err != nil:
			return err
		case e.IsDir() && e.Name() == ".ocisync" && strings.HasPrefix(name, "tree"+string(filepath.Separator)):
			return filepath.SkipDir
		case e.IsDir() && strings.HasPrefix(name, "tree"):
			return nil
		case e.IsDir():
			all[name] = ""
			return nil
		}
		if all[name], err = os.Readlink(path); err == nil {
			return nil
		}
		raw, err := os.ReadFile(path)
		all[name] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// refused checks that a request has no success, whatever its method, and is answered in the specification's words.
func (w *wire) refused(target string) {
	w.t.Helper()
	d := digest.FromString("x").String()
	for _, method := range []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"} {
		a := w.ask(method, target, "x", "Content-Type: "+v1.MediaTypeImageManifest)
		if a.res.StatusCode < 400 {
			w.t.Errorf("%s is answered with %s", a.asked, a.res.Status)
		}
		if method == "PUT" || method == "POST" {
			if a := w.ask(method, with(target, "digest="+d), "x"); a.res.StatusCode < 400 {
				w.t.Errorf("%s is answered with %s", a.asked, a.res.Status)
			}
		}
	}
}
