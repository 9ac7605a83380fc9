package reg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// BlobOpen implements scheme.BlobOpener, with one HEAD. Nothing is verified but the size.
func (r *Reg) BlobOpen(ctx context.Context, rf ref.Ref, d types.Descriptor) (blob.ReaderAt, error) {
	const op = "blob open"
	rf = rf.Place()
	desc, err := r.blobHead(ctx, op, rf, d)
	if err != nil {
		return nil, err
	}
	if types.SizeKnown(d) && d.Size != desc.Size {
		return nil, failure(op, rf, d.Digest, fmt.Errorf("%w: it has %d bytes, not %d", errs.ErrSizeMismatch, desc.Size, d.Size))
	}
	h, err := r.host(rf.Root)
	if err != nil {
		return nil, failure(op, rf, d.Digest, err)
	}
	return &readerAt{ctx: ctx, h: h, ref: rf, desc: desc}, nil
}

// readerAt reads a blob by ranges. A read that goes on where the last one ended gets an answer without an end, which
// is kept for the reads after it: a sequence of small reads costs two requests, and reads here and there one each,
// of exactly the bytes they want. A registry that ignores ranges gives the right bytes all the same, slowly.
type readerAt struct {
	ctx  context.Context // of BlobOpen: it stays in force
	h    *host
	ref  ref.Ref
	desc types.Descriptor

	mu     sync.Mutex // guards what follows; not held while reading
	closed bool
	next   int64     // where the last read ended
	parked *download // at next, not in use
}

// Size implements blob.ReaderAt.
func (a *readerAt) Size() int64 { return a.desc.Size }

// ReadAt implements io.ReaderAt.
func (a *readerAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, a.fail(fmt.Errorf("%w: offset %d", errs.ErrRangeInvalid, off))
	}
	if off >= a.desc.Size {
		return 0, io.EOF
	}
	short := int64(len(p)) > a.desc.Size-off
	if short {
		p = p[:a.desc.Size-off]
	}
	if len(p) == 0 {
		return 0, nil
	}
	dl, err := a.take(off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(dl, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = a.fail(fmt.Errorf("%w: the registry sent %d bytes of %d", errs.ErrUnavailable, n, len(p)))
	}
	if err != nil {
		return n, joinClose(err, dl)
	}
	if err := a.park(dl); err != nil {
		return n, err
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

// take returns a download at off: the parked one, or a new one.
func (a *readerAt) take(off, n int64) (*download, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, a.fail(errors.New("read after close"))
	}
	if dl := a.parked; dl != nil && dl.offset == off {
		a.parked = nil
		return dl, nil
	}
	dl := a.h.download(a.ctx, "blob read", a.ref, a.desc)
	dl.size, dl.offset, dl.end = a.desc.Size, off, off+n
	if off == a.next && off > 0 {
		dl.end = a.desc.Size
	}
	return dl, nil
}

// park keeps a download that has more to give in place of the one that was kept before.
func (a *readerAt) park(dl *download) error {
	a.mu.Lock()
	a.next = dl.offset
	if dl.offset < dl.end && !a.closed {
		a.parked, dl = dl, a.parked
	}
	a.mu.Unlock()
	if dl == nil {
		return nil
	}
	return dl.Close()
}

// Close implements io.Closer.
func (a *readerAt) Close() error {
	a.mu.Lock()
	dl := a.parked
	a.parked, a.closed = nil, true
	a.mu.Unlock()
	if dl == nil {
		return nil
	}
	return dl.Close()
}

func (a *readerAt) fail(err error) error { return failure("blob read", a.ref, a.desc.Digest, err) }

// joinClose closes c and returns err with what closing added.
func joinClose(err error, c io.Closer) error {
	if cerr := c.Close(); cerr != nil {
		return errors.Join(err, cerr)
	}
	return err
}
