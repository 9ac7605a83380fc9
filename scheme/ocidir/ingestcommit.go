package ocidir

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// commit makes the blob want of the ingest, which is over then: it became a blob, was removed since the blob is there
// already, or is kept for another try.
func (in *ingest) commit(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
	got, err := want, ctx.Err()
	if err == nil {
		got, err = in.prove(ctx, want)
	}
	if err == nil {
		err = validText(labels)
	}
	if err != nil {
		return want, errors.Join(err, in.close(true))
	}
	all := maps.Clone(in.meta.Labels)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, labels)
	err = in.become(ctx, got, all)
	if !in.over {
		if errors.Is(err, errs.ErrExists) {
			return got, errors.Join(err, in.drop())
		}
		err = errors.Join(err, in.close(true))
	}
	return got, err
}

// become is finish for the first who has the blob: errs.ErrExists for the others. A damaged one is replaced. The labels
// come when the blob is there: who dies in between leaves it without them.
func (in *ingest) become(ctx context.Context, got types.Descriptor, labels map[string]string) error {
	if in.l.isLayout() {
		_, there, err := in.l.hit(ctx, got, false)
		if err != nil {
			return err
		}
		if there {
			return errs.ErrExists
		}
	}
	if err := in.finish(ctx, got, storing{}); err != nil {
		return err
	}
	if !in.over { // somebody was faster
		return errs.ErrExists
	}
	if len(labels) == 0 {
		return nil
	}
	_, err := in.l.label(context.WithoutCancel(ctx), got.Digest, func(old map[string]string) map[string]string {
		all := maps.Clone(old)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, labels)
		return all
	})
	return err
}

// prove checks that the bytes are what want says, and says what they are.
func (in *ingest) prove(ctx context.Context, want types.Descriptor) (types.Descriptor, error) {
	if err := in.check(); err != nil {
		return want, err
	}
	if types.SizeKnown(want) && want.Size != in.size || want.Size < 0 {
		return want, fmt.Errorf("%w: %d bytes, not %d", errs.ErrSizeMismatch, in.size, want.Size)
	}
	got := types.Descriptor{MediaType: mediaTypeOr(want.MediaType), Digest: want.Digest, Size: in.size}
	if want.Digest == "" {
		got.Digest = in.sum()
		return got, nil
	}
	if err := types.ValidDigest(want.Digest); err != nil {
		return want, err
	}
	if want.Digest.Algorithm() != in.alg {
		h, err := in.digestOf(ctx, want.Digest.Algorithm(), in.size)
		if err != nil {
			return want, err
		}
		if sum := digest.NewDigest(want.Digest.Algorithm(), h); sum != want.Digest {
			return want, fmt.Errorf("%w: the content is %s", errs.ErrDigestMismatch, sum)
		}
		in.stored = false
		return got, nil
	}
	if in.sum() != want.Digest && in.stored { // what was stored of the hash may have been damaged
		if err := in.rehash(ctx, in.size); err != nil {
			return want, err
		}
	}
	if in.sum() != want.Digest {
		return want, fmt.Errorf("%w: the content is %s", errs.ErrDigestMismatch, in.sum())
	}
	return got, nil
}

// finish gives data, which is got, the blob's name, and removes what else the ingest has. The ingest is over then. It is
// still open when finish failed before that, and, without an error, when somebody else has stored the blob meanwhile.
func (in *ingest) finish(ctx context.Context, got types.Descriptor, how storing) error {
	if err := in.renew(); err != nil {
		return err
	}
	in.data.unproven = in.stored
	_, err := in.l.finish(ctx, in.data, got, how)
	if in.data.done {
		in.claim.clear()
		in.letGo()
	}
	if errors.Is(err, errUnsynced) {
		err = errors.Join(err, in.suspect())
	}
	return err
}
