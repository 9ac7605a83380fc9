package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/platform"
)

// The annotations by which BuildKit ties an attestation to the image it is about, both listed by one index.
const (
	attestationType   = "vnd.docker.reference.type"
	attestationDigest = "vnd.docker.reference.digest"
)

// selected returns what the wanted platforms leave of the index m.
func (r *run) selected(ctx context.Context, m *manifest.Manifest, depth int) ([]types.Descriptor, error) {
	view, err := m.View()
	if err != nil {
		return nil, err
	}
	keep, _, err := r.pick(ctx, view.Manifests, depth)
	if err != nil {
		return nil, err
	}
	var list []types.Descriptor
	for _, i := range keep {
		list = append(list, view.Manifests[i])
	}
	return list, nil
}

// pick returns which entries of an index are wanted, and whether a platform was among the reasons. An index in the
// index is wanted if anything in it is; an attestation if its image is; what has no platform always.
func (r *run) pick(ctx context.Context, entries []types.Descriptor, depth int) (keep []int, matched bool, err error) {
	if depth > maxDepth {
		return nil, false, fmt.Errorf("%w: indexes are nested more than %d deep", errs.ErrManifestInvalid, maxDepth)
	}
	kept := map[digest.Digest]bool{}
	for i, d := range entries {
		switch {
		case attests(d) != "":
			continue
		case types.IsIndex(d.MediaType) && !hasPlatform(d):
			some, err := r.pickNested(ctx, d, depth+1)
			if err != nil {
				return nil, false, err
			}
			if !some {
				continue
			}
			matched = true
		case !platform.MatchAny(r.opts.Platforms, d.Platform):
			continue
		default:
			matched = matched || hasPlatform(d)
		}
		keep = append(keep, i)
		kept[d.Digest] = true
	}
	for i, d := range entries {
		if about := attests(d); about != "" && kept[about] {
			keep = append(keep, i)
		}
	}
	slices.Sort(keep)
	return keep, matched, nil
}

// pickNested reports whether anything in the index d is wanted. Each index is looked into once: one that lists the next
// a dozen times, and so on, has more paths than anybody can follow.
func (r *run) pickNested(ctx context.Context, d types.Descriptor, depth int) (bool, error) {
	if some, done := r.nested.Load(d.Digest); done {
		return some.(bool), nil
	}
	if err := ctx.Err(); err != nil { // what is in memory is read without asking anybody
		return false, err
	}
	m, err := r.fetch(ctx, d)
	if err != nil {
		return false, err
	}
	view, err := m.View()
	if err != nil {
		return false, err
	}
	keep, _, err := r.pick(ctx, view.Manifests, depth)
	if err != nil {
		return false, err
	}
	r.nested.Store(d.Digest, len(keep) > 0)
	return len(keep) > 0, nil
}

func hasPlatform(d types.Descriptor) bool {
	return d.Platform != nil && (d.Platform.OS != "" || d.Platform.Architecture != "")
}

// attests returns the digest of the image that d is an attestation of.
func attests(d types.Descriptor) digest.Digest {
	if d.Annotations[attestationType] == "" {
		return ""
	}
	return digest.Digest(d.Annotations[attestationDigest])
}

// checkPlatforms makes sure that the index m has something of what is wanted. An index without any platforms is a
// list of other things, from which nothing is chosen.
func (r *run) checkPlatforms(ctx context.Context, m *manifest.Manifest) error {
	view, err := m.View()
	if err != nil {
		return err
	}
	_, matched, err := r.pick(ctx, view.Manifests, 0)
	if matched || err != nil {
		return err
	}
	var have, want []string
	for _, d := range view.Manifests {
		if hasPlatform(d) && attests(d) == "" {
			have = append(have, platform.String(*d.Platform))
		}
	}
	if len(have) == 0 {
		return nil
	}
	for _, p := range r.opts.Platforms {
		want = append(want, platform.String(p))
	}
	return &errs.Error{
		Op: "platform", Ref: r.src.WithDigest(m.Digest()).String(), Err: errs.ErrNotFound,
		Message: fmt.Sprintf("%s: the index has %s", strings.Join(want, ", "), strings.Join(have, ", ")),
		Hint:    "choose one of " + strings.Join(have, ", "),
	}
}

// complete reports whether the manifest d, which the target has, can be taken for all that is wanted of it. A registry
// is believed: it refuses an index whose images are missing, and asking would cost a request for each. Anywhere else,
// and when only some platforms are wanted, the index may be one that an earlier copy left images out of.
func (r *run) complete(ctx context.Context, d types.Descriptor, whole bool, depth int) (bool, error) {
	if !types.IsIndex(d.MediaType) || remote(r.dst) && !r.pruned() || r.retag() || depth > maxDepth {
		return true, nil
	}
	key := nodeKey{digest: d.Digest, whole: whole}
	if _, done := r.completed.Load(key); done {
		return true, nil
	}
	m := r.kept(d)
	if m == nil {
		var err error
		m, err = r.readManifest(ctx, r.dst.WithDigest(d.Digest), d, r.dstSlots)
		if lacks(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	list, _, err := r.wanted(ctx, node{m: m, whole: whole, depth: depth})
	if err != nil {
		return false, err
	}
	for _, child := range list {
		if !types.IsManifest(child.MediaType) {
			continue
		}
		_, err := r.headManifest(ctx, r.dst.WithDigest(child.Digest), r.dstSlots)
		if lacks(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if ok, err := r.complete(ctx, child, whole, depth+1); !ok || err != nil {
			return false, err
		}
	}
	r.completed.Store(key, nil)
	return true, nil
}
