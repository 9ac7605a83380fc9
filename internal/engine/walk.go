package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/transfer"
)

// maxDepth is how deep indexes may be nested. Real ones have two levels; every level of a hostile one keeps a manifest
// in memory while its children are walked.
const maxDepth = 16

// mode is how much is believed of what the target has.
type mode uint8

const (
	trust  mode = iota // a manifest that is there is complete
	verify             // everything is looked for
	heal               // everything is looked for, and nothing is mounted: the target has just denied having it
)

// node is a manifest on its way to the target.
type node struct {
	im    *image
	desc  types.Descriptor   // pinned; the media type may be unknown for a root
	m     *manifest.Manifest // when it was read already
	tag   string             // put under this tag, and not only by digest
	child bool               // listed by an index that is put next
	whole bool               // of all platforms, also when only some are wanted: it is a referrer, not an image
	there bool               // the target's tag points to it already
	mode  mode
	depth int
}

// nodeKey is what a run does once.
type nodeKey struct {
	digest digest.Digest
	whole  bool
	mode   mode
}

// placed is the outcome: the manifest, and all it needs, is at the target.
type placed struct {
	desc  types.Descriptor
	child bool // put for the sake of an index; by itself it is not stored yet
	wrote bool // it, or something below it, was not there before
}

func (n node) key() nodeKey { return nodeKey{n.desc.Digest, n.whole, n.mode} }

func (n node) item() item { return item{im: n.im, desc: n.desc, manifest: true} }

// below is a manifest that n lists.
func (n node) below(d types.Descriptor) node {
	return node{im: n.im, desc: d, child: true, whole: n.whole, mode: n.mode, depth: n.depth + 1}
}

// ensure makes the target have n, once in a run, and then what is n's own: its tag.
func (r *run) ensure(ctx context.Context, n node) (placed, error) {
	p, led, err := r.nodes.do(ctx, n.key(), func() (placed, error) { return r.bring(ctx, n) })
	if refused := (*tagRefused)(nil); !led && errors.As(err, &refused) {
		p, err = r.bring(ctx, n) // the other's tag failed, which says nothing of n's
		led = true
	}
	if refused := (*tagRefused)(nil); errors.As(err, &refused) {
		err = refused.error
	}
	if err != nil {
		return placed{desc: n.desc}, err
	}
	if p.wrote { // perhaps by another image's walk, but it was missing here, too
		n.im.changed.Store(true)
	}
	if n.desc.Size > 0 && n.desc.Size != p.desc.Size {
		return p, sizesDiffer(r.src, n.desc, p.desc.Size)
	}
	if led || n.there || n.tag == "" && (n.child || !p.child) {
		return p, nil
	}
	n.desc = p.desc
	if n.m == nil {
		if n.m, err = r.fetch(ctx, n.desc); err != nil {
			return p, err
		}
	}
	return p, r.put(ctx, n)
}

// bring does the work of ensure.
func (r *run) bring(ctx context.Context, n node) (placed, error) {
	if n.depth > maxDepth {
		return placed{}, fmt.Errorf("%w: %s: indexes are nested more than %d deep", errs.ErrManifestInvalid, n.desc.Digest, maxDepth)
	}
	if n.mode == trust && !n.there && !r.absent() {
		found, there, err := r.probe(ctx, n)
		if err != nil {
			return placed{}, err
		}
		if there {
			return r.adopt(ctx, n, found)
		}
	}
	if n.m == nil {
		m, err := r.fetch(ctx, n.desc)
		if err != nil {
			err = r.gapHint(n, err)
			r.rec.content(n.item(), transfer.Failed, 0, err)
			return placed{}, err
		}
		n.m = m
	}
	n.desc = n.m.Descriptor()
	wrote, err := r.children(ctx, n)
	if err != nil {
		return placed{}, err
	}
	if !wrote { // a manifest whose content was completed is put again: only then is that content sure to stay
		there, err := r.stays(ctx, n)
		if err != nil {
			return placed{}, err
		}
		if there {
			r.rec.content(n.item(), transfer.Present, 0, nil)
			return placed{desc: n.desc}, nil
		}
	}
	return placed{desc: n.desc, child: n.child, wrote: true}, r.putTag(ctx, n)
}

// tagRefused is the failure of a put under a tag. It is this tag's alone: the target may protect one and take others,
// and the manifest by its digest. Only those who share a flight see it; ensure takes it off.
type tagRefused struct{ error }

func (t *tagRefused) Unwrap() error { return t.error }

// putTag is put for those whose outcome is shared.
func (r *run) putTag(ctx context.Context, n node) error {
	err := r.put(ctx, n)
	if err != nil && n.tag != "" {
		return &tagRefused{err}
	}
	return err
}

// gapHint explains an image that an index of the source lists and the source does not have, as after a sparse copy.
func (r *run) gapHint(n node, err error) error {
	if !n.child || n.whole || !errors.Is(err, errs.ErrNotFound) {
		return err
	}
	return &errs.Error{
		Op: "copy from index", Err: err, // which names place and digest
		Hint: "the source lacks images that this index lists: choose what it has with --platform, and --rewrite-index for a registry that insists on complete indexes",
	}
}

// found is what a probe of the target brought to light.
type found struct {
	desc types.Descriptor
	m    *manifest.Manifest // if it was read
}

// probe asks the target for n by its digest, and reports whether it is there and complete. The manifest is read
// rather than asked for when its bytes will be needed, and when it is not known yet whether the repository exists:
// only the answer to a GET says so.
func (r *run) probe(ctx context.Context, n node) (f found, there bool, err error) {
	at := r.dst.WithDigest(n.desc.Digest)
	if n.tag != "" && n.m == nil || r.target.Load() == targetUnknown {
		f.m, err = r.readManifest(ctx, at, n.desc, r.dstSlots)
		if err == nil {
			f.desc = f.m.Descriptor()
		}
	} else {
		f.desc, err = r.headManifest(ctx, at, r.dstSlots)
	}
	if r.learnFrom(err); lacks(err) {
		return found{}, false, nil
	}
	if err != nil {
		return found{}, false, err
	}
	there, err = r.complete(ctx, f.desc, n.whole, n.depth)
	return f, there, err
}

// adopt takes a manifest that the target has as it is. Only the tag is put.
func (r *run) adopt(ctx context.Context, n node, f found) (placed, error) {
	n.desc = f.desc
	r.rec.content(n.item(), transfer.Present, 0, nil)
	if n.tag == "" {
		return placed{desc: n.desc}, nil
	}
	if n.m == nil {
		n.m = f.m
	}
	return placed{desc: n.desc}, r.putTag(ctx, n)
}

// stays reports whether the walk has found n's manifest itself at the target, so that nothing is left to be put. With
// trust that was asked before the walk; without it a place whose answers cost no requests must show the manifest.
func (r *run) stays(ctx context.Context, n node) (bool, error) {
	if n.there && (n.mode == trust || remote(r.dst)) {
		return true, nil
	}
	if n.mode == trust || n.tag != "" && !n.there || r.absent() {
		return false, nil
	}
	at, err := r.dst.WithDigest(n.desc.Digest), error(nil)
	if remote(r.dst) {
		_, err = r.headManifest(ctx, at, r.dstSlots)
	} else {
		_, err = r.readManifest(ctx, at, n.desc, r.dstSlots)
	}
	if r.learnFrom(err); lacks(err) {
		return false, nil
	}
	return err == nil, err
}

// children makes the target have everything that n's manifest needs, and reports whether it lacked any of it.
func (r *run) children(ctx context.Context, n node) (wrote bool, err error) {
	view, err := n.m.View()
	if err != nil {
		return false, &errs.Error{Op: "manifest read", Ref: r.src.WithDigest(n.desc.Digest).String(), Err: err}
	}
	manifests, _, err := r.wanted(ctx, n)
	if err != nil {
		return false, err
	}
	blobs := view.Layers
	if view.Config != nil {
		blobs = append([]types.Descriptor{*view.Config}, blobs...)
	}
	todo := largestFirst(blobs)
	isBlob := len(todo)
	todo = append(todo, unique(manifests)...)
	news, failed := make([]bool, len(todo)), make([]error, len(todo))
	r.sched.each(len(todo), func(i int) {
		if i < isBlob {
			news[i], failed[i] = r.blob(ctx, n.im, todo[i], n.mode)
		} else {
			news[i], failed[i] = r.entry(ctx, n, todo[i])
		}
	})
	return slices.Contains(news, true), join(ctx, failed)
}

// wanted returns what n's index lists, and whether images of unwanted platforms are left out of it.
func (r *run) wanted(ctx context.Context, n node) (list []types.Descriptor, sparse bool, err error) {
	view, err := n.m.View()
	if err != nil || !r.pruned() || n.whole || !n.m.IsIndex() {
		return view.Manifests, false, err
	}
	list, err = r.selected(ctx, n.m, n.depth)
	return list, len(list) < len(view.Manifests), err
}

// entry brings what an index lists. That may be any content (the cache of a build lists layers): what is no manifest
// by its type is looked for among the blobs first.
func (r *run) entry(ctx context.Context, n node, d types.Descriptor) (wrote bool, err error) {
	if !types.IsManifest(d.MediaType) {
		release, err := r.sched.acquire(ctx, 0, r.srcSlots)
		if err != nil {
			return false, err
		}
		_, err = r.api.BlobHead(ctx, r.src, d)
		release()
		if err == nil {
			return r.blob(ctx, n.im, d, n.mode)
		}
		if !errors.Is(err, errs.ErrNotFound) {
			return false, err
		}
	}
	p, err := r.ensure(ctx, n.below(d))
	return p.wrote, err
}

// unique returns list without descriptors that name the same content and size again.
func unique(list []types.Descriptor) []types.Descriptor {
	type content struct {
		digest digest.Digest
		size   int64
	}
	seen := make(map[content]bool, len(list))
	var all []types.Descriptor
	for _, d := range list {
		if c := (content{d.Digest, d.Size}); !seen[c] {
			seen[c] = true
			all = append(all, d)
		}
	}
	return all
}

// largestFirst is unique, in the order in which blobs are best begun: what takes longest first.
func largestFirst(list []types.Descriptor) []types.Descriptor {
	all := unique(list)
	slices.SortStableFunc(all, func(a, b types.Descriptor) int {
		switch {
		case a.Size > b.Size:
			return -1
		case a.Size < b.Size:
			return 1
		}
		return 0
	})
	return all
}
