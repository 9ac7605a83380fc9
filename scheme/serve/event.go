package serve

import (
	"net/http"
	"time"
)

// HeaderGroup is a header by which test programs say which of their cases a request belongs to.
const HeaderGroup = "X-Oci-Conformance-Test"

// Event is one request and what became of it.
type Event struct {
	Context
	ID       string        // of the request: what the answer and the log call it
	Group    string        // what HeaderGroup says
	Time     time.Time     // when the request came
	Duration time.Duration // until the answer was out
	Status   int           // of the answer; 0 when the connection ended without one
	Received int64         // bytes of the request's body that were read
	Sent     int64         // bytes of the answer's body
	Aborted  bool          // the answer is not whole: the connection was cut
	Err      error         // why it failed, with everything that the client is not told

	Request *http.Request // its body has been read, or is gone
	Header  http.Header   // of the answer
}

// Inspector sees every request, when it has been answered, in the goroutine that answered it: the next request of that
// connection waits. Credentials are still in e.Request. It is called for many requests at once; e and what it points
// to are valid until it returns.
type Inspector interface {
	Inspect(e *Event)
}

// WithInspector adds an inspector.
func WithInspector(i Inspector) Option {
	return func(c *config) { c.inspectors = append(c.inspectors, i) }
}

// inspect tells the inspectors about a request that is over.
func (s *Server) inspect(x *exchange) {
	if len(s.inspectors) == 0 {
		return
	}
	e := &Event{
		Context: x.ctx, ID: x.id, Group: x.r.Header.Get(HeaderGroup),
		Time: x.began, Duration: time.Since(x.began),
		Status: x.status, Received: x.body.received(), Sent: x.sent, Aborted: x.aborted, Err: x.err,
		Request: x.r, Header: x.w.Header(),
	}
	for _, i := range s.inspectors {
		i.Inspect(e)
	}
}
