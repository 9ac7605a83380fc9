package referrer_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

func TestFallbackTagsAreTagsAndRecognised(t *testing.T) {
	for _, d := range []digest.Digest{digest.FromString("x"), digest.SHA512.FromString("x")} {
		tag := referrer.FallbackTag(d)
		if err := ref.ValidTag(tag); err != nil {
			t.Error(err)
		}
		if !referrer.IsFallbackTag(tag) || !strings.HasPrefix(tag, string(d.Algorithm())+"-"+d.Encoded()[:64]) {
			t.Errorf("%s", tag)
		}
	}
	for _, tag := range []string{"latest", "sha256-abc", "v1-" + strings.Repeat("a", 64), "sha256-" + strings.Repeat("a", 64) + ".sig"} {
		if referrer.IsFallbackTag(tag) {
			t.Errorf("%s is not a fallback tag", tag)
		}
	}
}

func TestCosignTags(t *testing.T) {
	d := digest.FromString("x")
	for _, suffix := range referrer.CosignSuffixes {
		got, ok := referrer.CosignSubject(referrer.CosignTag(d, suffix))
		if !ok || got != d {
			t.Errorf("%s: %s %v", suffix, got, ok)
		}
	}
	for _, tag := range []string{"latest", "1.0.sig", referrer.FallbackTag(d), referrer.CosignTag(d, ".exe")} {
		if d, ok := referrer.CosignSubject(tag); ok {
			t.Errorf("%s belongs to %s", tag, d)
		}
	}
}

func TestParseIndexTrustsNothing(t *testing.T) {
	good, err := referrer.Index([]types.Descriptor{{MediaType: types.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := referrer.ParseIndex(good, digest.FromString("subject")); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
	for name, raw := range map[string]string{
		"empty": "", "html": "<html>", "image": `{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{}}`,
		"no digest": `{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}`,
	} {
		if list, err := referrer.ParseIndex([]byte(raw), ""); !errors.Is(err, errs.ErrManifestInvalid) {
			t.Errorf("%s: %v %v", name, list, err)
		}
	}
	if _, err := referrer.ParseIndex(good, digest.FromBytes(good)); !errors.Is(err, errs.ErrManifestInvalid) {
		t.Errorf("the subject itself was taken as the list of its referrers: %v", err)
	}
	empty, err := referrer.Index(nil)
	if err != nil || !strings.Contains(string(empty), `"manifests":[]`) {
		t.Errorf("%s %v", empty, err)
	}
	if list, err := referrer.ParseIndex(empty, digest.FromBytes(empty)); err != nil || len(list) > 0 {
		t.Errorf("the referrers of an index that is just like the list of none: %v %v", list, err)
	}
}

func TestFilter(t *testing.T) {
	d := types.Descriptor{ArtifactType: "a/b", Annotations: map[string]string{"k": "v"}}
	for name, c := range map[string]struct {
		f    referrer.Filter
		want bool
	}{
		"all":         {referrer.Filter{}, true},
		"type":        {referrer.Filter{ArtifactType: "a/b"}, true},
		"other type":  {referrer.Filter{ArtifactType: "x"}, false},
		"any value":   {referrer.Filter{Annotations: map[string]string{"k": ""}}, true},
		"other value": {referrer.Filter{Annotations: map[string]string{"k": "w"}}, false},
		"absent key":  {referrer.Filter{Annotations: map[string]string{"x": ""}}, false},
	} {
		if got := len(c.f.Apply([]types.Descriptor{d})) == 1; got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestDescribe(t *testing.T) {
	subject := types.Descriptor{MediaType: types.MediaTypeImageManifest, Digest: digest.FromString("s"), Size: 1}
	m, err := manifest.FromJSON(map[string]any{
		"mediaType": types.MediaTypeImageManifest, "subject": subject, "annotations": map[string]string{"a": "b"},
		"config": types.Descriptor{MediaType: "x/config", Digest: digest.FromString("{}"), Size: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	d, s, ok, err := referrer.Describe(m)
	if err != nil || !ok || s.Digest != subject.Digest || d.ArtifactType != "x/config" || d.Annotations["a"] != "b" || d.Digest != m.Digest() {
		t.Errorf("%+v %+v %v %v", d, s, ok, err)
	}
}
