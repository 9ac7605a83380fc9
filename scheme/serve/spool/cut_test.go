package spool_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/ref"
)

// cutter is a TCP proxy that breaks connections: of the n-th one it lets through up(n) bytes from the client, and down(n)
// from the server, and then closes both ends. Negative is all.
type cutter struct {
	net.Listener

	mu       sync.Mutex // guards all below
	to       string
	up, down func(n int) int
	n        int
	open     map[net.Conn]bool
	pipes    sync.WaitGroup
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: l, to: to, open: map[net.Conn]bool{}}
	c.pipes.Go(c.accept)
	t.Cleanup(func() {
		l.Close()
		c.mu.Lock()
		for conn := range c.open {
			conn.Close()
		}
		c.mu.Unlock()
		c.pipes.Wait()
	})
	return c
}

func (c *cutter) accept() {
	for {
		in, err := c.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		to := c.to
		c.mu.Unlock()
		out, err := net.Dial("tcp", to)
		if err != nil {
			in.Close()
			continue
		}
		c.mu.Lock()
		n := c.n
		c.n++
		c.open[in], c.open[out] = true, true
		up, down := c.up(n), c.down(n)
		c.mu.Unlock()
		end := sync.OnceFunc(func() {
			in.Close()
			out.Close()
			c.mu.Lock()
			delete(c.open, in)
			delete(c.open, out)
			c.mu.Unlock()
		})
		c.pipes.Go(func() { c.pipe(out, in, up, end) })
		c.pipes.Go(func() { c.pipe(in, out, down, end) })
	}
}

// pipe moves limit bytes at most.
func (c *cutter) pipe(to, from net.Conn, limit int, end func()) {
	defer end()
	var src io.Reader = from
	if limit >= 0 {
		src = io.LimitReader(from, int64(limit))
	}
	_, _ = io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{src}) // however it ends: the connection is cut
}

// only hides what a place has beside scheme.API.
type only struct{ scheme.API }

// T7: an upload whose connections are cut, in either direction, at any byte, comes to its end, and nothing else is stored.
func TestUploadsOverConnectionsThatAreCut(t *testing.T) {
	content := []byte(strings.Repeat("0123456789abcdef", 20))
	for name, place := range map[string]func(t *testing.T) (scheme.API, scheme.API, ref.Ref){
		"mem": func(t *testing.T) (scheme.API, scheme.API, ref.Ref) {
			m := mem.New()
			return m, m, ref.Ref{Scheme: mem.Scheme, Root: "x"}
		},
		"spool": func(t *testing.T) (scheme.API, scheme.API, ref.Ref) {
			m := mem.New()
			return only{m}, m, ref.Ref{Scheme: mem.Scheme, Root: "x"}
		},
		"ocidir": func(t *testing.T) (scheme.API, scheme.API, ref.Ref) {
			o := ocidir.New()
			t.Cleanup(func() { o.Close() })
			return o, o, ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
		},
	} {
		for _, p := range []pusher{{chunk: 100}, {chunk: 100, ranged: true}, {chunk: 100, tail: true}, {chunk: 1, ranged: true}} {
			step := 13
			if name != "mem" { // each costs more
				step = 47
			}
			if p.chunk == 1 && name != "mem" {
				continue
			}
			t.Run(fmt.Sprintf("%s, chunks of %d, ranged %v, tail %v", name, p.chunk, p.ranged, p.tail), func(t *testing.T) {
				t.Parallel()
				api, back, root := place(t)
				cutUploads(t, api, back, root, p, content, step)
			})
		}
	}
}

// cutUploads pushes content again and again, each time with other cuts, step bytes apart.
func cutUploads(t *testing.T, api, back scheme.API, root ref.Ref, style pusher, content []byte, step int) {
	s, err := serve.New(api, root)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	defer func() {
		srv.Close()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	proxy := newCutter(t, strings.TrimPrefix(srv.URL, "http://"))
	all := func(int) int { return -1 }
	if style.chunk == 1 {
		content = content[:5]
	}
	round := 0
	once := func(what string, up, down func(int) int) {
		round++
		proxy.mu.Lock()
		proxy.n, proxy.up, proxy.down = 0, up, down
		proxy.mu.Unlock()
		p := style
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		p.base, p.http = "http://"+proxy.Addr().String(), &http.Client{Transport: tr}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		repo := fmt.Sprintf("r%d", round)
		if err := p.push(ctx, repo, content); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		stored(t, back, root.WithRepo(repo), content, what)
	}
	const total = 1400 // bytes of an upload in one direction
	for at := 0; at < total; at += step {
		cut := func(n int) int { return map[bool]int{true: at, false: -1}[n == 0] }
		every := func(n int) int { return at + 97*n } // again and again, until it gets through
		once(fmt.Sprint("request cut at ", at), cut, all)
		once(fmt.Sprint("answer cut at ", at), all, cut)
		if at/step%4 == 0 {
			once(fmt.Sprint("requests cut from ", at), every, all)
			once(fmt.Sprint("answers cut from ", at), all, every)
		}
	}
}

// stored checks that r's repository has content as a blob, and no other.
func stored(t *testing.T, api scheme.API, r ref.Ref, content []byte, what string) {
	t.Helper()
	var lister scheme.BlobLister
	if !scheme.As(api, r, &lister) {
		t.Fatal("the place cannot list")
	}
	var found []digest.Digest
	err := lister.BlobList(t.Context(), r, func(info blob.Info) error {
		found = append(found, info.Digest)
		return nil
	})
	if err != nil || len(found) != 1 || found[0] != digest.FromBytes(content) {
		t.Fatalf("%s: stored are %v, %v", what, found, err)
	}
	rdr, err := api.BlobGet(t.Context(), r, types.Descriptor{Digest: digest.FromBytes(content)})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer rdr.Close()
	raw, err := io.ReadAll(rdr)
	if err != nil || !bytes.Equal(raw, content) {
		t.Fatalf("%s: stored is %q, %v", what, raw, err)
	}
}
