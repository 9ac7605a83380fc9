package reg

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// testLimits make waits short enough for tests, and long enough for a loaded machine.
var testLimits = limits{
	attempts:   4,
	backoff:    time.Millisecond,
	maxBackoff: 4 * time.Millisecond,
	retryAfter: 5 * time.Second,
	dial:       10 * time.Second,
	header:     30 * time.Second,
	commit:     30 * time.Second,
	idle:       30 * time.Second,
	cleanup:    5 * time.Second,
}

// patient waits for an hour before it tries anything again: a test that passes with it has not waited at all.
func patient() limits {
	l := testLimits
	l.backoff, l.maxBackoff = time.Hour, time.Hour
	return l
}

func nobody(context.Context, string) (Credential, error) { return Credential{}, nil }

// newTest returns a client without this machine's credentials, which the test closes.
func newTest(t *testing.T, opts ...Option) *Reg {
	r := New(append([]Option{withLimits(testLimits), WithCredentials(nobody)}, opts...)...)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// script is a registry that answers as a test wants, and remembers what it was asked.
type script struct {
	*httptest.Server
	t *testing.T

	mu  sync.Mutex // guards log
	log []string
}

// patience bounds what a test waits for: a bug is then a failure, and not the end of all tests ten minutes later.
const patience = time.Minute

// receive returns what comes from c. Only the goroutine of the test may call it.
func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain")
		panic("not reached")
	}
}

// newScript starts a registry; the handler's n counts requests from 1. A handler may wait for its request's context,
// which ends when the client leaves or patience does.
func newScript(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, n int)) *script {
	s := &script{t: t}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		line := r.Method + " " + r.URL.RequestURI()
		if v := r.Header.Get("Range"); v != "" {
			line += " " + v
		}
		s.mu.Lock()
		s.log = append(s.log, line)
		n := len(s.log)
		s.mu.Unlock()
		handle(w, r, n)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	s.Start()
	t.Cleanup(func() {
		cancel()
		s.Close()
	})
	return s
}

func (s *script) host() string { return strings.TrimPrefix(s.URL, "http://") }

func (s *script) ref(repo string) ref.Ref {
	return ref.Ref{Scheme: ref.SchemeReg, Root: s.host(), Repo: repo}
}

func (s *script) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// want compares the requests so far, exactly.
func (s *script) want(lines ...string) {
	s.t.Helper()
	if d := cmp.Diff(lines, s.requests()); d != "" {
		s.t.Errorf("requests (-want +got):\n%s", d)
	}
}

// answer is a response in one line.
func answer(w http.ResponseWriter, status int, body string, header ...string) {
	for i := 0; i+1 < len(header); i += 2 {
		w.Header().Add(header[i], header[i+1])
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // a client that has left is what some tests are about
}

// reset ends the connection of w with a TCP reset, after head, which must be a whole beginning of an answer.
func reset(t *testing.T, w http.ResponseWriter, head string) {
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = buf.WriteString(head)
	_ = buf.Flush()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// part answers a request for data, honouring Range.
func part(w http.ResponseWriter, r *http.Request, data []byte) {
	w.Header().Set("Content-Type", types.MediaTypeOctetStream)
	from, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !ok {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data)
		return
	}
	first, last, _ := strings.Cut(from, "-")
	start, _ := strconv.Atoi(first)
	end := len(data)
	if last != "" {
		end, _ = strconv.Atoi(last)
		end++
	}
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end-1, len(data)))
	w.Header().Set("Content-Length", strconv.Itoa(end-start))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(data[start:end])
}

// content is n bytes that are not all alike, and their descriptor.
func content(n int) ([]byte, types.Descriptor) {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * 7 / 3)
	}
	return data, types.Descriptor{MediaType: types.MediaTypeOctetStream, Digest: digest.FromBytes(data), Size: int64(n)}
}
