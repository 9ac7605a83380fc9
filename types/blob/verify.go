package blob

import (
	"fmt"
	"hash"
	"io"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// VerifyReader is the Reader over any stream of bytes. It hashes what passes through, and stops as soon as the
// stream is longer than the descriptor says. Errors are sticky.
type VerifyReader struct {
	rc   io.ReadCloser
	desc types.Descriptor
	hash hash.Hash
	n    int64
	err  error
	seen func(n int)
	end  func(error) error
	over atomic.Bool // closed: by who gave up on a Read that is still under way, perhaps
}

// NewReader returns a Reader of what rc holds, which must be what desc says. The digest is required; an unknown size
// (see types.SizeKnown) is not checked.
func NewReader(rc io.ReadCloser, desc types.Descriptor) (*VerifyReader, error) {
	if err := types.ValidDigest(desc.Digest); err != nil {
		return nil, err
	}
	return &VerifyReader{rc: rc, desc: desc, hash: desc.Digest.Algorithm().Hash()}, nil
}

// Observe makes r call seen with the number of bytes of every read, for progress. It must be called before reading.
func (r *VerifyReader) Observe(seen func(n int)) { r.seen = seen }

// OnEnd makes r call end once with the verdict: nil when all bytes were read and are right, else what is wrong with them
// or the error of the stream. What end returns for an error takes its place. It must be called before reading.
func (r *VerifyReader) OnEnd(end func(error) error) { r.end = end }

// Descriptor says what is being read.
func (r *VerifyReader) Descriptor() types.Descriptor { return r.desc }

// Read implements io.Reader; see Reader for what takes the place of io.EOF.
func (r *VerifyReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.over.Load() {
		return 0, fmt.Errorf("blob %s: read after close", r.desc.Digest)
	}
	n, err := r.rc.Read(p)
	if n > 0 {
		r.hash.Write(p[:n])
		r.n += int64(n)
		if r.seen != nil {
			r.seen(n)
		}
		if types.SizeKnown(r.desc) && r.n > r.desc.Size {
			r.err = r.ended(fmt.Errorf("%w: blob %s has more than %d bytes", errs.ErrSizeMismatch, r.desc.Digest, r.desc.Size))
			return 0, r.err
		}
	}
	if err == io.EOF {
		err = r.verdict()
	}
	if err != nil {
		err = r.ended(err)
	}
	r.err = err
	return n, err
}

// ended tells whoever wants to know how reading ended.
func (r *VerifyReader) ended(err error) error {
	switch {
	case r.end == nil:
		return err
	case err == io.EOF:
		r.end(nil)
		return err
	default:
		return r.end(err)
	}
}

// verdict is io.EOF if everything that was read is the blob, else what is wrong.
func (r *VerifyReader) verdict() error {
	if types.SizeKnown(r.desc) && r.n != r.desc.Size {
		return fmt.Errorf("%w: blob %s ended after %d of %d bytes", errs.ErrSizeMismatch, r.desc.Digest, r.n, r.desc.Size)
	}
	if got := digest.NewDigest(r.desc.Digest.Algorithm(), r.hash); got != r.desc.Digest {
		return fmt.Errorf("%w: blob %s has digest %s", errs.ErrDigestMismatch, r.desc.Digest, got)
	}
	return io.EOF
}

// Close closes the underlying stream. It verifies nothing. It may be called while a Read is under way, if the underlying
// stream allows that.
func (r *VerifyReader) Close() error {
	r.over.Store(true)
	return r.rc.Close()
}

// Verifies reports whether reading rdr to io.EOF is itself the proof that its bytes are those of desc, so that who
// stores them need not hash them a second time. Only the streams of this package, at their beginning, count.
func Verifies(rdr io.Reader, desc types.Descriptor) bool {
	switch r := rdr.(type) {
	case *VerifyReader:
		return r.n == 0 && r.err == nil && !r.over.Load() && desc.Digest != "" && r.desc.Digest == desc.Digest
	case *source:
		return Verifies(r.first, desc)
	case *lazy:
		return r.first == nil && r.err == nil && desc.Digest != "" && r.desc.Digest == desc.Digest
	}
	return false
}
