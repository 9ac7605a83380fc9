package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

func desc(mt, content string) types.Descriptor {
	return types.Descriptor{MediaType: mt, Digest: digest.FromString(content), Size: int64(len(content))}
}

func must(t *testing.T, raw string, opts ...manifest.Option) *manifest.Manifest {
	t.Helper()
	m, err := manifest.New([]byte(raw), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func doc(t *testing.T, fields map[string]any) string {
	t.Helper()
	b, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestViewOfEveryUnderstoodType(t *testing.T) {
	cfg, layer, child, subject := desc(types.MediaTypeImageConfig, "c"), desc("x/layer", "l"), desc(types.MediaTypeImageManifest, "m"), desc(types.MediaTypeImageManifest, "s")
	for _, mt := range []string{types.MediaTypeImageManifest, types.MediaTypeDockerManifest} {
		v, err := must(t, doc(t, map[string]any{"mediaType": mt, "config": cfg, "layers": []any{layer, layer}, "subject": subject, "annotations": map[string]string{"a": "b"}})).View()
		if err != nil {
			t.Fatal(err)
		}
		if !v.Known || v.Config.Digest != cfg.Digest || len(v.Children()) != 3 || v.Subject.Digest != subject.Digest || v.Annotations["a"] != "b" {
			t.Errorf("%s: %+v", mt, v)
		}
		if v.ArtifactType != types.MediaTypeImageConfig {
			t.Errorf("artifactType must fall back to the config's media type, got %q", v.ArtifactType)
		}
	}
	for _, mt := range []string{types.MediaTypeImageIndex, types.MediaTypeDockerManifestList} {
		m := must(t, doc(t, map[string]any{"mediaType": mt, "manifests": []any{child}}))
		v, err := m.View()
		if err != nil || !m.IsIndex() || len(v.Children()) != 1 || v.ArtifactType != "" {
			t.Errorf("%s: %+v %v", mt, v, err)
		}
	}
	v, err := must(t, doc(t, map[string]any{"mediaType": types.MediaTypeArtifactManifest, "blobs": []any{layer}, "artifactType": "x/y"})).View()
	if err != nil || len(v.Children()) != 1 || v.ArtifactType != "x/y" {
		t.Errorf("artifact manifest: %+v %v", v, err)
	}
}

func TestUnknownTypesAreOpaqueAndKeepTheirBytes(t *testing.T) {
	raw := "not { even json"
	m := must(t, raw, manifest.WithMediaType("application/x-whatever; charset=utf-8"))
	v, err := m.View()
	if err != nil || v.Known || len(v.Children()) != 0 {
		t.Errorf("%+v %v", v, err)
	}
	if m.MediaType() != "application/x-whatever" || string(m.Raw()) != raw || m.Digest() != digest.FromString(raw) {
		t.Errorf("%+v", m.Descriptor())
	}
}

func TestMediaTypeIsDetectedOnlyWhereNoneCame(t *testing.T) {
	cfg := desc(types.MediaTypeImageConfig, "c")
	for name, c := range map[string]struct{ raw, given, want string }{
		"no field, image": {doc(t, map[string]any{"config": cfg, "layers": []any{}}), "", types.MediaTypeImageManifest},
		"no field, index": {doc(t, map[string]any{"manifests": []any{}}), "", types.MediaTypeImageIndex},
		"schema 1":        {`{"schemaVersion":1,"fsLayers":[{}]}`, "", types.MediaTypeDockerSchema1JWS},
		"field":           {`{"mediaType":"x/y"}`, "", "x/y"},
		"generic header":  {`{"mediaType":"x/y"}`, "application/json", "x/y"},
		"header wins":     {`{"mediaType":"x/y"}`, "x/z", "x/z"},
		"garbage":         {"garbage", "", ""},
		"both natures":    {doc(t, map[string]any{"config": cfg, "manifests": []any{}}), "", ""},
	} {
		if got := must(t, c.raw, manifest.WithMediaType(c.given)).MediaType(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestContentIsChecked(t *testing.T) {
	raw := []byte(`{}`)
	sum512 := digest.SHA512.FromBytes(raw)
	if m, err := manifest.New(raw, manifest.WithDigest(sum512)); err != nil || m.Digest() != sum512 {
		t.Errorf("sha512: %v", err)
	}
	if _, err := manifest.New(raw, manifest.WithDigest(digest.FromString("other"))); !errors.Is(err, errs.ErrDigestMismatch) {
		t.Errorf("wrong digest: %v", err)
	}
	if _, err := manifest.New(raw, manifest.WithDescriptor(types.Descriptor{Digest: digest.FromBytes(raw), Size: 3})); !errors.Is(err, errs.ErrSizeMismatch) {
		t.Errorf("wrong size: %v", err)
	}
	if _, err := manifest.New(raw, manifest.WithDigest("sha256:abc")); !errors.Is(err, errs.ErrDigestInvalid) {
		t.Errorf("malformed digest: %v", err)
	}
}

func TestInvalidDocumentsAreNamed(t *testing.T) {
	cfg := desc(types.MediaTypeImageConfig, "c")
	bad := cfg
	bad.Digest = "sha256:../../x"
	negative := cfg
	negative.Size = -1
	for name, c := range map[string]struct{ mt, raw string }{
		"empty":              {types.MediaTypeImageManifest, ""},
		"truncated":          {types.MediaTypeImageManifest, `{"config":`},
		"no config":          {types.MediaTypeImageManifest, `{"layers":[]}`},
		"wrong field type":   {types.MediaTypeImageManifest, `{"layers":{}}`},
		"type contradiction": {types.MediaTypeImageManifest, doc(t, map[string]any{"mediaType": types.MediaTypeImageIndex, "config": cfg})},
		"image with list":    {types.MediaTypeImageManifest, doc(t, map[string]any{"config": cfg, "manifests": []any{cfg}})},
		"index with layers":  {types.MediaTypeImageIndex, doc(t, map[string]any{"manifests": []any{}, "layers": []any{cfg}})},
		"path as digest":     {types.MediaTypeImageManifest, doc(t, map[string]any{"config": bad})},
		"negative size":      {types.MediaTypeImageManifest, doc(t, map[string]any{"config": negative})},
		"bad subject":        {types.MediaTypeImageManifest, doc(t, map[string]any{"config": cfg, "subject": bad})},
	} {
		if v, err := must(t, c.raw, manifest.WithMediaType(c.mt)).View(); !errors.Is(err, errs.ErrManifestInvalid) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

func FuzzView(f *testing.F) {
	f.Add(types.MediaTypeImageManifest, []byte(`{"config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}}`))
	f.Add(types.MediaTypeImageIndex, []byte(`{"manifests":[{}]}`))
	f.Add("", []byte(`{"schemaVersion":1}`))
	f.Fuzz(func(t *testing.T, mt string, raw []byte) {
		m, err := manifest.New(raw, manifest.WithMediaType(mt))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Raw(), raw) || m.Digest() != digest.FromBytes(raw) {
			t.Fatal("bytes changed")
		}
		v, err := m.View()
		if err != nil {
			if !errors.Is(err, errs.ErrManifestInvalid) {
				t.Fatal(err)
			}
			return
		}
		for _, d := range v.Children() {
			if types.ValidDigest(d.Digest) != nil || d.Size < 0 {
				t.Fatalf("unusable child %+v", d)
			}
		}
	})
}
