package blob

import (
	"context"
	"fmt"
	"io"

	"github.com/ocisync/ocisync/types"
)

// source joins a first stream with a way to open others.
type source struct {
	first io.Reader
	open  func(ctx context.Context, offset int64) (io.ReadCloser, error)
}

// NewSource makes a Source of a stream that is open already and of the function that opens it again at an offset.
// The caller still closes first; whoever calls OpenAt closes what it got.
func NewSource(first io.Reader, open func(ctx context.Context, offset int64) (io.ReadCloser, error)) Source {
	return &source{first: first, open: open}
}

func (s *source) Read(p []byte) (int, error) { return s.first.Read(p) }

func (s *source) OpenAt(ctx context.Context, offset int64) (io.ReadCloser, error) {
	return s.open(ctx, offset)
}

// lazy is a source whose first stream is opened when it is first read.
type lazy struct {
	desc  types.Descriptor
	begin func() (io.Reader, error)
	open  func(ctx context.Context, offset int64) (io.ReadCloser, error)
	first io.Reader // nil until it is read
	err   error
}

// NewLazySource is NewSource for a first stream that may not be needed, as when a put is resumed: begin opens it, once,
// when it is first read. It is taken for a proof of desc (see Verifies): what begin returns is verified unless it does
// that itself. The caller still closes it.
func NewLazySource(desc types.Descriptor, begin func() (io.Reader, error), open func(ctx context.Context, offset int64) (io.ReadCloser, error)) Source {
	return &lazy{desc: desc, begin: begin, open: open}
}

func (s *lazy) Read(p []byte) (int, error) {
	if s.first == nil && s.err == nil {
		s.first, s.err = s.start()
	}
	if s.err != nil {
		return 0, s.err
	}
	return s.first.Read(p)
}

func (s *lazy) start() (io.Reader, error) {
	rdr, err := s.begin()
	if err != nil || Verifies(rdr, s.desc) {
		return rdr, err
	}
	return NewReader(io.NopCloser(rdr), s.desc)
}

func (s *lazy) OpenAt(ctx context.Context, offset int64) (io.ReadCloser, error) {
	return s.open(ctx, offset)
}

// SourceOf makes a Source of a file or of bytes in memory: of anything that can be read at an offset. The caller must
// not close ra before the put has returned.
func SourceOf(ra io.ReaderAt, size int64) Source {
	return &source{
		first: io.NewSectionReader(ra, 0, size),
		open: func(_ context.Context, offset int64) (io.ReadCloser, error) {
			if offset < 0 || offset > size {
				return nil, fmt.Errorf("offset %d is outside of %d bytes", offset, size)
			}
			return io.NopCloser(io.NewSectionReader(ra, offset, size-offset)), nil
		},
	}
}
