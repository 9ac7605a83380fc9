package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

// image is one source tag or digest, and where it goes. The refs have what the image is called by; everything below
// it is addressed by digest.
type image struct {
	index    int
	src, dst ref.Ref
	fresh    bool // the target is known to lack the tag

	changed   atomic.Bool // something was written for it (in a plan: would be)
	referrers int         // written by the image's own goroutine
}

// resolve says what is to be copied. Its errors concern the run as a whole.
func (r *run) resolve(ctx context.Context, src, dst ref.Ref) ([]*image, error) {
	for _, x := range []ref.Ref{src, dst} {
		if err := x.Validate(); err != nil {
			return nil, err
		}
	}
	if r.opts.AllTags {
		return r.resolveTags(ctx, src, dst)
	}
	src = src.OrLatest()
	if dst.Tag == "" && dst.Digest == "" {
		dst.Tag = src.Tag
	}
	if src.Digest != "" && dst.Digest != "" && src.Digest != dst.Digest && !r.opts.Rewrite {
		return nil, wrongDigest(src, dst, string(src.Digest))
	}
	return []*image{{src: src, dst: dst}}, nil
}

// wrongDigest says that what would be put is not what the target asks for.
func wrongDigest(src, dst ref.Ref, got string) error {
	return &errs.Error{
		Op: "copy", Ref: dst.String(), Err: errs.ErrDigestMismatch, Message: fmt.Sprintf("%s is %s", src, got),
		Hint: "leave the digest out of the target",
	}
}

// resolveTags lists the tags of both sides: with the target's list, a tag that it lacks needs no question.
func (r *run) resolveTags(ctx context.Context, src, dst ref.Ref) ([]*image, error) {
	for _, x := range []ref.Ref{src, dst} {
		if x.Tag != "" || x.Digest != "" {
			return nil, &errs.Error{
				Op: "copy", Ref: x.String(), Err: errs.ErrInvalid, Message: "all tags are copied from a repository to a repository",
				Hint: "use " + x.Place().String(),
			}
		}
	}
	want, err := parsePatterns(r.opts.Tags)
	if err != nil {
		return nil, err
	}
	list, err := r.api.TagList(ctx, src)
	if err != nil {
		return nil, err
	}
	r.cosign.settle(struct{}{}, bySubject(list.Tags))
	have, known, err := r.targetTags(ctx)
	if err != nil {
		return nil, err
	}
	r.listed = map[string]bool{}
	var images []*image
	for _, tag := range list.Tags {
		if referrer.IsFallbackTag(tag) || !want.match(tag) || r.leavesCosign(tag) {
			continue
		}
		r.listed[tag] = true
		images = append(images, &image{
			index: len(images), src: src.WithTag(tag), dst: dst.WithTag(tag), fresh: known && !have[tag],
		})
	}
	return images, nil
}

// leavesCosign reports whether tag is one of cosign's that is no image of its own in this run: without referrers none of
// them is copied, and when indexes are rewritten those that belong to what is copied come with it (attachTagged), while
// those of the original indexes would belong to nothing.
func (r *run) leavesCosign(tag string) bool {
	_, is := referrer.CosignSubject(tag)
	return is && (r.opts.NoReferrers || r.opts.Rewrite && r.pruned())
}

// targetTags lists the tags of the target. known is false if it cannot be told; a repository that is not there has
// none.
func (r *run) targetTags(ctx context.Context) (have map[string]bool, known bool, err error) {
	list, err := r.api.TagList(ctx, r.dst)
	switch {
	case errors.Is(err, errs.ErrNotFound):
		r.learn(targetAbsent)
		return nil, true, nil
	case errors.Is(err, errs.ErrUnsupported):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	have = make(map[string]bool, len(list.Tags))
	for _, tag := range list.Tags {
		have[tag] = true
		r.learn(targetExists)
	}
	return have, true, nil // an empty list may also mean that there is no such repository: it teaches nothing
}
