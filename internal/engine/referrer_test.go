package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

func TestReferrersOfEverythingAreCopied(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	child := b.image([]string{"layer"})
	top := b.index([]types.Descriptor{on(child, "linux/amd64")}, "latest")
	ofTop := b.artifact(top, "of the index")
	ofChild := b.artifact(child, "of the child")
	ofReferrer := b.artifact(ofTop, "of the referrer")
	inIndex := b.image([]string{"inside of a referrer"})
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, ArtifactType: "test/index", Subject: &top, Manifests: []types.Descriptor{inIndex}}
	ix.SchemaVersion = 2
	asIndex := b.put(ix)
	ofInside := b.artifact(inIndex, "of what a referrer contains")

	rep := w.copy(engine.Options{})
	for name, d := range map[string]types.Descriptor{"top": top, "of top": ofTop, "of child": ofChild, "of referrer": ofReferrer, "index": asIndex, "of inside": ofInside} {
		if !w.has(d) {
			t.Errorf("%s is missing", name)
		}
	}
	if rep.Images[0].Referrers != 5 {
		t.Errorf("%d referrers", rep.Images[0].Referrers)
	}
	if w.dst.count("ReferrerList") != 0 {
		t.Error("a repository that was not there is asked for referrers")
	}
	calls := w.dst.seen()
	put := map[string]int{}
	for i, c := range calls {
		put[c] = i + 1
	}
	if put["ManifestPut latest"] > put["ManifestPut "+string(ofTop.Digest)] || put["ManifestPut "+string(ofTop.Digest)] > put["ManifestPut "+string(ofReferrer.Digest)] {
		t.Errorf("a referrer came before its subject: %v", calls)
	}
	for c := range put {
		if w.dst.count(c) > 1 && strings.HasPrefix(c, "ManifestPut") {
			t.Errorf("%s twice", c)
		}
	}

	t.Run("only missing ones, when the image is there", func(t *testing.T) {
		late := b.artifact(child, "signed later")
		w.forget()
		rep := w.copy(engine.Options{})
		if !w.has(late) || w.dst.count("ManifestPut") != 1 || rep.Manifests != 1 || rep.Images[0].Referrers != 6 {
			t.Errorf("%+v %v", rep, w.dst.seen())
		}
		w.forget()
		rep = w.copy(engine.Options{})
		if rep.Unchanged != 1 || w.dst.count("ManifestPut") != 0 || w.src.count("BlobGet") != 0 || w.dst.count("ManifestHead "+string(late.Digest)) != 0 {
			t.Errorf("%+v %v", rep, w.dst.seen())
		}
	})
	t.Run("none, when they are not wanted", func(t *testing.T) {
		w := w.again(t)
		w.copy(plain)
		if w.has(ofTop) || w.src.count("ReferrerList") != 0 || w.src.count("TagList") != 0 {
			t.Errorf("%v", w.src.seen())
		}
	})
}

func TestAnUnsignedImageCostsOneQuestionAManifest(t *testing.T) {
	w := newWorld(t)
	w.atSource().image([]string{"layer"}, "latest")
	w.copy(engine.Options{})
	if w.src.count("ReferrerList") != 1 || w.dst.count("ReferrerList") != 0 || w.src.count("TagList") != 1 {
		t.Errorf("%v %v", w.src.seen(), w.dst.seen())
	}
}

func TestTagsThatShareAnImageShareItsReferrers(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	img := b.image([]string{"layer"}, "1", "2", "3")
	b.artifact(img, "signature")
	rep := w.copy(engine.Options{AllTags: true})
	if w.src.count("ReferrerList "+string(img.Digest)) != 1 {
		t.Errorf("%v", w.src.seen())
	}
	for _, im := range rep.Images {
		if im.Referrers != 1 {
			t.Errorf("%+v", im)
		}
	}
}

func TestCosignsTagsGoWithTheirImage(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	child := b.image([]string{"layer"})
	top := b.index([]types.Descriptor{child}, "latest")
	names := map[string]types.Descriptor{}
	for i, subject := range []types.Descriptor{top, child} {
		for _, suffix := range referrer.CosignSuffixes {
			name := referrer.CosignTag(subject.Digest, suffix)
			names[name] = b.image([]string{string(rune('a'+i)) + suffix}, name)
		}
	}
	stranger := referrer.CosignTag(b.image([]string{"stranger"}, "other").Digest, ".sig")
	b.image([]string{"sig of stranger"}, stranger)
	rep := w.copy(engine.Options{})
	for name, d := range names {
		if w.tag(name) != d.Digest || !w.has(d) {
			t.Errorf("%s is missing", name)
		}
	}
	if w.tag(stranger) != "" || rep.Images[0].Referrers != 6 || len(rep.Images) != 1 || w.src.count("TagList") != 1 {
		t.Errorf("%+v", rep)
	}
	w.forget()
	if rep := w.copy(engine.Options{}); rep.Unchanged != 1 || w.dst.count("ManifestPut") != 0 {
		t.Errorf("again: %+v", rep)
	}

	t.Run("as tags, when all tags are copied", func(t *testing.T) {
		w := w.again(t)
		rep := w.copy(engine.Options{AllTags: true})
		if len(rep.Images) != 9 || w.tag(stranger) == "" || w.src.count("TagList") != 1 {
			t.Errorf("%d images, %d lists of tags", len(rep.Images), w.src.count("TagList"))
		}
		for name := range names {
			if w.dst.count("ManifestPut "+name) != 1 {
				t.Errorf("%s was put %d times", name, w.dst.count("ManifestPut "+name))
			}
		}
	})
	t.Run("with the images that a pattern chooses", func(t *testing.T) {
		w := w.again(t)
		rep := w.copy(tags("latest"))
		for name := range names {
			if w.tag(name) == "" {
				t.Errorf("%s is missing", name)
			}
		}
		if len(rep.Images) != 1 || w.tag(stranger) != "" {
			t.Errorf("%+v", rep)
		}
	})
}

func TestTheTagsThatStandInForReferrersAreNotCopiedAsTags(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	img := b.image([]string{"layer"}, "latest")
	sig := b.artifact(img, "signature")
	list := b.index([]types.Descriptor{sig}, referrer.FallbackTag(img.Digest))
	for _, o := range []engine.Options{{AllTags: true}, {AllTags: true, NoReferrers: true}, tags("*")} {
		w := w.again(t)
		rep := w.copy(o)
		if len(rep.Images) != 1 || w.tag(referrer.FallbackTag(img.Digest)) != "" || w.has(list) || w.has(sig) == o.NoReferrers {
			t.Errorf("%+v: %+v", o, rep)
		}
	}
}

// liar answers with referrers that are not.
type liar struct {
	scheme.API
	list map[string][]types.Descriptor
	err  error
}

func (l *liar) ReferrerList(_ context.Context, r ref.Ref, _ ...scheme.ReferrerListOption) (referrer.List, error) {
	return referrer.List{Descriptors: l.list[string(r.Digest)]}, l.err
}

func (w *world) through(src scheme.API) *world {
	w.engine = engine.New(scheme.NewMux(map[string]scheme.API{w.from.Scheme: src, w.to.Scheme: w.dst}), 2)
	return w
}

func TestReferrersInACircleComeToAnEnd(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	img := b.image([]string{"layer"}, "latest")
	one := b.artifact(img, "one")
	two := b.index([]types.Descriptor{one, img})
	w.through(&liar{API: w.src, list: map[string][]types.Descriptor{
		string(img.Digest): {one, two, img}, string(one.Digest): {two, one}, string(two.Digest): {one, img},
	}})
	rep := w.copy(engine.Options{})
	if !w.has(one) || !w.has(two) || rep.Images[0].Referrers != 2 {
		t.Errorf("%+v", rep.Images[0])
	}
}

func TestReferrersWithoutEndAreRefused(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	d := b.image([]string{"layer"}, "latest")
	for range 30 {
		d = b.artifact(d, "one more")
	}
	if _, err := w.engine.Copy(context.Background(), w.from, w.to, engine.Options{}); !errors.Is(err, errs.ErrManifestInvalid) {
		t.Errorf("%v", err)
	}
}

func TestAnErrorIsNeverAnEmptyListOfReferrers(t *testing.T) {
	for _, c := range []struct{ err, want error }{
		{errs.ErrUnsupported, nil},
		{errs.ErrUnavailable, errs.ErrUnavailable},
		{errs.ErrDenied, errs.ErrDenied},
		{errs.ErrNotFound, errs.ErrNotFound},
	} {
		w := newWorld(t)
		w.atSource().image([]string{"layer"}, "latest")
		w.through(&liar{API: w.src, err: c.err})
		if rep, err := w.engine.Copy(context.Background(), w.from, w.to, engine.Options{}); !errors.Is(err, c.want) || (rep.Failed == 1) != (c.want != nil) {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}

func TestAReferrerThatIsListedAndNotThereFailsTheImage(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	img := b.image([]string{"layer"}, "latest")
	gone := types.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: b.blob("gone").Digest, Size: 4}
	w.through(&liar{API: w.src, list: map[string][]types.Descriptor{string(img.Digest): {gone}}})
	_, err := w.engine.Copy(context.Background(), w.from, w.to, engine.Options{})
	if !errors.Is(err, errs.ErrNotFound) || !strings.Contains(errs.Hint(err), "--no-referrers") {
		t.Errorf("%v (%s)", err, errs.Hint(err))
	}
}

func TestAReferrerThatIsAlsoAChildIsStoredByItself(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	img := b.image([]string{"layer"})
	sig := b.artifact(img, "signature")
	b.index([]types.Descriptor{img, sig}, "latest")
	w.copy(engine.Options{})
	// once for the index, and once more so that it is there without the index
	if w.dst.count("ManifestPut(child) "+string(sig.Digest)) != 1 || w.dst.count("ManifestPut "+string(sig.Digest)) != 1 || !w.has(sig) {
		t.Errorf("%v", w.dst.seen())
	}
}

func TestAnUnchangedIndexIsReadWhereItCostsNothing(t *testing.T) {
	w := worldOf(t, "reg", "dst")
	b := w.atSource()
	b.index([]types.Descriptor{b.image([]string{"layer"})}, "latest")
	w.copy(engine.Options{})
	w.forget()
	w.copy(engine.Options{})
	if w.src.count("ManifestGet") != 0 || w.src.count("ReferrerList") != 2 {
		t.Errorf("%v", w.src.seen())
	}
}
