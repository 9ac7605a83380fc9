package reg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

const (
	maxRedirects = 10
	// maxDrain is how much of an unwanted body is read so that its connection can be used again.
	maxDrain = 64 << 10
)

// message is one HTTP request, as often as redirects want it sent.
type message struct {
	method string
	url    *url.URL
	header http.Header
	auth   string  // the Authorization, for origins that owner accepts
	body   payload // nil for none
	commit bool    // the answer may take long, as the registry stores what it received
	owner  func(*url.URL) bool
}

// payload is the body of a request.
type payload interface {
	// open returns the bytes from the first on; size is -1 when unknown. The transport closes rc, and may do so later
	// than it returns.
	open() (rc io.ReadCloser, size int64, err error)
	// replayable reports whether open may be called (again).
	replayable() bool
}

// bytesBody is a payload in memory.
type bytesBody []byte

func (b bytesBody) open() (io.ReadCloser, int64, error) {
	return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
}

func (b bytesBody) replayable() bool { return true }

// exchange sends m and returns the answer, whatever its status; redirects are followed. The caller closes the body.
func (h *host) exchange(ctx context.Context, m message) (*http.Response, error) {
	u, auth := m.url, m.auth
	for hop := 0; ; hop++ {
		if !m.owner(u) {
			auth = "" // for good: a stranger must not send it back to us with a request of its own making
		}
		resp, err := h.roundTrip(ctx, m, u, auth)
		if err != nil {
			if h.fallBack(u, err) && (m.body == nil || m.body.replayable()) {
				u = withScheme(u, "http")
				hop--
				continue
			}
			return nil, err
		}
		next, err := h.redirected(m, u, resp)
		if err != nil || next == nil {
			return resp, err
		}
		discard(resp)
		if hop == maxRedirects {
			return nil, fmt.Errorf("%w: more than %d redirects", errs.ErrUnavailable, maxRedirects)
		}
		u = next
	}
}

// fallBack reports whether the request to u that failed with err is to be sent over HTTP, and remembers it.
func (h *host) fallBack(u *url.URL, err error) bool {
	if !h.mayFallBack(u) || !spokeHTTP(err) {
		return false
	}
	h.plain.Store(true)
	return true
}

// redirected returns where the answer leads, nil when it leads nowhere. Requests that change something are only sent
// again when the status demands the same method (307, 308), the body can be, and the origin stays.
func (h *host) redirected(m message, from *url.URL, resp *http.Response) (*url.URL, error) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	location := resp.Header.Get("Location")
	read := m.method == http.MethodGet || m.method == http.MethodHead
	same := resp.StatusCode == http.StatusTemporaryRedirect || resp.StatusCode == http.StatusPermanentRedirect
	if location == "" || !read && (!same || m.body != nil && !m.body.replayable()) {
		return nil, nil
	}
	next, err := h.resolve(from, location)
	if err == nil && !read && origin(next) != origin(from) {
		err = fmt.Errorf("%w: %s redirects a %s to %s", errs.ErrDenied, h.name, m.method, next.Host)
	}
	if err != nil {
		discard(resp)
		return nil, err
	}
	return next, nil
}

// roundTrip sends one request.
func (h *host) roundTrip(ctx context.Context, m message, u *url.URL, auth string) (*http.Response, error) {
	rt, err := h.roundTripper(u)
	if err != nil {
		return nil, err
	}
	l := h.reg.limits
	wait := l.header
	if m.commit {
		wait = l.commit
	}
	ctx, dog := watch(ctx, wait+l.dial)
	req, err := http.NewRequestWithContext(ctx, m.method, u.String(), nil)
	if err != nil {
		dog.stop()
		return nil, err
	}
	if m.header != nil {
		req.Header = m.header.Clone()
	}
	req.Header.Set("User-Agent", h.reg.agent)
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	if m.body != nil {
		rc, size, err := m.body.open()
		if err != nil {
			dog.stop()
			return nil, err
		}
		req.ContentLength = size
		req.Body = &watchedBody{ReadCloser: rc, dog: dog, idle: l.idle, header: wait}
		if size == 0 {
			req.Body = http.NoBody
			if err := rc.Close(); err != nil {
				dog.stop()
				return nil, err
			}
		}
	}
	start := time.Now()
	resp, err := rt.RoundTrip(req)
	h.trace(req, resp, err, time.Since(start))
	if err != nil {
		err = explainEnd(ctx, err)
		dog.stop()
		return nil, err
	}
	h.answered.Store(true)
	dog.rest()
	resp.Body = &watchedAnswer{ctx: ctx, body: resp.Body, dog: dog, idle: l.idle}
	return resp, nil
}

// trace logs a request without its secrets.
func (h *host) trace(req *http.Request, resp *http.Response, err error, took time.Duration) {
	ctx := req.Context()
	if !h.reg.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", req.Method), slog.String("url", redact(req.URL)),
		slog.Bool("authorization", req.Header.Get("Authorization") != ""), slog.Duration("took", took),
	}
	if r := req.Header.Get("Range"); r != "" {
		attrs = append(attrs, slog.String("range", r))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	} else {
		attrs = append(attrs, slog.Int("status", resp.StatusCode), slog.Int64("length", resp.ContentLength))
	}
	h.reg.log.LogAttrs(ctx, slog.LevelDebug, "http", attrs...)
}

// public are the query parameters that say nothing secret. Others may be signatures and states of uploads.
var public = map[string]bool{
	"digest": true, "mount": true, "from": true, "n": true, "last": true, "tag": true,
	"artifactType": true, "service": true, "scope": true, "account": true,
}

// redact prints u without what gives access.
func redact(u *url.URL) string {
	c := *u
	c.User = nil
	q := c.Query()
	for k := range q {
		if !public[k] {
			q[k] = []string{"redacted"}
		}
	}
	c.RawQuery = q.Encode()
	return c.String()
}

func withScheme(u *url.URL, scheme string) *url.URL {
	c := *u
	c.Scheme = scheme
	return &c
}

// discard ends an answer that nobody wants, and keeps its connection if little is left of it.
func discard(resp *http.Response) {
	// The answer has been judged by its status and header: how its body ends changes nothing.
	_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
	_ = resp.Body.Close()
}

// readAll reads a body of limit bytes at most, and closes it. The error for more is errs.ErrSizeInvalid.
func readAll(resp *http.Response, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if int64(len(raw)) > limit {
		err = fmt.Errorf("%w: the answer has more than %d bytes", errs.ErrSizeInvalid, limit)
	} else if err == nil && resp.ContentLength > int64(len(raw)) {
		err = io.ErrUnexpectedEOF
	}
	return raw, errors.Join(err, resp.Body.Close())
}
