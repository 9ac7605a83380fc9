package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/ref"
)

// noOpener is a place without random access.
type noOpener struct{ scheme.API }

// files gives random access through files, as a directory does.
type files struct {
	*mem.Mem
	dir string
}

func (f files) BlobOpen(ctx context.Context, r ref.Ref, d types.Descriptor) (blob.ReaderAt, error) {
	rdr, err := f.BlobGet(ctx, r, d)
	if err != nil {
		return nil, err
	}
	defer rdr.Close()
	raw, err := io.ReadAll(rdr)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(f.dir, d.Digest.Encoded())
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return nil, err
	}
	h, err := os.Open(path)
	return fileReader{h, int64(len(raw))}, err
}

type fileReader struct {
	file *os.File
	size int64
}

func (f fileReader) ReadAt([]byte, int64) (int, error) {
	return 0, errors.New("must be read as a file")
}
func (f fileReader) Close() error           { return f.file.Close() }
func (f fileReader) Size() int64            { return f.size }
func (f fileReader) File() (*os.File, bool) { return f.file, true }

// content is longer than the buffers of copies.
var content = strings.Repeat("0123456789abcdef", 3*copyBuffer/16) + "end"

func TestBlobs(t *testing.T) {
	for name, api := range map[string]scheme.API{
		"random access": mem.New(), "streams": noOpener{mem.New()}, "files": files{mem.New(), t.TempDir()},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, api)
			c.push("a", content)
			path, d := "/v2/a/blobs/"+sum(content), sum(content)
			all := header{"Content-Length": "196611", "Docker-Content-Digest": d, "ETag": `"` + d + `"`, "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "Content-Range": ""}
			a := c.want(200, "", "GET", path, nil, nil)
			if a.has(t, all); a.body != content || a.err != nil {
				t.Errorf("%d other bytes, %v", len(a.body), a.err)
			}
			c.want(200, "", "HEAD", path, nil, nil).has(t, all)
			for _, r := range []struct{ in, cr, want string }{
				{"bytes=1-3", "bytes 1-3/196611", content[1:4]},
				{"bytes=196600-", "bytes 196600-196610/196611", content[196600:]},
				{"bytes=-3", "bytes 196608-196610/196611", "end"},
				{"bytes=196608-999999", "bytes 196608-196610/196611", "end"},
				{"bytes=0-196610", "bytes 0-196610/196611", content},
			} {
				a := c.want(206, "", "GET", path, nil, header{"Range": r.in})
				if a.has(t, header{"Content-Range": r.cr, "Docker-Content-Digest": d}); a.body != r.want {
					t.Errorf("%s: %d other bytes", r.in, len(a.body))
				}
			}
			for _, in := range []string{"bytes=196611-", "bytes=5-1", "bytes=x", "bytes=-0"} {
				c.want(416, "BLOB_UPLOAD_INVALID", "GET", path, nil, header{"Range": in}).has(t, header{"Content-Range": "bytes */196611", "Docker-Content-Digest": "", "ETag": ""})
			}
			for _, h := range []header{{"Range": "bytes=0-1,3-4"}, {"Range": "lines=1-2"}, {"Range": "bytes=1-2", "If-Range": `"other"`}} {
				if a := c.want(200, "", "GET", path, nil, h); a.body != content {
					t.Errorf("%v: %d bytes", h, len(a.body))
				}
			}
			c.want(206, "", "GET", path, nil, header{"Range": "bytes=1-2", "If-Range": `"` + d + `"`})
			for _, m := range []string{"GET", "HEAD"} {
				for _, tag := range []string{`"` + d + `"`, `W/"x", W/"` + d + `"`, "*"} {
					c.want(304, "", m, path, nil, header{"If-None-Match": tag}).has(t, header{"ETag": `"` + d + `"`})
				}
				c.want(200, "", m, path, nil, header{"If-None-Match": `"x"`})
				c.want(404, "BLOB_UNKNOWN", m, "/v2/a/blobs/"+sum("other"), nil, header{"If-None-Match": "*", "Range": "bytes=0-1"})
				c.want(404, "BLOB_UNKNOWN", m, "/v2/a/blobs/"+sum("other"), nil, header{"Range": "bytes=9-1"})
			}
			c.want(202, "", "DELETE", path, nil, nil)
			c.want(404, "BLOB_UNKNOWN", "DELETE", path, nil, nil)
			c.want(404, "BLOB_UNKNOWN", "HEAD", path, nil, nil)
		})
	}
}

// A connection can only send a file by itself (sendfile) if it is handed the file: net/http looks for a LimitedReader
// over an *os.File. The end goes through memory, and is held back until the file is known to be the one that was checked.
func TestFilesAreHandedToTheConnection(t *testing.T) {
	m := files{mem.New(), t.TempDir()}
	c := start(t, m)
	content := strings.Repeat(content, inFlight/len(content)+2)
	c.push("a", content)
	last := inFlight + 150_000
	for name, h := range map[string]http.Header{"whole": {}, "range": {"Range": {fmt.Sprintf("bytes=7-%d", last)}}} {
		w := &readerFrom{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest("GET", "/v2/a/blobs/"+sum(content), nil)
		r.Header = h
		c.s.ServeHTTP(w, r)
		lim, ok := w.src.(*io.LimitedReader)
		if !ok {
			t.Fatalf("%s: ReadFrom is called with %T", name, w.src)
		}
		if _, ok := lim.R.(*os.File); !ok {
			t.Errorf("%s: the source is a %T", name, lim.R)
		}
		if want := map[string]string{"whole": content, "range": content[7 : last+1]}[name]; w.Body.String() != want {
			t.Errorf("%s: %d other bytes", name, w.Body.Len())
		}
	}
}

// readerFrom is a ResponseWriter that can send files, as net/http's.
type readerFrom struct {
	*httptest.ResponseRecorder
	src io.Reader
}

func (w *readerFrom) ReadFrom(src io.Reader) (int64, error) {
	w.src = src
	return io.Copy(w.ResponseRecorder, src)
}

func TestAnEmptyBlob(t *testing.T) {
	c := start(t, mem.New())
	c.push("a", "")
	c.want(200, "", "GET", "/v2/a/blobs/"+sum(""), nil, nil).has(t, header{"Content-Length": "0"})
	c.want(416, "BLOB_UPLOAD_INVALID", "GET", "/v2/a/blobs/"+sum(""), nil, header{"Range": "bytes=0-"})
}

// A place whose stored bytes are damaged: the client must never have the whole length of them.
func TestDamageWhileStreamingCutsTheConnection(t *testing.T) {
	d := types.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	for name, stored := range map[string]io.Reader{
		"flipped": strings.NewReader("X" + content[1:]),
		"short":   strings.NewReader(content[:len(content)-1]),
		"cut":     io.MultiReader(strings.NewReader(content[:2*copyBuffer+1]), cut{}),
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, broken{API: scheme.Unimplemented{}, get: func() (blob.Reader, error) {
				return blob.NewReader(io.NopCloser(stored), d)
			}})
			a := c.want(200, "", "GET", "/v2/a/blobs/"+string(d.Digest), nil, nil)
			if a.err == nil || len(a.body) >= len(content) {
				t.Errorf("%d bytes and %v", len(a.body), a.err)
			}
		})
	}
}

func TestDamageThatIsFoundEarlyIsA500(t *testing.T) {
	d := types.Descriptor{Digest: digest.FromString("abc"), Size: 3}
	for name, stored := range map[string]io.Reader{"flipped": strings.NewReader("abX"), "short": strings.NewReader("ab"), "cut": cut{}} {
		t.Run(name, func(t *testing.T) {
			c := start(t, broken{API: scheme.Unimplemented{}, get: func() (blob.Reader, error) {
				return blob.NewReader(io.NopCloser(stored), d)
			}})
			c.want(500, "UNKNOWN", "GET", "/v2/a/blobs/"+string(d.Digest), nil, nil).has(t, header{"Docker-Content-Digest": "", "ETag": ""})
		})
	}
}

// cut ends as a connection does.
type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestASizeThatOnlyHeadKnowsIsSent(t *testing.T) {
	d := types.Descriptor{Digest: digest.FromString("abc")}
	c := start(t, broken{API: scheme.Unimplemented{},
		get:  func() (blob.Reader, error) { return blob.NewReader(io.NopCloser(strings.NewReader("abc")), d) },
		head: func() (types.Descriptor, error) { return types.Descriptor{Digest: d.Digest, Size: 3}, nil },
	})
	c.want(200, "", "GET", "/v2/a/blobs/"+string(d.Digest), nil, nil).has(t, header{"Content-Length": "3"})
}
