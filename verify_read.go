package ocisync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// verifyRequests is how many requests are under way at once; a host's own limit holds as well.
const verifyRequests = 8

// reading verifies a repository of a place that cannot check itself, by asking for everything that its tags reach.
type reading struct {
	api   scheme.API
	r     ref.Ref
	deep  bool
	slots *scheme.Slots

	mu       sync.Mutex
	fn       func(scheme.Problem) error
	progress func(blob.Info)
	report   scheme.CheckReport
	nodes    map[digest.Digest]*node
	order    []*node        // all, each once
	todo     []*node        // those that are manifests, each once
	whole    map[*node]bool // indexes that have a manifest which is there
}

// node is one digest that is named somewhere.
type node struct {
	desc     types.Descriptor
	manifest bool
	tags     []string
	up       []*node // manifests that name it
	subject  []*node // what it refers to
	optional bool    // a layer that may be elsewhere
	listed   bool    // by an index or as a subject only: it may have been left out
	err      error   // of reading it
}

// verifyByReading is Verify for one repository of any place.
func verifyByReading(ctx context.Context, api scheme.API, r ref.Ref, o verifyOptions, fn func(scheme.Problem) error) (scheme.CheckReport, error) {
	v := &reading{api: api, r: r, deep: o.deep, fn: fn, progress: o.progress, nodes: map[digest.Digest]*node{}}
	var t scheme.Throttler
	if scheme.As(api, r, &t) {
		v.slots = t.Slots(r)
	}
	err := v.roots(ctx)
	for done := 0; err == nil && done < len(v.todo); {
		level := v.todo[done:]
		done += len(level)
		err = each(ctx, v, level, v.manifest)
	}
	v.whole = map[*node]bool{}
	for _, n := range v.todo {
		for _, up := range n.up {
			v.whole[up] = v.whole[up] || n.err == nil
		}
	}
	if err == nil {
		err = each(ctx, v, v.order, func(ctx context.Context, n *node) error {
			if n.manifest {
				return v.tell(n)
			}
			return v.blob(ctx, n)
		})
	}
	return v.report, err
}

// each calls do for everything in all, a few at a time, each with a slot of the host.
func each[T any](ctx context.Context, v *reading, all []T, do func(context.Context, T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(verifyRequests)
	for _, n := range all {
		g.Go(func() error {
			release, err := scheme.AcquireSlots(ctx, v.slots)
			if err != nil {
				return err
			}
			defer release()
			return do(ctx, n)
		})
	}
	return g.Wait()
}

// roots asks which manifests the tags name.
func (v *reading) roots(ctx context.Context) error {
	if v.r.Digest != "" {
		v.name(types.Descriptor{Digest: v.r.Digest}, true, nil).listed = false
		return nil
	}
	tags := []string{v.r.Tag}
	if v.r.Tag == "" {
		list, err := v.api.TagList(ctx, v.r)
		if err != nil {
			return err
		}
		tags = list.Tags
	}
	return each(ctx, v, tags, v.root)
}

// root asks which manifest a tag names.
func (v *reading) root(ctx context.Context, tag string) error {
	d, err := v.api.ManifestHead(ctx, v.r.WithTag(tag))
	switch {
	case err == nil:
		v.mu.Lock()
		defer v.mu.Unlock()
		n := v.name(d, true, nil)
		n.tags, n.listed = append(n.tags, tag), false
		return nil
	case final(ctx, err), v.r.Tag != "" && errors.Is(err, errs.ErrNotFound):
		return err
	}
	return v.emit(scheme.Problem{Kind: kindOf(err), Path: v.r.WithTag(tag).String(), Tags: []string{tag}, Manifest: true, Err: err})
}

// name notes that something is named. The caller holds mu.
func (v *reading) name(d types.Descriptor, isManifest bool, by *node) *node {
	n := v.nodes[d.Digest]
	if n == nil {
		n = &node{desc: d, optional: types.IsForeignLayer(d.MediaType), listed: true}
		v.nodes[d.Digest] = n
		v.order = append(v.order, n)
	}
	if isManifest && !n.manifest {
		n.manifest = true
		v.todo = append(v.todo, n)
	}
	if by != nil && !slices.Contains(n.up, by) {
		n.up = append(n.up, by)
	}
	return n
}

// manifest reads a manifest, and asks what refers to it.
func (v *reading) manifest(ctx context.Context, n *node) error {
	m, err := v.api.ManifestGet(ctx, v.r.WithDigest(n.desc.Digest))
	if err != nil {
		n.err = err
		if final(ctx, err) {
			return err
		}
		return nil
	}
	if types.SizeKnown(n.desc) && n.desc.Size != m.Descriptor().Size {
		n.err = fmt.Errorf("%w: it has %d bytes, not %d", errs.ErrSizeMismatch, m.Descriptor().Size, n.desc.Size)
	}
	v.checked(m.Descriptor(), m.Descriptor().Size, true)
	refs, err := v.api.ReferrerList(ctx, v.r.WithDigest(n.desc.Digest))
	if err != nil && final(ctx, err) {
		return err
	}
	if err != nil && !errors.Is(err, errs.ErrNotFound) && !errors.Is(err, errs.ErrUnsupported) && n.err == nil {
		n.err = err
	}
	view, err := m.View()
	if err != nil {
		n.err = err
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.children(n, view)
	for _, d := range refs.Descriptors {
		below := v.name(d, true, nil)
		below.listed = false
		if !slices.Contains(below.subject, n) {
			below.subject = append(below.subject, n)
		}
	}
	return nil
}

func (v *reading) children(n *node, view *manifest.View) {
	if view.Config != nil {
		v.name(*view.Config, false, n)
	}
	for _, d := range view.Layers {
		v.name(d, false, n)
	}
	for _, d := range view.Manifests {
		v.name(d, d.MediaType == "" || types.IsManifest(d.MediaType), n)
	}
}

// blob asks for a blob, or reads it.
func (v *reading) blob(ctx context.Context, n *node) error {
	d, err := v.api.BlobHead(ctx, v.r, types.Descriptor{Digest: n.desc.Digest})
	read := int64(0)
	if err == nil && types.SizeKnown(n.desc) && types.SizeKnown(d) && d.Size != n.desc.Size {
		err = fmt.Errorf("%w: it has %d bytes, not %d", errs.ErrSizeMismatch, d.Size, n.desc.Size)
	}
	if err == nil && v.deep {
		read, err = v.drain(ctx, n.desc)
	}
	if err != nil && final(ctx, err) {
		return err
	}
	if errors.Is(err, errs.ErrNotFound) && n.optional {
		return nil
	}
	v.checked(types.Descriptor{Digest: n.desc.Digest, Size: d.Size}, read, false)
	n.err = err
	return v.tell(n)
}

// drain reads a blob, verified, to its end.
func (v *reading) drain(ctx context.Context, d types.Descriptor) (int64, error) {
	rdr, err := v.api.BlobGet(ctx, v.r, d)
	if err != nil {
		return 0, err
	}
	defer rdr.Close()
	return io.Copy(io.Discard, rdr)
}

func (v *reading) checked(d types.Descriptor, read int64, isManifest bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Bytes += read
	if isManifest {
		v.report.Manifests++
	} else {
		v.report.Blobs++
	}
	if v.progress != nil {
		v.progress(blob.Info{Digest: d.Digest, Size: d.Size})
	}
}

// tell tells of what is wrong with a node, if anything is.
func (v *reading) tell(n *node) error {
	if n.err == nil {
		return nil
	}
	if n.manifest && n.listed && errors.Is(n.err, errs.ErrNotFound) && v.leftOut(n) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.report.Sparse++
		return nil
	}
	p := scheme.Problem{
		Kind: kindOf(n.err), Digest: n.desc.Digest, Path: v.r.WithDigest(n.desc.Digest).String(), Want: n.desc, Manifest: n.manifest,
		Tags: n.reachedBy(), Err: n.err,
	}
	for _, up := range n.up {
		p.Needed = append(p.Needed, up.desc.Digest)
	}
	slices.Sort(p.Needed)
	return v.emit(p)
}

// leftOut reports whether a manifest may be absent on purpose: every index that lists it has another one that is there.
func (v *reading) leftOut(n *node) bool {
	return !slices.ContainsFunc(n.up, func(up *node) bool { return !v.whole[up] })
}

// reachedBy returns the tags that lead to a node, in byte order.
func (n *node) reachedBy() []string {
	var all []string
	seen := map[*node]bool{n: true}
	for todo := []*node{n}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		all = append(all, next.tags...)
		for _, up := range slices.Concat(next.up, next.subject) {
			if !seen[up] {
				seen[up] = true
				todo = append(todo, up)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (v *reading) emit(p scheme.Problem) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Problems++
	return v.fn(p)
}

// kindOf says which problem an error is.
func kindOf(err error) scheme.ProblemKind {
	switch {
	case errors.Is(err, errs.ErrSizeMismatch):
		return scheme.ProblemSize
	case errors.Is(err, errs.ErrDigestMismatch), errors.Is(err, errs.ErrCorrupt):
		return scheme.ProblemDamaged
	case errors.Is(err, errs.ErrNotFound):
		return scheme.ProblemMissing
	case errors.Is(err, errs.ErrManifestInvalid):
		return scheme.ProblemEntry
	default:
		return scheme.ProblemUnread
	}
}

// final reports whether an error says nothing of the content that was asked for: nothing else can be asked for either.
func final(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, errs.ErrUnauthorized) || errors.Is(err, errs.ErrDenied) ||
		errors.Is(err, errs.ErrRateLimited) || errors.Is(err, errs.ErrNameUnknown)
}
