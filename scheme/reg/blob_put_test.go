package reg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// uploads is a registry that takes uploads, one session for each POST, and keeps what was finished.
type uploads struct {
	mu       sync.Mutex
	sessions int
	parts    map[string][]byte // by session
	stored   map[digest.Digest][]byte
}

func newUploads() *uploads {
	return &uploads{parts: map[string][]byte{}, stored: map[digest.Digest][]byte{}}
}

func (u *uploads) handle(w http.ResponseWriter, r *http.Request, _ int) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client broke off
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch r.Method {
	case http.MethodPost:
		u.sessions++
		answer(w, 202, "", "Location", fmt.Sprintf("/v2/a/blobs/uploads/%d?_state=x%%2Fy", u.sessions))
	case http.MethodPatch:
		u.parts[r.URL.Path] = append(u.parts[r.URL.Path], data...)
		answer(w, 202, "", "Location", r.URL.Path+"?_state=z")
	case http.MethodPut:
		d := digest.Digest(r.URL.Query().Get("digest"))
		all := append(u.parts[r.URL.Path], data...)
		if d.Algorithm().FromBytes(all) != d {
			answer(w, 400, `{"errors":[{"code":"DIGEST_INVALID"}]}`)
			return
		}
		u.stored[d] = all
		answer(w, 201, "")
	case http.MethodDelete:
		answer(w, 204, "")
	}
}

func (u *uploads) has(d digest.Digest) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.stored[d]
	return ok
}

// onlyReader hides what else a reader can do.
type onlyReader struct{ io.Reader }

func TestBlobPutRequests(t *testing.T) {
	data, d := content(size)
	few, dFew := content(100)
	empty, dEmpty := content(0)
	q := func(d types.Descriptor) string { return "digest=" + strings.ReplaceAll(string(d.Digest), ":", "%3A") }
	start, session := "POST /v2/a/blobs/uploads/", "PUT /v2/a/blobs/uploads/1?_state=x%2Fy&"
	for name, tc := range map[string]struct {
		desc types.Descriptor
		rdr  io.Reader
		got  types.Descriptor
		want []string
	}{
		"digest and size known":      {d, onlyReader{bytes.NewReader(data)}, d, []string{start, session + q(d)}},
		"empty":                      {dEmpty, onlyReader{bytes.NewReader(empty)}, dEmpty, []string{start, session + q(dEmpty)}},
		"size of a buffer":           {types.Descriptor{Digest: d.Digest}, bytes.NewReader(data), d, []string{start, session + q(d)}},
		"nothing known, but few":     {types.Descriptor{}, onlyReader{bytes.NewReader(few)}, dFew, []string{start, session + q(dFew)}},
		"nothing known, and nothing": {types.Descriptor{}, onlyReader{bytes.NewReader(empty)}, dEmpty, []string{start, session + q(dEmpty)}},
		"size unknown": {types.Descriptor{Digest: d.Digest}, onlyReader{bytes.NewReader(data)}, d,
			[]string{start, "PATCH /v2/a/blobs/uploads/1?_state=x%2Fy", "PUT /v2/a/blobs/uploads/1?_state=z&" + q(d)}},
		"digest unknown": {types.Descriptor{}, onlyReader{bytes.NewReader(data)}, d,
			[]string{start, "PATCH /v2/a/blobs/uploads/1?_state=x%2Fy", "PUT /v2/a/blobs/uploads/1?_state=z&" + q(d)}},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUploads()
			s := newScript(t, u.handle)
			api := newTest(t)
			got, err := api.BlobPut(t.Context(), s.ref("a"), tc.desc, tc.rdr)
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != tc.got.Digest || got.Size != tc.got.Size {
				t.Errorf("got %v of %d bytes, want %v of %d", got.Digest, got.Size, tc.got.Digest, tc.got.Size)
			}
			if !u.has(tc.got.Digest) {
				t.Error("not stored")
			}
			s.want(tc.want...)
		})
	}
}

// Content that is wrong is never finished, whether or not the registry looks at it, and the session is cancelled.
func TestBlobPutWrongContent(t *testing.T) {
	data, d := content(size)
	broken := errors.New("the disk is on fire")
	for name, tc := range map[string]struct {
		desc types.Descriptor
		rdr  io.Reader
		want error
	}{
		"wrong bytes":               {d, bytes.NewReader(append([]byte("x"), data[1:]...)), errs.ErrDigestMismatch},
		"short":                     {d, bytes.NewReader(data[1:]), errs.ErrSizeMismatch},
		"long":                      {d, io.MultiReader(bytes.NewReader(data), strings.NewReader("x")), errs.ErrSizeMismatch},
		"long by a lot":             {d, io.MultiReader(bytes.NewReader(data), bytes.NewReader(data)), errs.ErrSizeMismatch},
		"failing":                   {d, io.MultiReader(bytes.NewReader(data[:size/2]), failing{broken}), broken},
		"wrong bytes, size unknown": {types.Descriptor{Digest: d.Digest}, onlyReader{bytes.NewReader(data[1:])}, errs.ErrDigestMismatch},
		"failing, size unknown":     {types.Descriptor{Digest: d.Digest}, io.MultiReader(bytes.NewReader(data), failing{broken}), broken},
		"not empty":                 {types.Descriptor{Digest: digest.FromString("")}, onlyReader{strings.NewReader("x")}, errs.ErrSizeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			finished := make(chan string, 4)
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
				switch r.Method {
				case http.MethodPost:
					answer(w, 202, "", "Location", "/session")
				case http.MethodDelete:
					answer(w, 204, "")
				default:
					if n, err := io.Copy(io.Discard, r.Body); err == nil && r.Method == http.MethodPut {
						finished <- fmt.Sprintf("a PUT of %d bytes", n)
						answer(w, 201, "") // it looks at nothing
					}
				}
			})
			api := newTest(t)
			_, err := api.BlobPut(t.Context(), s.ref("a"), tc.desc, tc.rdr)
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if err := api.Close(); err != nil {
				t.Error(err)
			}
			select {
			case what := <-finished:
				t.Errorf("the registry has finished %s", what)
			default:
			}
			if all := s.requests(); len(all) > 0 && !slices.Contains(all, "DELETE /session") {
				t.Errorf("the session was not cancelled: %q", all)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestBlobPutOfASourceIsRetried(t *testing.T) {
	data, d := content(size)
	for name, interrupt := range map[string]func(w http.ResponseWriter, r *http.Request){
		"status": func(w http.ResponseWriter, _ *http.Request) { answer(w, 502, "") },
		"reset":  func(w http.ResponseWriter, _ *http.Request) { reset(t, w, "") },
		"session lost": func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 404, `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}`)
		},
		"token expired": func(w http.ResponseWriter, _ *http.Request) { answer(w, 401, "") },
		"half read, then gone": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, size/2)
			reset(t, w, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUploads()
			puts := 0
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
				if r.Method == http.MethodPut {
					if puts++; puts == 1 {
						interrupt(w, r)
						return
					}
				}
				u.handle(w, r, n)
			})
			api := newTest(t)
			if _, err := api.BlobPut(t.Context(), s.ref("a"), d, blob.SourceOf(bytes.NewReader(data), size)); err != nil {
				t.Fatal(err)
			}
			if !u.has(d.Digest) {
				t.Error("not stored")
			}
			if err := api.Close(); err != nil {
				t.Error(err)
			}
			if u.sessions != 2 || !slices.Contains(s.requests(), "DELETE /v2/a/blobs/uploads/1?_state=x%2Fy") {
				t.Errorf("want a second session and the first one cancelled: %q", s.requests())
			}
		})
	}
	t.Run("attempts are bounded", func(t *testing.T) {
		posts := 0
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
			switch r.Method {
			case http.MethodPost:
				posts++
				answer(w, 202, "", "Location", "/session")
			case http.MethodPut:
				answer(w, 503, "")
			}
		})
		_, err := newTest(t).BlobPut(t.Context(), s.ref("a"), d, blob.SourceOf(bytes.NewReader(data), size))
		if !errors.Is(err, errs.ErrUnavailable) || posts != testLimits.attempts {
			t.Errorf("%d sessions, %v", posts, err)
		}
	})
}

// A stream that can be read once is sent again only as long as nothing of it was read.
func TestBlobPutOfAStreamIsReadOnce(t *testing.T) {
	data, d := content(size)
	puts := 0
	s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		switch r.Method {
		case http.MethodPost:
			answer(w, 202, "", "Location", "/session")
		case http.MethodPut:
			puts++
			_, _ = io.Copy(io.Discard, r.Body)
			answer(w, 503, "")
		}
	})
	_, err := newTest(t).BlobPut(t.Context(), s.ref("a"), d, onlyReader{bytes.NewReader(data)})
	if !errors.Is(err, errs.ErrUnavailable) || puts != 1 {
		t.Errorf("%d PUTs, %v", puts, err)
	}
}

// The registry's 400 may come before everything was sent: what is wrong with the content says more.
func TestBlobPutMismatchBeatsTheRegistrysAnswer(t *testing.T) {
	data, d := content(1000)
	s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		switch r.Method {
		case http.MethodPost:
			answer(w, 202, "", "Location", "/session")
		case http.MethodPut:
			answer(w, 400, `{"errors":[{"code":"DIGEST_INVALID"}]}`)
		}
	})
	_, err := newTest(t).BlobPut(t.Context(), s.ref("a"), d, bytes.NewReader(append([]byte("x"), data[1:]...)))
	if !errors.Is(err, errs.ErrDigestMismatch) {
		t.Errorf("got %v", err)
	}
}

func TestBlobPutMounts(t *testing.T) {
	data, d := content(10)
	esc := strings.ReplaceAll(string(d.Digest), ":", "%3A")
	mount := "POST /v2/a/blobs/uploads/?mount=" + esc + "&from=b"
	post, put := "POST /v2/a/blobs/uploads/", "PUT /session?digest="+esc
	for name, tc := range map[string]struct {
		status int // of the mount
		want   []string
		again  []string // what a second put sends
	}{
		"mounted":                         {201, []string{mount}, []string{mount}},
		"refused, in the same session":    {202, []string{mount, put}, []string{mount, put}},
		"denied, then without, for good":  {403, []string{mount, post, put}, []string{post, put}},
		"no such thing, then without it":  {405, []string{mount, post, put}, []string{mount, post, put}},
		"unauthorized, then without from": {401, []string{mount, post, put}, []string{post, put}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
				switch {
				case r.Method == http.MethodPut:
					answer(w, 201, "")
				case r.URL.Query().Get("mount") != "":
					answer(w, tc.status, "", "Location", "/session")
				default:
					answer(w, 202, "", "Location", "/session")
				}
			})
			api := newTest(t)
			for range 2 {
				from := []scheme.BlobPutOption{scheme.WithMountFrom(s.ref("a"), s.ref("b"))} // itself is no source
				if _, err := api.BlobPut(t.Context(), s.ref("a"), d, bytes.NewReader(data), from...); err != nil {
					t.Fatal(err)
				}
			}
			s.want(append(tc.want, tc.again...)...)
		})
	}
	t.Run("another registry is not asked", func(t *testing.T) {
		u := newUploads()
		s := newScript(t, u.handle)
		other := s.ref("b")
		other.Root = "registry.example"
		if _, err := newTest(t).BlobPut(t.Context(), s.ref("a"), d, bytes.NewReader(data), scheme.WithMountFrom(other)); err != nil {
			t.Fatal(err)
		}
		if got := s.requests()[0]; got != post {
			t.Errorf("first request %q", got)
		}
	})
	t.Run("the size of a mounted blob is the real one", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
			if r.Method == http.MethodHead {
				part(w, r, data)
				return
			}
			answer(w, 201, "")
		})
		src := blob.NewSource(failing{errors.New("not to be read")}, nil)
		got, err := newTest(t).BlobPut(t.Context(), s.ref("a"), types.Descriptor{Digest: d.Digest}, src, scheme.WithMountFrom(s.ref("b")))
		if err != nil || got.Size != 10 {
			t.Errorf("got %d bytes, %v", got.Size, err)
		}
	})
}

func TestBlobMount(t *testing.T) {
	_, d := content(10)
	for name, tc := range map[string]struct {
		status   int
		has      []string // repositories that have the blob
		want     error
		requests int
	}{
		"mounted":                    {201, nil, nil, 1},
		"there already":              {202, []string{"a"}, nil, 2},
		"the source lacks it":        {202, nil, errs.ErrNotFound, 3},
		"refused":                    {202, []string{"b"}, errs.ErrUnsupported, 3},
		"the source lacks it, a 404": {404, nil, errs.ErrNotFound, 3},
		"denied":                     {403, []string{"b"}, errs.ErrDenied, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
				switch r.Method {
				case http.MethodPost:
					answer(w, tc.status, "", "Location", "/session")
				case http.MethodHead:
					if repo := strings.Split(r.URL.Path, "/")[2]; slices.Contains(tc.has, repo) {
						w.Header().Set("Content-Length", "10")
						return
					}
					answer(w, 404, "")
				case http.MethodDelete:
					answer(w, 204, "")
				}
			})
			api := newTest(t)
			if err := api.BlobMount(t.Context(), s.ref("b"), s.ref("a"), d); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if err := api.Close(); err != nil {
				t.Error(err)
			}
			all := s.requests()
			cancelled := slices.Contains(all, "DELETE /session")
			if cancelled != (tc.status == 202) {
				t.Errorf("cancelled: %v", cancelled)
			}
			if cancelled {
				all = all[1:]
			}
			if len(all) != tc.requests {
				t.Errorf("%d requests, want %d: %q", len(all), tc.requests, s.requests())
			}
		})
	}
	t.Run("different registries", func(t *testing.T) {
		src := newScript(t, func(http.ResponseWriter, *http.Request, int) {}).ref("b")
		src.Root = "registry.example"
		s := newScript(t, func(http.ResponseWriter, *http.Request, int) {})
		if err := newTest(t).BlobMount(t.Context(), src, s.ref("a"), d); !errors.Is(err, errs.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
		s.want()
	})
}

// An upload's storage on another host gets the bytes and no credentials.
func TestBlobPutToStorage(t *testing.T) {
	data, d := content(10)
	got := make(chan []byte, 1)
	storage := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the storage was sent an Authorization")
		}
		data, _ := io.ReadAll(r.Body)
		got <- data
		answer(w, 201, "")
	})
	s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if _, _, ok := r.BasicAuth(); !ok {
			answer(w, 401, "", "WWW-Authenticate", "Basic")
			return
		}
		answer(w, 202, "", "Location", storage.URL+"/x?sig=a%2Bb")
	})
	api := newTest(t, WithHost(s.host(), Host{Username: "u", Password: "p"}))
	if _, err := api.BlobPut(t.Context(), s.ref("a"), d, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(receive(t, got), data) {
		t.Error("other bytes")
	}
	storage.want("PUT /x?sig=a%2Bb&digest=" + strings.ReplaceAll(string(d.Digest), ":", "%3A"))
}

// A source that hangs does not keep a put whose context has ended.
func TestBlobPutOfAHangingSource(t *testing.T) {
	data, d := content(size)
	for name, desc := range map[string]types.Descriptor{"one PUT": d, "unknown size": {}} {
		t.Run(name, func(t *testing.T) {
			u := newUploads()
			s := newScript(t, u.handle)
			ctx, cancel := context.WithCancel(t.Context())
			hang := make(chan struct{})
			src := io.MultiReader(bytes.NewReader(data[:size-10]), hanging{cancel, hang})
			_, err := newTest(t).BlobPut(ctx, s.ref("a"), desc, src)
			close(hang)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// hanging cancels when it is read, and then blocks until it is let go.
type hanging struct {
	cancel context.CancelFunc
	hang   chan struct{}
}

func (h hanging) Read([]byte) (int, error) {
	h.cancel()
	select {
	case <-h.hang:
	case <-time.After(patience):
	}
	return 0, io.EOF
}
