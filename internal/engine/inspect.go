package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// maxNodes bounds what one inspection keeps in memory.
const maxNodes = 20_000

// Node is one manifest and what belongs to it; see the Node of package ocisync.
type Node struct {
	Ref          string
	Descriptor   types.Descriptor
	ArtifactType string
	Annotations  map[string]string
	Config       *types.Descriptor
	Layers       []types.Descriptor
	Manifests    []*Node
	Referrers    []*Node
	Size         int64
}

// InspectOptions are the settings of Inspect.
type InspectOptions struct {
	NoReferrers bool
}

// Inspect reads what r names and everything below it.
func (e *Engine) Inspect(ctx context.Context, r ref.Ref, o InspectOptions) (*Node, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	r = r.OrLatest()
	run := &run{
		api: e.api, src: r.Place(), dst: r.Place(), srcSlots: slotsOf(e.api, r),
		sched: newScheduler(e.concurrency), rec: newRecorder(nil, true), mounts: e.mounts,
	}
	m, err := run.readManifest(ctx, r, types.Descriptor{Digest: r.Digest}, run.srcSlots)
	if err != nil {
		return nil, err
	}
	in := &inspection{run: run, referrers: !o.NoReferrers, above: map[digest.Digest]bool{}}
	return in.node(ctx, r, m.Descriptor(), m, 0)
}

// inspection is one walk, which goes through the tree in its order: it is short, and made by one goroutine.
type inspection struct {
	run       *run
	referrers bool
	nodes     int
	above     map[digest.Digest]bool // the manifests that led to the present one
}

// node describes the manifest d, which is at r. m is d's if it was read already.
func (in *inspection) node(ctx context.Context, r ref.Ref, d types.Descriptor, m *manifest.Manifest, depth int) (*Node, error) {
	if in.nodes++; in.nodes > maxNodes || depth > maxDepth {
		return nil, tooMany(r)
	}
	if err := ctx.Err(); err != nil { // what is in memory is read without asking anybody
		return nil, err
	}
	n := &Node{Ref: r.String(), Descriptor: d}
	if m == nil {
		var err error
		if m, err = in.run.fetch(ctx, d); errors.Is(err, errs.ErrNotFound) && depth > 0 {
			return n, nil // left out of a sparse copy
		} else if err != nil {
			return nil, err
		}
	}
	view, err := m.View()
	if err != nil {
		return nil, &errs.Error{Op: "inspect", Ref: r.String(), Err: err}
	}
	n.ArtifactType, n.Annotations, n.Config, n.Layers = view.ArtifactType, view.Annotations, view.Config, view.Layers
	in.above[d.Digest] = true
	defer delete(in.above, d.Digest)
	for _, child := range view.Manifests {
		sub := &Node{Ref: r.WithDigest(child.Digest).String(), Descriptor: child}
		if types.IsManifest(child.MediaType) && !in.above[child.Digest] {
			if sub, err = in.node(ctx, r.WithDigest(child.Digest), child, nil, depth+1); err != nil {
				return nil, err
			}
		} else if in.nodes++; in.nodes > maxNodes {
			return nil, tooMany(r)
		}
		n.Manifests = append(n.Manifests, sub)
	}
	n.Size = sizeBelow(n, map[digest.Digest]bool{})
	if in.referrers {
		n.Referrers, err = in.attached(ctx, r, d, depth)
	}
	return n, err
}

// tooMany refuses what would fill the memory.
func tooMany(r ref.Ref) error {
	return &errs.Error{Op: "inspect", Ref: r.String(), Err: errs.ErrManifestInvalid,
		Message: fmt.Sprintf("it has more than %d manifests, or more than %d levels", maxNodes, maxDepth)}
}

// attached describes what refers to d: what the place lists, then cosign's tags.
func (in *inspection) attached(ctx context.Context, r ref.Ref, d types.Descriptor, depth int) ([]*Node, error) {
	list, err := in.run.listReferrers(ctx, d)
	if err != nil {
		return nil, err
	}
	var all []*Node
	for _, ref := range list {
		if in.above[ref.Digest] {
			continue
		}
		n, err := in.node(ctx, r.WithDigest(ref.Digest), ref, nil, depth+1)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	tags, err := in.run.cosignTags(ctx)
	if err != nil {
		return nil, err
	}
	for _, tag := range tags[d.Digest] {
		m, err := in.run.readManifest(ctx, r.WithTag(tag), types.Descriptor{}, in.run.srcSlots)
		if err != nil {
			return nil, err
		}
		if in.above[m.Digest()] {
			continue
		}
		n, err := in.node(ctx, r.WithTag(tag), m.Descriptor(), m, depth+1)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// sizeBelow adds up n and everything below it but referrers, each digest once.
func sizeBelow(n *Node, seen map[digest.Digest]bool) int64 {
	var sum int64
	add := func(d types.Descriptor) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			sum += d.Size
		}
	}
	add(n.Descriptor)
	if n.Config != nil {
		add(*n.Config)
	}
	for _, d := range n.Layers {
		add(d)
	}
	for _, sub := range n.Manifests {
		sum += sizeBelow(sub, seen)
	}
	return sum
}
