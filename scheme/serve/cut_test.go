package serve

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// A Read that begins when its request has been interrupted does not move the deadline that ends it.
func TestAnInterruptIsNotTakenBack(t *testing.T) {
	moved := 0
	b := &body{r: strings.NewReader("x"), reading: deadline{idle: time.Minute, set: func(time.Time) error { moved++; return nil }}}
	b.cut()
	if _, err := b.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	b.last(time.Second)
	if moved != 0 {
		t.Errorf("the deadline was moved %d times", moved)
	}
}

// A blob that comes whole with its PUT belongs to the session, too: who cancels that, or stops the server, ends it.
func TestAWholeBlobEndsWithItsSession(t *testing.T) {
	for name, end := range map[string]func(c *client, loc string) int{
		"cancelled": func(c *client, loc string) int {
			c.want(204, "", "DELETE", loc, nil, nil)
			return 404
		},
		"shut down": func(c *client, _ string) int {
			over, cancel := context.WithCancel(c.t.Context())
			cancel()
			if err := c.s.Shutdown(over); !errors.Is(err, context.Canceled) {
				c.t.Error(err)
			}
			return 503
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, mem.New())
			began := make(chan struct{})
			c.s.api = announcing{c.s.api, began}
			loc := c.session("a")
			conn := c.raw("PUT " + loc + "?digest=" + sum("abcdef") + " HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
			defer conn.Close()
			<-began
			want := end(c, loc)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("the PUT gets %d, want %d", res.StatusCode, want)
			}
		})
	}
}

// announcing is a place that says when it begins to read a blob.
type announcing struct {
	scheme.API
	began chan struct{}
}

func (a announcing) Unwrap() scheme.API { return a.API }

func (a announcing) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	close(a.began)
	return a.API.BlobPut(ctx, r, d, rdr, opts...)
}

// deserter is a place that gives up, and leaves somebody behind who reads for as long as there is something.
type deserter struct {
	scheme.API
	gone chan error
}

func (p deserter) BlobPut(_ context.Context, _ ref.Ref, _ types.Descriptor, rdr io.Reader, _ ...scheme.BlobPutOption) (types.Descriptor, error) {
	began := make(chan struct{})
	go func() {
		var err error
		for n := 0; err == nil; n++ {
			if again, ok := rdr.(io.Seeker); ok {
				_, _ = again.Seek(0, io.SeekStart)
			}
			if _, err = rdr.Read(make([]byte, 1)); n == 0 {
				close(began)
			}
		}
		p.gone <- err
	}()
	<-began
	return types.Descriptor{}, errs.ErrUnavailable
}

// What a session has received is the session's again when the place has given up: who still reads finds out, and is in
// nobody's way (run with -race).
func TestAPlaceThatLeavesAReadBehind(t *testing.T) {
	gone := make(chan error, 1)
	c := start(t, deserter{mem.New(), gone})
	content := strings.Repeat("x", 1<<20) // in single bytes that takes longer than the request
	loc := c.want(202, "", "PATCH", c.session("a"), content, nil).Header.Get("Location")
	c.want(503, "", "PUT", loc+"?digest="+sum(content), nil, nil)
	if err := <-gone; !errors.Is(err, errOver) {
		t.Errorf("who was left behind is told %v", err)
	}
	c.want(204, "", "GET", loc, nil, nil).has(t, header{"Range": "0-1048575"})
}

// An upload that is refused in the middle ends its stream, and not the connection that others use as well.
func TestH2ARefusedBodyKeepsTheConnection(t *testing.T) {
	inH2Bubble(t, mem.New(), func(t *testing.T, s *Server, c *http.Client, p *pipes, seen *events) {
		for i := range 2 {
			reused := false
			trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
			ctx := httptrace.WithClientTrace(t.Context(), trace)
			req, err := http.NewRequestWithContext(ctx, "PATCH", "http://x/v2/a/blobs/uploads/none", strings.NewReader(strings.Repeat("x", 3*maxDrain)))
			if err != nil {
				t.Fatal(err)
			}
			res, err := c.Do(req)
			if err != nil || res.StatusCode != http.StatusNotFound {
				t.Fatal(res, err)
			}
			res.Body.Close()
			synctest.Wait()
			if i > 0 && !reused {
				t.Error("the connection was given up")
			}
		}
	})
}

// stubborn is a place where one upload cannot be opened.
type stubborn struct {
	*mem.Mem
	key string
}

func (p *stubborn) Ingest(ctx context.Context, r ref.Ref, key string, opts ...scheme.IngestOption) (scheme.Upload, error) {
	if key == p.key {
		return nil, errs.ErrDenied
	}
	return p.Mem.Ingest(ctx, r, key, opts...)
}

// An upload that cannot be removed does not keep those behind it.
func TestALeftoverThatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &stubborn{Mem: mem.New()}
		first, err := New(api, root, WithSessionTTL(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		all, old := openIn(t, first, 3)
		if err := first.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		for _, loc := range all { // the first that is looked at
			id, _, _ := splitID(path.Base(loc))
			if key := sessionKey(id, "a", ""); api.key == "" || key < api.key {
				api.key = key
			}
		}
		second, err := New(api, root, WithSessionTTL(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		if n := old(); n != 1 {
			t.Errorf("%d of 3 are left, want the one that cannot be opened", n)
		}
		if err := second.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// late is a place that takes long before it reads a blob.
type late struct{ *mem.Mem }

func (p late) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	time.Sleep(10 * time.Minute)
	return p.Mem.BlobPut(ctx, r, d, rdr, opts...)
}

// A client that waits for "100 Continue" is told to go on whenever the place is ready.
func TestContinueWhenThePlaceIsReady(t *testing.T) {
	inBubbleOver(t, late{mem.New()}, nil, func(t *testing.T, s *Server, p *pipes, seen *events) {
		c := p.dial()
		defer c.Close()
		rd := bufio.NewReader(c)
		send(c, "POST /v2/a/blobs/uploads/?digest="+sum("x")+" HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
		for _, want := range []int{http.StatusContinue, http.StatusCreated} {
			res, err := http.ReadResponse(rd, nil)
			if err != nil || res.StatusCode != want {
				t.Fatal(res, err, "want", want, seen.take())
			}
			if want == http.StatusContinue {
				send(c, "x")
			}
		}
	})
}

// When another process has gone back in a session, what this one knows of its chunks is old.
func TestASessionThatAnotherProcessCut(t *testing.T) {
	m := mem.New()
	one, two := start(t, m.Share()), start(t, m.Share())
	first := one.session("a")
	one.want(202, "", "PATCH", first, "0123456789", nil)
	two.want(202, "", "PATCH", first, "a", nil) // the first URL, and no news: from the beginning
	one.want(202, "", "PATCH", at(first, 1), "b", nil)
	one.want(202, "", "PATCH", at(first, 2), "c", nil)
	one.want(201, "", "PUT", at(first, 3)+"?digest="+sum("abc"), nil, nil)
	one.stored("a", "abc")
}

// blind is a place that does not see its uploads for a while.
type blind struct {
	*mem.Mem
	is *atomic.Bool
}

func (p blind) IngestStat(ctx context.Context, r ref.Ref, key string) (blob.Ingest, error) {
	if p.is.Load() {
		return blob.Ingest{}, errors.New("input/output error")
	}
	return p.Mem.IngestStat(ctx, r, key)
}

// A session outlives that the place has a failure, whether or not it has bytes.
func TestASessionOutlivesAFailureOfThePlace(t *testing.T) {
	var is atomic.Bool
	c := start(t, blind{mem.New(), &is})
	for _, first := range []string{"", "abc"} {
		loc := c.session("a")
		if first != "" {
			loc = c.want(202, "", "PATCH", loc, first, nil).Header.Get("Location")
		}
		is.Store(true)
		c.want(500, "", "GET", loc, nil, nil)
		is.Store(false)
		c.want(201, "", "PUT", loc+"?digest="+sum(first+"xyz"), "xyz", nil)
	}
	if n := len(c.s.sessions.open); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}
