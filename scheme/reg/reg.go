// Package reg is the client of registries that speak the OCI distribution specification over HTTP: the scheme "reg",
// which is that of references without one.
//
// A request passes through three layers. host.do (retry.go) sends it until it succeeds, fails for good, or has used
// up its attempts; there is no state between requests, so what fails in one repository slows no other. host.try
// (request.go) adds the Authorization and answers a challenge once. host.exchange (exchange.go) sends it, follows
// redirects, and watches that something moves. Credentials live in auth.go, token.go and credential.go and leave this
// machine for their own host and scheme only: exchange attaches them where a URL's origin is the host's own.
//
// Everything read into memory is bounded. A blob's stream goes on after any interruption (resume.go) and is verified.
// The exact requests that each operation costs are asserted by the tests.
package reg

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/ref"
)

// Reg implements scheme.API, BlobOpener, RepoLister, Throttler and Closer. Make one with New. It keeps connections,
// tokens, and what it has learned about hosts, so one for a whole program is best.
type Reg struct {
	scheme.Unimplemented
	conf       map[string]Host
	credential func(ctx context.Context, host, repo string) (Credential, error)
	log        *slog.Logger
	agent      string
	limits     limits

	// For URLs of hosts that are no registry of ours: redirects, upload locations, token servers. strict refuses to
	// connect to this machine and to link-local addresses; lenient is for those that a registry on this machine names.
	strict, lenient *http.Transport

	background sync.WaitGroup // cancels of uploads, token requests

	mu    sync.Mutex // guards hosts; never held across I/O
	hosts map[string]*host

	fallback keyedMutex // by the place of a subject: one update of its fallback tag at a time
}

var (
	_ scheme.API        = (*Reg)(nil)
	_ scheme.BlobOpener = (*Reg)(nil)
	_ scheme.RepoLister = (*Reg)(nil)
	_ scheme.Throttler  = (*Reg)(nil)
	_ scheme.Closer     = (*Reg)(nil)
)

// New returns a client. It opens nothing yet: credential files are read when a registry first asks for credentials.
func New(opts ...Option) *Reg {
	r := &Reg{
		conf:       map[string]Host{},
		credential: newFiles().find,
		log:        slog.New(slog.DiscardHandler),
		agent:      "ocisync",
		limits:     defaultLimits,
		hosts:      map[string]*host{},
	}
	for _, o := range opts {
		o(r)
	}
	r.strict = newTransport(r.limits, nil, defaultConcurrency, guard)
	r.lenient = newTransport(r.limits, nil, defaultConcurrency, nil)
	return r
}

// Slots returns the slots of r's host (see scheme.Throttler).
func (r *Reg) Slots(rf ref.Ref) *scheme.Slots {
	h, err := r.host(rf.Root)
	if err != nil { // no request to that host gets far enough to need a slot
		return nil
	}
	return h.slots
}

// Close waits for what still runs in the background and closes idle connections. Streams that are still open keep
// theirs until they are closed.
func (r *Reg) Close() error {
	r.background.Wait()
	r.mu.Lock()
	hosts := slices.Collect(maps.Values(r.hosts))
	r.mu.Unlock()
	for _, h := range hosts {
		h.transport.CloseIdleConnections()
	}
	r.strict.CloseIdleConnections()
	r.lenient.CloseIdleConnections()
	return nil
}

// keyedMutex is a mutex for each of any number of keys, whose Lock ends with the context.
type keyedMutex struct {
	mu    sync.Mutex // guards locks
	locks map[string]*keyedLock
}

type keyedLock struct {
	sem   chan struct{} // holds one element while locked
	users int           // who holds the lock or waits for it
}

// lock returns the function that unlocks.
func (k *keyedMutex) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	l := k.locks[key]
	if l == nil {
		if k.locks == nil {
			k.locks = map[string]*keyedLock{}
		}
		l = &keyedLock{sem: make(chan struct{}, 1)}
		k.locks[key] = l
	}
	l.users++
	k.mu.Unlock()

	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, key)
		}
	}
	select {
	case l.sem <- struct{}{}:
		return func() { <-l.sem; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
