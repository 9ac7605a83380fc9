package scheme_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// touchy panics when anything is asked of it.
type touchy struct{ scheme.API }

func TestReadOnlyRefusesBeforeItLooksAtAnything(t *testing.T) {
	view := scheme.ReadOnly(touchy{}) // any call of the base would panic
	r, ctx := ref.MustParse("mem://x:v1"), t.Context()
	bad := ref.Ref{Scheme: "mem", Root: "x", Repo: "../y", Digest: "nonsense"}
	m := schemetest.Opaque("x").Manifest
	for _, r := range []ref.Ref{r, bad} {
		for name, err := range map[string]error{
			"BlobPut":        second(view.BlobPut(ctx, r, types.Descriptor{}, strings.NewReader("x"))),
			"BlobDelete":     view.BlobDelete(ctx, r, types.Descriptor{}),
			"BlobMount":      view.BlobMount(ctx, r, r, types.Descriptor{}),
			"ManifestPut":    second(view.ManifestPut(ctx, r, m)),
			"ManifestDelete": view.ManifestDelete(ctx, r),
			"TagDelete":      view.TagDelete(ctx, r),
		} {
			if !errors.Is(err, errs.ErrReadOnly) || !errors.Is(err, errs.ErrUnsupported) {
				t.Errorf("%s: got %v, want ErrReadOnly", name, err)
			}
		}
	}
}

func TestReadOnlyIsNotTheBase(t *testing.T) {
	m := mem.New()
	view := scheme.ReadOnly(m)
	if _, ok := view.(interface{ Unwrap() scheme.API }); ok {
		t.Error("it can be unwrapped")
	}
	if _, ok := view.(*mem.Mem); ok {
		t.Error("it is the base")
	}
	if _, ok := view.(scheme.BlobOpener); ok {
		t.Error("a capability is reachable without As")
	}
	var api scheme.API
	if scheme.As(view, ref.MustParse("mem://x"), &api) {
		t.Errorf("As finds the API behind it: %T", api)
	}
	res, err := view.Ping(t.Context(), ref.MustParse("mem://x"))
	if err != nil || res.Writable {
		t.Errorf("Ping: writable %v, error %v", res.Writable, err)
	}
}
