package ocidir

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/ocisync/ocisync/types/errs"
)

const (
	// pourFrom is how many bytes of a stream are read and written in turn before it is worth to do that at once.
	pourFrom = 1 << 20
	// pourBuffers is how many buffers of copySize a stream takes then.
	pourBuffers = 4
	// writeback is how many bytes are written before the disk is told to begin with them.
	writeback = 8 << 20
)

// pour is copyTo for what may be large: reading goes on while what was read is written, by each of the writers at its
// own pace, so that a hash need not wait for the disk. When pour returns nobody reads or writes any more, and without an
// error of a writer all of them have what was read, also if reading failed.
func pour(ctx context.Context, r io.Reader, limit int64, writers ...io.Writer) (n int64, err error) {
	p := &pourer{}
	for _, w := range writers {
		p.sinks = append(p.sinks, &sink{w: w})
	}
	defer p.stop()
	for {
		if err := ctx.Err(); err != nil {
			return n, p.end(err)
		}
		buf, werr := p.next()
		if werr != nil {
			return n, werr
		}
		k, err := r.Read(*buf)
		if n += int64(k); limit >= 0 && n > limit {
			p.spare(buf)
			return n, p.end(fmt.Errorf("%w: more than %d bytes", errs.ErrSizeMismatch, limit))
		}
		p.write(buf, k, n)
		if err == io.EOF {
			err = p.end(ctx.Err())
			return n, err
		}
		if err != nil {
			return n, p.end(err)
		}
	}
}

// pourer has what one stream takes. It works without goroutines and with one buffer until the stream is long.
type pourer struct {
	sinks   []*sink
	free    chan *[]byte // nil before
	made    []*[]byte
	working sync.WaitGroup
}

// sink is one writer. Only its goroutine, or before there is one the reader's, writes.
type sink struct {
	w      io.Writer
	todo   chan portion
	failed atomic.Pointer[error]
}

// portion is a part of the stream; the last one who has written it gives the buffer back.
type portion struct {
	buf  *[]byte
	size int
	left *atomic.Int32
}

func (s *sink) write(p []byte) {
	if s.failed.Load() != nil {
		return
	}
	if _, err := s.w.Write(p); err != nil {
		s.failed.Store(&err)
	}
}

// next returns a buffer that nobody uses, or the error of a writer.
func (p *pourer) next() (*[]byte, error) {
	if err := p.failure(); err != nil {
		return nil, err
	}
	if p.free != nil {
		return <-p.free, nil
	}
	if len(p.made) == 0 {
		p.made = append(p.made, buffers.Get().(*[]byte))
	}
	return p.made[0], nil
}

func (p *pourer) failure() error {
	for _, s := range p.sinks {
		if err := s.failed.Load(); err != nil {
			return *err
		}
	}
	return nil
}

// spare gives a buffer back that was not written.
func (p *pourer) spare(buf *[]byte) {
	if p.free != nil {
		p.free <- buf
	}
}

// write has size bytes of buf written, n being how many came so far.
func (p *pourer) write(buf *[]byte, size int, n int64) {
	switch {
	case size == 0:
		p.spare(buf)
		return
	case p.free == nil && n < pourFrom:
		for _, s := range p.sinks {
			s.write((*buf)[:size])
		}
		return
	case p.free == nil:
		p.start()
	}
	left := &atomic.Int32{}
	left.Store(int32(len(p.sinks)))
	for _, s := range p.sinks {
		s.todo <- portion{buf, size, left}
	}
}

// start begins to write at once with reading.
func (p *pourer) start() {
	p.free = make(chan *[]byte, pourBuffers)
	for len(p.made) < pourBuffers {
		buf := buffers.Get().(*[]byte)
		p.made = append(p.made, buf)
		p.free <- buf
	}
	for _, s := range p.sinks {
		s.todo = make(chan portion, pourBuffers)
		p.working.Go(func() {
			for part := range s.todo {
				s.write((*part.buf)[:part.size])
				if part.left.Add(-1) == 0 {
					p.free <- part.buf
				}
			}
		})
	}
}

// end waits until everything is written. A writer's error comes before err.
func (p *pourer) end(err error) error {
	p.stop()
	if werr := p.failure(); werr != nil {
		return werr
	}
	return err
}

// stop waits as well, and gives the memory back. It may be called twice.
func (p *pourer) stop() {
	if p.free != nil {
		for _, s := range p.sinks {
			close(s.todo)
		}
		p.working.Wait()
		p.free = nil
	}
	for _, buf := range p.made {
		buffers.Put(buf)
	}
	p.made = nil
}
