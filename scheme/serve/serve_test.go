package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/ocisync/ocisync/internal/memdir"
	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.Cleanup(memdir.After(memdir.Use()))) }

var root = ref.Ref{Scheme: mem.Scheme, Root: "x"}

// client sends requests to a server of its own, and checks every answer for what all must have.
type client struct {
	t   *testing.T
	srv *httptest.Server
	s   *Server
}

func start(t *testing.T, api scheme.API, opts ...Option) *client {
	t.Helper()
	return startAt(t, api, root, opts...)
}

// startAt is start with a root of its own, which may be none.
func startAt(t *testing.T, api scheme.API, at ref.Ref, opts ...Option) *client {
	t.Helper()
	s, err := New(api, at, opts...)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, s: s, srv: httptest.NewServer(s)}
	t.Cleanup(func() {
		c.srv.Close()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if sp := s.spool.spool; sp != nil && s.stateDir == "" {
			if _, err := os.Stat(sp.Ref.Root); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("Shutdown leaves the folder of uploads: %v", err)
			}
		}
	})
	return c
}

// answer is a response that was read to its end.
type answer struct {
	*http.Response
	body string
	err  error // of reading the body
}

type header map[string]string

// patience bounds what a test waits for: a bug is then a failure, and not the end of all tests minutes later.
const patience = time.Minute

// receive returns what comes from ch. Only the goroutine of the test may call it.
func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain")
		panic("not reached")
	}
}

// do sends one request. body is a string, an io.Reader (sent without a length), or nil.
func (c *client) do(method, target string, body any, h header) answer {
	c.t.Helper()
	var rdr io.Reader
	switch b := body.(type) {
	case string:
		rdr = strings.NewReader(b)
	case io.Reader:
		rdr = struct{ io.Reader }{b}
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, c.srv.URL+target, rdr)
	if err != nil {
		c.t.Fatal(err)
	}
	for k, v := range h {
		r.Header.Set(k, v)
	}
	res, err := c.srv.Client().Do(r)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	a := answer{Response: res, body: string(raw), err: err}
	if v := res.Header.Get("Docker-Distribution-Api-Version"); v != "registry/2.0" {
		c.t.Errorf("%s %s: API version %q", method, target, v)
	}
	if method == http.MethodHead && a.body != "" {
		c.t.Errorf("HEAD %s has a body", target)
	}
	if len(res.TransferEncoding) > 0 || res.ContentLength < 0 && res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusNotModified {
		c.t.Errorf("%s %s: no Content-Length", method, target)
	}
	return a
}

// want sends a request whose answer must have that status, and the code in its errors if there is one.
func (c *client) want(status int, code, method, target string, body any, h header) answer {
	c.t.Helper()
	a := c.do(method, target, body, h)
	if a.StatusCode != status {
		c.t.Fatalf("%s %.100s: status %d, want %d: %s", method, target, a.StatusCode, status, a.body)
	}
	if code != "" && method != http.MethodHead {
		if got := ocihttp.ParseError(status, []byte(a.body)); got.Code != code || a.Header.Get("Content-Type") != "application/json" {
			c.t.Errorf("%s %.100s: code %q, want %q: %s", method, target, got.Code, code, a.body)
		}
	}
	return a
}

// has checks headers of an answer; "" must be absent.
func (a answer) has(t *testing.T, want header) {
	t.Helper()
	for k, v := range want {
		if got := strings.Join(a.Header.Values(k), "|"); got != v {
			t.Errorf("%s %s: %s is %q, want %q", a.Request.Method, a.Request.URL.Path, k, got, v)
		}
	}
}

func sum(s string) string { return digest.FromString(s).String() }

// push stores a blob.
func (c *client) push(repo, content string) {
	c.t.Helper()
	c.want(201, "", "POST", "/v2/"+repo+"/blobs/uploads/?digest="+sum(content), content, nil)
}

const (
	typeImage = types.MediaTypeImageManifest
	typeIndex = types.MediaTypeImageIndex
)

// image is a manifest with an empty config and extra JSON fields.
func image(extra string) string {
	return `{"schemaVersion":2,"mediaType":"` + typeImage + `","config":{"mediaType":"` + types.MediaTypeEmpty +
		`","digest":"` + sum("{}") + `","size":2},"layers":[]` + extra + `}`
}

func (c *client) putImage(repo, tag, extra string) string {
	c.t.Helper()
	c.push(repo, "{}")
	m := image(extra)
	c.want(201, "", "PUT", "/v2/"+repo+"/manifests/"+tag, m, header{"Content-Type": typeImage})
	return m
}

func TestPing(t *testing.T) {
	c := start(t, mem.New())
	for _, path := range []string{"/v2/", "/v2"} {
		if a := c.want(200, "", "GET", path, nil, nil); a.body != "{}" {
			t.Errorf("%s: %q", path, a.body)
		}
	}
	c.want(200, "", "HEAD", "/v2/", nil, nil).has(t, header{"Content-Length": "2"})
}

func TestBadRequestsAreAnsweredWithTheSpecificationsCodes(t *testing.T) {
	c := start(t, mem.New())
	d := sum("x")
	for _, r := range []struct {
		status               int
		code, method, target string
	}{
		{404, "NAME_UNKNOWN", "GET", "/"},
		{404, "NAME_UNKNOWN", "GET", "/v2/a/unknown"},
		{404, "NAME_UNKNOWN", "GET", "/v2/a/tags/list"},
		{404, "NAME_UNKNOWN", "GET", "/v2/a/blobs/" + d},
		{404, "BLOB_UPLOAD_UNKNOWN", "GET", "/v2/a/blobs/uploads/none"},
		{404, "BLOB_UPLOAD_UNKNOWN", "GET", "/v2/a/blobs/uploads/%2e%2e"},
		{404, "BLOB_UPLOAD_UNKNOWN", "DELETE", "/v2/a/blobs/uploads/none"},
		{404, "MANIFEST_UNKNOWN", "GET", "/v2/a/manifests/.INVALID"},
		{400, "NAME_INVALID", "GET", "/v2/A/manifests/x"},
		{400, "NAME_INVALID", "GET", "/v2/a%2fb/tags/list"},
		{400, "NAME_INVALID", "GET", "/v2/" + strings.Repeat("a", 300) + "/tags/list"},
		{400, "DIGEST_INVALID", "GET", "/v2/a/blobs/sha256:x"},
		{400, "DIGEST_INVALID", "GET", "/v2/a/manifests/sha256:x"},
		{400, "DIGEST_INVALID", "GET", "/v2/a/referrers/sha256:x"},
		{400, "UNSUPPORTED", "GET", "/v2/a/tags/list?n=-1"},
		{405, "UNSUPPORTED", "POST", "/v2/"},
		{405, "UNSUPPORTED", "PATCH", "/v2/a/manifests/x"},
	} {
		a := c.want(r.status, r.code, r.method, r.target, nil, nil)
		if (a.Header.Get("Allow") != "") != (r.status == 405) {
			t.Errorf("%s %s: Allow %q", r.method, r.target, a.Header.Get("Allow"))
		}
		if r.method == "GET" {
			c.want(r.status, "", "HEAD", r.target, nil, nil)
		}
	}
}

func TestReadOnlyRefusesEveryWriteAndServesTheRest(t *testing.T) {
	m := mem.New()
	c := start(t, m)
	doc := c.putImage("a", "v1", "")
	ro := start(t, m, WithReadOnly())
	d := sum(doc)
	for _, r := range [][2]string{
		{"POST", "/v2/a/blobs/uploads/"}, {"POST", "/v2/a/blobs/uploads/?mount=" + d + "&from=b"}, {"PATCH", "/v2/a/blobs/uploads/x"},
		{"PUT", "/v2/a/blobs/uploads/x?digest=" + d}, {"GET", "/v2/a/blobs/uploads/x"}, {"DELETE", "/v2/a/blobs/uploads/x"},
		{"DELETE", "/v2/a/blobs/" + d}, {"PUT", "/v2/a/manifests/v1"}, {"DELETE", "/v2/a/manifests/v1"}, {"DELETE", "/v2/a/manifests/" + d},
	} {
		ro.want(405, "UNSUPPORTED", r[0], r[1], nil, nil).has(t, header{"Allow": "GET, HEAD"})
	}
	for _, path := range []string{"/v2/", "/v2/a/manifests/v1", "/v2/a/blobs/" + sum("{}"), "/v2/a/tags/list", "/v2/a/referrers/" + d, "/v2/_catalog"} {
		ro.want(200, "", "GET", path, nil, nil)
	}
}

// broken answers some methods in ways that no test of a good place can see.
type broken struct {
	scheme.API
	get  func() (blob.Reader, error)
	head func() (types.Descriptor, error)
}

func (b broken) BlobGet(context.Context, ref.Ref, types.Descriptor, ...scheme.BlobGetOption) (blob.Reader, error) {
	return b.get()
}

func (b broken) BlobHead(context.Context, ref.Ref, types.Descriptor, ...scheme.BlobHeadOption) (types.Descriptor, error) {
	return b.head()
}

func TestErrorsOfThePlace(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"absent, nothing more known": {errs.ErrNotFound, 404, "BLOB_UNKNOWN"},
		"rate limited":               {&errs.Error{Err: errs.ErrRateLimited, RetryAfter: 1500e6}, 429, "TOOMANYREQUESTS"},
		"denied":                     {errs.ErrDenied, 403, "DENIED"},
		"damaged":                    {&errs.Error{Ref: "ocidir:///srv/secret", Err: errs.ErrCorrupt}, 500, "UNKNOWN"},
		"anything":                   {errors.New("open /srv/secret: boom"), 500, "UNKNOWN"},
	} {
		t.Run(name, func(t *testing.T) {
			b := broken{API: scheme.Unimplemented{}, get: func() (blob.Reader, error) { return nil, c.err }}
			a := start(t, b).want(c.status, c.code, "GET", "/v2/a/blobs/"+sum("x"), nil, nil)
			if strings.Contains(a.body, "secret") {
				t.Errorf("the answer tells of the server: %s", a.body)
			}
			if c.status == 429 {
				a.has(t, header{"Retry-After": "2"})
			}
		})
	}
}

func TestAPanicIsA500AndTheServerGoesOn(t *testing.T) {
	var log bytes.Buffer
	b := broken{API: scheme.Unimplemented{}, get: func() (blob.Reader, error) { panic("secret") }}
	c := start(t, b, WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	a := c.want(500, "UNKNOWN", "GET", "/v2/a/blobs/"+sum("x"), nil, nil)
	if strings.Contains(a.body, "secret") {
		t.Error(a.body)
	}
	c.want(200, "", "GET", "/v2/", nil, nil)
	if !strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), "serve_test.go") {
		t.Errorf("the log lacks the panic or its stack: %s", log.String())
	}
}

func TestShutdownWaitsForRequestsAndRefusesNewOnes(t *testing.T) {
	in, out := make(chan struct{}), make(chan struct{})
	b := broken{API: scheme.Unimplemented{}, head: func() (types.Descriptor, error) {
		close(in)
		select {
		case <-out:
		case <-time.After(patience):
			t.Error("Shutdown waits for the request, and so does not return")
		}
		return types.Descriptor{Digest: digest.Digest(sum("x")), Size: 1}, nil
	}}
	c := start(t, b)
	res := make(chan answer, 1)
	go func() { res <- c.do("HEAD", "/v2/a/blobs/"+sum("x"), nil, nil) }()
	receive(t, in)
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.s.Shutdown(short); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returns %v while a request runs", err)
	}
	c.want(503, "UNAVAILABLE", "GET", "/v2/", nil, nil)
	close(out)
	if a := receive(t, res); a.StatusCode != 200 {
		t.Error("the running request was broken off:", a.StatusCode)
	}
	if err := c.s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNewRefusesARootThatIsNoPlace(t *testing.T) {
	for _, r := range []ref.Ref{{}, root.WithRepo("a").WithTag("x"), root.WithDigest(digest.Digest(sum("x")))} {
		if _, err := New(mem.New(), r); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%v: %v", r, err)
		}
	}
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(broken{}, root, WithStateDir(file)); err == nil {
		t.Error("uploads are kept in a file")
	}
}

func decode(t *testing.T, raw string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(raw), v); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
}
