package engine_test

import (
	"context"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/referrer"
)

func TestInspectShowsWhatAReferenceMeans(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	amd, arm := b.image([]string{"shared", "amd"}), b.image([]string{"shared", "arm"})
	top := b.index([]types.Descriptor{on(amd, "linux/amd64"), on(arm, "linux/arm64")}, "latest")
	sig := b.artifact(amd, "signature")
	cosign := b.image([]string{"cosign"}, referrer.CosignTag(top.Digest, ".sig"))
	n, err := w.engine.Inspect(context.Background(), w.from, engine.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n.Ref != "src://a.example/app:latest" || n.Descriptor.Digest != top.Digest || len(n.Manifests) != 2 {
		t.Fatalf("%+v", n)
	}
	first := n.Manifests[0]
	if first.Descriptor.Platform == nil || first.Descriptor.Platform.Architecture != "amd64" || first.Config == nil || len(first.Layers) != 2 {
		t.Errorf("%+v", first)
	}
	if len(first.Referrers) != 1 || first.Referrers[0].Descriptor.Digest != sig.Digest || first.Referrers[0].ArtifactType != "test/signature" {
		t.Errorf("referrers of the first: %+v", first.Referrers)
	}
	if len(n.Referrers) != 1 || n.Referrers[0].Descriptor.Digest != cosign.Digest || n.Referrers[0].Ref != w.from.WithTag(referrer.CosignTag(top.Digest, ".sig")).String() {
		t.Errorf("referrers of the index: %+v", n.Referrers)
	}
	size := func(texts ...string) (sum int64) {
		for _, s := range texts {
			sum += int64(len(s))
		}
		return sum
	}
	if want := top.Size + amd.Size + arm.Size + size("shared", "amd", "arm", "config of shared+amd", "config of shared+arm"); n.Size != want {
		t.Errorf("size %d, want %d: what is shared counts once, referrers do not", n.Size, want)
	}
	if w.src.count("Blob") != 0 {
		t.Errorf("blobs were read: %v", w.src.seen())
	}
	n, err = w.engine.Inspect(context.Background(), w.from, engine.InspectOptions{NoReferrers: true})
	if err != nil || len(n.Referrers)+len(n.Manifests[0].Referrers) != 0 {
		t.Errorf("%+v %v", n, err)
	}
}

func TestInspectOfWhatHasGapsAndCircles(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	gone := types.Descriptor{MediaType: types.MediaTypeImageManifest, Digest: digest.FromString("gone"), Size: 7}
	img := b.image([]string{"layer"})
	top := b.index([]types.Descriptor{on(gone, "linux/s390x"), img}, "latest")
	w.through(&liar{API: w.src, list: map[string][]types.Descriptor{string(img.Digest): {top, img}}})
	n, err := w.engine.Inspect(context.Background(), w.from, engine.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Manifests) != 2 || n.Manifests[0].Config != nil || n.Manifests[0].Descriptor.Platform == nil || len(n.Manifests[1].Referrers) != 0 {
		t.Errorf("%+v", n)
	}
	if _, err := w.engine.Inspect(context.Background(), w.from.WithTag("none"), engine.InspectOptions{}); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("%v", err)
	}
}
