package ocisync

import (
	"context"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// Node is one manifest and what belongs to it.
type Node struct {
	Ref          string             `json:"ref,omitempty"` // where it can be read; by tag for the root and for cosign's tags
	Descriptor   types.Descriptor   `json:"descriptor"`    // as its index or referrers list describes it: with platform or artifact type
	ArtifactType string             `json:"artifactType,omitempty"`
	Annotations  map[string]string  `json:"annotations,omitempty"` // the manifest's own
	Config       *types.Descriptor  `json:"config,omitempty"`
	Layers       []types.Descriptor `json:"layers,omitempty"`
	Manifests    []*Node            `json:"manifests,omitempty"` // of an index, in its order; no more than descriptors where the place lacks them
	Referrers    []*Node            `json:"referrers,omitempty"` // signatures and the like, those of cosign's tags included
	Size         int64              `json:"size"`                // bytes of this and of everything below it, each digest once, without referrers
}

// InspectOption is a setting of Inspect.
type InspectOption func(*engine.InspectOptions)

// InspectWithoutReferrers leaves out what refers to the images.
func InspectWithoutReferrers() InspectOption {
	return func(o *engine.InspectOptions) { o.NoReferrers = true }
}

// Inspect reads what r names (latest, if r has neither tag nor digest) and everything below it, but no blob.
//
// Errors: errs.ErrNotFound; what the place answers. An index may lack children (a sparse copy): these are nodes with
// nothing but a descriptor.
func (c *Client) Inspect(ctx context.Context, r ref.Ref, opts ...InspectOption) (*Node, error) {
	var o engine.InspectOptions
	for _, set := range opts {
		set(&o)
	}
	n, err := c.engine.Inspect(ctx, r, o)
	if err != nil {
		return nil, err
	}
	return nodeOf(n), nil
}

// nodeOf makes a Node of the engine's.
func nodeOf(n *engine.Node) *Node {
	return &Node{
		Ref: n.Ref, Descriptor: n.Descriptor, ArtifactType: n.ArtifactType, Annotations: n.Annotations,
		Config: n.Config, Layers: n.Layers, Manifests: nodesOf(n.Manifests), Referrers: nodesOf(n.Referrers), Size: n.Size,
	}
}

func nodesOf(list []*engine.Node) []*Node {
	var all []*Node
	for _, n := range list {
		all = append(all, nodeOf(n))
	}
	return all
}
