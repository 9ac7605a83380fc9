package serve

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// The limits of HTTPServer that no option changes: the fields of http.Server can be set.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10 // tokens of 16 KiB occur
	maxStreams        = 100      // at once, of an HTTP/2 connection
	pingAfter         = 30 * time.Second
	pingTimeout       = 15 * time.Second
)

// The defaults of WithMaxConns.
const (
	defaultMaxConns     = 20000
	defaultMaxConnsEach = 2000
)

// WithMaxConns bounds the connections of HTTPServer that are open at once: total of them, and each of one address (one
// /64 network for IPv6), but for trusted proxies. Each costs a descriptor and some KiB. More are closed as soon as they
// are accepted: an answer (503) would need the request, and over TLS the handshake, which is what the limit is to save.
// 0 is no limit, and a negative number the default: 20,000, or three quarters of the files that the process may have open, if that is less (the
// others are for blobs); and 2,000.
func WithMaxConns(total, each int) Option {
	return func(c *config) { setLimit(&c.maxConns, total); setLimit(&c.maxConnsEach, each) }
}

// setLimit sets what an option says; a negative number leaves the default.
func setLimit(limit *int, n int) {
	if n >= 0 {
		*limit = n
	}
}

// connsFor is the default of the connections in all, where a process may have so many files open; 0 is not known.
func connsFor(descriptors uint64) int {
	if descriptors == 0 {
		return defaultMaxConns
	}
	return int(min(defaultMaxConns, max(descriptors/4*3, 1)))
}

// HTTPServer returns an http.Server that answers by s and does not let clients occupy it that send or take nothing: ten
// seconds for the headers of a request, which may have 32 KiB; two minutes between requests; connections as
// WithMaxConns says; 100 requests at once in an HTTP/2 connection. It has no ReadTimeout and no WriteTimeout, as they
// bound the whole of a transfer and would cut large blobs; s has WithReadIdle and WithWriteIdle in their place.
//
// Its fields may be changed before it is used: Handler to what stands before s (what that answers by itself has to be
// out within WithWriteIdle), TLSConfig, Addr. To stop, call http.Server.Shutdown first, which waits for the requests,
// then that of s.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(errorLog{s.log}, "", 0),
		ConnState:         newConns(&s.config).state,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			SendPingTimeout:      pingAfter,
			PingTimeout:          pingTimeout,
			WriteByteTimeout:     s.writeIdle,
		},
	}
}

// errorLog writes what http.Server has to say. That handshakes fail is not worth more than a debug message: anybody
// who finds the port can have as many as he likes.
type errorLog struct{ log *slog.Logger }

func (l errorLog) Write(p []byte) (int, error) {
	line := bytes.TrimSpace(p)
	level := slog.LevelWarn
	if bytes.Contains(line, []byte("TLS handshake error")) || bytes.HasPrefix(line, []byte("http2: ")) {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, "http server", "message", clean(string(line), maxLogged))
	return len(p), nil
}

// conns counts the connections of one http.Server.
type conns struct {
	config *config

	mu   sync.Mutex
	open map[net.Conn]netip.Prefix // whom it is from
	from map[netip.Prefix]int      // how many of open
}

func newConns(c *config) *conns {
	return &conns{config: c, open: map[net.Conn]netip.Prefix{}, from: map[netip.Prefix]int{}}
}

// state is the hook of http.Server. It closes a new connection that is too many. What net/http writes by itself, as in
// answer to headers that make no sense, has a deadline, too: else a client that has filled the buffers before would keep
// the connection by that. HTTP/2 sets its own before each write.
func (c *conns) state(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if !c.add(conn) {
			c.config.log.Debug("too many connections", "remote", conn.RemoteAddr().String())
			_ = conn.Close() // nobody is told
		}
	case http.StateActive:
		if idle := c.config.writeIdle; idle > 0 {
			_ = conn.SetWriteDeadline(time.Now().Add(idle)) // fails when the connection is gone
		}
	case http.StateClosed, http.StateHijacked:
		c.remove(conn)
	}
}

// add counts a connection, and reports false if it is too many.
func (c *conns) add(conn net.Conn) bool {
	addr := addrOf(conn.RemoteAddr().String())
	from, total, each := network(addr), c.config.maxConns, c.config.maxConnsEach
	if !addr.IsValid() || c.config.trusts(addr) { // a Unix socket, or the connections of many
		each = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if total > 0 && len(c.open) >= total || each > 0 && c.from[from] >= each {
		return false
	}
	c.open[conn] = from
	c.from[from]++
	return true
}

// remove forgets a connection, if it was counted.
func (c *conns) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, ok := c.open[conn]
	if !ok {
		return
	}
	delete(c.open, conn)
	if c.from[from]--; c.from[from] == 0 {
		delete(c.from, from)
	}
}
