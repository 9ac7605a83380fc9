package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/referrer"
	"github.com/ocisync/ocisync/types/transfer"
)

// maxReferrerDepth is how far referrers of referrers are followed: a signature of an SBOM of an image is 2. A source
// could invent a new one for each that it is asked for.
const maxReferrerDepth = 16

// attachments is what refers to one manifest and is at the target now.
type attachments []types.Descriptor

// referrers copies what refers to root, to what it contains, and to those referrers in turn, and returns how many
// manifests that is. Subjects come before what refers to them: level by level, with the image as the first.
//
// Levels rather than recursion also make circles harmless: nothing that is under way waits for what led to it. An
// index may well list its own subject, and a source may claim anything.
func (r *run) referrers(ctx context.Context, im *image, root types.Descriptor) (count int, err error) {
	seen := map[digest.Digest]bool{}
	level, err := r.subjects(ctx, root, false, 0, seen)
	if err != nil {
		return 0, err
	}
	for depth := 0; len(level) > 0; depth++ {
		if depth == maxReferrerDepth {
			return count, fmt.Errorf("%w: referrers of %s follow one another more than %d deep", errs.ErrManifestInvalid, root.Digest, maxReferrerDepth)
		}
		found, failed := make([]attachments, len(level)), make([]error, len(level))
		r.sched.each(len(level), func(i int) { found[i], failed[i] = r.attach(ctx, im, level[i]) })
		if err := join(ctx, failed); err != nil {
			return count, err
		}
		level = nil
		for _, list := range found {
			for _, d := range list {
				if seen[d.Digest] {
					continue
				}
				count++
				more, err := r.subjects(ctx, d, true, 0, seen)
				if err != nil {
					return count, err
				}
				level = append(level, more...)
			}
		}
	}
	return count, nil
}

// subjects returns every manifest that d contains, itself included, that was not seen before. An index that was made
// by this run has no referrers, but what it lists has.
func (r *run) subjects(ctx context.Context, d types.Descriptor, whole bool, depth int, seen map[digest.Digest]bool) ([]types.Descriptor, error) {
	if seen[d.Digest] {
		return nil, nil
	}
	seen[d.Digest] = true
	var all []types.Descriptor
	if r.rewritten.get(d.Digest) == nil {
		all = append(all, d)
	}
	if !types.IsIndex(d.MediaType) || depth > maxDepth {
		return all, nil
	}
	m, err := r.fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	list, _, err := r.wanted(ctx, node{m: m, whole: whole, depth: depth})
	if err != nil {
		return nil, err
	}
	for _, child := range list {
		if !types.IsManifest(child.MediaType) {
			continue
		}
		more, err := r.subjects(ctx, child, whole, depth+1, seen)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// attach copies what refers to subject directly, once in a run.
func (r *run) attach(ctx context.Context, im *image, subject types.Descriptor) (attachments, error) {
	all, _, err := r.attached.do(ctx, subject.Digest, func() (attachments, error) {
		listed, err := r.attachListed(ctx, im, subject)
		tagged, err2 := r.attachTagged(ctx, im, subject)
		return append(listed, tagged...), join(ctx, []error{err, err2})
	})
	return all, err
}

// attachListed copies the referrers that the source lists.
func (r *run) attachListed(ctx context.Context, im *image, subject types.Descriptor) (attachments, error) {
	want, err := r.listReferrers(ctx, subject)
	if err != nil || len(want) == 0 {
		return nil, err
	}
	have, err := r.targetReferrers(ctx, subject)
	if err != nil {
		return nil, err
	}
	failed := make([]error, len(want))
	r.sched.each(len(want), func(i int) {
		d := types.Descriptor{MediaType: want[i].MediaType, Digest: want[i].Digest, Size: want[i].Size}
		n := node{im: im, desc: d, whole: r.pruned(), mode: r.mode()}
		if have[d.Digest] && n.mode == trust {
			r.nodes.settle(n.key(), placed{desc: d})
			r.rec.content(n.item(), transfer.Present, 0, nil)
			return
		}
		if _, err := r.ensure(ctx, n); err != nil {
			failed[i] = r.danglingHint(subject, d, err)
		}
	})
	return want, join(ctx, failed)
}

// danglingHint explains a referrer that the source lists and does not have.
func (r *run) danglingHint(subject, d types.Descriptor, err error) error {
	if !errors.Is(err, errs.ErrNotFound) {
		return err
	}
	return &errs.Error{
		Op: "copy referrer", Ref: r.src.String(), Digest: d.Digest, Err: err, Message: "listed as a referrer of " + string(subject.Digest),
		Hint: "remove it from the source's list, or copy with --no-referrers",
	}
}

// listReferrers asks the source what refers to subject. A source that does not know referrers has none; any other
// error is one: it must not look like an image that nobody signed.
func (r *run) listReferrers(ctx context.Context, subject types.Descriptor) (attachments, error) {
	release, err := r.sched.acquire(ctx, 0, r.srcSlots)
	if err != nil {
		return nil, err
	}
	defer release()
	list, err := r.api.ReferrerList(ctx, r.src.WithDigest(subject.Digest))
	if errors.Is(err, errs.ErrUnsupported) {
		return nil, nil
	}
	return unique(list.Descriptors), err
}

// targetReferrers asks the target which referrers of subject it has. What cannot be told is looked for one by one.
func (r *run) targetReferrers(ctx context.Context, subject types.Descriptor) (map[digest.Digest]bool, error) {
	if r.absent() {
		return nil, nil
	}
	release, err := r.sched.acquire(ctx, 0, r.dstSlots)
	if err != nil {
		return nil, err
	}
	defer release()
	list, err := r.api.ReferrerList(ctx, r.dst.WithDigest(subject.Digest))
	if errors.Is(err, errs.ErrUnsupported) || errors.Is(err, errs.ErrCorrupt) || lacks(err) {
		return nil, nil // a damaged list is repaired by putting what it lacks
	}
	have := map[digest.Digest]bool{}
	for _, d := range list.Descriptors {
		have[d.Digest] = true
	}
	return have, err
}

// attachTagged copies the manifests that cosign has attached to subject, under the tags that it gave them. Those that
// are copied as tags anyway are left to that.
func (r *run) attachTagged(ctx context.Context, im *image, subject types.Descriptor) (attachments, error) {
	tags, err := r.cosignTags(ctx)
	if err != nil {
		return nil, err
	}
	var all attachments
	var failed []error
	for _, tag := range tags[subject.Digest] {
		if r.listed[tag] {
			continue
		}
		pin, _, err := r.tags.do(ctx, tag, func() (pinned, error) {
			pin, err := r.pin(ctx, r.src.WithTag(tag), r.absent())
			if err != nil {
				return pin, err
			}
			d, err := r.settle(ctx, im, pin, tag, r.absent())
			return pinned{desc: d}, err
		})
		if err != nil {
			failed = append(failed, err)
			continue
		}
		all = append(all, pin.desc)
	}
	return all, join(ctx, failed)
}

// cosignTags lists the source's tags of cosign's form by what they belong to, once in a run.
func (r *run) cosignTags(ctx context.Context) (map[digest.Digest][]string, error) {
	tags, _, err := r.cosign.do(ctx, struct{}{}, func() (map[digest.Digest][]string, error) {
		release, err := r.sched.acquire(ctx, 0, r.srcSlots)
		if err != nil {
			return nil, err
		}
		defer release()
		list, err := r.api.TagList(ctx, r.src)
		if err != nil && !errors.Is(err, errs.ErrUnsupported) {
			return nil, err
		}
		return bySubject(list.Tags), nil
	})
	return tags, err
}

// bySubject picks the tags of cosign's form.
func bySubject(tags []string) map[digest.Digest][]string {
	all := map[digest.Digest][]string{}
	for _, tag := range tags {
		if d, ok := referrer.CosignSubject(tag); ok {
			all[d] = append(all[d], tag)
		}
	}
	return all
}
