// Package serve is a registry over any scheme.API: an http.Handler that speaks the OCI distribution specification.
//
// Requests are parsed by internal/ocihttp into one of a few kinds; the table in route.go says which method answers
// which kind. There is one file for each resource: blob.go, upload.go, manifest.go, tag.go, referrer.go, catalog.go. A
// method reads the exchange, asks the place, and answers, or returns an error, which error.go puts into the
// specification's words. Which repository of which place a name means is in place.go, who may do what in access.go, what a
// server can be told not to do in switch.go. What may be a manifest is in document.go, and the conditions of a request that
// moves a tag are in condition.go.
//
// An upload that arrives whole goes straight to the place. One that arrives in parts is an ingest until it is complete and
// its digest is known: of the place, or, where that has none, of the spool (ingests.go). Which uploads are open, and whose
// they are, is in session.go, what their requests do in upload.go and chunk.go.
package serve

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// Server is an http.Handler. Make one with New, and end it with Shutdown.
type Server struct {
	config
	api      scheme.API
	places   places
	sessions *sessions
	slots    *slots
	rates    *rates // nil: no limit
	seen     seen
	held     atomic.Int64 // bytes, see hold
	spool    lazySpool

	ctx  context.Context // of what runs between requests; ends with Shutdown
	stop context.CancelFunc
	rest *leftovers

	mu      sync.Mutex
	running int           // requests that are being answered
	closed  bool          // Shutdown was called: no more requests
	idle    chan struct{} // closed when closed is true and running is 0
}

// New returns a server of the repositories below root, a reference without tag and digest, and of those of WithPlace.
// A zero root serves only the latter. It takes no part of api over: who made api closes it, after Shutdown. Errors:
// errs.ErrInvalid for a root that is no place; the state directory cannot be made.
func New(api scheme.API, root ref.Ref, opts ...Option) (*Server, error) {
	c := newConfig(opts)
	if !root.IsZero() {
		c.places = append(c.places, Place{Root: root})
	}
	ps, err := newPlaces(c.places)
	if err != nil {
		return nil, err
	}
	s := &Server{config: c, api: api, places: ps, idle: make(chan struct{})}
	s.slots, s.rates = newSlots(c.maxRequests, c.maxRequestsEach), newRates(c.rate, c.burst, maxCallers)
	if s.readOnly {
		s.api = scheme.ReadOnly(api)
		return s, nil
	}
	s.spool.dir = s.stateDir
	for _, p := range s.places {
		if p.ReadOnly {
			continue
		}
		if _, err := s.ingests(p.Root); err != nil {
			return nil, &errs.Error{Op: "serve", Ref: p.Root.String(), Err: err, Hint: "set a state directory that can be written"}
		}
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.sessions = newSessions(c.maxSessions, c.sessionsEach, c.sessionTTL, s.expire)
	s.rest = s.watchLeftovers()
	return s, nil
}

// Shutdown refuses new requests with 503, waits for those that are being answered, and closes the spool. It returns ctx's
// error when ctx ends first: then requests that are still sending the parts of an upload are broken off. What uploads have
// received is kept wherever it outlives the process. The listener is the caller's: shut the http.Server down first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		if s.running == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	var err error
	select {
	case <-s.idle:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if s.sessions == nil {
		return err
	}
	s.stop()
	s.sessions.interrupt()
	s.sessions.close()
	s.rest.close()
	return errors.Join(err, s.spool.close())
}

// enter counts a request in, and reports false after Shutdown.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running--; s.running == 0 && s.closed {
		close(s.idle)
	}
}

var _ http.Handler = (*Server)(nil)
