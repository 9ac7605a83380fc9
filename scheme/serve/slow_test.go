package serve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// pipes is a listener whose connections are in memory, so that a test of timeouts runs on the clock of synctest.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.done) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// dial connects to the listener. The connection has no buffer: a client that does not read stops the server at once.
func (p *pipes) dial() net.Conn { return p.dialFrom("192.0.2.1:1") }

// dialFrom connects from an address.
func (p *pipes) dialFrom(addr string) net.Conn {
	client, server := net.Pipe()
	p.conns <- from{server, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))}
	return client
}

// from is a connection whose client has an address.
type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// events is an inspector that keeps what it needs of every event.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) Inspect(ev *Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, *ev)
}

func (e *events) take() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.all
	e.all = nil
	return all
}

// inBubble runs test with a server over pipes, on a clock of its own.
func inBubble(t *testing.T, opts []Option, test func(t *testing.T, s *Server, p *pipes, seen *events)) {
	inBubbleOver(t, mem.New(), opts, test)
}

func inBubbleOver(t *testing.T, api scheme.API, opts []Option, test func(t *testing.T, s *Server, p *pipes, seen *events)) {
	synctest.Test(t, func(t *testing.T) {
		var seen events
		s, err := New(api, root, append([]Option{WithInspector(&seen)}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		p := newPipes()
		srv := s.HTTPServer()
		served := make(chan error, 1)
		go func() { served <- srv.Serve(p) }()
		test(t, s, p, &seen)
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// ends waits until the server closes the connection, and returns what it sent until then.
func ends(t *testing.T, c net.Conn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("the connection is still open after an hour, %v", err)
	}
	return string(raw)
}

// putBlob puts a blob into repository a of a server over mem.
func putBlob(t *testing.T, s *Server, content string) digest.Digest {
	t.Helper()
	d := types.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	if _, err := s.api.BlobPut(t.Context(), root.WithRepo("a"), d, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return d.Digest
}

// send writes a request in the background, as a pipe has no buffer.
func send(c net.Conn, request string) { go io.WriteString(c, request) }

func TestAnswerThatIsNotReadEnds(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
		d := putBlob(t, s, strings.Repeat("x", 1<<20))
		c := p.dial()
		defer c.Close()
		send(c, "GET /v2/a/blobs/"+string(d)+" HTTP/1.1\r\nHost: x\r\n\r\n")
		time.Sleep(2 * defaultWriteIdle)
		synctest.Wait()
		ev := seen.take()
		if len(ev) != 1 || !ev[0].Aborted {
			t.Fatalf("a client that reads nothing still occupies the server: %+v", ev)
		}
	})
}

func TestSlowReaderIsServed(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
		content := strings.Repeat("x", 1<<20)
		d := putBlob(t, s, content)
		c := p.dial()
		defer c.Close()
		send(c, "GET /v2/a/blobs/"+string(d)+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		var got strings.Builder
		for {
			time.Sleep(defaultWriteIdle / 8) // 16 KiB in that time
			n, err := io.CopyN(&got, c, 16<<10)
			if err != nil || n == 0 {
				break
			}
		}
		if !strings.HasSuffix(got.String(), content) {
			t.Fatalf("a slow client got %d bytes, %+v", got.Len(), seen.take())
		}
	})
}

// status is that of the last answer in raw, which has several when the server said "100 Continue".
func status(t *testing.T, raw string) (status int, body string) {
	t.Helper()
	rd := bufio.NewReader(strings.NewReader(raw))
	for {
		res, err := http.ReadResponse(rd, nil)
		if err != nil {
			t.Fatalf("no answer in %q: %v", raw, err)
		}
		if res.StatusCode == http.StatusContinue {
			continue
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
}

func TestBodyThatStalls(t *testing.T) {
	const head = " HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n"
	for _, tc := range []struct{ name, request, code string }{
		{"chunk with a length", "PATCH SESSION" + head + "Content-Length: 100\r\n\r\nhello", "BLOB_UPLOAD_INVALID"},
		{"chunk without a length", "PATCH SESSION" + head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "BLOB_UPLOAD_INVALID"},
		{"chunk with a range", "PATCH SESSION" + head + "Content-Range: 0-99\r\nContent-Length: 100\r\n\r\nhello", "BLOB_UPLOAD_INVALID"},
		{"chunk that was asked for", "PATCH SESSION" + head + "Expect: 100-continue\r\nContent-Length: 100\r\n\r\nhello", "BLOB_UPLOAD_INVALID"},
		{"blob", "PUT SESSION?digest=" + string(digest.FromString("x")) + head + "Content-Length: 100\r\n\r\nhello", "BLOB_UPLOAD_INVALID"},
		{"blob with the first request", "POST /v2/a/blobs/uploads/?digest=" + string(digest.FromString("x")) + head + "Content-Length: 100\r\n\r\nhello", "BLOB_UPLOAD_INVALID"},
		{"manifest", "PUT /v2/a/manifests/v1" + head + "Content-Length: 100\r\n\r\n{", "MANIFEST_INVALID"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
				session := openSession(t, s)
				c := p.dial()
				defer c.Close()
				send(c, strings.Replace(tc.request, "SESSION", session, 1))
				code, body := status(t, ends(t, c))
				if code != http.StatusRequestTimeout || !strings.Contains(body, tc.code) {
					t.Errorf("%d %s, want 408 and %s", code, body, tc.code)
				}
				if !strings.HasPrefix(tc.request, "PATCH") {
					return
				}
				w := httptest.NewRecorder()
				s.ServeHTTP(w, httptest.NewRequest("GET", session, nil))
				if got := w.Header().Get("Range"); got != "0-4" {
					t.Errorf("the session does not have the 5 bytes that came: Range %q, %s", got, w.Body)
				}
			})
		})
	}
}

// openSession opens an upload in repository a and returns where it is.
func openSession(t *testing.T, s *Server) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("POST", "/v2/a/blobs/uploads/", nil))
	if w.Code != http.StatusAccepted {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Header().Get("Location")
}

// TestSlowUpload holds that a client may be slow as long as it sends something, also when the place has not read yet,
// and that its connection is good for the next request, however long after.
func TestSlowUpload(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
		c := p.dial()
		defer c.Close()
		rd := bufio.NewReader(c)
		for range 2 {
			session := openSession(t, s)
			if _, err := io.WriteString(c, "PATCH "+session+" HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				time.Sleep(defaultReadIdle - time.Second)
				if _, err := io.WriteString(c, "x"); err != nil {
					t.Fatalf("byte %d: %v", i, err)
				}
			}
			res, err := http.ReadResponse(rd, nil)
			if err != nil || res.StatusCode != http.StatusAccepted {
				t.Fatal(res, err)
			}
			time.Sleep(idleTimeout - time.Second)
		}
	})
}

// TestNoLimits holds that 0 is no limit.
func TestNoLimits(t *testing.T) {
	inBubble(t, []Option{WithReadIdle(0), WithWriteIdle(0)}, func(t *testing.T, s *Server, p *pipes, seen *events) {
		c := p.dial()
		defer c.Close()
		send(c, "PATCH "+openSession(t, s)+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nx")
		time.Sleep(24 * time.Hour)
		send(c, "x")
		time.Sleep(24 * time.Hour)
		if code, body := status(t, ends(t, c)); code != http.StatusAccepted {
			t.Error(code, body)
		}
	})
}

// slowPlace takes its time for a blob that it has.
type slowPlace struct{ scheme.API }

func (p slowPlace) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	raw, err := io.ReadAll(rdr)
	if err != nil {
		return d, err
	}
	time.Sleep(24 * time.Hour)
	if err := ctx.Err(); err != nil {
		return d, err
	}
	return p.API.BlobPut(ctx, r, d, bytes.NewReader(raw), opts...)
}

// TestSlowPlace holds that the limits are those of the client: the place may take as long as it likes.
func TestSlowPlace(t *testing.T) {
	inBubbleOver(t, slowPlace{mem.New()}, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
		c := p.dial()
		defer c.Close()
		send(c, "PUT "+openSession(t, s)+"?digest="+string(digest.FromString("xyz"))+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Range: 0-2\r\nContent-Length: 3\r\n\r\n")
		time.Sleep(defaultReadIdle - time.Second)
		send(c, "xyz") // the server looks whether there is more than the range says, and must not wait for that
		time.Sleep(24*time.Hour + time.Second)
		if code, body := status(t, ends(t, c)); code != http.StatusCreated {
			t.Error(code, body)
		}
	})
}

// TestBodyThatNobodyWants holds that a body which is refused, or which the request has no use for, occupies the server
// for a bounded time, with and without a limit for reading.
func TestBodyThatNobodyWants(t *testing.T) {
	for name, request := range map[string]string{
		"refused":                 "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n{",
		"refused, chunked":        "PATCH /v2/a/blobs/uploads/none HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
		"refused, waits":          "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n",
		"refused, waits, small":   "PATCH /v2/a/blobs/uploads/none HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
		"not read by the handler": "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
		"unknown request":         "BREW /pot HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
				c := p.dial()
				defer c.Close()
				send(c, request)
				code, _ := status(t, ends(t, c))
				if code >= 500 {
					t.Errorf("status %d", code)
				}
			})
		})
	}
}

// TestEndlessRefusedBody holds that not even a client that goes on sending keeps the server.
func TestEndlessRefusedBody(t *testing.T) {
	inBubble(t, []Option{WithReadIdle(0)}, func(t *testing.T, s *Server, p *pipes, seen *events) {
		c := p.dial()
		defer c.Close()
		done := make(chan string)
		go func() { done <- ends(t, c) }()
		send(c, "PATCH /v2/a/blobs/uploads/none HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		time.Sleep(time.Second)
		for i := range 3600 {
			if _, err := io.WriteString(c, "1\r\nx\r\n"); err != nil {
				break
			}
			if i == 3599 {
				t.Error("after an hour the server still reads a body that it refuses")
			}
			time.Sleep(time.Second)
		}
		if code, _ := status(t, <-done); code != http.StatusNotFound {
			t.Errorf("status %d", code)
		}
	})
}

// TestRefusedAfterContinue holds that a client that was told to go on, and reads the answer only when it is through, is
// let through.
func TestRefusedAfterContinue(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
		c := p.dial()
		defer c.Close()
		rd := bufio.NewReader(c)
		send(c, "PATCH "+openSession(t, s)+" HTTP/1.1\r\nHost: x\r\nContent-Range: 0-9\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
		res, err := http.ReadResponse(rd, nil)
		if err != nil || res.StatusCode != http.StatusContinue {
			t.Fatal(res, err)
		}
		if _, err := io.WriteString(c, "100000\r\n"+strings.Repeat("x", 1<<20)+"\r\n0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err = http.ReadResponse(rd, nil)
		if err != nil || res.StatusCode != http.StatusBadRequest {
			t.Error(res, err)
		}
	})
}

// TestRefusedBeforeTheBody holds that a client that waits for "100 Continue" is not told to go on when its request is
// refused.
func TestRefusedBeforeTheBody(t *testing.T) {
	inBubble(t, []Option{WithAuthenticator(nobody{})}, func(t *testing.T, s *Server, p *pipes, seen *events) {
		c := p.dial()
		defer c.Close()
		send(c, "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
		if raw := ends(t, c); !strings.HasPrefix(raw, "HTTP/1.1 401") {
			t.Errorf("the server answers %q", raw)
		}
	})
	inBubble(t, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
		session := openSession(t, s)
		for want, request := range map[string]string{
			"HTTP/1.1 416": "PATCH " + session + " HTTP/1.1\r\nHost: x\r\nContent-Range: 5-9\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
			"HTTP/1.1 413": "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: " + strconv.Itoa(types.MaxManifestSize+1) + "\r\n\r\n",
			"HTTP/1.1 404": "PATCH /v2/a/blobs/uploads/none HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
		} {
			c := p.dial()
			defer c.Close()
			send(c, request)
			if raw := ends(t, c); !strings.HasPrefix(raw, want) {
				t.Errorf("the server answers %q, want %s", raw, want)
			}
		}
	})
}

// nobody is an Authenticator to whom nobody is anybody.
type nobody struct{}

func (nobody) Authenticate(*http.Request) (Identity, error) { return Identity{}, nil }
func (nobody) Challenge(Context) []Challenge                { return []Challenge{{Scheme: "basic"}} }
