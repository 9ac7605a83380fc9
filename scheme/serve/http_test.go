package serve

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlowHeaders holds that the headers have to come within their time, by whatever pieces they come, and that the
// connection ends also when the client reads nothing. (Time is that of the bubble.)
func TestSlowHeaders(t *testing.T) {
	for name, limit := range map[string]time.Duration{"reads": readHeaderTimeout, "reads nothing": readHeaderTimeout + defaultWriteIdle} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
				c := p.dial()
				defer c.Close()
				if name == "reads" {
					go io.Copy(io.Discard, c)
				}
				began := time.Now()
				for _, b := range []byte("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("y", 1000)) {
					if _, err := c.Write([]byte{b}); err != nil {
						break
					}
					time.Sleep(time.Second)
				}
				if d := time.Since(began); d > limit+2*time.Second {
					t.Errorf("headers may take %v", d)
				}
			})
		})
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
		for _, request := range []string{"", "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"} {
			c := p.dial()
			defer c.Close()
			send(c, request)
			began := time.Now()
			ends(t, c)
			if d := time.Since(began); d > idleTimeout {
				t.Errorf("a connection may be idle for %v", d)
			}
		}
	})
}

func TestLongHeaders(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
		for want, length := range map[int]int{http.StatusOK: maxHeaderBytes - 1000, http.StatusRequestHeaderFieldsTooLarge: 2 * maxHeaderBytes} {
			c := p.dial()
			defer c.Close()
			send(c, "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: "+strings.Repeat("y", length)+"\r\n\r\n")
			if got, body := status(t, ends(t, c)); got != want {
				t.Errorf("%d bytes of headers: %d %s, want %d", length, got, body, want)
			}
		}
	})
}

// open reports whether the server has kept a connection, by a request.
func open(t *testing.T, c net.Conn) bool {
	t.Helper()
	if _, err := io.WriteString(c, "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return false
	}
	status, _ := status(t, ends(t, c))
	return status == http.StatusOK
}

func TestMaxConns(t *testing.T) {
	opts := []Option{WithMaxConns(4, 2), WithTrustedProxies(prefixes(t, "198.51.100.0/24")...)}
	for _, tc := range []struct {
		name  string
		from  []string // of connections that stay open
		last  string   // who connects next
		taken bool
	}{
		{"one address", []string{"192.0.2.1:1"}, "192.0.2.1:2", true},
		{"one address, too many", []string{"192.0.2.1:1", "192.0.2.1:2"}, "192.0.2.1:3", false},
		{"one IPv4 address in two forms", []string{"192.0.2.1:1", "[::ffff:192.0.2.1]:2"}, "192.0.2.1:3", false},
		{"another address", []string{"192.0.2.1:1", "192.0.2.1:2"}, "192.0.2.2:1", true},
		{"one IPv6 network", []string{"[2001:db8::1]:1", "[2001:db8::2]:1"}, "[2001:db8::3]:1", false},
		{"another IPv6 network", []string{"[2001:db8::1]:1", "[2001:db8::2]:1"}, "[2001:db8:0:1::1]:1", true},
		{"a trusted proxy", []string{"198.51.100.1:1", "198.51.100.1:2", "198.51.100.1:3"}, "198.51.100.1:4", true},
		{"too many in all", []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "198.51.100.1:1"}, "192.0.2.4:1", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, opts, func(t *testing.T, s *Server, p *pipes, seen *events) {
				var held []net.Conn
				for _, addr := range tc.from {
					held = append(held, p.dialFrom(addr))
				}
				synctest.Wait()
				last := p.dialFrom(tc.last)
				defer last.Close()
				if got := open(t, last); got != tc.taken {
					t.Errorf("taken: %v, want %v", got, tc.taken)
				}
				for i, c := range held {
					if !open(t, c) {
						t.Errorf("connection %d was not kept", i)
					}
					c.Close()
				}
				synctest.Wait()
				last = p.dialFrom(tc.last)
				defer last.Close()
				if !open(t, last) {
					t.Error("when all were closed, there is still no room")
				}
			})
		})
	}
}

// TestConnsForgets holds that nothing is left of connections that are gone, refused ones included.
func TestConnsForgets(t *testing.T) {
	c := newConns(&config{maxConns: 3, maxConnsEach: 2, log: slog.New(slog.DiscardHandler)})
	var all []net.Conn
	for range 5 {
		a, b := net.Pipe()
		defer b.Close()
		all = append(all, a)
		c.state(a, http.StateNew)
	}
	for _, a := range all {
		c.state(a, http.StateActive)
		c.state(a, http.StateClosed)
	}
	if len(c.open) != 0 || len(c.from) != 0 {
		t.Errorf("left: %v, %v", c.open, c.from)
	}
}

func TestErrorLog(t *testing.T) {
	var buf bytes.Buffer
	s := &Server{config: config{log: slog.New(slog.NewTextHandler(&buf, nil))}}
	log := s.HTTPServer().ErrorLog
	log.Printf("http: TLS handshake error from 192.0.2.1:1: EOF")
	if buf.Len() > 0 {
		t.Errorf("anybody can fill the log: %s", &buf)
	}
	log.Printf("http: Accept error: %v; retrying", errors.New("too many\x1b[2J open files"))
	if got := buf.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "http: Accept error: too many?[2J open files") {
		t.Errorf("logged: %s", got)
	}
}

// TestConnsLeaveRoomForFiles holds that connections alone do not use up what the process may open.
func TestConnsLeaveRoomForFiles(t *testing.T) {
	for in, want := range map[uint64]int{0: 20000, 1: 1, 256: 192, 1024: 768, 20000: 15000, 65536: 20000, 1<<64 - 1: 20000} {
		if got := connsFor(in); got != want {
			t.Errorf("%d files: %d connections, want %d", in, got, want)
		}
	}
	if got, files := newConfig(nil).maxConns, maxDescriptors(); got <= 0 || files > 0 && uint64(got) >= files {
		t.Errorf("%d connections, of %d files", got, files)
	}
	c := newConfig([]Option{WithMaxConns(-1, 7), WithMaxRequests(0, -1)})
	if c.maxConns != newConfig(nil).maxConns || c.maxConnsEach != 7 || c.maxRequests != 0 || c.maxRequestsEach != defaultMaxRequestsEach {
		t.Errorf("limits: %+v", c)
	}
}
