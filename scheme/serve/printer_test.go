package serve

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ocisync/ocisync/scheme/mem"
)

func TestPrinter(t *testing.T) {
	request := func(method, target string, h ...string) *http.Request {
		r := httptest.NewRequest(method, target, nil)
		r.Host = "localhost:5000"
		for i := 0; i < len(h); i += 2 {
			r.Header.Add(h[i], h[i+1])
		}
		return r
	}
	answer := func(h ...string) http.Header { return request("GET", "/", h...).Header }
	remote := netip.MustParseAddr("192.0.2.1")

	var b bytes.Buffer
	p := Printer(&b)
	for _, e := range []Event{
		{
			Context: Context{Method: "GET", Remote: remote, Endpoint: EndpointPing},
			ID:      "ID1", Status: 401, Sent: 87, Duration: 1234567 * time.Nanosecond, Err: errors.New("authentication required: no \x1b[1mcredentials"),
			Request: request("GET", "/v2/"),
			Header:  answer("WWW-Authenticate", `Basic realm="x"`, "Content-Length", "87"),
		},
		{
			Context: Context{Method: "POST", Remote: remote, Endpoint: EndpointUpload, Action: ActionPush, Repository: "a/b", Subject: "ann"},
			ID:      "ID2", Group: "push a blob", Status: 202, Duration: 2 * time.Millisecond,
			Request: request("POST", "/v2/a/b/blobs/uploads/?mount=sha256%3Aab&from=c&access_token=SECRET&%zz=SECRET&x",
				"Authorization", "Basic U0VDUkVU", "Cookie", "SECRET", "X-Registry-Auth", "SECRET", "Accept", "a", "Accept", "b", HeaderGroup, "push a blob"),
			Header: answer("Location", "/v2/a/b/blobs/uploads/U?_state=SECRET&digest=d", "Link", `</v2/_catalog?n=1&key=SECRET>; rel="next"`, "Set-Cookie", "SECRET"),
		},
		{
			Context: Context{Method: "PATCH", Remote: remote, Endpoint: EndpointUpload, Action: ActionPush, Repository: "a/b", Subject: "ann"},
			ID:      "ID3", Group: "push a blob", Received: 5, Duration: time.Second,
			Request: request("PATCH", "http://user:SECRET@evil.example/v2/a/b/blobs/uploads/U?x=SECRET", "Authorization", "SECRET"),
		},
		{
			Context: Context{Method: "GET", Endpoint: EndpointBlob, Action: ActionPull, Repository: "a"},
			ID:      "ID4", Group: "pull", Status: 200, Sent: 100, Aborted: true, Duration: time.Minute, Err: errors.New("cut"),
			Request: request("GET", "/v2/a/blobs/sha256:ab"),
			Header:  answer("Content-Length", "200"),
		},
		{
			Context: Context{Method: "GET", Remote: remote},
			ID:      "ID5", Status: 404, Request: request("GET", "/x"),
		},
	} {
		p.Inspect(&e)
	}
	const want = `GET /v2/ HTTP/1.1
    Host: localhost:5000
  from 192.0.2.1; 0 bytes received
401 Unauthorized
    Content-Length: 87
    Www-Authenticate: Basic realm="x"
  87 bytes sent in 1.23ms; id ID1
  error: authentication required: no ?[1mcredentials

=== push a blob

POST /v2/a/b/blobs/uploads/?mount=sha256%3Aab&from=c&access_token=(hidden)&%zz=(hidden)&x HTTP/1.1
    Host: localhost:5000
    Accept: a
    Accept: b
    Authorization: Basic (hidden)
    Cookie: (hidden)
    X-Oci-Conformance-Test: push a blob
    X-Registry-Auth: (hidden)
  from 192.0.2.1, subject ann, push upload a/b; 0 bytes received
202 Accepted
    Link: </v2/_catalog?n=1&key=(hidden)>; rel="next"
    Location: /v2/a/b/blobs/uploads/U?_state=(hidden)&digest=d
    Set-Cookie: (hidden)
  0 bytes sent in 2ms; id ID2

PATCH /v2/a/b/blobs/uploads/U?x=(hidden) HTTP/1.1
    Host: localhost:5000
    Authorization: (hidden)
  from 192.0.2.1, subject ann, push upload a/b; 5 bytes received
(no answer)
  0 bytes sent in 1s; id ID3

=== pull

GET /v2/a/blobs/sha256:ab HTTP/1.1
    Host: localhost:5000
  from invalid IP, pull blob a; 0 bytes received
200 OK
    Content-Length: 200
  100 bytes sent in 1m0s, then cut; id ID4
  error: cut

=== (no group)

GET /x HTTP/1.1
    Host: localhost:5000
  from 192.0.2.1; 0 bytes received
404 Not Found
  0 bytes sent in 0s; id ID5

`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// writes keeps every write by itself.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(p))
	return len(p), nil
}

// TestPrinterOfManyRequests holds that requests at the same time are printed each by itself, below their group.
func TestPrinterOfManyRequests(t *testing.T) {
	var w writes
	c := start(t, mem.New(), WithInspector(Printer(&w)))
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			ask(c.s, "GET", fmt.Sprintf("/v2/a/manifests/tag%d", i), "192.0.2.1:1", header{HeaderGroup: fmt.Sprint("group ", i%2)})
		})
	}
	wg.Wait()
	group, requests := "", 0
	for _, s := range w.all {
		if name, ok := strings.CutPrefix(s, "=== "); ok {
			group = strings.TrimSpace(name)
			continue
		}
		requests++
		if !strings.HasPrefix(s, "GET /v2/a/manifests/tag") || !strings.HasSuffix(s, "\n\n") || !strings.Contains(s, "\n404 Not Found\n") {
			t.Errorf("printed at once: %q", s)
		}
		if !strings.Contains(s, "X-Oci-Conformance-Test: "+group+"\n") {
			t.Errorf("below %q: %s", group, s)
		}
	}
	if requests != 50 {
		t.Errorf("%d requests", requests)
	}
}
