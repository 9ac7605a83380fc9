package reg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types/errs"
)

// download is the bytes of a blob from some offset on, over as many requests as it takes. Whatever interrupts an
// answer (an early end, a reset, a stall), the next one asks for the rest, and it asks the registry and not the
// storage that it led to: signed URLs expire. Nothing here is verified but that the parts fit together; a
// blob.VerifyReader around it does the rest.
//
// Attempts without a byte of progress are bounded; a download that moves goes on for as long as it does. It is for
// one goroutine at a time, but that Close may come while a Read is under way: who sends a blob on leaves a Read behind
// when its context ends.
type download struct {
	ctx  context.Context // of the operation: it stays in force for the stream
	h    *host
	rq   request
	size int64 // of the whole blob, -1 while unknown
	end  int64 // where to stop, -1 for the end of the blob

	offset  int64 // of the next byte
	fails   int   // since the last byte came
	lastErr error

	mu     sync.Mutex // guards what follows
	body   io.ReadCloser
	closed bool
}

var errReadAfterClose = errors.New("read after close")

// current returns the answer that is being read, nil if there is none.
func (d *download) current() (body io.ReadCloser, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, fmt.Errorf("%s %s: %w", d.rq.op, d.rq.digest, errReadAfterClose)
	}
	return d.body, nil
}

// take makes body the answer that is being read.
func (d *download) take(body io.ReadCloser) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = body.Close() // nobody wants it any more
		return errReadAfterClose
	}
	d.body = body
	return nil
}

// leave gives the answer that was being read up, and returns it to be closed; nil if there is none.
func (d *download) leave(closed bool) io.ReadCloser {
	d.mu.Lock()
	defer d.mu.Unlock()
	body := d.body
	d.body, d.closed = nil, d.closed || closed
	return body
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	if _, err := d.current(); err != nil {
		return 0, err
	}
	if d.ctx.Err() != nil { // also when what is left has arrived already
		return 0, d.h.fail(d.ctx, d.rq, d.ctx.Err())
	}
	if d.end >= 0 {
		if d.offset >= d.end {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), d.end-d.offset)]
	}
	for {
		body, err := d.current()
		if err != nil {
			return 0, err
		}
		if body == nil {
			if err := d.reopen(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := body.Read(p)
		d.offset += int64(n)
		if n > 0 {
			d.fails = 0
		}
		switch {
		case err == nil, d.end >= 0 && d.offset >= d.end:
			return n, nil
		case d.size >= 0 && d.offset >= d.size, err == io.EOF && d.size < 0:
			return n, io.EOF
		case d.ctx.Err() != nil:
			return n, d.h.fail(d.ctx, d.rq, err)
		}
		d.drop(err)
		if n > 0 {
			return n, nil
		}
	}
}

// Close implements io.Closer.
func (d *download) Close() error {
	if body := d.leave(true); body != nil {
		return body.Close()
	}
	return nil
}

// drop gives up the current answer because of err.
func (d *download) drop(err error) {
	d.fails++
	d.lastErr = brokenOff{err}
	if body := d.leave(false); body != nil {
		_ = body.Close() // it is broken already
	}
}

// reopen gets an answer that begins at offset.
func (d *download) reopen() error {
	for {
		if d.fails > 0 {
			if err := d.h.wait(d.ctx, d.lastErr, d.fails); err != nil {
				return d.h.fail(d.ctx, d.rq, err)
			}
		}
		resp, err := d.h.do(d.ctx, d.ranged())
		if err != nil {
			return err
		}
		if err := d.accept(resp); err == nil {
			return nil
		} else if !interrupted(err) {
			return d.h.fail(d.ctx, d.rq, err)
		} else {
			d.fails++
			d.lastErr = brokenOff{err}
		}
	}
}

// brokenOff is the failure of an answer's body, whatever form it has: another answer may get further.
type brokenOff struct{ error }

func (b brokenOff) Error() string {
	if b.error == io.EOF {
		return "the answer ended early"
	}
	return "the answer broke off: " + b.error.Error()
}

func (b brokenOff) Unwrap() error { return b.error }

// ranged is the request for what is missing.
func (d *download) ranged() request {
	rq := d.rq
	rq.header = http.Header{"Accept-Encoding": {"identity"}}
	if d.offset > 0 || d.end >= 0 {
		last := int64(-1)
		if d.end >= 0 {
			last = d.end - 1
		}
		rq.header.Set("Range", ocihttp.Range{First: d.offset, Last: last}.String())
		rq.want = []int{http.StatusOK, http.StatusPartialContent}
	} else {
		rq.want = []int{http.StatusOK}
	}
	return rq
}

// accept checks what an answer says about itself, and takes its body as what follows offset. A 200 is the whole blob:
// its beginning is read past.
func (d *download) accept(resp *http.Response) error {
	if resp.StatusCode == http.StatusPartialContent {
		if err := d.acceptPart(resp); err != nil {
			discard(resp)
			return err
		}
		return d.take(resp.Body)
	}
	if err := d.learnSize(resp.ContentLength); err != nil {
		_ = resp.Body.Close() // unread: nothing of it is wanted
		return err
	}
	if _, err := io.CopyN(io.Discard, resp.Body, d.offset); err != nil {
		_ = resp.Body.Close()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return d.take(resp.Body)
}

func (d *download) acceptPart(resp *http.Response) error {
	part, err := ocihttp.ParseContentRange(resp.Header.Get("Content-Range"))
	if err != nil {
		return fmt.Errorf("%w: %w", errs.ErrUnavailable, err)
	}
	if part.First != d.offset || d.end >= 0 && part.Last >= d.end {
		return fmt.Errorf("%w: asked for the bytes from %d on, the registry sent %s", errs.ErrUnavailable, d.offset, part)
	}
	return d.learnSize(part.Total)
}

// learnSize compares the size that an answer gives with what is known.
func (d *download) learnSize(size int64) error {
	switch {
	case size < 0:
		return nil
	case d.size < 0:
		d.size = size
		return nil
	case d.size != size:
		return fmt.Errorf("%w: the registry has %d bytes, not %d", errs.ErrSizeMismatch, size, d.size)
	}
	return nil
}
