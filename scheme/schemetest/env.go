package schemetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// env is what a case works with.
type env struct {
	t     *testing.T
	h     *Harness
	rule  string
	ctx   context.Context
	api   scheme.API
	r     ref.Ref // a repository that does not exist yet
	other ref.Ref // another one, that can share blobs with it
}

func newEnv(t *testing.T, h *Harness, rule string) *env {
	api, r := h.New(t)
	return &env{t: t, h: h, rule: rule, ctx: bounded(t), api: api, r: r, other: h.sibling(r)}
}

// bounded is the context of the test, which ends some time before the test program is ended: a place that hangs fails a
// case, which then says what it was about.
func bounded(t *testing.T) context.Context {
	end, ok := t.Deadline()
	if !ok {
		return t.Context()
	}
	ctx, cancel := context.WithDeadline(t.Context(), end.Add(-time.Until(end)/8))
	t.Cleanup(cancel)
	return ctx
}

// errorf reports what happened, and the rule that it breaks.
func (e *env) errorf(format string, args ...any) {
	e.t.Helper()
	e.t.Errorf("%s\n    rule: %s", fmt.Sprintf(format, args...), e.rule)
}

// fatalf is errorf and the end of the case.
func (e *env) fatalf(format string, args ...any) {
	e.t.Helper()
	e.t.Fatalf("%s\n    rule: %s", fmt.Sprintf(format, args...), e.rule)
}

// must ends the case when something failed that should not.
func (e *env) must(what string, err error) {
	e.t.Helper()
	if err != nil {
		e.fatalf("%s: %v", what, err)
	}
}

// is expects an error of one of kinds.
func (e *env) is(what string, err error, kinds ...error) bool {
	e.t.Helper()
	for _, k := range kinds {
		if errors.Is(err, k) {
			return true
		}
	}
	if err == nil {
		e.errorf("%s succeeded, want an error that is one of %q", what, kinds)
	} else {
		e.errorf("%s: got %q, want an error that is one of %q", what, err, kinds)
	}
	return false
}

// refused expects an error of one of kinds that says, as errs.Error, what was attempted and where.
func (e *env) refused(what string, err error, kinds ...error) {
	e.t.Helper()
	if !e.is(what, err, kinds...) {
		return
	}
	var detail *errs.Error
	switch {
	case !errors.As(err, &detail):
		e.errorf("%s: %q is no errs.Error: callers print its operation and place", what, err)
	case detail.Op == "" || detail.Ref == "":
		e.errorf("%s: errs.Error has Op %q and Ref %q: both must be set", what, detail.Op, detail.Ref)
	case !strings.Contains(detail.Ref, e.r.Repo):
		e.errorf("%s: errs.Error.Ref is %q, which does not name %s", what, detail.Ref, e.r)
	}
}

// same expects two values to be equal.
func (e *env) same(what string, got, want any) {
	e.t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		e.errorf("%s: unexpected (-want +got):\n%s", what, d)
	}
}

// push puts it, all it needs included, under r.
func (e *env) push(r ref.Ref, it *Item, opts ...scheme.ManifestPutOption) *Item {
	e.t.Helper()
	e.must("push "+r.String(), it.Push(e.ctx, e.api, r, opts...))
	return it
}

// put stores data in r's repository.
func (e *env) put(r ref.Ref, data []byte) types.Descriptor {
	e.t.Helper()
	d, err := e.api.BlobPut(e.ctx, r, describe("", data), bytes.NewReader(data))
	e.must("BlobPut", err)
	return d
}

// read returns a blob as BlobGet streams it.
func (e *env) read(r ref.Ref, d types.Descriptor) ([]byte, error) {
	return readBlob(e.ctx, e.api, r, d)
}

func readBlob(ctx context.Context, api scheme.API, r ref.Ref, d types.Descriptor) ([]byte, error) {
	rdr, err := api.BlobGet(ctx, r, d)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(rdr)
	return data, errors.Join(err, rdr.Close())
}

// holds expects the blob d to be there with that content.
func (e *env) holds(r ref.Ref, d digest.Digest, data []byte) {
	e.t.Helper()
	got, err := e.read(r, types.Descriptor{Digest: d, Size: int64(len(data))})
	switch {
	case err != nil:
		e.errorf("BlobGet %s: %v", d, err)
	case !bytes.Equal(got, data):
		e.errorf("BlobGet %s: got %d bytes that are not the %d that were put", d, len(got), len(data))
	}
	desc, err := e.api.BlobHead(e.ctx, r, types.Descriptor{Digest: d})
	switch {
	case err != nil:
		e.errorf("BlobHead %s: %v", d, err)
	case desc.Digest != d || desc.Size != int64(len(data)):
		e.errorf("BlobHead: got %s of %d bytes, want %s of %d", desc.Digest, desc.Size, d, len(data))
	}
}

// lacks expects nothing of the blob d to be visible by any means.
func (e *env) lacks(r ref.Ref, d digest.Digest) {
	e.t.Helper()
	want := types.Descriptor{Digest: d}
	_, err := e.api.BlobHead(e.ctx, r, want)
	e.is("BlobHead of what was not stored", err, errs.ErrNotFound)
	_, err = e.read(r, want)
	e.is("BlobGet of what was not stored", err, errs.ErrNotFound)
	var lister scheme.BlobLister
	if !scheme.As(e.api, r, &lister) {
		return
	}
	err = lister.BlobList(e.ctx, r, func(b blob.Info) error {
		if b.Digest == d {
			e.errorf("BlobList names %s, which was not stored", d)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errs.ErrNotFound) && !errors.Is(err, errs.ErrUnsupported) {
		e.errorf("BlobList: %v", err)
	}
}

// shows expects the manifest of it, byte by byte, under r.
func (e *env) shows(r ref.Ref, it *Item) {
	e.t.Helper()
	m, err := e.api.ManifestGet(e.ctx, r)
	if err != nil {
		e.errorf("ManifestGet %s: %v", r, err)
		return
	}
	if !bytes.Equal(m.Raw(), it.Manifest.Raw()) {
		e.errorf("ManifestGet %s: got\n%q\nwant\n%q", r, m.Raw(), it.Manifest.Raw())
	}
	e.same("ManifestGet "+r.String()+": descriptor", m.Descriptor(), it.Descriptor())
	d, err := e.api.ManifestHead(e.ctx, r)
	if err != nil {
		e.errorf("ManifestHead %s: %v", r, err)
		return
	}
	e.same("ManifestHead "+r.String(), d, it.Descriptor())
}

// absent expects that there is no manifest under r.
func (e *env) absent(r ref.Ref) {
	e.t.Helper()
	_, err := e.api.ManifestGet(e.ctx, r)
	e.refused("ManifestGet "+r.String(), err, errs.ErrNotFound)
	_, err = e.api.ManifestHead(e.ctx, r)
	e.refused("ManifestHead "+r.String(), err, errs.ErrNotFound)
}

// tags expects exactly these tags, in this order.
func (e *env) tags(r ref.Ref, want ...string) {
	e.t.Helper()
	l, err := e.api.TagList(e.ctx, r)
	if err != nil {
		e.errorf("TagList %s: %v", r, err)
		return
	}
	e.same("TagList", append([]string{}, l.Tags...), append([]string{}, want...))
}

// begin makes the repository exist without a tag.
func (e *env) begin() { e.t.Helper(); e.put(e.r, Blob("begin", 10)) }
