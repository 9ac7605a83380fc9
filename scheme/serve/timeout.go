package serve

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types/errs"
)

// The defaults of the time that a client may do nothing. Neither bounds how long a whole transfer takes: a fixed limit
// would cut slow pulls of large blobs, which is why http.Server's ReadTimeout and WriteTimeout are of no use here.
const (
	defaultReadIdle  = time.Minute
	defaultWriteIdle = time.Minute
)

// maxWrite is how much is written under one deadline, in bytes: with the default of a minute a client may be as slow as
// 5 KiB a second. For files it is maxSendfile, 18 KiB a second.
const (
	maxWrite    = 256 << 10
	maxSendfile = 1 << 20
)

// WithReadIdle sets how long a client may send nothing of a request's body that the server waits for; the upload then
// fails with 408, and its session keeps what came. How long the whole takes does not matter. The limit is exceeded by a
// quarter of itself at most. 0 is no limit. Default: one minute.
//
// Over HTTP/2 the time counts that the place takes to store what came, too.
func WithReadIdle(d time.Duration) Option { return func(c *config) { c.readIdle = d } }

// WithWriteIdle sets how long a client may take none of an answer that the server has ready for it; the connection (the
// stream, over HTTP/2) is then cut. It is exceeded by a quarter of itself at most. 0 is no limit. Default: one minute.
func WithWriteIdle(d time.Duration) Option { return func(c *config) { c.writeIdle = d } }

// deadline is the one for reading from, or for writing to, the client of one request. net/http takes it away again
// before the next request of the connection.
//
// A ResponseWriter that knows no deadlines (a recorder of tests) has none: set fails, and is not called again.
type deadline struct {
	set  func(time.Time) error // nil when there is none
	idle time.Duration         // 0 is for ever
	at   time.Time             // when it was moved last; zero while it is off
}

// move gives the client idle from now on. It costs next to nothing when it was moved less than a quarter of that ago:
// what is missing then was added before.
func (d *deadline) move() {
	if d.set == nil || d.idle <= 0 {
		return
	}
	now := time.Now()
	if !d.at.IsZero() && now.Sub(d.at) < d.idle/4 {
		return
	}
	d.at = now
	d.put(now.Add(d.idle + d.idle/4))
}

// last gives the client what is left of limit, and moves no more.
func (d *deadline) last(limit time.Duration) {
	if d.set != nil {
		d.put(time.Now().Add(limit))
	}
	d.set = nil
}

// put sets the deadline. It can fail when there is none, or the connection is gone: who uses that will see.
func (d *deadline) put(t time.Time) {
	if d.set(t) != nil {
		d.set = nil
	}
}

// off takes the deadline away.
func (d *deadline) off() {
	if d.set != nil && !d.at.IsZero() {
		d.at = time.Time{}
		d.put(time.Time{})
	}
}

// keepWriting lets the client take its time for what is written next: call it before each part of an answer that does
// not go through Write. No part may be so large that a slow client is done with it only after the limit: of a file
// maxSendfile bytes at most.
func (x *exchange) keepWriting() { x.writing.move() }

// wrote is the end of keepWriting over HTTP/2, where the deadline is the stream's, and would also count the time that
// the place takes to come up with the next part.
func (x *exchange) wrote() {
	if x.r.ProtoMajor >= 2 {
		x.writing.off()
	}
}

// deadlines prepares those of a request.
func (s *Server) deadlines(x *exchange) {
	rc := http.NewResponseController(x.w)
	x.writing = deadline{set: rc.SetWriteDeadline, idle: s.writeIdle}
	if x.r.Body == nil || x.r.Body == http.NoBody {
		return // net/http reads ahead by itself, to notice the end of the connection; a deadline would look like one
	}
	x.body.reading = deadline{set: rc.SetReadDeadline, idle: s.readIdle}
	if x.r.ProtoMajor < 2 && s.writeIdle > 0 && x.r.Header.Get("Expect") != "" {
		// "100 Continue" is written then. The deadline is that of the request's beginning, which may be long ago.
		x.body.first = func() { _ = rc.SetWriteDeadline(time.Now().Add(s.writeIdle)) } // fails as put does
	}
}

// stalled says what it means that the client sent nothing for too long: 408, so that clients try again.
func (s *Server) stalled(x *exchange, err error) error {
	if !errors.Is(x.body.failure(), os.ErrDeadlineExceeded) || errors.Is(err, errs.ErrUploadUnknown) { // cancelled
		return nil
	}
	kind := errs.ErrUploadInvalid
	if x.ctx.Endpoint == EndpointManifest {
		kind = errs.ErrManifestInvalid
	}
	said := ocihttp.Public(fmt.Errorf("%w: nothing came for %v", kind, s.readIdle))
	return &statusError{status: http.StatusRequestTimeout, err: fmt.Errorf("%w: %w", said, err)}
}
