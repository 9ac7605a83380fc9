package serve_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// The tests in conform*_test.go restate the official conformance programme of the distribution specification, and
// what it leaves out, as requests and answers on the wire. Those in attack*_test.go send what no client should. Neither
// knows how the server is made: they hold for any API, and run over each of these.
var places = map[string]func(t *testing.T, opts ...serve.Option) *wire{
	"mem":    overMem,
	"ocidir": overDir,
	"reg":    overReg,
}

// each runs fn over every place.
func each(t *testing.T, fn func(t *testing.T, w *wire), opts ...serve.Option) {
	for _, name := range []string{"mem", "ocidir", "reg"} {
		t.Run(name, func(t *testing.T) { fn(t, places[name](t, opts...)) })
	}
}

func overMem(t *testing.T, opts ...serve.Option) *wire {
	return serving(t, mem.New(), ref.MustParse("mem://hidden-root"), opts...)
}

func overDir(t *testing.T, opts ...serve.Option) *wire {
	t.Helper()
	store := ocidir.New(ocidir.WithDurability(ocidir.None)) // durability is ocidir's own test
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return serving(t, store, ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}, opts...)
}

// overReg is a server over the client of another one.
func overReg(t *testing.T, opts ...serve.Option) *wire {
	t.Helper()
	back := overMem(t, opts...)
	client := reg.New(reg.WithHost(back.addr, reg.Host{TLS: reg.TLSDisabled}))
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	w := serving(t, client, ref.Ref{Scheme: ref.SchemeReg, Root: back.addr}, opts...)
	w.secrets, w.proxied = append(w.secrets, back.secrets...), true
	return w
}

// serving starts a server that ends with the test.
func serving(t *testing.T, api scheme.API, root ref.Ref, opts ...serve.Option) *wire {
	t.Helper()
	s, err := serve.New(api, root, opts...)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s)
	t.Cleanup(func() {
		web.Close()
		if err := s.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return &wire{t: t, addr: strings.TrimPrefix(web.URL, "http://"), root: root.Root, secrets: []string{root.Root}}
}

// wire sends requests byte for byte as they are written down, each over a connection of its own, and holds every
// answer to what all answers must have.
type wire struct {
	t       *testing.T
	addr    string
	root    string
	secrets []string // what no answer may contain
	proxied bool     // the place is a registry
}

// on is w for a test below that of w.
func (w *wire) on(t *testing.T) *wire {
	c := *w
	c.t = t
	return &c
}

// reply is an answer that was read to its end.
type reply struct {
	asked string
	res   *http.Response
	body  string
}

// stream is a body that is sent in the chunked coding.
type stream string

// ask sends one request. body is nil (without a Content-Length), a string (with one), or a stream.
func (w *wire) ask(method, target string, body any, h ...string) reply {
	w.t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: registry.example\r\nConnection: close\r\n", method, target)
	for _, line := range h {
		b.WriteString(line + "\r\n")
	}
	switch body := body.(type) {
	case nil:
		b.WriteString("\r\n")
	case string:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	case stream:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		if len(body) > 0 {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(body), body)
		}
		b.WriteString("0\r\n\r\n")
	default:
		w.t.Fatalf("a body cannot be a %T", body)
	}
	return w.raw(method, b.Bytes())
}

// raw sends bytes, reads the answer to a request of that method, and holds it to what all answers have.
func (w *wire) raw(method string, request []byte) reply {
	w.t.Helper()
	a := w.exchange(method, request)
	w.check(method, a)
	return a
}

// exchange is raw for answers that are not held to anything.
func (w *wire) exchange(method string, request []byte) reply {
	w.t.Helper()
	first, _, _ := strings.Cut(string(request), "\r\n")
	a := reply{asked: fmt.Sprintf("%.120q", first)}
	c, err := (&net.Dialer{}).DialContext(w.t.Context(), "tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		w.t.Fatal(err)
	}
	sent := make(chan struct{}) // a server may answer, and even close, before it has read everything
	go func() {
		defer close(sent)
		_, _ = c.Write(request)
	}()
	defer func() { <-sent }()
	defer c.Close()
	br := bufio.NewReader(c)
	a.res, err = http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("%s: %v", a.asked, err)
	}
	raw, err := io.ReadAll(a.res.Body)
	if err != nil {
		w.t.Fatalf("%s: %v", a.asked, err)
	}
	a.body = string(raw)
	if method == http.MethodHead || a.res.StatusCode == http.StatusNoContent || a.res.StatusCode == http.StatusNotModified {
		if n := br.Buffered(); n > 0 {
			w.t.Errorf("%s: %d bytes of body after %s", a.asked, n, a.res.Status)
		}
	}
	return a
}

// codes are those that the specification has for 4xx answers ("Error Codes").
var codes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
	"MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED",
	"UNSUPPORTED", "TOOMANYREQUESTS",
}

// check holds an answer to what all have. Those of net/http itself, to what is no HTTP, are plain text.
func (w *wire) check(method string, a reply) {
	w.t.Helper()
	h, status := a.res.Header, a.res.StatusCode
	if status >= 500 {
		w.t.Errorf("%s is answered with %d: %.300s", a.asked, status, a.body)
	}
	for _, s := range w.secrets {
		if strings.Contains(a.body, s) || strings.Contains(fmt.Sprint(h), s) {
			w.t.Errorf("%s: the answer tells of %s: %v %s", a.asked, s, h, a.body)
		}
	}
	if h.Get("Docker-Distribution-Api-Version") == "" && slices.Contains([]int{400, 417, 431}, status) {
		return
	}
	if v := h["Docker-Distribution-Api-Version"]; !slices.Equal(v, []string{"registry/2.0"}) {
		w.t.Errorf("%s: API version %q", a.asked, v)
	}
	if len(a.res.TransferEncoding) > 0 {
		w.t.Errorf("%s: sent in the coding %v", a.asked, a.res.TransferEncoding)
	}
	length := h["Content-Length"]
	switch {
	case status == http.StatusNoContent || status == http.StatusNotModified:
		if len(length) > 0 {
			w.t.Errorf("%s: Content-Length %v with %d", a.asked, length, status)
		}
	case len(length) != 1 || method != http.MethodHead && length[0] != strconv.Itoa(len(a.body)):
		w.t.Errorf("%s: Content-Length %v of %d bytes", a.asked, length, len(a.body))
	}
	if l := h.Get("Location"); l != "" && !strings.HasPrefix(l, "/v2/") {
		w.t.Errorf("%s: Location %q is no path of this server", a.asked, l)
	}
	if status >= 400 {
		w.checkError(method, a)
	}
}

// checkError holds a refusal to the specification's form.
func (w *wire) checkError(method string, a reply) {
	w.t.Helper()
	if ct := a.res.Header.Get("Content-Type"); ct != "application/json" {
		w.t.Errorf("%s: an error of type %q", a.asked, ct)
	}
	if method == http.MethodHead {
		return
	}
	code, err := a.code()
	if err != nil {
		w.t.Errorf("%s: %v", a.asked, err)
	} else if a.res.StatusCode < 500 && !slices.Contains(codes, code) {
		w.t.Errorf("%s: code %q is none of the specification's", a.asked, code)
	}
}

// code is that of the first error in the body.
func (a reply) code() (string, error) {
	var doc struct {
		Errors []struct {
			Code    string
			Message string
		}
	}
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || len(doc.Errors) == 0 {
		return "", fmt.Errorf("no error in %.200q: %v", a.body, err)
	}
	return doc.Errors[0].Code, nil
}

// want is ask for an answer of that status, "200", or of that status and error code, "404 BLOB_UNKNOWN".
func (w *wire) want(expect, method, target string, body any, h ...string) reply {
	w.t.Helper()
	a := w.ask(method, target, body, h...)
	w.is(expect, method, a)
	return a
}

func (w *wire) is(expect, method string, a reply) {
	w.t.Helper()
	status, code, _ := strings.Cut(expect, " ")
	if strconv.Itoa(a.res.StatusCode) != status {
		w.t.Fatalf("%s: status %d, want %s: %.300s", a.asked, a.res.StatusCode, expect, a.body)
	}
	if got, err := a.code(); code != "" && method != http.MethodHead && (err != nil || got != code) {
		w.t.Errorf("%s: code %q, want %q", a.asked, got, code)
	}
}

// has checks headers of an answer, given as "Name: value"; "Name:" must be absent.
func (w *wire) has(a reply, lines ...string) {
	w.t.Helper()
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		if got := strings.Join(a.res.Header.Values(name), "|"); got != strings.TrimSpace(value) {
			w.t.Errorf("%s: %s is %q, want %q", a.asked, name, got, strings.TrimSpace(value))
		}
	}
}

func (a reply) header(name string) string { return a.res.Header.Get(name) }

// session opens an upload and returns its location.
func (w *wire) session(repo string) string {
	w.t.Helper()
	return w.want("202", "POST", "/v2/"+repo+"/blobs/uploads/", "").header("Location")
}

// with adds a parameter to a location, which may have some already.
func with(location, param string) string {
	if strings.Contains(location, "?") {
		return location + "&" + param
	}
	return location + "?" + param
}

// push stores a blob.
func (w *wire) push(repo, content string) digest.Digest {
	w.t.Helper()
	d := digest.FromString(content)
	w.want("201", "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), content, "Content-Type: application/octet-stream")
	return d
}

// gone checks that HEAD and GET find nothing.
func (w *wire) gone(target string) {
	w.t.Helper()
	w.want("404", "HEAD", target, nil)
	w.want("404", "GET", target, nil)
}

// content is n bytes that look like nothing, the same for the same name.
func content(name string, n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(digest.FromString(name + strconv.Itoa(i)).Encoded())
	}
	return b.String()[:n]
}
