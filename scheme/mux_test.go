package scheme_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func TestUnknownSchemeListsTheOnesThereAre(t *testing.T) {
	m := scheme.NewMux(map[string]scheme.API{"reg": mem.New(), "mem": mem.New()})
	r := ref.MustParse("s3://bucket/x:v1")
	_, forErr := m.For(r)
	_, headErr := m.ManifestHead(t.Context(), r)
	_, tagErr := m.TagList(t.Context(), r)
	for _, err := range []error{forErr, headErr, tagErr, m.BlobMount(t.Context(), r, r, types.Descriptor{Digest: digest.FromString("x")})} {
		if !errors.Is(err, errs.ErrUnknownScheme) || !errors.Is(err, errs.ErrUnsupported) {
			t.Fatalf("got %v, want ErrUnknownScheme", err)
		}
		for _, part := range []string{`"s3"`, "mem, reg", r.String()} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not contain %s", err, part)
			}
		}
		if !strings.Contains(errs.Hint(err), "mem, reg") {
			t.Errorf("the hint is %q", errs.Hint(err))
		}
	}
	if got := m.Schemes(); !slices.Equal(got, []string{"mem", "reg"}) {
		t.Errorf("Schemes: %q", got)
	}
}

func TestMuxKeepsACopyOfItsMap(t *testing.T) {
	apis := map[string]scheme.API{"mem": mem.New()}
	m := scheme.NewMux(apis)
	delete(apis, "mem")
	if _, err := m.For(ref.MustParse("mem://x")); err != nil {
		t.Fatal(err)
	}
}

func TestMuxServesEachSchemeByItsOwnAPI(t *testing.T) {
	a, b := mem.New(), mem.New()
	m := scheme.NewMux(map[string]scheme.API{"a": a, "b": b})
	it := schemetest.Image("x")
	if err := it.Push(t.Context(), m, ref.MustParse("a://place:v1")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ManifestHead(t.Context(), ref.MustParse("a://place:v1")); err != nil {
		t.Errorf("a: %v", err)
	}
	for _, place := range []string{"a://place:v1", "b://place:v1"} {
		if _, err := b.ManifestHead(t.Context(), ref.MustParse(place)); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("b was asked, too: %v", err)
		}
	}
}

func TestMuxMountsWithinOneSchemeOnly(t *testing.T) {
	one := mem.New()
	m := scheme.NewMux(map[string]scheme.API{"a": one, "b": one})
	it := schemetest.Image("x")
	src := ref.MustParse("a://src")
	if err := it.Push(t.Context(), m, src); err != nil {
		t.Fatal(err)
	}
	d := types.Descriptor{Digest: digest.FromBytes(it.Blobs[0])}
	if err := m.BlobMount(t.Context(), src, ref.MustParse("a://tgt"), d); err != nil {
		t.Errorf("within a scheme: %v", err)
	}
	if err := m.BlobMount(t.Context(), src, ref.MustParse("b://tgt"), d); !errors.Is(err, errs.ErrUnsupported) {
		t.Errorf("between schemes: got %v, want ErrUnsupported", err)
	}
}

// closing counts how often it is closed.
type closing struct {
	scheme.Unimplemented
	n   int
	err error
}

func (c *closing) Close() error {
	c.n++
	return c.err
}

func TestMuxClosesAllAndReportsEveryFailure(t *testing.T) {
	one, two := errors.New("one"), errors.New("two")
	a, b, c := &closing{err: one}, &closing{}, &closing{err: two}
	m := scheme.NewMux(map[string]scheme.API{"a": a, "b": b, "c": c, "mem": mem.New()})
	err := scheme.Close(scheme.ReadOnly(m))
	if !errors.Is(err, one) || !errors.Is(err, two) {
		t.Errorf("got %v, want both failures", err)
	}
	if a.n != 1 || b.n != 1 || c.n != 1 {
		t.Errorf("closed %d, %d and %d times, want once each", a.n, b.n, c.n)
	}
}

func TestUnimplementedAnswersErrUnsupported(t *testing.T) {
	var api scheme.API = scheme.Unimplemented{}
	r := ref.MustParse("mem://x:v1")
	d := types.Descriptor{Digest: digest.FromString("x")}
	ctx := t.Context()
	m := schemetest.Opaque("x").Manifest
	for name, err := range map[string]error{
		"BlobGet":        second(api.BlobGet(ctx, r, d)),
		"BlobHead":       second(api.BlobHead(ctx, r, d)),
		"BlobPut":        second(api.BlobPut(ctx, r, d, strings.NewReader("x"))),
		"BlobDelete":     api.BlobDelete(ctx, r, d),
		"BlobMount":      api.BlobMount(ctx, r, r, d),
		"ManifestGet":    second(api.ManifestGet(ctx, r)),
		"ManifestHead":   second(api.ManifestHead(ctx, r)),
		"ManifestPut":    second(api.ManifestPut(ctx, r, m)),
		"ManifestDelete": api.ManifestDelete(ctx, r),
		"TagDelete":      api.TagDelete(ctx, r),
		"TagList":        second(api.TagList(ctx, r)),
		"ReferrerList":   second(api.ReferrerList(ctx, r)),
		"Ping":           second(api.Ping(ctx, r)),
	} {
		var detail *errs.Error
		if !errors.Is(err, errs.ErrUnsupported) || !errors.As(err, &detail) || detail.Op == "" || detail.Ref != r.String() {
			t.Errorf("%s: got %v, want ErrUnsupported with operation and place", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
