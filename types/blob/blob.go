// Package blob has the streams that blobs are read as: verified ones, random access, and sources that can be read
// again from any offset.
package blob

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
)

// Reader is a verified stream of one blob. When all bytes were read and they are the blob's, Read returns io.EOF; when
// they are not, it returns an error that is errs.ErrDigestMismatch, and not io.EOF, in its place. Close without
// reading to the end is legal and verifies nothing. A Reader is for one goroutine at a time.
type Reader interface {
	io.ReadCloser
	// Descriptor says what is being read. The digest is always set; the size may be unknown until the end.
	Descriptor() types.Descriptor
}

// ReaderAt is random access to one blob. It verifies nothing by itself: the place that gave it has checked the whole
// blob, or says that it cannot. It is safe for concurrent use.
type ReaderAt interface {
	io.ReaderAt
	io.Closer
	// Size is the blob's size in bytes.
	Size() int64
}

// Source is a stream that can be read again from any offset. A put that is given one can be retried and resumed.
type Source interface {
	io.Reader
	// OpenAt returns a new, independent stream of the same content from offset on. It is unverified unless offset
	// is 0; who takes it checks the digest of the whole.
	OpenAt(ctx context.Context, offset int64) (io.ReadCloser, error)
}

// Info is what a place knows about a blob it holds.
type Info struct {
	Digest  digest.Digest
	Size    int64     // bytes
	Created time.Time // when it was stored; zero when unknown
	Updated time.Time // when it or its labels changed last; zero when unknown
	Labels  map[string]string
}

// Ingest is what a place knows about a blob that is being written in pieces.
type Ingest struct {
	Key      string
	Offset   int64            // bytes written so far
	Expected types.Descriptor // what was announced of it: digest and size, or one of them
	Started  time.Time
	Updated  time.Time // when it was written to last
	Owner    string    // who began it
	Labels   map[string]string
	Active   bool // somebody has it open, in this process or another
}
