package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

const (
	// resumable is the size in bytes from which on a put that is interrupted goes on where it stopped. Below it the
	// files that this takes cost more than reading again saves.
	resumable = 8 << 20
	// putKey, and the digest, is the key of a put's ingest.
	putKey = "blob put "
	// putAge is how long what an interrupted put left is kept.
	putAge = 7 * 24 * time.Hour
)

// isPut reports whether the ingest key is that of a put.
func isPut(key string) bool { return strings.HasPrefix(key, putKey) }

// isAbandoned reports whether an ingest is of a put that was interrupted long ago, or as old and of nobody knows which
// key, so that nobody can go on with it.
func isAbandoned(info blob.Ingest) bool {
	return !info.Active && (isPut(info.Key) || info.Key == "") && time.Since(info.Updated) >= putAge
}

// mayResume returns rdr as what can be read from any offset, if a put of want is worth to be gone on with later.
func mayResume(want types.Descriptor, rdr io.Reader) (blob.Source, bool) {
	src, ok := rdr.(blob.Source)
	return src, ok && want.Digest != "" && want.Size >= resumable
}

// put stores what src holds as the blob want. It writes into an ingest that outlives the process: when the source breaks,
// the context ends or the process dies, the next put of the blob reads what is missing only.
//
//	no ingest, or an empty one    read all
//	another process has it open   read all into a file of our own; who is first stores the blob
//	it has the first bytes        read the rest; when that is not the blob, drop it and read all
//	it has all bytes              read nothing
//
// What the disk refuses and what is wrong is dropped at once.
func (l *layout) put(ctx context.Context, want types.Descriptor, src blob.Source, how storing) (types.Descriptor, error) {
	in, err := l.openIngest(ctx, putKey+string(want.Digest), scheme.IngestOptions{Expected: want})
	if errors.Is(err, errs.ErrLocked) || isReadOnly(err) { // or another user's
		got, _, err := l.store(ctx, want, src, how)
		return got, err
	}
	if err != nil {
		return want, err
	}
	size, there, err := l.hit(ctx, want, how.deferred)
	if there || err != nil { // somebody was faster
		got := types.Descriptor{MediaType: mediaTypeOr(want.MediaType), Digest: want.Digest, Size: size}
		return got, errors.Join(err, in.drop())
	}
	if in.size == 0 {
		return in.putAll(ctx, want, src, how)
	}
	got, err := in.putRest(ctx, want, src, how)
	if !errors.Is(err, errResumed) {
		return got, err
	}
	all, err := src.OpenAt(ctx, 0)
	if err != nil {
		return want, err
	}
	defer all.Close()
	got, _, err = l.store(ctx, want, all, how)
	return got, err
}

// errResumed: the bytes of an earlier put and those of this one together are not the blob.
var errResumed = errors.New("what was resumed is not the blob")

// putAll fills an empty ingest.
func (in *ingest) putAll(ctx context.Context, want types.Descriptor, src blob.Source, how storing) (types.Descriptor, error) {
	verified := blob.Verifies(src, want)
	if verified {
		in.hash = nil // its end is the proof
	}
	if err := in.pull(ctx, want, src); err != nil {
		return want, err
	}
	return in.putDone(ctx, want, verified, how)
}

// putRest fills an ingest that has the beginning. errResumed is returned when the ingest was dropped, so that the blob
// is to be read from its beginning.
func (in *ingest) putRest(ctx context.Context, want types.Descriptor, src blob.Source, how storing) (types.Descriptor, error) {
	if in.size > want.Size {
		return want, errors.Join(errResumed, in.drop())
	}
	if in.size < want.Size {
		rest, err := src.OpenAt(ctx, in.size)
		switch {
		case errors.Is(err, errs.ErrUnsupported) || errors.Is(err, errs.ErrRangeInvalid):
			return want, errors.Join(errResumed, in.drop())
		case err != nil:
			return want, errors.Join(err, in.close(false))
		}
		err = in.pull(ctx, want, rest)
		if cerr := rest.Close(); err == nil && cerr != nil {
			return want, errors.Join(cerr, in.close(false))
		}
		if errors.Is(err, errs.ErrDigestMismatch) { // pull dropped it
			return want, fmt.Errorf("%w: %w", errResumed, err)
		}
		if err != nil {
			return want, err
		}
	}
	got, err := in.putDone(ctx, want, false, how)
	if errors.Is(err, errs.ErrDigestMismatch) {
		err = fmt.Errorf("%w: %w", errResumed, err)
	}
	return got, err
}

// pull copies rdr to the end of the ingest. When that fails the ingest is over: kept if it was the source that failed.
func (in *ingest) pull(ctx context.Context, want types.Descriptor, rdr io.Reader) error {
	out := &ingestWriter{in: in}
	n, err := pour(ctx, rdr, want.Size-in.size, out)
	if err == nil && in.size != want.Size {
		err = fmt.Errorf("%w: %d bytes, not %d", errs.ErrSizeMismatch, in.size, want.Size)
	}
	switch {
	case err == nil:
		return nil
	case out.failed || errors.Is(err, errs.ErrDigestMismatch) || n == 0 && in.size == 0:
		return errors.Join(err, in.drop())
	}
	return errors.Join(err, in.close(false))
}

// putDone makes the blob of the ingest, or drops it.
func (in *ingest) putDone(ctx context.Context, want types.Descriptor, verified bool, how storing) (types.Descriptor, error) {
	got := types.Descriptor{MediaType: mediaTypeOr(want.MediaType), Digest: want.Digest, Size: in.size}
	if !verified {
		var err error
		if got, err = in.prove(ctx, want); errors.Is(err, errs.ErrDigestMismatch) {
			return want, errors.Join(err, in.drop())
		} else if err != nil {
			return want, errors.Join(err, in.close(false))
		}
	}
	err := in.finish(ctx, got, how)
	switch {
	case in.over:
	case err == nil: // somebody else stored it meanwhile
		err = in.drop()
	case ctx.Err() != nil:
		err = errors.Join(err, in.close(false))
	default: // the disk is full, or worse
		err = errors.Join(err, in.drop())
	}
	return got, err
}

// ingestWriter remembers whether it was writing that failed.
type ingestWriter struct {
	in     *ingest
	failed bool
}

func (w *ingestWriter) Write(p []byte) (int, error) {
	n, err := w.in.write(p)
	w.failed = w.failed || err != nil
	return n, err
}
