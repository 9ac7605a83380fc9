// Package serve is a registry over any scheme.API: an http.Handler that speaks the OCI distribution specification.
//
// Requests are parsed by internal/ocihttp into one of a few kinds; the table in route.go says which method answers
// which kind. There is one file for each resource: blob.go, upload.go, manifest.go, tag.go, referrer.go, catalog.go. A
// method reads the exchange, asks the place, and answers, or returns an error, which error.go puts into the
// specification's words. Repository NAME is root.WithRepo(NAME) of the place.
//
// Uploads that arrive in parts wait in files of a spool directory (session.go) until they are complete and their
// digest is known; only then does the place see them. An upload that arrives whole goes straight through.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// The defaults of options.
const (
	defaultMaxSessions = 1000
	defaultSessionTTL  = time.Hour
)

// Server is an http.Handler. Make one with New, and end it with Shutdown.
type Server struct {
	api      scheme.API
	root     ref.Ref
	readOnly bool
	sparse   bool
	log      *slog.Logger
	sessions *sessions

	mu      sync.Mutex
	running int           // requests that are being answered
	closed  bool          // Shutdown was called: no more requests
	idle    chan struct{} // closed when closed is true and running is 0
}

// Option is a setting of New.
type Option func(*config)

type config struct {
	readOnly    bool
	sparse      bool
	log         *slog.Logger
	spoolDir    string
	maxSessions int
	sessionTTL  time.Duration
}

// WithReadOnly refuses every request that writes with 405, whatever the place would allow.
func WithReadOnly() Option { return func(c *config) { c.readOnly = true } }

// WithSparse accepts indexes some of whose manifests the repository lacks (see scheme.WithSparse). Without it they are
// refused with MANIFEST_BLOB_UNKNOWN, so that all that is listed can be pulled. Images must be complete either way.
func WithSparse() Option { return func(c *config) { c.sparse = true } }

// WithLogger sets where failures are logged: those of the server as errors, those of requests as debug messages.
// Default: nowhere.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.log = l } }

// WithSpoolDir sets the directory in which New makes a folder for the parts of uploads, which Shutdown removes. It
// has to have room for all uploads that are open at once. Default: the system's directory for temporary files.
func WithSpoolDir(dir string) Option { return func(c *config) { c.spoolDir = dir } }

// WithMaxSessions bounds the uploads that are open at once; further ones are answered with 429. Default: 1000.
func WithMaxSessions(n int) Option { return func(c *config) { c.maxSessions = n } }

// WithSessionTTL sets after which time without a request an upload is given up. Default: one hour.
func WithSessionTTL(d time.Duration) Option { return func(c *config) { c.sessionTTL = d } }

// New returns a server of the repositories below root, a reference without tag and digest. It takes no part of api
// over: who made api closes it, after Shutdown. Errors: errs.ErrInvalid for a root that is no place; the spool folder
// cannot be made.
func New(api scheme.API, root ref.Ref, opts ...Option) (*Server, error) {
	if root.IsZero() || root.Tag != "" || root.Digest != "" {
		return nil, &errs.Error{Op: "serve", Ref: root.String(), Err: fmt.Errorf("%w: the root must be a registry or directory, without tag and digest", errs.ErrInvalid)}
	}
	c := config{log: slog.New(slog.DiscardHandler), maxSessions: defaultMaxSessions, sessionTTL: defaultSessionTTL}
	for _, o := range opts {
		o(&c)
	}
	s := &Server{api: api, root: root, readOnly: c.readOnly, sparse: c.sparse, log: c.log, idle: make(chan struct{})}
	if c.readOnly {
		s.api = scheme.ReadOnly(api)
		return s, nil
	}
	dir, err := os.MkdirTemp(c.spoolDir, "ocisync-uploads-")
	if err != nil {
		return nil, &errs.Error{Op: "serve", Ref: root.String(), Err: fmt.Errorf("spool folder: %w", err), Hint: "set a spool directory that can be written"}
	}
	s.sessions = newSessions(dir, c.maxSessions, c.sessionTTL)
	return s, nil
}

// Shutdown refuses new requests with 503, waits for those that are being answered, and removes the spool. It returns
// ctx's error when ctx ends first; the spool is gone all the same, and uploads that were running fail. The listener
// is the caller's: shut the http.Server down first.
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
	if s.sessions != nil {
		err = errors.Join(err, s.sessions.close())
	}
	return err
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
