package serve

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

const (
	// copyBuffer is how much is in memory of what goes through it. Of a verified stream it is held twice: what was read last
	// is sent when more of it, or its end, has proved to be good.
	copyBuffer = 64 << 10
	// inFlight is how much may have been sent and not have arrived: what the system buffers of a connection. The kernel
	// does not copy what it sends by itself (sendfile): until it arrives it is the file's, and changes with it. So that the
	// last look at the file is after that, the end of this length goes through memory. Linux buffers 4 MiB by default.
	inFlight = 8 << 20
)

var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// sendFile sends a part of a file, with what belongs before it. The end is held back until the file is known not to
// have changed meanwhile: the client, who was promised a length, must not take wrong bytes for the blob.
func (x *exchange) sendFile(ra blob.ReaderAt, file *os.File, offset, length int64, status int) error {
	if direct := length - inFlight; direct > 0 {
		x.start(status, length)
		if err := x.pour(file, offset, direct); err != nil {
			return err
		}
		offset, length = offset+direct, length-direct
	}
	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	for left := length; ; {
		part := buf[:min(left, copyBuffer)]
		n, err := file.ReadAt(part, offset+length-left)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		left -= int64(n)
		if n < len(part) || left == 0 && fileOf(ra) == nil {
			return fmt.Errorf("%w: %s was changed while it was sent", errs.ErrCorrupt, file.Name())
		}
		if !x.begun {
			x.start(status, length)
		}
		if _, err := x.Write(part); err != nil || left == 0 {
			return err
		}
	}
}

// pour has the connection send n bytes of a file by itself (sendfile, where there is no TLS and no HTTP/2): for that it
// must be handed the file, and not x. It is done in pieces, because a deadline cannot be moved while one is sent.
func (x *exchange) pour(file *os.File, offset, n int64) error {
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	defer x.wrote()
	for n > 0 {
		x.keepWriting()
		m, err := io.CopyN(x.w, file, min(n, maxSendfile))
		x.sent += m
		if n -= m; err != nil {
			return fmt.Errorf("%d bytes are not sent: %w", n, err)
		}
	}
	return nil
}

// copyVerified copies r to w, always one buffer behind: when r turns out to be damaged the last bytes are not sent,
// and the client, who was promised a length, cannot take it for the blob. start is called before the first write: what
// is found to be damaged until then can still be answered with an error.
func copyVerified(w io.Writer, r io.Reader, start func()) error {
	var held []byte
	one, two := buffers.Get().(*[copyBuffer]byte), buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(one)
	defer buffers.Put(two)
	next, spare := one[:], two[:]
	for first := true; ; first = false {
		n, err := fill(r, next)
		if err != nil && err != io.EOF {
			return fmt.Errorf("read: %w", err)
		}
		end := err == io.EOF
		if len(held) > 0 || first && end {
			if start != nil {
				start()
				start = nil
			}
			if _, err := w.Write(held); err != nil {
				return err
			}
		}
		if end {
			_, err := w.Write(next[:n])
			return err
		}
		held, next, spare = next[:n], spare, next
	}
}

// fill reads until p is full or r ends. Unlike io.ReadFull it leaves r's error as it is: a stream that was cut
// (io.ErrUnexpectedEOF) must not look like a short one.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}
