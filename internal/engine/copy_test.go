package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

func TestOneImageTakesTheseCallsInThisOrder(t *testing.T) {
	w := newWorld(t)
	img := w.atSource().image([]string{"layer"}, "1")
	w.from.Tag = "1"
	rep := w.copy(plain)

	config, layer := digest.FromString("config of layer"), digest.FromString("layer")
	got := w.src.seen()
	slices.Sort(got[2:]) // the blobs come at once
	want := []string{"ManifestHead 1", "ManifestGet " + string(img.Digest), "BlobGet " + string(config), "BlobGet " + string(layer)}
	slices.Sort(want[2:])
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("source (-want +got):\n%s", d)
	}
	got = w.dst.seen()
	slices.Sort(got[1:3])
	want = []string{"ManifestHead 1", "BlobPut " + string(config), "BlobPut " + string(layer), "ManifestPut 1"}
	slices.Sort(want[1:3])
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("target (-want +got):\n%s", d)
	}
	if !w.has(img) || w.tag("1") != img.Digest {
		t.Error("the image is not at the target")
	}
	if rep.Copied != 1 || rep.Blobs != 2 || rep.Manifests != 1 || rep.Bytes != img.Size+int64(len("layer")+len("config of layer")) {
		t.Errorf("report: %+v", rep)
	}
	im := rep.Images[0]
	if im.Outcome != transfer.Copied || im.Descriptor.Digest != img.Digest || im.Source != "src://a.example/app:1" || im.Target != "dst://b.example/app:1" {
		t.Errorf("report: %+v", im)
	}
}

func TestAnUnchangedImageCostsOneHeadOnEachSide(t *testing.T) {
	w := newWorld(t)
	w.atSource().image([]string{"layer"}, "latest")
	w.copy(plain)
	w.forget()
	rep := w.copy(plain)
	if n := len(w.src.seen()) + len(w.dst.seen()); n != 2 || rep.Unchanged != 1 || rep.Copied != 0 || rep.Bytes != 0 {
		t.Errorf("%d calls, %+v", n, rep)
	}
}

func TestAnImageUnderANewTagIsNotCopiedAgain(t *testing.T) {
	w := newWorld(t)
	img := w.atSource().image([]string{"layer"}, "1", "2")
	w.from.Tag = "1"
	w.copy(plain)
	w.forget()
	w.from.Tag = "2"
	w.copy(plain)
	if d := cmp.Diff([]string{"ManifestHead 2"}, w.src.seen()); d != "" {
		t.Errorf("source: %s", d)
	}
	if d := cmp.Diff([]string{"ManifestHead 2", "ManifestGet " + string(img.Digest), "ManifestPut 2"}, w.dst.seen()); d != "" {
		t.Errorf("target: %s", d)
	}
}

func TestARepositoryThatExistsIsAskedForEachBlob(t *testing.T) {
	w := newWorld(t)
	w.atSource().image([]string{"old", "new"}, "latest")
	w.atTarget().image([]string{"old"}, "other")
	rep := w.copy(plain)
	if w.dst.count("BlobHead") != 3 || w.dst.count("BlobPut") != 2 || rep.Present != 1 || rep.Blobs != 2 {
		t.Errorf("%v, %+v", w.dst.seen(), rep)
	}
}

func TestTheSourceTagIsReadOnce(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	first := b.image([]string{"first"}, "latest")
	w.src.incident = func(call string) error {
		if call == "ManifestGet "+string(first.Digest) { // between the HEAD and everything else the tag moves
			b.image([]string{"second"}, "latest")
		}
		return nil
	}
	sig := b.artifact(first, "signature of the first")
	w.copy(engine.Options{})
	if w.tag("latest") != first.Digest || !w.has(first) || !w.has(sig) {
		t.Error("what was copied is not what the tag was when it was read")
	}
}

func TestReferencesAndWhatTheyMean(t *testing.T) {
	w := newWorld(t)
	img := w.atSource().image([]string{"layer"}, "latest", "1")
	at := func(tag string, d digest.Digest) func(ref.Ref) ref.Ref {
		return func(r ref.Ref) ref.Ref { r.Tag, r.Digest = tag, d; return r }
	}
	wrong := digest.FromString("wrong")
	for _, c := range []struct {
		name     string
		src, dst func(ref.Ref) ref.Ref
		tags     []string
		err      error
	}{
		{"nothing is latest, on both sides", at("", ""), at("", ""), []string{"latest"}, nil},
		{"the target takes the source's tag", at("1", ""), at("", ""), []string{"1"}, nil},
		{"the target's own tag wins", at("1", ""), at("x", ""), []string{"x"}, nil},
		{"a digest alone is put by digest", at("", img.Digest), at("", ""), nil, nil},
		{"a digest with a tag takes the tag", at("1", img.Digest), at("", ""), []string{"1"}, nil},
		{"a target digest is untagged", at("1", ""), at("", img.Digest), nil, nil},
		{"a target digest that fits", at("1", ""), at("x", img.Digest), []string{"x"}, nil},
		{"a target digest that does not fit the source's digest", at("", img.Digest), at("", wrong), nil, errs.ErrDigestMismatch},
		{"a target digest that does not fit the source's tag", at("1", ""), at("", wrong), nil, errs.ErrDigestMismatch},
		{"a tag that is not there", at("none", ""), at("", ""), nil, errs.ErrNotFound},
		{"a digest that is not there", at("", wrong), at("", ""), nil, errs.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.again(t)
			rep, err := w.engine.Copy(context.Background(), c.src(w.from), c.dst(w.to), plain)
			if !errors.Is(err, c.err) || (err != nil) != (c.err != nil) || rep == nil {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			list, err := w.dst.base.TagList(context.Background(), w.to)
			if err != nil && c.err == nil {
				t.Fatal(err)
			}
			if !slices.Equal(list.Tags, c.tags) || (c.err == nil) != w.has(img) {
				t.Errorf("tags %v, image there: %v", list.Tags, w.has(img))
			}
		})
	}
}

// again is the same source with an empty target.
func (w *world) again(t *testing.T) *world {
	next := worldOf(t, w.from.Scheme, w.to.Scheme)
	next.src.base, next.src.API = w.src.base, w.src.base
	return next
}

func TestAllTagsShareTheirContent(t *testing.T) {
	w := newWorld(t)
	const n = 50
	for i := range n {
		w.atSource().image([]string{"base", fmt.Sprint("own ", i)}, fmt.Sprint("t", i))
	}
	rep := w.copy(engine.Options{AllTags: true, NoReferrers: true})
	if rep.Copied != n || len(rep.Images) != n {
		t.Fatalf("report: %+v", rep)
	}
	// one list, and for each tag one manifest; every blob once: the base, and a layer and a config each
	if got, want := len(w.src.seen()), 1+n+1+2*n; got != want {
		t.Errorf("source: %d calls, want %d", got, want)
	}
	if got, want := len(w.dst.seen()), 1+1+2*n+n; got != want {
		t.Errorf("target: %d calls, want %d", got, want)
	}
	if !slices.IsSortedFunc(rep.Images, func(a, b transfer.Image) int { return strings.Compare(a.Source, b.Source) }) {
		t.Error("the report is not in the order of the tags")
	}
}

func TestTagsOfOneDigestCostAPutEach(t *testing.T) {
	w := newWorld(t)
	w.atSource().image([]string{"layer"}, "1", "2", "3")
	w.atTarget().image([]string{"older"}, "3")
	w.copy(engine.Options{AllTags: true, NoReferrers: true})
	if w.dst.count("ManifestPut") != 3 || w.dst.count("BlobPut") != 2 || w.dst.count("ManifestHead 3") != 1 || w.dst.count("ManifestHead 1") != 0 {
		t.Errorf("target: %v", w.dst.seen())
	}
	if n := len(w.src.seen()); n != 1+2*3 && n > 1+3+1+2 { // list; one read for each tag; the manifest perhaps once more; blobs
		t.Errorf("source: %v", w.src.seen())
	}
}

func TestCopyWithinOneRepositoryOnlyMovesTags(t *testing.T) {
	w := worldOf(t, "one", "one")
	img := w.atSource().image([]string{"layer"}, "1")
	w.to = w.from
	w.from.Tag, w.to.Tag = "1", "2"
	w.copy(engine.Options{})
	for _, op := range []string{"BlobGet", "BlobPut", "BlobHead", "BlobMount", "ReferrerList"} {
		if w.src.count(op) != 0 {
			t.Errorf("%s in %v", op, w.src.seen())
		}
	}
	if w.tag("2") != img.Digest {
		t.Error("the tag is not there")
	}
	w.to.Tag = "1"
	if rep := w.copy(engine.Options{}); rep.Unchanged != 1 {
		t.Errorf("onto itself: %+v", rep)
	}
}

func TestPlacesOfOneSchemeLink(t *testing.T) {
	w := worldOf(t, "one", "one")
	img := w.atSource().image([]string{"layer"}, "latest")
	rep := w.copy(plain)
	if rep.Mounted != 2 || rep.Blobs != 0 || rep.Bytes != img.Size || w.src.count("BlobGet") != 0 || !w.has(img) {
		t.Errorf("%+v, %v", rep, w.src.seen())
	}
}

func TestPlacesThatCannotLinkStream(t *testing.T) {
	w := worldOf(t, "one", "one")
	img := w.atSource().image([]string{"layer"}, "latest")
	w.src.fails("BlobMount", errs.ErrUnsupported)
	if rep := w.copy(plain); rep.Mounted != 0 || rep.Blobs != 2 || !w.has(img) {
		t.Errorf("%+v", rep)
	}
}

func TestRegistriesMountBeforeTheyAsk(t *testing.T) {
	w := worldOf(t, "reg", "reg")
	w.to.Root = w.from.Root
	w.to.Repo = "copy"
	img := w.atSource().image([]string{"layer"}, "latest")
	w.atTarget().image([]string{"another"}, "there") // not empty
	rep := w.copy(plain)
	if rep.Mounted != 2 || w.src.count("BlobHead") != 0 || w.src.count("BlobGet") != 0 || w.src.count("BlobPut(from app)") != 2 || !w.has(img) {
		t.Errorf("%+v, %v", rep, w.src.seen())
	}

	t.Run("and read what is refused, once", func(t *testing.T) {
		w.src.noMounts = true
		w.to.Repo = "third"
		w.forget()
		rep := w.copy(plain)
		if rep.Blobs != 2 || rep.Mounted != 0 || w.src.count("BlobGet") != 2 || w.src.count("BlobPut") != 2 || !w.has(img) {
			t.Errorf("%+v, %v", rep, w.src.seen())
		}
	})
}

func TestAnEarlierCopyIsWhereLaterOnesMountFrom(t *testing.T) {
	w := worldOf(t, "src", "reg")
	img := w.atSource().image([]string{"layer"}, "latest")
	w.copy(plain)
	w.to.Repo = "second"
	w.forget()
	if rep := w.copy(plain); rep.Mounted != 2 || w.dst.count("BlobPut(from app)") != 2 || w.src.count("BlobGet") != 0 || !w.has(img) {
		t.Errorf("%+v, %v", rep, w.dst.seen())
	}
}

func TestChildrenComeBeforeTheirIndexAndTheTagLast(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	amd := b.image([]string{"shared", "amd"})
	arm := b.image([]string{"shared", "arm"})
	nested := b.index([]types.Descriptor{arm})
	top := b.index([]types.Descriptor{on(amd, "linux/amd64"), nested}, "latest")
	w.copy(plain) // the spy looks at what is there after each put
	calls := w.dst.seen()
	if calls[len(calls)-1] != "ManifestPut latest" || w.dst.count("ManifestPut") != 4 || w.dst.count("BlobPut") != 5 || !w.has(top) {
		t.Errorf("target: %v", calls)
	}
}

func TestAnIndexMayListBlobsAndUnknownManifests(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	layer := b.blob("a layer of a build cache")
	odd := b.putRaw([]byte(`{"mediaType":"application/x-unheard-of","x":1}`))
	top := b.index([]types.Descriptor{layer, odd}, "latest")
	w.copy(plain)
	if w.dst.count("BlobPut "+string(layer.Digest)) != 1 || w.dst.count("ManifestPut(child) "+string(odd.Digest)) != 1 || w.tag("latest") != top.Digest {
		t.Errorf("target: %v", w.dst.seen())
	}
}

func TestAnUnknownManifestIsCopiedAsItIs(t *testing.T) {
	w := newWorld(t)
	odd := w.atSource().putRaw([]byte(`{"mediaType":"application/x-unheard-of","x":"none of ours"}`), "latest")
	w.copy(engine.Options{})
	if w.tag("latest") != odd.Digest {
		t.Error("it is not there")
	}
}

func TestAForeignLayerMayBeAbsent(t *testing.T) {
	for _, mt := range []string{"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"} {
		w := newWorld(t)
		b := w.atSource()
		gone := types.Descriptor{MediaType: mt, Digest: digest.FromString("elsewhere"), Size: 9, URLs: []string{"https://elsewhere.example/x"}}
		here := b.blob("foreign, but here")
		here.MediaType = mt
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: b.blob("{}"), Layers: []types.Descriptor{gone, here}}
		m.SchemaVersion = 2
		d := b.put(m, "latest")
		w.copy(plain)
		if w.tag("latest") != d.Digest || w.dst.count("BlobPut "+string(here.Digest)) != 1 {
			t.Errorf("%s: %v", mt, w.dst.seen())
		}
	}
}

func TestADescriptorsDataIsNotTrusted(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	config := b.blob("{}")
	config.Data = []byte("[]")
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config}
	m.SchemaVersion = 2
	b.put(m, "latest")
	w.copy(plain)
	rdr, err := w.dst.base.BlobGet(context.Background(), w.to, config)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(rdr); err != nil || string(got) != "{}" {
		t.Errorf("%q %v", got, err)
	}
}

func TestSizesThatContradictEachOtherAreFound(t *testing.T) {
	for _, second := range []int64{4, 6} {
		w := newWorld(t)
		b := w.atSource()
		layer := noBlob("layer")
		liar := layer
		liar.Size = second
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: b.blob("{}"), Layers: []types.Descriptor{layer, liar}}
		m.SchemaVersion = 2
		b.put(m, "latest")
		b.blob("layer")
		_, err := w.engine.Copy(context.Background(), w.from, w.to, plain)
		if !errors.Is(err, errs.ErrSizeMismatch) || w.tag("latest") != "" {
			t.Errorf("size %d: %v", second, err)
		}
	}
}

func TestVerifyCompletesWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	img := b.image([]string{"layer"})
	top := b.index([]types.Descriptor{img}, "latest")
	w.copy(plain)
	w.dst.check = false
	if err := w.dst.base.BlobDelete(context.Background(), w.to, types.Descriptor{Digest: digest.FromString("layer")}); err != nil {
		t.Fatal(err)
	}
	if rep := w.copy(plain); rep.Unchanged != 1 || w.has(top) {
		t.Errorf("trust looks no further than the manifest: %+v", rep)
	}
	w.forget()
	rep := w.copy(engine.Options{NoReferrers: true, Verify: true})
	if w.dst.count("ManifestPut") != 2 {
		t.Errorf("what was completed is not made to stay: %v", w.dst.seen())
	}
	if !w.has(top) || rep.Blobs != 1 || rep.Copied != 1 {
		t.Errorf("verify: %+v", rep)
	}
	w.forget()
	if rep := w.copy(engine.Options{NoReferrers: true, Verify: true}); rep.Unchanged != 1 || w.dst.count("ManifestPut") != 0 {
		t.Errorf("verify of what is whole: %+v %v", rep, w.dst.seen())
	}
}

func TestATargetThatMissesContentAfterAllIsHealed(t *testing.T) {
	w := newWorld(t)
	img := w.atSource().image([]string{"layer"}, "1", "2")
	w.from.Tag = "1"
	w.copy(plain)
	if err := w.dst.base.BlobDelete(context.Background(), w.to, types.Descriptor{Digest: digest.FromString("layer")}); err != nil {
		t.Fatal(err)
	}
	w.from.Tag = "2"
	rep := w.copy(plain) // memory checks what a manifest needs, and says what is missing
	if w.tag("2") != img.Digest || !w.has(img) || rep.Blobs != 1 || rep.Retries != 1 {
		t.Errorf("%+v", rep)
	}

	t.Run("once", func(t *testing.T) {
		w.from.Tag = "1"
		w.to.Tag = "3"
		w.dst.fails("ManifestPut", &errs.Error{Op: "manifest put", Err: errs.ErrManifestBlobUnknown})
		w.forget()
		_, err := w.engine.Copy(context.Background(), w.from, w.to, plain)
		if !errors.Is(err, errs.ErrManifestBlobUnknown) || w.dst.count("ManifestPut") != 2 || w.dst.count("BlobHead") != 2 {
			t.Errorf("%v: %v", err, w.dst.seen())
		}
	})
}

func TestAMountThatWasNoneIsHealed(t *testing.T) {
	w := worldOf(t, "reg", "reg")
	w.to.Root = w.from.Root
	w.to.Repo = "copy"
	b := w.atSource()
	top := b.index([]types.Descriptor{b.image([]string{"layer"})}, "latest")
	w.src.liesOnMount = true
	rep := w.copy(plain)
	if !w.has(top) || rep.Retries != 1 || rep.Blobs != 2 || w.src.count("BlobHead") != 2 {
		t.Errorf("%+v %v", rep, w.src.seen())
	}
}

func TestSizesOfManifestsThatContradictEachOtherAreFound(t *testing.T) {
	for _, wrong := range []int64{1, 1 << 20} {
		w := newWorld(t)
		b := w.atSource()
		img := newWorld(t).atSource().image([]string{"layer"})
		liar := img
		liar.Size = wrong
		b.index([]types.Descriptor{img, liar}, "latest")
		b.image([]string{"layer"})
		if _, err := w.engine.Copy(context.Background(), w.from, w.to, plain); !errors.Is(err, errs.ErrSizeMismatch) || w.tag("latest") != "" {
			t.Errorf("size %d: %v", wrong, err)
		}
	}
}

func TestIndexesWithoutBottomAreRefused(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	d := b.image([]string{"layer"})
	for range 30 {
		d = b.index([]types.Descriptor{d})
	}
	b.index([]types.Descriptor{d}, "latest")
	for _, o := range []engine.Options{plain, onlyOf(amd64)} {
		if _, err := w.engine.Copy(context.Background(), w.from, w.to, o); !errors.Is(err, errs.ErrManifestInvalid) || w.tag("latest") != "" {
			t.Errorf("%v", err)
		}
	}
}

func TestAnIndexWithGapsIsRetagged(t *testing.T) {
	w := worldOf(t, "one", "one")
	w.to = w.from
	b := w.atSource()
	gone := types.Descriptor{MediaType: types.MediaTypeImageManifest, Digest: digest.FromString("gone"), Size: 7}
	top := b.index([]types.Descriptor{gone, b.image([]string{"layer"})}, "latest")
	w.to.Tag = "other"
	w.copy(engine.Options{})
	if w.tag("other") != top.Digest {
		t.Error("it is not there")
	}
}

func TestASizeThatContradictsTheTargetsBlobIsFound(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	layer := noBlob("layer")
	layer.Size = 99
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: b.blob("{}"), Layers: []types.Descriptor{layer}}
	m.SchemaVersion = 2
	b.put(m, "latest")
	b.blob("layer")
	w.atTarget().image([]string{"layer"}, "other")
	if _, err := w.engine.Copy(context.Background(), w.from, w.to, plain); !errors.Is(err, errs.ErrSizeMismatch) || w.tag("latest") != "" {
		t.Errorf("%v", err)
	}
}
