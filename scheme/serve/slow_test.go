package serve

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
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
func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

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
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var seen events
		s, err := New(mem.New(), root, append([]Option{WithSpoolDir(dir), WithInspector(&seen)}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		p := newPipes()
		srv := &http.Server{Handler: s}
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
