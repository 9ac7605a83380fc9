package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/ocisync/ocisync/scheme/serve"
)

// httpServer is a registry that listens: what serve and demo start and stop alike.
type httpServer struct {
	server   *http.Server
	registry *serve.Server
	listener net.Listener
	done     chan error // what Serve returned
}

// startHTTP answers what comes to listener by handler, which stands before registry, over TLS if config is not nil. All
// belong to the result then, which the caller stops.
func startHTTP(listener net.Listener, handler http.Handler, registry *serve.Server, config *tls.Config) *httpServer {
	s := &httpServer{registry: registry, listener: listener, done: make(chan error, 1), server: registry.HTTPServer()}
	s.server.Handler, s.server.TLSConfig = handler, config
	go func() {
		if config != nil {
			s.done <- s.server.ServeTLS(listener, "", "")
			return
		}
		s.done <- s.server.Serve(listener)
	}()
	return s
}

// errCut is the failure of a server that was stopped before all requests were answered.
var errCut = errors.New("requests that were not done yet were cut")

// lingering is how long the handlers of requests that were cut have to notice it.
const lingering = 5 * time.Second

// stop takes no more connections, waits up to grace for the requests that are running, cuts what is left, and ends the
// registry. Its error is errCut when something was left. grace 0 cuts at once, and that is no failure.
func (s *httpServer) stop(grace time.Duration) error {
	var cut error
	if grace > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		if err := s.server.Shutdown(ctx); err != nil {
			cut = fmt.Errorf("%w after --grace %s", errCut, shortDuration(grace))
		}
		cancel()
	}
	err := errors.Join(cut, s.server.Close())
	if serr := <-s.done; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lingering)
	defer cancel()
	return errors.Join(err, s.registry.Shutdown(ctx))
}

// listen opens the address to serve on.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "another port, or --addr 127.0.0.1:0 for any that is free: another program listens on this one"
	case errors.Is(err, os.ErrPermission):
		hint = "a port above 1023: the others are not for every user"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "an address of this machine, or --addr :5000 for all of them"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return nil, &hinted{fmt.Errorf("listen on %s: %w", addr, ioKind(err)), hint}
}
