package serve

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/ref"
)

// inH2Bubble is inBubble with a client that speaks HTTP/2.
func inH2Bubble(t *testing.T, api scheme.API, test func(t *testing.T, s *Server, c *http.Client, p *pipes, seen *events)) {
	synctest.Test(t, func(t *testing.T) {
		var seen events
		s, err := New(api, root, WithInspector(&seen))
		if err != nil {
			t.Fatal(err)
		}
		p := newPipes()
		srv := s.HTTPServer()
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetUnencryptedHTTP2(true) // in tests only: as over TLS, without its cost
		served := make(chan error, 1)
		go func() { served <- srv.Serve(p) }()
		tr := &http.Transport{
			Protocols:   srv.Protocols,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil },
		}
		test(t, s, &http.Client{Transport: tr}, p, &seen)
		tr.CloseIdleConnections()
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

func TestH2AnswerThatIsNotReadEnds(t *testing.T) {
	inH2Bubble(t, mem.New(), func(t *testing.T, s *Server, c *http.Client, p *pipes, seen *events) {
		d := putBlob(t, s, strings.Repeat("x", 16<<20)) // more than Go's client takes before it is asked
		res, err := c.Get("http://x/v2/a/blobs/" + string(d))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * defaultWriteIdle)
		synctest.Wait()
		if ev := seen.take(); len(ev) != 1 || !ev[0].Aborted {
			t.Errorf("a client that reads nothing still occupies the server: %+v", ev)
		}
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Error("the client does not notice")
		}
		res.Body.Close()
		res, err = c.Get("http://x/v2/") // the connection is as good as before
		if err != nil || res.StatusCode != http.StatusOK {
			t.Error(res, err)
		}
		res.Body.Close()
	})
}

func TestH2BodyThatStalls(t *testing.T) {
	inH2Bubble(t, mem.New(), func(t *testing.T, s *Server, c *http.Client, p *pipes, seen *events) {
		session := openSession(t, s)
		pr, pw := io.Pipe()
		defer pw.Close()
		go io.WriteString(pw, "hello")
		req, err := http.NewRequest("PATCH", "http://x"+session, pr)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil || res.StatusCode != http.StatusRequestTimeout {
			t.Fatal(res, err)
		}
		res.Body.Close()
		if got := ask(s, "GET", session, "192.0.2.1:1", nil).Header().Get("Range"); got != "0-4" {
			t.Errorf("the session does not have the 5 bytes that came: %q", got)
		}
	})
}

// stalling is a place that stops for a day in the middle of every blob.
type stalling struct{ scheme.API }

func (p stalling) BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...scheme.BlobGetOption) (blob.Reader, error) {
	rdr, err := p.API.BlobGet(ctx, r, d, opts...)
	return &stallingReader{Reader: rdr, ctx: ctx}, err
}

type stallingReader struct {
	blob.Reader
	ctx context.Context
	n   int
}

func (r *stallingReader) Read(p []byte) (int, error) {
	if r.n++; r.n == 20 {
		time.Sleep(24 * time.Hour)
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
	}
	return r.Reader.Read(p[:min(len(p), 64<<10)])
}

// TestH2SlowClientAndPlace holds that neither a client that is slow nor a place that stalls is cut off.
func TestH2SlowClientAndPlace(t *testing.T) {
	inH2Bubble(t, stalling{mem.New()}, func(t *testing.T, s *Server, c *http.Client, p *pipes, seen *events) {
		content := strings.Repeat("x", 8<<20)
		d := putBlob(t, s, content)
		res, err := c.Get("http://x/v2/a/blobs/" + string(d))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var n int64
		for {
			m, err := io.CopyN(io.Discard, res.Body, 64<<10)
			n += m
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("after %d bytes: %v, %+v", n, err, seen.take())
			}
			time.Sleep(defaultWriteIdle / 8)
		}
		if n != int64(len(content)) {
			t.Errorf("%d bytes", n)
		}
	})
	inH2Bubble(t, mem.New(), func(t *testing.T, s *Server, c *http.Client, p *pipes, seen *events) {
		pr, pw := io.Pipe()
		go func() {
			for range 20 {
				time.Sleep(defaultReadIdle / 2)
				io.WriteString(pw, "x")
			}
			pw.Close()
		}()
		req, err := http.NewRequest("PATCH", "http://x"+openSession(t, s), pr)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil || res.StatusCode != http.StatusAccepted {
			t.Fatal(res, err)
		}
		res.Body.Close()
	})
}

// frame is one of HTTP/2 (RFC 9113, section 4.1).
func frame(kind, flags byte, stream uint32, payload string) string {
	h := make([]byte, 9)
	binary.BigEndian.PutUint32(h, uint32(len(payload))<<8)
	h[3], h[4] = kind, flags
	binary.BigEndian.PutUint32(h[5:], stream)
	return string(h) + payload
}

const (
	frameHeaders  = 1
	frameReset    = 3
	frameSettings = 4
	framePing     = 6
	frameGoAway   = 7
)

// h2Preface begins a connection, with settings.
func h2Preface(settings string) string {
	return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(frameSettings, 0, 0, settings)
}

// h2Request is a request without a body, in words of HPACK that refer to its static table only.
func h2Request(stream uint32, method, path string) string {
	text := func(s string) string { return string([]byte{byte(len(s))}) + s }
	return frame(frameHeaders, 0x1|0x4, stream, "\x02"+text(method)+"\x87\x04"+text(path)+"\x01"+text("x")) // :scheme https
}

// goAway reads frames until the server says that it ends the connection, and returns why. Without that it is 0.
func goAway(r io.Reader) uint32 {
	h := make([]byte, 9)
	for {
		if _, err := io.ReadFull(r, h); err != nil {
			return 0
		}
		payload := make([]byte, binary.BigEndian.Uint32(h)>>8)
		if _, err := io.ReadFull(r, payload); err != nil {
			return 0
		}
		if h[3] == frameGoAway && len(payload) >= 8 {
			if code := binary.BigEndian.Uint32(payload[4:]); code != 0 {
				return code
			}
		}
	}
}

// TestH2NoWindow holds that a client that lets no byte of an answer come keeps nothing, however small the answer is.
func TestH2NoWindow(t *testing.T) {
	inH2Bubble(t, mem.New(), func(t *testing.T, s *Server, c *http.Client, p *pipes, seen *events) {
		raw := p.dial()
		defer raw.Close()
		var resets atomic.Int64
		go func() {
			for buf := make([]byte, 4096); ; {
				n, err := raw.Read(buf)
				resets.Add(int64(strings.Count(string(buf[:n]), "\x00\x00\x04\x03\x00"))) // of 4 bytes, RST_STREAM
				if err != nil {
					return
				}
			}
		}()
		const noWindow = "\x00\x04\x00\x00\x00\x00" // SETTINGS_INITIAL_WINDOW_SIZE
		if _, err := io.WriteString(raw, h2Preface(noWindow)+h2Request(1, "GET", "/v2/")+h2Request(3, "GET", "/v2/none/")); err != nil {
			t.Fatal(err)
		}
		for alive := range 6 {
			if resets.Load() != 0 && alive < 3 {
				t.Error("the streams ended too early")
			}
			time.Sleep(20 * time.Second)
			if _, err := io.WriteString(raw, frame(framePing, 0, 0, "12345678")); err != nil { // else it would end for that
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := resets.Load(); n != 2 {
			t.Errorf("%d of 2 streams ended", n)
		}
	})
}

// heads is a place whose answers wait, and which counts who waits.
type heads struct {
	scheme.API
	now, most atomic.Int64
	release   chan struct{}
}

func (p *heads) BlobHead(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...scheme.BlobHeadOption) (types.Descriptor, error) {
	n := p.now.Add(1)
	defer p.now.Add(-1)
	for {
		most := p.most.Load()
		if n <= most || p.most.CompareAndSwap(most, n) {
			break
		}
	}
	<-p.release // also when the client has given up: not every place can stop at once
	return p.API.BlobHead(ctx, r, d, opts...)
}

// TestH2RapidReset holds that a client that opens streams and resets them at once makes the server work for no more
// than the streams that one connection may have, and loses the connection (CVE-2023-44487).
func TestH2RapidReset(t *testing.T) {
	place := &heads{API: mem.New()}
	inH2Bubble(t, place, func(t *testing.T, s *Server, c *http.Client, p *pipes, seen *events) {
		place.release = make(chan struct{})
		raw := p.dial()
		defer raw.Close()
		ended := make(chan uint32, 1)
		go func() { ended <- goAway(raw) }()
		path := "/v2/a/blobs/" + string(digest.FromString("x"))
		if _, err := io.WriteString(raw, h2Preface("")); err != nil {
			t.Fatal(err)
		}
		sent := 0
		for stream := uint32(1); stream < 40000; stream += 2 {
			if _, err := io.WriteString(raw, h2Request(stream, "HEAD", path)+frame(frameReset, 0, stream, "\x00\x00\x00\x08")); err != nil {
				break
			}
			sent++
		}
		const enhanceYourCalm = 0xb
		if code := <-ended; code != enhanceYourCalm {
			t.Errorf("the connection ended with %d, after %d resets", code, sent)
		}
		synctest.Wait()
		if most := place.most.Load(); most < 2 || most > maxStreams {
			t.Errorf("%d requests at once, want %d at most", most, maxStreams)
		}
		close(place.release)
		synctest.Wait()
		if left := place.now.Load(); left != 0 {
			t.Errorf("%d requests are left", left)
		}
	})
}
