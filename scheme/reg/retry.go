package reg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

// do sends rq until it succeeds, fails for good, or has used up its attempts. The error is an *errs.Error. The caller
// closes the body of the answer, whose status is one that rq wants.
func (h *host) do(ctx context.Context, rq request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		resp, err := h.try(ctx, rq)
		if err == nil {
			return resp, nil
		}
		if rq.body != nil && !rq.body.replayable() {
			return nil, h.fail(ctx, rq, err)
		}
		if werr := h.pause(ctx, err, attempt); werr != nil {
			return nil, h.fail(ctx, rq, werr)
		}
	}
}

// fetch is do and the reading of the body, which is of limit bytes at most. A body that breaks off is asked for again.
func (h *host) fetch(ctx context.Context, rq request, limit int64) (*http.Response, []byte, error) {
	for attempt := 1; ; attempt++ {
		resp, err := h.do(ctx, rq)
		if err != nil {
			return nil, nil, err
		}
		raw, err := readAll(resp, limit)
		if err == nil {
			return resp, raw, nil
		}
		if werr := h.pause(ctx, err, attempt); werr != nil {
			return nil, nil, h.fail(ctx, rq, werr)
		}
	}
}

// pause waits before the attempt that follows attempt, which failed with err. It returns why there is to be none: err
// itself if it is final, the attempts are used up, or the wait would be too long; the context's error.
func (h *host) pause(ctx context.Context, err error, attempt int) error {
	if !transient(err) && !h.restarting(err) {
		return err
	}
	return h.wait(ctx, err, attempt)
}

// restarting reports whether err is a refused connection to a host that has answered before.
func (h *host) restarting(err error) bool {
	return h.answered.Load() && errors.Is(err, syscall.ECONNREFUSED)
}

// wait is pause for an err that is known not to be final.
func (h *host) wait(ctx context.Context, err error, attempt int) error {
	l := h.reg.limits
	if ctx.Err() != nil || attempt >= l.attempts {
		return err
	}
	wait := l.backoffAfter(attempt)
	var e *errs.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		if e.RetryAfter > l.retryAfter {
			return err
		}
		wait = e.RetryAfter
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return err // what went wrong says more than that time ran out
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w, after %w", ctx.Err(), err)
	}
}

// backoffAfter doubles with each attempt; half of it is chance, so that clients that failed together part.
func (l limits) backoffAfter(attempt int) time.Duration {
	d := min(l.backoff<<min(attempt-1, 20), l.maxBackoff)
	if d <= 1 {
		return d
	}
	return d/2 + rand.N(d/2)
}

var transientStatus = []int{
	http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusInternalServerError,
	http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
}

// transient reports whether the same request may succeed later.
func transient(err error) bool {
	var e *errs.Error
	if errors.As(err, &e) && e.Status != 0 {
		return slices.Contains(transientStatus, e.Status)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	return interrupted(err)
}

// interrupted reports whether a connection broke, rather than that something was answered.
func interrupted(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT, net.ErrClosed} {
		if errors.Is(err, e) {
			return true
		}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary || dns.IsTimeout
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return true
	}
	// net/http has no names for these.
	msg := err.Error()
	return strings.Contains(msg, "server closed idle connection") || strings.Contains(msg, "malformed HTTP response")
}
