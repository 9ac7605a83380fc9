package schemetest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var dirCaps = append(slices.Clone(allCaps), schemetest.IndexStore, schemetest.Syncer, schemetest.Cleaner, schemetest.Checker)

// dirDefects are in what memory cannot do.
var dirDefects = []defect{
	{name: "an index is replaced whatever it is", group: "IndexStore", rule: "is ErrConflict", dir: puts(func(d dir, ctx context.Context, r ref.Ref, _, next []byte) error {
		return d.OCIDir.IndexPut(ctx, r, nil, next)
	})},
	{name: "an index is compared before the lock", group: "IndexStore", rule: "none undoes", dir: puts(func(d dir, ctx context.Context, r ref.Ref, old, next []byte) error {
		if now, err := d.OCIDir.IndexGet(ctx, r); err == nil && old != nil {
			if !bytes.Equal(now, old) {
				return &errs.Error{Op: "index put", Ref: r.String(), Err: errs.ErrConflict}
			}
			old = nil
			if bytes.Contains(next, []byte("swapped-")) {
				meet()
			}
		}
		return d.OCIDir.IndexPut(ctx, r, old, next)
	})},
	{name: "an index is printed again", group: "IndexStore", rule: "byte by byte", dir: puts(func(d dir, ctx context.Context, r ref.Ref, old, next []byte) error {
		var b bytes.Buffer
		if json.Compact(&b, next) == nil {
			next = b.Bytes()
		}
		return d.OCIDir.IndexPut(ctx, r, old, next)
	})},
	{name: "what is no index is taken silently", group: "IndexStore", rule: "is no image index is ErrInvalid", dir: puts(func(d dir, ctx context.Context, r ref.Ref, old, next []byte) error {
		if err := d.OCIDir.IndexPut(ctx, r, old, next); !errors.Is(err, errs.ErrInvalid) {
			return err
		}
		return nil
	})},
	{name: "no index is an empty one", group: "IndexStore", rule: "without a repository it is ErrNotFound", dir: func(o *ocidir.OCIDir) scheme.API { return emptyIndex{o} }},
	{name: "clean looks at no age", group: "Clean", rule: "for that long", dir: func(o *ocidir.OCIDir) scheme.API { return hastyClean{o} }},
	{name: "check finds nothing", group: "Check", rule: "names exactly the blob that is missing", dir: checks(func(*scheme.Problem) bool { return false })},
	{name: "check names one tag", group: "Check", rule: "all tags that need it", dir: checks(func(p *scheme.Problem) bool {
		p.Tags = p.Tags[:min(1, len(p.Tags))]
		return true
	})},
	{name: "check names one manifest", group: "Check", rule: "the manifests that name it", dir: checks(func(p *scheme.Problem) bool {
		p.Needed = p.Needed[:min(1, len(p.Needed))]
		return true
	})},
	{name: "check ignores the callback's error", group: "Check", rule: "first error of the callback", dir: func(o *ocidir.OCIDir) scheme.API { return deafCheck{o} }},
	{name: "check looks at everything", group: "Check", rule: "narrows Check to what that reaches", dir: func(o *ocidir.OCIDir) scheme.API { return wideCheck{o} }},
	{name: "check is never deep", group: "Check", rule: "counts all of it", dir: func(o *ocidir.OCIDir) scheme.API { return shallowCheck{o} }},
}

type dir struct {
	*ocidir.OCIDir
	put func(d dir, ctx context.Context, r ref.Ref, old, next []byte) error
}

func puts(put func(d dir, ctx context.Context, r ref.Ref, old, next []byte) error) func(o *ocidir.OCIDir) scheme.API {
	return func(o *ocidir.OCIDir) scheme.API { return dir{o, put} }
}

func (d dir) IndexPut(ctx context.Context, r ref.Ref, old, next []byte) error {
	return d.put(d, ctx, r, old, next)
}

// meet waits until two are here, or long enough to be the only one.
func meet() {
	select {
	case pairs <- struct{}{}:
	case <-pairs:
	case <-time.After(20 * time.Millisecond):
	}
}

type emptyIndex struct{ *ocidir.OCIDir }

func (d emptyIndex) IndexGet(ctx context.Context, r ref.Ref) ([]byte, error) {
	raw, err := d.OCIDir.IndexGet(ctx, r)
	if errors.Is(err, errs.ErrNotFound) {
		return []byte(`{"schemaVersion":2,"manifests":[]}`), nil
	}
	return raw, err
}

type hastyClean struct{ *ocidir.OCIDir }

func (d hastyClean) Clean(ctx context.Context, r ref.Ref, _ time.Duration) (scheme.CleanReport, error) {
	return d.OCIDir.Clean(ctx, r, 0)
}

// checker tells those problems of which keep says so.
type checker struct {
	*ocidir.OCIDir
	keep func(p *scheme.Problem) bool
}

func checks(keep func(p *scheme.Problem) bool) func(o *ocidir.OCIDir) scheme.API {
	return func(o *ocidir.OCIDir) scheme.API { return checker{o, keep} }
}

func (d checker) Check(ctx context.Context, r ref.Ref, fn func(scheme.Problem) error, opts ...scheme.CheckOption) (scheme.CheckReport, error) {
	told := 0
	report, err := d.OCIDir.Check(ctx, r, func(p scheme.Problem) error {
		if !d.keep(&p) {
			return nil
		}
		told++
		return fn(p)
	}, opts...)
	report.Problems = told
	return report, err
}

type deafCheck struct{ *ocidir.OCIDir }

func (d deafCheck) Check(ctx context.Context, r ref.Ref, fn func(scheme.Problem) error, opts ...scheme.CheckOption) (scheme.CheckReport, error) {
	return d.OCIDir.Check(ctx, r, func(p scheme.Problem) error { fn(p); return nil }, opts...)
}

type wideCheck struct{ *ocidir.OCIDir }

func (d wideCheck) Check(ctx context.Context, r ref.Ref, fn func(scheme.Problem) error, opts ...scheme.CheckOption) (scheme.CheckReport, error) {
	return d.OCIDir.Check(ctx, r.Place(), fn, opts...)
}

type shallowCheck struct{ *ocidir.OCIDir }

func (d shallowCheck) Check(ctx context.Context, r ref.Ref, fn func(scheme.Problem) error, _ ...scheme.CheckOption) (scheme.CheckReport, error) {
	return d.OCIDir.Check(ctx, r, fn)
}
