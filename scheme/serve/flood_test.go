package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme/mem"
)

// slowClients is how many clients of the worst kind come at once. .ci/run asks for 10,000.
func slowClients(t *testing.T, normally int) int {
	v := os.Getenv("OCISYNC_SLOW_CLIENTS")
	if v == "" {
		return normally
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// everything reports whether this is the run of .ci/run, which may take its time.
func everything() bool { return os.Getenv("OCISYNC_SLOW_CLIENTS") != "" }

// slowRequests are the ways to occupy a server: each is a request that the client does not go on with, and whose answer
// it does not read. BLOB is one that fits in no buffer, ABSENT one that is not there.
var slowRequests = []string{
	"", // nothing at all
	"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-More:",
	"POST /v2/a/blobs/uploads/?digest=ABSENT HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nonly this",
	"POST /v2/a/blobs/uploads/?digest=ABSENT HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFF\r\nonly this",
	"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
	"PATCH /v2/a/blobs/uploads/none HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nrefused",
	"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
	"GET /v2/a/blobs/BLOB HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
}

func slowRequest(i int, blob digest.Digest) string {
	absent := digest.FromString("absent")
	return strings.NewReplacer("BLOB", string(blob), "ABSENT", string(absent)).Replace(slowRequests[i%len(slowRequests)])
}

// pushAndPull does what a client that means well does.
func pushAndPull(c *http.Client, base string, i int) error {
	content := fmt.Sprint("content ", i)
	d := string(digest.FromString(content))
	res, err := c.Post(base+"/v2/a/blobs/uploads/?digest="+d, "application/octet-stream", strings.NewReader(content))
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		return fmt.Errorf("push: %s", res.Status)
	}
	res, err = c.Get(base + "/v2/a/blobs/" + d)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || string(got) != content {
		return fmt.Errorf("pull: %s, %q, %w", res.Status, got, err)
	}
	return nil
}

// atRest is what a process has when nothing goes on.
type atRest struct {
	goroutines, files int
	heap              uint64
}

func measure() atRest {
	runtime.GC()
	runtime.GC() // also what pools keep
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r := atRest{goroutines: runtime.NumGoroutine(), heap: m.HeapAlloc, files: -1}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		r.files = len(fds)
	}
	return r
}

// leaks says what there is more of than before n clients came. Some memory always is: Go keeps what it needs for a
// goroutine, for the next one. It is much less than what a connection has.
func (before atRest) leaks(now atRest, n int) error {
	slack := uint64(8<<20 + n*1500)
	if now.goroutines > before.goroutines || now.files > before.files || now.heap > before.heap+slack {
		return fmt.Errorf("before: %+v, afterwards: %+v", before, now)
	}
	return nil
}

// TestManySlowClients holds that clients which do the worst they can keep nobody else from being answered, and that
// nothing is left of them. They are in memory, and the time is that of the bubble: each has all the time it is given.
func TestManySlowClients(t *testing.T) {
	n := slowClients(t, 1000)
	inBubble(t, []Option{WithMaxConns(0, 0), WithMaxRequests(0, 0)}, func(t *testing.T, s *Server, p *pipes, seen *events) {
		blob := putBlob(t, s, strings.Repeat("x", 256<<10))
		tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return p.dialFrom("192.0.2.200:1"), nil }}
		c := &http.Client{Transport: tr}
		if err := pushAndPull(c, "http://x", 0); err != nil {
			t.Fatal(err)
		}
		tr.CloseIdleConnections()
		synctest.Wait()
		before := measure()
		conns := make([]net.Conn, n)
		for i := range conns {
			conns[i] = p.dial()
			if request := slowRequest(i, blob); request != "" {
				send(conns[i], request)
			}
		}
		for i := range 20 { // while the others are held, and end
			if err := pushAndPull(c, "http://x", i); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if i == 0 && runtime.NumGoroutine() < before.goroutines+n {
				t.Errorf("%d goroutines: the slow clients do not occupy the server", runtime.NumGoroutine())
			}
			time.Sleep(10 * time.Second)
		}
		tr.CloseIdleConnections()
		time.Sleep(idleTimeout)
		synctest.Wait()
		seen.take()
		if left := runtime.NumGoroutine() - before.goroutines; left > 0 { // though no client has hung up
			t.Errorf("%d goroutines are left", left)
		}
		for _, c := range conns {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		clear(conns) // they are memory, too
		if err := before.leaks(measure(), n); err != nil {
			t.Error(err)
		}
	})
}

// TestManySlowSockets does the same with real connections, half-closed ones among them, and short limits.
func TestManySlowSockets(t *testing.T) {
	n := slowClients(t, 300)
	if room := descriptors(t)/2 - 100; n > room { // each is two of this process
		t.Logf("this process may not open more: %d clients and not %d", room, n)
		n = room
	}
	limit := 3 * time.Second
	s, err := New(mem.New(), root, WithMaxConns(0, 0), WithMaxRequests(0, 0), WithReadIdle(limit), WithWriteIdle(limit))
	if err != nil {
		t.Fatal(err)
	}
	srv := s.HTTPServer()
	srv.ReadHeaderTimeout, srv.IdleTimeout = limit, limit
	var came, gone atomic.Int64 // connections
	hook := srv.ConnState
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			came.Add(1)
		case http.StateClosed:
			defer gone.Add(1)
		}
		hook(c, state)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() {
		if err := errors.Join(srv.Close(), s.Shutdown(context.Background())); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	blob := putBlob(t, s, strings.Repeat("x", 16<<20))
	tr := &http.Transport{}
	c := &http.Client{Transport: tr}
	base := "http://" + l.Addr().String()
	if err := pushAndPull(c, base, 0); err != nil {
		t.Fatal(err)
	}
	tr.CloseIdleConnections()
	until(t, "the first client is gone", func() bool { return gone.Load() == 1 })
	before := measure()

	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = dialSmall(t, l.Addr().String())
		request := slowRequest(i, blob)
		if strings.HasSuffix(request, "refused") && !everything() {
			request = "" // takes drainTime
		}
		if _, err := io.WriteString(conns[i], request); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // half-closed: it will send no more
			if err := conns[i].(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		if i%max(n/50, 1) == 0 {
			if err := pushAndPull(c, base, i); err != nil {
				t.Errorf("with %d slow clients: %v", i, err)
			}
		}
	}
	tr.CloseIdleConnections()
	until(t, "the server has closed the connections of all slow clients", func() bool {
		n := came.Load()
		return n > int64(len(conns)) && gone.Load() == n
	})
	for _, c := range conns {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	settle(t, before, n)
}

// dialSmall connects with a small buffer for what comes in: what is not read soon stops the server.
func dialSmall(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	return c
}

// until waits until ok, for two minutes.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 2400 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Fatalf("after two minutes it is not so that %s:\n%s", what, buf[:runtime.Stack(buf, true)])
}

// settle waits until nothing more goes on than before: what was told to end takes a moment.
func settle(t *testing.T, before atRest, n int) {
	t.Helper()
	var err error
	for range 600 {
		if err = before.leaks(measure(), n); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error(err)
}
