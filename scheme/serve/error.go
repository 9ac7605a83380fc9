package serve

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types/errs"
)

// maxDrain is how much of a refused body is read, in bytes: a connection that is closed with unread data is reset,
// and the reset may overtake the answer. drainTime is how long that may take: who is slower may miss the answer.
const (
	maxDrain  = 4 << 20
	drainTime = 5 * time.Second
)

// statusError is a failure with a status of its own.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// fail answers with an error, or cuts the connection when the answer has begun: the client must not take what it has
// for the whole.
func (s *Server) fail(x *exchange, err error) {
	err = s.refine(x, err)
	status, raw := ocihttp.WriteError(err)
	var se *statusError
	if errors.As(err, &se) {
		status = se.status
	}
	level := slog.LevelDebug
	if status >= http.StatusInternalServerError && x.r.Context().Err() == nil && !s.accessLogged {
		level = slog.LevelError
	}
	s.log.Log(x.r.Context(), level, "request failed", "id", x.id, "method", x.r.Method, "path", x.shownPath(), "status", status, "error", err)
	x.err = err
	if x.begun {
		x.aborted = true
		panic(http.ErrAbortHandler)
	}
	for _, h := range []string{"ETag", ocihttp.HeaderContentDigest, "Cache-Control"} { // of what did not come about
		x.w.Header().Del(h)
	}
	var m *ocihttp.MethodError
	switch {
	case errors.As(err, &m):
		x.header("Allow", strings.Join(m.Allow, ", "))
	case errors.Is(err, errs.ErrReadOnly):
		x.header("Allow", "GET, HEAD")
	case status == http.StatusMethodNotAllowed && x.req != nil: // which may be none
		x.header("Allow", strings.Join(s.allowed(x), ", "))
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		var e *errs.Error
		if errors.As(err, &e) && e.RetryAfter > 0 {
			x.header("Retry-After", ocihttp.FormatRetryAfter(e.RetryAfter))
		}
	}
	x.drain()
	// The answer to a failed request is lost with its connection; nothing is left to do about it.
	_ = x.send(status, "application/json", raw)
}

// refine says what an error of a place means for this request.
func (s *Server) refine(x *exchange, err error) error {
	var se *statusError
	if errors.As(err, &se) {
		return err
	}
	if stalled := s.stalled(x, err); stalled != nil {
		return stalled
	}
	known, _ := ocihttp.WriteError(err)
	reads := x.req != nil && !routes[x.req.Kind].writes()
	switch {
	case reads && errors.Is(err, errs.ErrDigestMismatch) && !errors.Is(err, errs.ErrNotFound): // of what is stored: not the client's mistake
		return fmt.Errorf("%w: %w", errs.ErrCorrupt, err)
	case x.body.failure() != nil && known >= http.StatusInternalServerError && !errors.Is(err, errs.ErrNoSpace):
		return fmt.Errorf("%w: %w", ocihttp.Public(fmt.Errorf("%w: the body could not be read", errs.ErrUploadInvalid)), err)
	case x.req != nil && errors.Is(err, errs.ErrNotFound) && errs.FromCode(errs.Code(err)) == nil: // its code may be one of a registry's own
		return fmt.Errorf("%w: %w", routes[x.req.Kind].absent, err)
	case errors.Is(err, syscall.ENOSPC) && !errors.Is(err, errs.ErrNoSpace):
		return fmt.Errorf("%w: %w", errs.ErrNoSpace, err)
	}
	return err
}

// drain reads a bounded part of a body that was refused, for a bounded time. A client that waits for "100 Continue" has
// sent none: it learns the answer instead, and net/http closes the connection.
func (x *exchange) drain() {
	if x.r.ContentLength == 0 {
		return
	}
	rest, asked := x.body.last(drainTime) // also for what net/http reads, after the answer
	if !rest || x.r.Header.Get("Expect") != "" && !asked {
		return
	}
	if _, err := io.CopyN(io.Discard, x.body, maxDrain); err != io.EOF && x.r.ProtoMajor < 2 {
		x.header("Connection", "close") // HTTP/2 ends the stream; this would be the end of all others, too
	}
}
