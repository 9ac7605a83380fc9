package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

func TestARefusedTagIsNoFailureOfOthersWithItsDigest(t *testing.T) {
	for name, had := range map[string]bool{"new content": false, "content that is there": true} {
		w := newWorld(t)
		img := w.atSource().image([]string{"layer"}, "a", "b", "c")
		top := w.atSource().index([]types.Descriptor{img}, "index")
		if had {
			w.atTarget().image([]string{"layer"}, "old")
		}
		refusal := &errs.Error{Op: "manifest put", Ref: w.to.WithTag("a").String(), Err: errs.ErrDenied, Message: "immutable"}
		w.dst.fails("ManifestPut a", refusal)
		rep, err := w.engine.Copy(context.Background(), w.from, w.to, plainAll)
		if rep.Failed != 1 || rep.Copied != 3 || !errors.Is(err, errs.ErrDenied) {
			t.Fatalf("%s: %+v, %v", name, rep, err)
		}
		if w.tag("a") != "" || w.tag("b") != img.Digest || w.tag("c") != img.Digest || w.tag("index") != top.Digest || !w.has(top) {
			t.Errorf("%s: %v", name, w.dst.seen())
		}
		if want := "copy " + w.from.WithTag("a").String() + " to " + w.to.WithTag("a").String() + ": " + refusal.Error(); err.Error() != want {
			t.Errorf("%s: got %q, want %q", name, err, want)
		}
	}
}

func TestEveryRefusedTagSaysItsOwnRefusal(t *testing.T) {
	w := newWorld(t)
	w.atSource().image([]string{"layer"}, "a", "b")
	w.dst.incident = func(call string) error {
		if tag, put := strings.CutPrefix(call, "ManifestPut "); put {
			return errors.New(tag + " is protected")
		}
		return nil
	}
	rep, _ := w.engine.Copy(context.Background(), w.from, w.to, plainAll)
	if rep.Failed != 2 || !strings.HasSuffix(rep.Images[0].Err.Error(), ": a is protected") || !strings.HasSuffix(rep.Images[1].Err.Error(), ": b is protected") {
		t.Errorf("%v", rep.Errs())
	}
}

func TestAnAbsentForeignLayerIsNoChange(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	gone := types.Descriptor{MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest: digest.FromString("elsewhere"), Size: 9, URLs: []string{"https://elsewhere.example/x"}}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: b.blob("{}"), Layers: []types.Descriptor{gone}}
	m.SchemaVersion = 2
	b.put(m, "latest")
	o := engine.Options{NoReferrers: true, Verify: true}
	if rep := w.copy(o); rep.Copied != 1 {
		t.Errorf("first: %+v", rep)
	}
	if rep := w.copy(o); rep.Copied != 0 || rep.Unchanged != 1 {
		t.Errorf("again: %+v", rep)
	}
}

func TestContentThatAnotherImageBroughtIsAChange(t *testing.T) {
	w := newWorld(t)
	w.atSource().image([]string{"layer"}, "a", "b", "c", "d")
	img := w.atTarget().image([]string{"layer"}, "a", "b", "c", "d")
	if err := w.dst.base.BlobDelete(context.Background(), w.to, types.Descriptor{Digest: digest.FromString("layer")}); err != nil {
		t.Fatal(err)
	}
	rep := w.copy(engine.Options{AllTags: true, NoReferrers: true, Verify: true})
	if rep.Copied != 4 || rep.Unchanged != 0 || !w.has(img) {
		t.Errorf("%+v", rep)
	}
}
