package serve

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/ref"
)

const huge = 512 << 20

// hugePlace has one blob, which is a file of 512 MiB that needs no room.
type hugePlace struct {
	scheme.API
	path string
}

func (p hugePlace) BlobOpen(context.Context, ref.Ref, types.Descriptor) (blob.ReaderAt, error) {
	f, err := os.Open(p.path)
	return hugeFile{f, f, f}, err
}

// hugeFile is that blob, opened.
type hugeFile struct {
	io.ReaderAt
	io.Closer
	file *os.File
}

func (f hugeFile) Size() int64            { return huge }
func (f hugeFile) File() (*os.File, bool) { return f.file, true }

// ended is an inspector that hands on every event.
type ended chan Event

func (c ended) Inspect(e *Event) { c <- *e }

// TestHugeAnswerThatIsNotReadEnds holds that a client which asks for much and takes nothing is cut off wherever the
// bytes come from: the kernel (sendfile), TLS, or a stream of HTTP/2.
func TestHugeAnswerThatIsNotReadEnds(t *testing.T) {
	place := hugePlace{mem.New(), filepath.Join(t.TempDir(), "blob")}
	if err := os.WriteFile(place.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(place.path, huge); err != nil {
		t.Fatal(err)
	}
	before := measure()
	t.Run("over", func(t *testing.T) {
		for _, tc := range []struct {
			name    string
			tls, h2 bool
			proto   int
		}{{"HTTP", false, false, 1}, {"HTTPS", true, false, 1}, {"HTTP2", true, true, 2}} {
			t.Run(tc.name, func(t *testing.T) {
				if tc.tls && !tc.h2 && !everything() {
					t.Skip("takes five seconds, which crypto/tls gives a connection to take its end: see .ci/run")
				}
				t.Parallel()
				unread(t, place, tc.tls, tc.h2, tc.proto)
			})
		}
	})
	settle(t, before, 0)
}

// unread asks for the blob and does not read it.
func unread(t *testing.T, place hugePlace, tls, h2 bool, proto int) {
	events := make(ended, 10)
	s, err := New(place, root, WithWriteIdle(time.Second), WithInspector(events))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = s.HTTPServer()
	srv.EnableHTTP2 = h2
	if tls {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	srv.Client().Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return dialSmall(t, addr), nil
	}
	res, err := srv.Client().Get(srv.URL + "/v2/a/blobs/" + string(digest.FromString("huge")))
	if err != nil {
		t.Fatal(err)
	}
	if res.ProtoMajor != proto || res.ContentLength != huge {
		t.Errorf("%s, %d bytes", res.Proto, res.ContentLength)
	}
	select {
	case e := <-events:
		if !e.Aborted || e.Sent >= huge/4 || e.Status != http.StatusOK {
			t.Errorf("status %d, aborted %v after %d bytes", e.Status, e.Aborted, e.Sent)
		}
	case <-time.After(2 * time.Minute):
		t.Error("the server still sends")
	}
	res.Body.Close()
	srv.Close()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}
