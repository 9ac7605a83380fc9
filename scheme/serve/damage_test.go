package serve_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/ref"
)

// shelf is a server of a directory with one blob.
type shelf struct {
	api  *ocidir.OCIDir
	r    ref.Ref
	data []byte
	d    types.Descriptor
	file string
	addr string
}

// newShelf puts a blob and serves it, by a process that knows nothing of it.
func newShelf(t *testing.T, size int, opts ...serve.Option) *shelf {
	t.Helper()
	root := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
	s := &shelf{r: root.WithRepo("repo"), data: schemetest.Blob(t.Name(), size)}
	writer := ocidir.New(ocidir.WithDurability(ocidir.None))
	defer writer.Close()
	var err error
	if s.d, err = writer.BlobPut(t.Context(), s.r, types.Descriptor{}, bytes.NewReader(s.data)); err != nil {
		t.Fatal(err)
	}
	s.file = filepath.Join(root.Root, "repo", "blobs", "sha256", s.d.Digest.Encoded())
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(s.file, long, long); err != nil {
		t.Fatal(err)
	}
	s.api = ocidir.New()
	h, err := serve.New(s.api, root, opts...)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(h)
	s.addr = web.Listener.Addr().String()
	t.Cleanup(func() {
		web.CloseClientConnections()
		web.Close()
		if err := h.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := s.api.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// heard is what came over a socket.
type heard struct {
	status int
	length int64 // that was promised
	body   []byte
}

// whole reports whether a client would take the answer for complete.
func (h heard) whole() bool { return h.status/100 == 2 && int64(len(h.body)) == h.length }

// ask sends one request over a socket of its own, and calls during once some of the body is there.
func (s *shelf) ask(t *testing.T, method, rng string, during func()) heard {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Error(err)
		return heard{}
	}
	defer conn.Close()
	if rng != "" {
		rng = "Range: " + rng + "\r\n"
	}
	fmt.Fprintf(conn, "%s /v2/repo/blobs/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", method, s.d.Digest, rng)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return heard{} // the connection was cut before the head was out
	}
	h := heard{status: resp.StatusCode, length: resp.ContentLength}
	if method == http.MethodHead {
		return h
	}
	if during != nil {
		h.body = make([]byte, min(int64(1000), h.length))
		if _, err := io.ReadFull(in, h.body); err != nil {
			return h
		}
		during()
	}
	rest, _ := io.ReadAll(io.LimitReader(in, h.length-int64(len(h.body)))) // an end before its time is what is looked for
	h.body = append(h.body, rest...)
	return h
}

// spoils are ways to damage a file. None of them lets the file be what it was.
var spoils = map[string]func(path string) error{
	"flip the first byte": func(path string) error { return flip(path, 0) },
	"flip a byte near the end": func(path string) error { // most of what comes before it may be on its way already
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		return flip(path, fi.Size()*3/4)
	},
	"flip the last byte": func(path string) error {
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		return flip(path, fi.Size()-1)
	},
	"truncate": func(path string) error {
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, fi.Size()-1)
	},
	"empty": func(path string) error { return os.Truncate(path, 0) },
	"replace": func(path string) error {
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path+".new", make([]byte, fi.Size()), 0o644); err != nil {
			return err
		}
		return os.Rename(path+".new", path)
	},
}

func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	return err
}

func TestDamageIsNeverServedAsGood(t *testing.T) {
	const small, medium, large = 5000, 300_000, 9 << 20
	for name, spoil := range spoils {
		for _, size := range []int{small, medium, large} {
			for when, touch := range map[string]func(s *shelf){
				"before the first touch": nil,
				"after it":               func(s *shelf) { s.ask(t, "GET", "", nil) },
				"after a range":          func(s *shelf) { s.ask(t, "GET", "bytes=0-99", nil) },
			} {
				t.Run(fmt.Sprintf("%s %s, %d bytes", name, when, size), func(t *testing.T) {
					s := newShelf(t, size)
					if touch != nil {
						touch(s)
					}
					if err := spoil(s.file); err != nil {
						t.Fatal(err)
					}
					for range 2 { // the second time it is known
						s.good(t, "bytes=10-4000")
						s.good(t, "")
						s.good(t, "bytes=-100")
					}
					if head, get := s.ask(t, "HEAD", "", nil), s.ask(t, "GET", "", nil); head.status != 404 || get.status != 404 {
						t.Errorf("once it is known HEAD is %d and GET %d, want 404", head.status, get.status)
					}
				})
			}
			t.Run(fmt.Sprintf("%s while it is sent, %d bytes", name, size), func(t *testing.T) {
				for _, warm := range []bool{false, true} {
					for _, rng := range []string{"", "bytes=5-"} {
						s := newShelf(t, size)
						if warm {
							s.ask(t, "GET", "", nil)
						}
						h := s.ask(t, "GET", rng, func() {
							if err := spoil(s.file); err != nil {
								t.Error(err)
							}
						})
						want := s.data
						if rng != "" {
							want = want[5:]
						}
						if h.whole() && !bytes.Equal(h.body, want) {
							t.Errorf("warm %v, %q: %d bytes as promised, and not the blob's", warm, rng, len(h.body))
						}
						s.good(t, "")
					}
				}
			})
		}
	}
}

// good asks for the blob, or a range of it, and checks that what comes as complete is right.
func (s *shelf) good(t *testing.T, rng string) {
	t.Helper()
	want := s.data
	switch rng {
	case "bytes=10-4000":
		want = want[10:4001]
	case "bytes=-100":
		want = want[len(want)-100:]
	}
	if h := s.ask(t, "GET", rng, nil); h.whole() && !bytes.Equal(h.body, want) {
		t.Errorf("GET %q: status %d, %d bytes as promised, and not the blob's", rng, h.status, len(h.body))
	}
}

// watched counts how often a blob is opened as a file.
type watched struct {
	scheme.API
	opens *int
}

func (w watched) As(r ref.Ref, target any) bool {
	if o, ok := target.(*scheme.BlobProver); ok && scheme.As(w.API, r, o) {
		*o = countingProver{*o, w.opens}
		return true
	}
	return scheme.AsAny(w.API, r, target)
}

type countingProver struct {
	scheme.BlobProver
	opens *int
}

func (c countingProver) BlobOpenProven(ctx context.Context, r ref.Ref, d types.Descriptor, unread int64) (blob.ReaderAt, error) {
	ra, err := c.BlobProver.BlobOpenProven(ctx, r, d, unread)
	if err == nil {
		*c.opens++
	}
	return ra, err
}

// A large blob that was not checked yet is streamed, and not read twice; from then on its file is sent.
func TestLargeBlobsAreStreamedTheFirstTime(t *testing.T) {
	for _, view := range []func(scheme.API) scheme.API{func(a scheme.API) scheme.API { return a }, scheme.ReadOnly} {
		api := ocidir.New()
		defer api.Close()
		root := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
		data := schemetest.Blob("large", 5<<20)
		writer := ocidir.New()
		d, err := writer.BlobPut(t.Context(), root.WithRepo("repo"), types.Descriptor{}, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		writer.Close()
		var opens int
		h, err := serve.New(watched{view(api), &opens}, root)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []int{0, 1} {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequest("GET", "/v2/repo/blobs/"+string(d.Digest), nil))
			if rec.Code != 200 || !bytes.Equal(rec.Body.Bytes(), data) || opens != want {
				t.Errorf("request %d: status %d, %d bytes, opened %d times, want %d", i, rec.Code, rec.Body.Len(), opens, want)
			}
		}
		if err := h.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
