package regclient

import (
	"context"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// checked is content on its way to regclient. It ends with io.EOF only when it is what it should be and the context
// still lives, so that regclient, which renames whatever it has read, stores nothing else.
type checked struct {
	ctx  context.Context
	want types.Descriptor
	rdr  io.Reader
	alg  digest.Algorithm
	hash hash.Hash
	n    int64
	err  error // how it ended
}

func newChecked(ctx context.Context, want types.Descriptor, rdr io.Reader) *checked {
	alg := digest.SHA256
	if want.Digest != "" {
		alg = want.Digest.Algorithm()
	}
	return &checked{ctx: ctx, want: want, rdr: rdr, alg: alg, hash: alg.Hash()}
}

func (c *checked) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.err = c.ctx.Err(); c.err != nil {
		return 0, c.err
	}
	n, err := c.rdr.Read(p)
	c.n += int64(n)
	c.hash.Write(p[:n])
	if err == nil && types.SizeKnown(c.want) && c.n == c.want.Size {
		err = c.beyond()
	}
	switch {
	case types.SizeKnown(c.want) && c.n > c.want.Size:
		err = fmt.Errorf("%w: more than %d bytes", errs.ErrSizeMismatch, c.want.Size)
	case err == io.EOF:
		err = c.verdict()
	case err != nil && c.ctx.Err() != nil:
		err = fmt.Errorf("%w: %w", c.ctx.Err(), err)
	}
	if c.err = err; err != nil && err != io.EOF {
		return 0, err // without its end nobody can take it for whole
	}
	return n, err
}

// beyond looks for the end where it must be: who was told the size does not look further itself.
func (c *checked) beyond() error {
	for range 100 {
		n, err := c.rdr.Read(make([]byte, 1))
		if c.n += int64(n); n > 0 || err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// verdict is io.EOF if everything that was read is what it should be.
func (c *checked) verdict() error {
	switch {
	case c.ctx.Err() != nil:
		return c.ctx.Err()
	case types.SizeKnown(c.want) && c.n != c.want.Size:
		return fmt.Errorf("%w: %d bytes, not %d", errs.ErrSizeMismatch, c.n, c.want.Size)
	case c.want.Digest != "" && c.digest() != c.want.Digest:
		return fmt.Errorf("%w: it is %s", errs.ErrDigestMismatch, c.digest())
	}
	return io.EOF
}

func (c *checked) digest() digest.Digest { return digest.NewDigest(c.alg, c.hash) }
