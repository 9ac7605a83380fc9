package blob

import (
	"context"
	"fmt"
	"io"
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
