package engine

import (
	"context"
	"errors"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

// pinned is what a tag was when it was read. From then on only the digest counts, wherever the tag may move.
type pinned struct {
	desc types.Descriptor   // the media type is unknown while only a digest was given
	m    *manifest.Manifest // when it was read already
}

// image copies one image, with what refers to it, and tells how it went.
func (r *run) image(ctx context.Context, im *image) {
	r.rec.image(im, transfer.Event{Kind: transfer.ImageStarted})
	root, err := r.imageContent(ctx, im)
	if err == nil && !r.opts.NoReferrers && !r.retag() {
		im.referrers, err = r.referrers(ctx, im, root)
	}
	done := transfer.Event{Kind: transfer.ImageDone, Descriptor: root, Outcome: r.outcome(im)}
	if err != nil {
		done.Outcome = transfer.Error
		done.Err = &errs.Error{Op: "copy", Ref: im.src.String() + " to " + im.dst.String(), Err: err}
	}
	r.rec.image(im, done)
}

func (r *run) outcome(im *image) transfer.Outcome {
	switch {
	case !im.changed.Load():
		return transfer.Unchanged
	case r.dry:
		return transfer.WouldCopy
	}
	return transfer.Copied
}

// imageContent brings the image itself, and returns its manifest's descriptor as the target has it.
func (r *run) imageContent(ctx context.Context, im *image) (types.Descriptor, error) {
	pin, err := r.pin(ctx, im.src, im.fresh || r.absent() && im.dst.Tag != "")
	if err != nil {
		return types.Descriptor{}, err
	}
	if pin, err = r.shape(ctx, pin); err != nil {
		return pin.desc, err
	}
	if im.dst.Digest != "" && im.dst.Digest != pin.desc.Digest {
		return pin.desc, wrongDigest(im.src, im.dst, string(pin.desc.Digest))
	}
	return r.settle(ctx, im, pin, im.dst.Tag, im.fresh)
}

// pin reads which digest src is. With whole the manifest is read right away, which is one request in place of two.
func (r *run) pin(ctx context.Context, src ref.Ref, whole bool) (pinned, error) {
	switch {
	case src.Digest != "":
		return pinned{desc: types.Descriptor{Digest: src.Digest}}, nil
	case whole:
		m, err := r.readManifest(ctx, src, types.Descriptor{}, r.srcSlots)
		if err != nil {
			return pinned{}, err
		}
		return pinned{desc: m.Descriptor(), m: m}, nil
	}
	d, err := r.headManifest(ctx, src, r.srcSlots)
	return pinned{desc: d}, err
}

// shape makes of an index what the wanted platforms make of it. Without a wish for platforms nothing is read.
func (r *run) shape(ctx context.Context, pin pinned) (pinned, error) {
	if !r.pruned() || pin.desc.MediaType != "" && !types.IsIndex(pin.desc.MediaType) {
		return pin, nil
	}
	if pin.m == nil {
		m, err := r.fetch(ctx, pin.desc)
		if err != nil {
			return pin, err
		}
		pin = pinned{desc: m.Descriptor(), m: m}
	}
	if !pin.m.IsIndex() {
		return pin, nil
	}
	if err := r.checkPlatforms(ctx, pin.m); err != nil {
		return pin, err
	}
	if !r.opts.Rewrite {
		return pin, nil
	}
	m, err := r.rewrite(ctx, pin.m)
	if err != nil {
		return pin, err
	}
	return pinned{desc: m.Descriptor(), m: m}, nil
}

// settle makes the target have pin, and its tag (if any) name it. fresh says that the target lacks the tag.
func (r *run) settle(ctx context.Context, im *image, pin pinned, tag string, fresh bool) (types.Descriptor, error) {
	n := node{im: im, desc: pin.desc, m: pin.m, tag: tag, mode: r.mode()}
	if tag != "" && !fresh && !r.absent() {
		had, err := r.targetTag(ctx, tag)
		if err != nil {
			return pin.desc, err
		}
		if n.there = had.Digest == pin.desc.Digest; n.there {
			n.desc = had
		}
	}
	if n.there && n.mode == trust {
		whole, err := r.complete(ctx, n.desc, n.whole, 0)
		if err != nil {
			return n.desc, err
		}
		if whole {
			r.nodes.settle(n.key(), placed{desc: n.desc})
			r.rec.content(n.item(), transfer.Present, 0, nil)
			return n.desc, nil
		}
	}
	p, err := r.ensure(ctx, n)
	return p.desc, err
}

// targetTag returns what the target's tag points to; nothing, if there is no such tag.
func (r *run) targetTag(ctx context.Context, tag string) (types.Descriptor, error) {
	d, err := r.headManifest(ctx, r.dst.WithTag(tag), r.dstSlots)
	if r.learnFrom(err); lacks(err) {
		return types.Descriptor{}, nil
	}
	return d, err
}

// learnFrom records what an answer of the target says of its repository.
func (r *run) learnFrom(err error) {
	switch {
	case err == nil:
		r.learn(targetExists)
	case errors.Is(err, errs.ErrNameUnknown):
		r.learn(targetAbsent)
	}
}

func (r *run) mode() mode {
	if r.opts.Verify {
		return verify
	}
	return trust
}
