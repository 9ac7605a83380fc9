package serve

import (
	"fmt"
	"io"
	"net/http"

	"github.com/ocisync/ocisync/types/errs"
)

// defaultMaxHeld bounds the bytes of manifests and lists that all requests together have in memory. One of them has no more
// than types.MaxManifestSize, but there may be thousands, of clients that take their time.
const defaultMaxHeld = 512 << 20

// smallHeld is the size in bytes up to which an answer does not count: a place may have such a manifest in memory once, for
// all to whom it is sent.
const smallHeld = 1 << 20

// hold counts n bytes that are in memory until the request is over. It waits for nobody: who has most of it may be in no
// hurry. Errors: errs.ErrUnavailable when there would be too many.
func (s *Server) hold(x *exchange, n int64) error {
	if s.held.Add(n) > s.maxHeld {
		s.held.Add(-n)
		return &errs.Error{Op: "serve", RetryAfter: queueTime, Err: fmt.Errorf("%w: manifests and lists of all requests take %d bytes", errs.ErrUnavailable, s.maxHeld)}
	}
	x.held += n
	return nil
}

// drop ends what the request holds.
func (s *Server) drop(x *exchange) { s.held.Add(-x.held) }

// sendHeld is send for what may be large.
func (s *Server) sendHeld(x *exchange, contentType string, raw []byte) error {
	if n := int64(len(raw)); n > smallHeld && x.r.Method != http.MethodHead {
		if err := s.hold(x, n); err != nil {
			return err
		}
	}
	return x.send(http.StatusOK, contentType, raw)
}

// holder is a body that is held as it comes.
type holder struct {
	s *Server
	x *exchange
}

func (h holder) Read(p []byte) (int, error) {
	n, err := h.x.body.Read(p)
	if herr := h.s.hold(h.x, int64(n)); herr != nil {
		return 0, herr
	}
	return n, err
}

var _ io.Reader = holder{}
