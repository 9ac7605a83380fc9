package reg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

const size = 100_000

func get(ctx context.Context, api *Reg, s *script, d types.Descriptor) ([]byte, error) {
	rdr, err := api.BlobGet(ctx, s.ref("a"), d)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(rdr)
	return data, errors.Join(err, rdr.Close())
}

// head is the beginning of an answer with n bytes of data, for reset.
func head(data []byte, n int) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(data), data[:n])
}

// abort answers with the first n bytes of data and ends the connection.
func abort(w http.ResponseWriter, data []byte, n int) {
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// A download goes on where it stopped, whatever stopped it.
func TestBlobGetResumes(t *testing.T) {
	data, d := content(size)
	blobURL := "GET /v2/a/blobs/" + string(d.Digest)
	for name, interrupt := range map[string]func(t *testing.T, w http.ResponseWriter, r *http.Request){
		"early end": func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			abort(w, data, 60_000)
		},
		"chunked, cut": func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(data[:60_000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"chunked, ended early as if it were all": func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(data[:60_000])
			w.(http.Flusher).Flush()
		},
		"broken framing": func(t *testing.T, w http.ResponseWriter, _ *http.Request) {
			reset(t, w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nea60\r\n"+string(data[:60_000])+"\r\nzzz\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
				if n == 1 {
					interrupt(t, w, r)
					return
				}
				part(w, r, data)
			})
			got, err := get(t.Context(), newTest(t), s, d)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if name != "broken framing" { // a reset may discard what has arrived
				s.want(blobURL, blobURL+" bytes=60000-")
			}
		})
	}
	t.Run("reset", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				reset(t, w, head(data, 60_000))
				return
			}
			part(w, r, data)
		})
		got, err := get(t.Context(), newTest(t), s, d)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	})
	t.Run("stall", func(t *testing.T) {
		l := testLimits
		l.idle = 50 * time.Millisecond
		l.attempts = 20
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				w.Header().Set("Content-Length", strconv.Itoa(size))
				_, _ = w.Write(data[:60_000])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
				return
			}
			part(w, r, data)
		})
		got, err := get(t.Context(), newTest(t, withLimits(l)), s, d)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	})
	t.Run("a registry that ignores Range", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				abort(w, data, 60_000)
			}
			r.Header.Del("Range")
			part(w, r, data)
		})
		got, err := get(t.Context(), newTest(t), s, d)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	})
	t.Run("progress renews the attempts", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
			var from int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			w.Header().Set("Content-Length", strconv.Itoa(size-from))
			if from > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
				w.WriteHeader(http.StatusPartialContent)
			}
			_, _ = w.Write(data[from:min(from+10_000, size)])
			if from+10_000 < size {
				panic(http.ErrAbortHandler)
			}
		})
		got, err := get(t.Context(), newTest(t), s, d)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if n := len(s.requests()); n != 10 {
			t.Errorf("%d requests, want 10", n)
		}
	})
}

func TestBlobGetGivesUp(t *testing.T) {
	data, d := content(size)
	for name, tc := range map[string]struct {
		handle func(w http.ResponseWriter, r *http.Request, n int)
		want   error
		most   int // requests
	}{
		"without progress": {func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Content-Length", strconv.Itoa(size))
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, errs.ErrUnavailable, testLimits.attempts},
		"a part that begins elsewhere": {func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				abort(w, data, 10)
			}
			r.Header.Set("Range", "bytes=11-")
			part(w, r, data)
		}, errs.ErrUnavailable, 2},
		"a part of another whole": {func(w http.ResponseWriter, _ *http.Request, n int) {
			if n == 1 {
				abort(w, data, 10)
			}
			w.Header().Set("Content-Length", strconv.Itoa(size))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 10-%d/%d", size+9, size+10))
			w.WriteHeader(http.StatusPartialContent)
		}, errs.ErrSizeMismatch, 2},
		"another size, at once": {func(w http.ResponseWriter, r *http.Request, _ int) {
			part(w, r, data[1:])
		}, errs.ErrSizeMismatch, 1},
		"other content": {func(w http.ResponseWriter, r *http.Request, _ int) {
			part(w, r, append([]byte("x"), data[1:]...))
		}, errs.ErrDigestMismatch, 1},
		"an endless body": {func(w http.ResponseWriter, _ *http.Request, _ int) {
			for {
				if _, err := w.Write(data); err != nil {
					return
				}
			}
		}, errs.ErrSizeMismatch, 1},
		"gone meanwhile": {func(w http.ResponseWriter, _ *http.Request, n int) {
			if n > 1 {
				answer(w, 404, "")
				return
			}
			abort(w, data, 10)
		}, errs.ErrNotFound, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, tc.handle)
			if _, err := get(t.Context(), newTest(t), s, d); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if n := len(s.requests()); n != tc.most {
				t.Errorf("%d requests, want %d", n, tc.most)
			}
		})
	}
}

// The storage that a registry redirects to gets no credentials, and a download goes on at the registry, as the signed
// URL may have expired.
func TestBlobGetThroughStorage(t *testing.T) {
	data, d := content(size)
	storage := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the storage was sent an Authorization")
		}
		if n == 1 {
			abort(w, data, 60_000)
		}
		part(w, r, data)
	})
	s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if _, _, ok := r.BasicAuth(); !ok {
			answer(w, 401, "", "WWW-Authenticate", `Basic realm="x"`)
			return
		}
		answer(w, 307, "", "Location", fmt.Sprintf("%s/signed?n=%d", storage.URL, n))
	})
	api := newTest(t, WithHost(s.host(), Host{Username: "u", Password: "p"}))
	got, err := get(t.Context(), api, s, d)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	storage.want("GET /signed?n=2", "GET /signed?n=3 bytes=60000-")
}

func TestBlobGetIsVerifiedStream(t *testing.T) {
	data, d := content(10)
	s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if v := r.Header.Get("Accept-Encoding"); v != "identity" {
			t.Errorf("Accept-Encoding %q", v)
		}
		part(w, r, data)
	})
	d.URLs = []string{"http://192.0.2.1/elsewhere"}
	rdr, err := newTest(t).BlobGet(t.Context(), s.ref("a"), types.Descriptor{Digest: d.Digest, URLs: d.URLs})
	if err != nil {
		t.Fatal(err)
	}
	defer rdr.Close()
	if !blob.Verifies(rdr, d) {
		t.Error("a store would have to hash the stream a second time")
	}
	if got := rdr.Descriptor().Size; got != 10 {
		t.Errorf("size %d, want that of the answer", got)
	}
	s.want("GET /v2/a/blobs/" + string(d.Digest))
}

func TestBlobOpen(t *testing.T) {
	data, d := content(size)
	path := "/v2/a/blobs/" + string(d.Digest)
	t.Run("reads one after another share an answer", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) { part(w, r, data) })
		ra, err := newTest(t).BlobOpen(t.Context(), s.ref("a"), d)
		if err != nil {
			t.Fatal(err)
		}
		defer ra.Close()
		got, err := io.ReadAll(io.NewSectionReader(ra, 50, ra.Size()-50))
		if err != nil || !bytes.Equal(got, data[50:]) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if n := len(s.requests()); n != 3 {
			t.Errorf("%d requests, want HEAD and two GETs: %q", n, s.requests())
		}
	})
	t.Run("a read here and there asks for just that", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) { part(w, r, data) })
		ra, err := newTest(t).BlobOpen(t.Context(), s.ref("a"), types.Descriptor{Digest: d.Digest})
		if err != nil {
			t.Fatal(err)
		}
		defer ra.Close()
		for _, off := range []int64{5000, 10} {
			p := make([]byte, 20)
			if n, err := ra.ReadAt(p, off); n != 20 || err != nil || !bytes.Equal(p, data[off:off+20]) {
				t.Errorf("at %d: %d, %v", off, n, err)
			}
		}
		p := make([]byte, 20)
		if n, err := ra.ReadAt(p, size-5); n != 5 || err != io.EOF || !bytes.Equal(p[:5], data[size-5:]) {
			t.Errorf("at the end: %d, %v", n, err)
		}
		s.want("HEAD "+path, "GET "+path+" bytes=5000-5019", "GET "+path+" bytes=10-29", fmt.Sprintf("GET %s bytes=%d-%d", path, size-5, size-1))
	})
	t.Run("a registry that ignores Range gives the right bytes", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
			r.Header.Del("Range")
			part(w, r, data)
		})
		ra, err := newTest(t).BlobOpen(t.Context(), s.ref("a"), d)
		if err != nil {
			t.Fatal(err)
		}
		defer ra.Close()
		p := make([]byte, 5)
		if n, err := ra.ReadAt(p, 6); n != 5 || err != nil || !bytes.Equal(p, data[6:11]) {
			t.Errorf("%d, %v, %v", n, err, p)
		}
	})
}
