package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

var (
	amd64  = types.Platform{OS: "linux", Architecture: "amd64"}
	arm64  = types.Platform{OS: "linux", Architecture: "arm64"}
	riscv  = types.Platform{OS: "linux", Architecture: "riscv64"}
	onlyOf = func(p ...types.Platform) engine.Options { return engine.Options{Platforms: p} }
)

// family is an index of two platforms, an attestation of one, an index in the index, and something without a platform.
type family struct {
	top, amd, arm, attest, attestArm, nested, nestedArm, bare types.Descriptor
}

func newFamily(b *builder) family {
	var f family
	f.amd = b.image([]string{"shared", "amd"})
	f.arm = b.image([]string{"shared", "arm"})
	about := func(d types.Descriptor, text string) types.Descriptor {
		a := on(b.image([]string{text}), "unknown/unknown")
		a.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": string(d.Digest)}
		return a
	}
	f.attest, f.attestArm = about(f.amd, "provenance of amd"), about(f.arm, "provenance of arm")
	f.nestedArm = b.image([]string{"nested arm"})
	f.nested = b.index([]types.Descriptor{on(f.nestedArm, "linux/arm64")})
	f.bare = b.image([]string{"without platform"})
	f.top = b.index([]types.Descriptor{f.attestArm, on(f.amd, "linux/amd64"), on(f.arm, "linux/arm64"), f.attest, f.nested, f.bare}, "latest")
	return f
}

func TestOnePlatformOfAnIndexKeepsTheIndex(t *testing.T) {
	w := newWorld(t)
	f := newFamily(w.atSource())
	sigAmd, sigArm, sigTop := w.atSource().artifact(f.amd, "sig amd"), w.atSource().artifact(f.arm, "sig arm"), w.atSource().artifact(f.top, "sig top")
	w.copy(onlyOf(amd64))
	if w.tag("latest") != f.top.Digest {
		t.Error("the index is another one")
	}
	for name, d := range map[string]types.Descriptor{"amd": f.amd, "its attestation": f.attest, "what has no platform": f.bare, "its signature": sigAmd, "the index's signature": sigTop} {
		if !w.has(d) {
			t.Errorf("%s is missing", name)
		}
	}
	for name, d := range map[string]types.Descriptor{"arm": f.arm, "its attestation": f.attestArm, "its signature": sigArm, "nested": f.nested, "nested arm": f.nestedArm} {
		if w.has(d) {
			t.Errorf("%s was copied", name)
		}
	}
	if rep := w.copy(onlyOf(amd64)); rep.Unchanged != 1 {
		t.Errorf("again: %+v", rep)
	}

	t.Run("and what was left out comes when it is asked for", func(t *testing.T) {
		rep := w.copy(onlyOf(arm64))
		if rep.Copied != 1 || !w.has(f.arm) || !w.has(f.nested) {
			t.Errorf("%+v", rep)
		}
		w.copy(engine.Options{})
		if !w.has(f.top) {
			t.Error("the whole index is not whole")
		}
	})
	t.Run("also when all platforms are asked for at once", func(t *testing.T) {
		w := w.again(t)
		w.copy(onlyOf(amd64))
		if w.copy(engine.Options{}); !w.has(f.top) {
			t.Error("an index with gaps was taken for complete")
		}
	})
	t.Run("under another tag", func(t *testing.T) {
		w := w.again(t)
		w.copy(onlyOf(amd64))
		w.to.Tag = "other"
		w.copy(onlyOf(amd64))
		if w.tag("other") != f.top.Digest || w.has(f.arm) {
			t.Error("not the same index with the same gaps")
		}
	})
}

func TestAnIndexIsRewrittenToTheWantedPlatforms(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	f := newFamily(b)
	sigAmd, sigTop := b.artifact(f.amd, "sig amd"), b.artifact(f.top, "sig top")
	o := onlyOf(amd64)
	o.Rewrite = true
	rep := w.copy(o)
	made, err := w.dst.base.ManifestGet(context.Background(), w.to.WithTag("latest"))
	if err != nil {
		t.Fatal(err)
	}
	view, err := made.View()
	if err != nil {
		t.Fatal(err)
	}
	if made.Digest() == f.top.Digest || rep.Images[0].Descriptor.Digest != made.Digest() || !w.has(made.Descriptor()) {
		t.Errorf("the new index: %+v", rep.Images[0])
	}
	if len(view.Manifests) != 3 || view.Manifests[0].Digest != f.amd.Digest || view.Manifests[1].Digest != f.attest.Digest || view.Manifests[2].Digest != f.bare.Digest {
		t.Errorf("its entries: %+v", view.Manifests)
	}
	if !w.has(sigAmd) || w.has(sigTop) || w.has(f.top) {
		t.Error("signatures of the images belong to it, those of the old index do not")
	}
	if w.src.count("ReferrerList "+string(made.Digest())) != 0 {
		t.Error("the source is asked who signed what it never had")
	}
	w.forget()
	if rep := w.copy(o); rep.Unchanged != 1 || w.dst.count("ManifestPut") != 0 {
		t.Errorf("again: %+v", rep)
	}
}

func TestANestedIndexIsRewrittenToo(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	amd, arm := b.image([]string{"amd"}), b.image([]string{"arm"})
	nested := b.index([]types.Descriptor{on(amd, "linux/amd64"), on(arm, "linux/arm64")})
	nested.Annotations = map[string]string{"kept": "yes"}
	nested.Data = []byte("the nested index as it was")
	b.index([]types.Descriptor{nested}, "latest")
	o := onlyOf(arm64)
	o.Rewrite = true
	w.copy(o)
	made, err := w.dst.base.ManifestGet(context.Background(), w.to.WithTag("latest"))
	if err != nil {
		t.Fatal(err)
	}
	view, _ := made.View()
	inner, err := w.dst.base.ManifestGet(context.Background(), w.to.WithDigest(view.Manifests[0].Digest))
	if err != nil {
		t.Fatal(err)
	}
	innerView, _ := inner.View()
	if len(innerView.Manifests) != 1 || innerView.Manifests[0].Digest != arm.Digest || view.Manifests[0].Annotations["kept"] != "yes" || view.Manifests[0].Data != nil || view.Manifests[0].Size != inner.Descriptor().Size {
		t.Errorf("%s\n%s", made.Raw(), inner.Raw())
	}
	if !w.has(made.Descriptor()) || w.has(amd) {
		t.Error("not what was wanted")
	}
}

func TestRewritingKeepsEveryOtherByte(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	amd, arm := b.image([]string{"amd"}), b.image([]string{"arm"})
	entry := func(d types.Descriptor, p string) string {
		raw, err := json.Marshal(on(d, p))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Replace(string(raw), "{", `{ "unknown" : 1.50,`, 1)
	}
	head := "{\n  \"zzz\": [ 1,2 ], \"schemaVersion\": 2,\n\t\"mediaType\":\"" + ocispec.MediaTypeImageIndex + "\",\"manifests\" : [ \n "
	tail := "],\"annotations\":{\"a\":\"\\u003c\"},\n \"later\": {\"manifests\":[{}]}}\n"
	b.putRaw([]byte(head+entry(amd, "linux/amd64")+" ,\n"+entry(arm, "linux/arm64")+"\n "+tail), "latest")
	o := onlyOf(arm64)
	o.Rewrite = true
	w.copy(o)
	made, err := w.dst.base.ManifestGet(context.Background(), w.to.WithTag("latest"))
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimRight(head, " \n") + entry(arm, "linux/arm64") + tail; string(made.Raw()) != want {
		t.Errorf("got  %s\nwant %s", made.Raw(), want)
	}
}

func TestAnIndexWithTwoFacesIsNotRewritten(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	amd, arm := b.image([]string{"amd"}), b.image([]string{"arm"})
	list, _ := json.Marshal([]types.Descriptor{on(amd, "linux/amd64"), on(arm, "linux/arm64")})
	for _, second := range []string{"manifests", "Manifests"} {
		b.putRaw([]byte(`{"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageIndex+`","`+second+`":`+string(list)+`,"manifests":`+string(list)+`}`), "latest")
		o := onlyOf(amd64)
		o.Rewrite = true
		if _, err := w.engine.Copy(context.Background(), w.from, w.to, o); !errors.Is(err, errs.ErrManifestInvalid) {
			t.Errorf("%s: %v", second, err)
		}
	}
}

func TestAPlatformThatIsNotThereIsAnErrorThatListsThoseThatAre(t *testing.T) {
	w := newWorld(t)
	newFamily(w.atSource())
	b := w.atSource()
	b.index([]types.Descriptor{on(b.image([]string{"a"}), "linux/amd64"), on(b.image([]string{"b"}), "windows/amd64")}, "latest")
	_, err := w.engine.Copy(context.Background(), w.from, w.to, onlyOf(riscv))
	if !errors.Is(err, errs.ErrNotFound) || !strings.Contains(err.Error(), "linux/riscv64") || !strings.Contains(errs.Hint(err), "linux/amd64, windows/amd64") {
		t.Errorf("%v (%s)", err, errs.Hint(err))
	}
	if w.tag("latest") != "" {
		t.Error("something was put")
	}
}

func TestPlatformsDoNotApplyWhereThereAreNone(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	img := b.image([]string{"layer"}, "image")
	list := b.index([]types.Descriptor{b.image([]string{"x"}), b.image([]string{"y"})}, "list")
	o := onlyOf(riscv)
	o.AllTags = true
	w.copy(o)
	if !w.has(img) || !w.has(list) {
		t.Error("an image, and an index without platforms, are copied as they are")
	}
}

// strict is a registry that takes no index with gaps, whatever it is told.
type strict struct{ *spy }

func (s strict) ManifestPut(ctx context.Context, r refT, m *manifest.Manifest, o ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	return s.spy.base.ManifestPut(ctx, r, m)
}

func TestATargetThatRefusesGapsIsExplained(t *testing.T) {
	w := newWorld(t)
	newFamily(w.atSource())
	w.engine = engine.New(scheme.NewMux(map[string]scheme.API{"src": w.src, "dst": strict{w.dst}}), 2)
	_, err := w.engine.Copy(context.Background(), w.from, w.to, onlyOf(amd64))
	if !errors.Is(err, errs.ErrManifestBlobUnknown) || !strings.Contains(errs.Hint(err), "--rewrite-index") {
		t.Errorf("%v (%s)", err, errs.Hint(err))
	}
	o := onlyOf(amd64)
	o.Rewrite = true
	w.copy(o)
}

func TestARegistryIsAskedForTheWantedPlatformsOfAnIndexItHas(t *testing.T) {
	w := worldOf(t, "src", "reg")
	f := newFamily(w.atSource())
	w.copy(onlyOf(amd64))
	if rep := w.copy(onlyOf(arm64)); rep.Copied != 1 || !w.has(f.arm) {
		t.Errorf("%+v", rep)
	}
}

func TestReferrersAreCopiedWholeWhateverThePlatforms(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	f := newFamily(b)
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Subject: &f.amd, Manifests: []types.Descriptor{on(b.image([]string{"tool"}), "linux/arm64")}}
	ix.SchemaVersion = 2
	whole := b.put(ix)
	sig := b.artifact(ix.Manifests[0], "signature inside of a referrer")
	w.copy(onlyOf(amd64))
	if !w.has(whole) || !w.has(sig) {
		t.Error("a referrer was cut to the platforms of the image")
	}
}
