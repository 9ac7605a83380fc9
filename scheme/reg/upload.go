package reg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// upload is the body of one attempt to send a blob, checked while it is sent. Where the size is known, its last bytes
// are only given away when the source has ended and everything was what it should be: a registry that counts or
// hashes cannot finish a wrong upload, and one that does neither has too few bytes for its Content-Length.
//
// The transport may still be reading when it has returned an answer; settle waits for it. Nothing reads from the
// source before or after.
type upload struct {
	ctx  context.Context // of the put: nothing is given away when it has ended, even what was read already
	src  io.Reader
	want types.Descriptor // digest "" and an unknown size are not checked

	mu      sync.Mutex // guards turn and reading
	turn    int        // which handle may read: the last one that open gave, until its time is over
	reading bool
	idle    sync.Cond // on mu: reading ended

	// Owned by who reads, and after settle by who settled.
	buf  []byte
	got  chan result // of the one Read of src that is under way
	hash hash.Hash   // nil if src is itself the proof of its content
	n    int64       // bytes read from src
	err  error       // why the upload is wrong or its source failed; io.EOF when all is well
}

// result is that of a Read.
type result struct {
	n   int
	err error
}

func newUpload(ctx context.Context, src io.Reader, want types.Descriptor) *upload {
	u := &upload{ctx: ctx, src: src, want: want, buf: make([]byte, 32<<10), got: make(chan result, 1)}
	u.idle.L = &u.mu
	if !blob.Verifies(src, want) {
		u.hash = u.algorithm().Hash()
	}
	return u
}

func (u *upload) algorithm() digest.Algorithm {
	if u.want.Digest == "" {
		return digest.SHA256
	}
	return u.want.Digest.Algorithm()
}

// open implements payload.
func (u *upload) open() (io.ReadCloser, int64, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.turn++
	size := int64(-1)
	if types.SizeKnown(u.want) {
		size = u.want.Size
	}
	return &uploadHandle{u: u, turn: u.turn}, size, nil
}

// replayable implements payload: a source that nothing was read from can be sent again. The answer holds, as it takes
// the source from who might still read.
func (u *upload) replayable() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.reading || u.n > 0 || u.err != nil {
		return false
	}
	u.turn++
	return true
}

// uploadHandle is what one request reads from.
type uploadHandle struct {
	u    *upload
	turn int
}

func (h *uploadHandle) Read(p []byte) (int, error) {
	u := h.u
	u.mu.Lock()
	if u.turn != h.turn {
		u.mu.Unlock()
		return 0, errors.New("the request is over")
	}
	u.reading = true
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		u.reading = false
		u.idle.Broadcast()
		u.mu.Unlock()
	}()
	return u.read(p)
}

func (h *uploadHandle) Close() error {
	h.u.mu.Lock()
	defer h.u.mu.Unlock()
	if h.u.turn == h.turn {
		h.u.turn++
	}
	return nil
}

func (u *upload) read(p []byte) (int, error) {
	if u.err != nil {
		return 0, u.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := u.fill(p)
	if u.hash != nil {
		u.hash.Write(p[:n])
	}
	u.n += int64(n)
	if err == nil && types.SizeKnown(u.want) && u.n >= u.want.Size {
		err = u.probe()
	}
	if err == io.EOF {
		err = u.verdict()
	}
	if u.ctx.Err() != nil {
		err = u.ctx.Err()
	}
	u.err = err
	if err != nil && err != io.EOF {
		return 0, err // nothing of a wrong end is sent
	}
	return n, err
}

// check reads all of the source without sending it.
func (u *upload) check() error {
	buf := make([]byte, 32<<10)
	for u.err == nil {
		if _, err := u.read(buf); err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// fill reads from the source until there is something, or the context has ended: the transport does not return while
// somebody hangs in a Read of its body. The source is then left behind with a buffer of ours.
func (u *upload) fill(p []byte) (int, error) {
	for range 100 {
		if err := u.ctx.Err(); err != nil {
			return 0, err
		}
		buf := u.buf[:min(len(p), len(u.buf))]
		go func() {
			n, err := u.src.Read(buf)
			u.got <- result{n, err}
		}()
		select {
		case r := <-u.got:
			if r.n > 0 || r.err != nil {
				return copy(p, buf[:r.n]), r.err
			}
		case <-u.ctx.Done():
			return 0, u.ctx.Err()
		}
	}
	return 0, io.ErrNoProgress
}

// probe looks whether the source ends where it should.
func (u *upload) probe() error {
	if u.n > u.want.Size {
		return fmt.Errorf("%w: the source has more than %d bytes", errs.ErrSizeMismatch, u.want.Size)
	}
	var one [1]byte
	n, err := u.fill(one[:])
	if n > 0 {
		u.n++
		return fmt.Errorf("%w: the source has more than %d bytes", errs.ErrSizeMismatch, u.want.Size)
	}
	return err
}

// verdict is io.EOF if the source that has ended is the blob.
func (u *upload) verdict() error {
	if types.SizeKnown(u.want) && u.n != u.want.Size {
		return fmt.Errorf("%w: the source has %d bytes, not %d", errs.ErrSizeMismatch, u.n, u.want.Size)
	}
	if got := u.digest(); u.want.Digest != "" && got != u.want.Digest {
		return fmt.Errorf("%w: the source is %s", errs.ErrDigestMismatch, got)
	}
	return io.EOF
}

// digest is that of all that was read.
func (u *upload) digest() digest.Digest {
	if u.hash == nil {
		return u.want.Digest
	}
	return digest.NewDigest(u.algorithm(), u.hash)
}

// settle ends the reading, waits until nobody reads any more, and returns why the source is at fault, nil if it is
// not.
func (u *upload) settle() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.turn++
	for u.reading {
		u.idle.Wait()
	}
	if u.err == io.EOF {
		return nil
	}
	return u.err
}

// readAhead reads rdr into memory if it has no more than limit bytes; else rest is a reader of everything. Only the
// context ends the wait for a source that hangs, which is then left behind in its Read.
func readAhead(ctx context.Context, rdr io.Reader, limit int64) (data []byte, rest io.Reader, err error) {
	var buf bytes.Buffer
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(&buf, rdr, limit+1)
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	switch err {
	case io.EOF:
		return buf.Bytes(), nil, nil
	case nil:
		return nil, io.MultiReader(&buf, rdr), nil
	}
	return nil, nil, err
}
