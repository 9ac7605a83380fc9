package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// commit makes the blob want of the ingest, which is over then: it became a blob, was removed since the blob is there
// already, or is kept for another try.
func (in *ingest) commit(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
	got, err := in.prove(ctx, want)
	if err == nil {
		err = validIngestLabels(labels)
	}
	if err != nil {
		return want, errors.Join(err, in.close(true))
	}
	all := maps.Clone(in.meta.Labels)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, labels)
	there := false
	if in.l.isLayout() {
		if _, there, err = in.l.hit(ctx, got, false); err != nil {
			return want, errors.Join(err, in.close(true))
		}
	}
	if there {
		return got, errors.Join(errs.ErrExists, in.drop())
	}
	err = in.finish(ctx, got, storing{})
	if !in.over {
		err = errors.Join(err, in.close(true))
	}
	return got, err
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

// finish gives data, which is got, the blob's name, and removes what else the ingest has. When it fails before that the
// ingest is still open; after that there is the blob, and the ingest is over.
func (in *ingest) finish(ctx context.Context, got types.Descriptor, how storing) error {
	if in.meta.Suspect {
		return in.rewrite(ctx, got, how)
	}
	in.data.unproven = in.stored
	_, err := in.l.finish(ctx, in.data, got, how)
	if in.data.done {
		in.claim.clear()
		in.letGo()
	}
	if errors.Is(err, errUnsynced) {
		in.meta.Suspect = true
	}
	return err
}

// rewrite is finish for data that could not be made durable: its bytes may be in memory only, where another sync would
// report success. They are copied to a new file, and hashed on the way.
func (in *ingest) rewrite(ctx context.Context, got types.Descriptor, how storing) error {
	if _, _, err := in.l.store(ctx, got, io.NewSectionReader(in.data.f, 0, in.size), how); err != nil {
		return err
	}
	return in.drop()
}
