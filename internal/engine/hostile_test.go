package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// tower puts an index of many levels, each of which lists the one below a dozen times.
func tower(b *builder) types.Descriptor {
	list := []types.Descriptor{on(b.image([]string{"amd"}), "linux/amd64"), on(b.image([]string{"arm"}), "linux/arm64")}
	const levels, times = 14, 12
	for range levels - 1 {
		below := b.index(list)
		list = nil
		for range times {
			list = append(list, below)
		}
	}
	return b.index(list, "latest")
}

func TestAnIndexThatListsTheNextManyTimesIsWalkedOnce(t *testing.T) {
	rewrite := onlyOf(amd64)
	rewrite.Rewrite = true
	for name, o := range map[string]engine.Options{"all platforms": {}, "one platform": onlyOf(amd64), "rewritten": rewrite} {
		w := newWorld(t)
		w.dst.check = false // the check walks every path
		tower(w.atSource())
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // only ends what would take years
		for range 2 {
			if _, err := w.engine.Copy(ctx, w.from, w.to, o); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := len(w.src.seen()) + len(w.dst.seen()); n > 1000 {
			t.Errorf("%s: %d calls", name, n)
		}
		cancel()
	}
}

func TestInspectCountsWhatIsNoManifestByItsType(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	var layers, list []types.Descriptor
	for i := range 500 {
		layers = append(layers, types.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: digest.FromString(fmt.Sprint(i)), Size: 1})
	}
	nested := b.index(layers)
	for range 60 {
		list = append(list, nested)
	}
	b.index(list[:20], "small")
	b.index(list, "large")
	for tag, want := range map[string]error{"small": nil, "large": errs.ErrManifestInvalid} {
		if _, err := w.engine.Inspect(context.Background(), w.from.WithTag(tag), engine.InspectOptions{}); !errors.Is(err, want) {
			t.Errorf("%s: %v", tag, err)
		}
	}
}
