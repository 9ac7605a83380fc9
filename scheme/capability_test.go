package scheme_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// A writer is a capability that package scheme does not know.
type writer interface{ Write() }

// able has a capability of its own, and slots.
type able struct {
	scheme.API
	slots *scheme.Slots
}

func (able) Write()                        {}
func (a able) Slots(ref.Ref) *scheme.Slots { return a.slots }
func (a able) BlobOpen(context.Context, ref.Ref, types.Descriptor) (blob.ReaderAt, error) {
	return nil, errs.ErrUnsupported
}

func TestAsFindsCapabilitiesThroughWrappers(t *testing.T) {
	a := able{API: mem.New(), slots: scheme.NewSlots("host", 1)}
	mux := scheme.NewMux(map[string]scheme.API{"a": a, "plain": scheme.Unimplemented{}})
	r, plain, unknown := ref.MustParse("a://x"), ref.MustParse("plain://x"), ref.MustParse("unknown://x")
	for _, c := range []struct {
		name            string
		api             scheme.API
		r               ref.Ref
		writer, slotted bool
	}{
		{"the API itself", a, r, true, true},
		{"an API without it", scheme.Unimplemented{}, r, false, false},
		{"mux", mux, r, true, true},
		{"mux, another scheme", mux, plain, false, false},
		{"mux, unknown scheme", mux, unknown, false, false},
		{"mux in mux", scheme.NewMux(map[string]scheme.API{"a": mux}), r, true, true},
		{"read-only hides what it does not know", scheme.ReadOnly(a), r, false, true},
		{"read-only over mux", scheme.ReadOnly(mux), r, false, true},
		{"mux over read-only", scheme.NewMux(map[string]scheme.API{"a": scheme.ReadOnly(a)}), r, false, true},
	} {
		var w writer
		if got := scheme.As(c.api, c.r, &w); got != c.writer || got != (w != nil) {
			t.Errorf("%s: a capability of its own: found %v, set %v, want %v", c.name, got, w != nil, c.writer)
		}
		var s scheme.Throttler
		if got := scheme.As(c.api, c.r, &s); got != c.slotted {
			t.Errorf("%s: Throttler: found %v, want %v", c.name, got, c.slotted)
		} else if got && s.Slots(c.r) != a.slots {
			t.Errorf("%s: other slots than the API's", c.name)
		}
	}
}

func TestAsAnyRefusesWhatIsNoPointerToAnInterface(t *testing.T) {
	for name, target := range map[string]any{"no pointer": 1, "nil": (*writer)(nil), "pointer to a struct": &struct{}{}} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it did not panic")
				}
			}()
			scheme.AsAny(scheme.Unimplemented{}, ref.Ref{}, target)
		})
	}
}

// opens counts how often each way to read is taken.
type opens struct {
	*mem.Mem
	opened, streamed int
	err              error // of BlobOpen
}

func (o *opens) BlobOpen(ctx context.Context, r ref.Ref, d types.Descriptor) (blob.ReaderAt, error) {
	o.opened++
	if o.err != nil {
		return nil, o.err
	}
	return o.Mem.BlobOpen(ctx, r, d)
}

func (o *opens) BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...scheme.BlobGetOption) (blob.Reader, error) {
	o.streamed++
	return o.Mem.BlobGet(ctx, r, d, opts...)
}

func TestOpenBlobAt(t *testing.T) {
	r := ref.MustParse("mem://x")
	data := schemetest.Blob("x", 1000)
	other := errors.New("disk on fire")
	for _, c := range []struct {
		name             string
		hide             bool  // behind an API without capabilities
		err              error // of BlobOpen
		offset           int64
		opened, streamed int
		want             error
	}{
		{name: "from the beginning it is the verified stream", offset: 0, streamed: 1},
		{name: "with BlobOpener nothing before the offset is read", offset: 400, opened: 1},
		{name: "with BlobOpener, at the end", offset: 1000, opened: 1},
		{name: "before the beginning", offset: -1, want: errs.ErrRangeInvalid},
		{name: "before the beginning, without BlobOpener", hide: true, offset: -1, want: errs.ErrRangeInvalid},
		{name: "with BlobOpener, beyond the end", offset: 1001, opened: 1, want: errs.ErrRangeInvalid},
		{name: "without BlobOpener the beginning is dropped", hide: true, offset: 400, streamed: 1},
		{name: "without BlobOpener, at the end", hide: true, offset: 1000, streamed: 1},
		{name: "without BlobOpener, beyond the end", hide: true, offset: 1001, streamed: 1, want: errs.ErrRangeInvalid},
		{name: "a BlobOpener that answers ErrUnsupported is none", err: errs.ErrUnsupported, offset: 400, opened: 1, streamed: 1},
		{name: "another error of BlobOpener is final", err: other, offset: 400, opened: 1, want: other},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &opens{Mem: mem.New(), err: c.err}
			d, err := o.BlobPut(t.Context(), r, types.Descriptor{}, bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			api := scheme.API(o)
			if c.hide {
				api = struct{ scheme.API }{o}
			}
			rc, err := scheme.OpenBlobAt(t.Context(), api, r, d, c.offset)
			if !errors.Is(err, c.want) || err == nil && c.want != nil {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil {
				got, err := io.ReadAll(rc)
				if err != nil || !bytes.Equal(got, data[c.offset:]) {
					t.Errorf("got %d bytes and %v, want the last %d", len(got), err, len(data)-int(c.offset))
				}
				if err := rc.Close(); err != nil {
					t.Error(err)
				}
			}
			if o.opened != c.opened || o.streamed != c.streamed {
				t.Errorf("BlobOpen was called %d times and BlobGet %d times, want %d and %d", o.opened, o.streamed, c.opened, c.streamed)
			}
		})
	}
}

func TestBlobSourceOpensAgain(t *testing.T) {
	m, r, data := mem.New(), ref.MustParse("mem://x"), schemetest.Blob("x", 1000)
	d, err := m.BlobPut(t.Context(), r, types.Descriptor{}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	src, rdr, err := scheme.BlobSource(t.Context(), m, r, d)
	if err != nil {
		t.Fatal(err)
	}
	defer rdr.Close()
	if !blob.Verifies(src, d) {
		t.Error("its stream is not known to be verified")
	}
	if _, err := io.CopyN(io.Discard, src, 300); err != nil {
		t.Fatal(err)
	}
	again, err := src.OpenAt(t.Context(), 300)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, rest := range []io.Reader{again, src} {
		if got, err := io.ReadAll(rest); err != nil || !bytes.Equal(got, data[300:]) {
			t.Errorf("got %d bytes and %v, want the last 700", len(got), err)
		}
	}
	if _, _, err := scheme.BlobSource(t.Context(), m, ref.MustParse("mem://absent"), d); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("a blob that is absent: got %v, want ErrNotFound", err)
	}
}

func TestListReposNeedsTheCapability(t *testing.T) {
	m, root := mem.New(), ref.MustParse("mem://srv")
	for _, name := range []string{"b", "a/c"} {
		if _, err := m.BlobPut(t.Context(), root.WithRepo(name), types.Descriptor{}, bytes.NewReader(nil)); err != nil {
			t.Fatal(err)
		}
	}
	for _, api := range []scheme.API{m, scheme.ReadOnly(m)} {
		if got, err := scheme.ListRepos(t.Context(), api, root); err != nil || !slices.Equal(got, []string{"a/c", "b"}) {
			t.Errorf("%T: got %q and %v", api, got, err)
		}
	}
	if _, err := scheme.ListRepos(t.Context(), struct{ scheme.API }{m}, root); !errors.Is(err, errs.ErrUnsupported) {
		t.Errorf("without it: got %v, want ErrUnsupported", err)
	}
}

func TestCloseOfWhatHasNothingToClose(t *testing.T) {
	if err := scheme.Close(mem.New()); err != nil {
		t.Error(err)
	}
}
