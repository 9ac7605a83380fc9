package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
)

// logged reads the records of a JSON log.
func logged(t *testing.T, buf *bytes.Buffer) []map[string]any {
	t.Helper()
	var all []map[string]any
	for dec := json.NewDecoder(buf); ; {
		var m map[string]any
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
}

func TestAccessLog(t *testing.T) {
	var buf bytes.Buffer
	var asked int
	c := start(t, mem.New(), WithAuthenticator(passwords{&asked}), WithInspector(AccessLog(slog.New(slog.NewJSONHandler(&buf, nil)))))
	d := string(digest.FromString("hello"))
	manifest := `{"schemaVersion":2,"mediaType":"` + types.MediaTypeImageIndex + `","manifests":[]}`
	session := func() string {
		return ask(c.s, "POST", "/v2/a/blobs/uploads/", "192.0.2.1:1", basic("ann", "ann")).Header().Get("Location")
	}()
	name := session[strings.LastIndexByte(session, '/')+1:]
	logged(t, &buf)

	for _, tc := range []struct {
		method, target, body string
		header               header
		want                 map[string]any // "" is absent
	}{
		{"GET", "/v2/", "", nil, map[string]any{
			"level": "INFO", "method": "GET", "endpoint": "ping", "status": 401.0, "subject": "", "repository": "", "resource": "", "path": ""}},
		{"PUT", session + "?digest=" + d, "hello", header{"User-Agent": "test/1.0"}, map[string]any{
			"level": "INFO", "method": "PUT", "endpoint": "upload", "repository": "a", "resource": name[:8] + "…", "status": 201.0,
			"received": 5.0, "sent": 0.0, "digest": d, "subject": "ann", "remote": "192.0.2.1", "agent": "test/1.0", "error": "", "aborted": ""}},
		{"GET", "/v2/a/blobs/" + d, "", nil, map[string]any{
			"level": "INFO", "endpoint": "blob", "resource": d, "digest": "", "status": 200.0, "received": 0.0, "sent": 5.0}},
		{"GET", "/v2/a/manifests/v1", "", nil, map[string]any{
			"level": "INFO", "endpoint": "manifest", "resource": "v1", "digest": "", "status": 404.0}},
		{"PUT", "/v2/a/manifests/v2", manifest, header{"Content-Type": types.MediaTypeImageIndex}, map[string]any{
			"method": "PUT", "subject": "ann", "resource": "v2", "digest": string(digest.FromString(manifest)), "status": 201.0}},
		{"GET", "/v2/a/manifests/v2", "", nil, map[string]any{
			"resource": "v2", "digest": string(digest.FromString(manifest)), "status": 200.0}},
		{"PUT", "/v2/a/manifests/v1", "{", nil, map[string]any{"level": "WARN", "status": 400.0}},
		{"POST", "/v2/a/blobs/uploads/?mount=" + d + "&from=b", "", nil, map[string]any{"resource": d, "status": 201.0}},
		{"GET", "/v2/a/\x1b[2Jb", "", nil, map[string]any{"level": "INFO", "endpoint": "", "path": "/v2/a/?[2Jb", "status": 404.0}},
		{"GET", "/v2/", "", header{"User-Agent": "a\x1b[2J\u202eb" + strings.Repeat("c", 1000), "X-Request-Id": "mine-1"}, map[string]any{
			"id": "mine-1", "agent": "a?[2J?b" + strings.Repeat("c", 248-1) + "…"}},
		{"GET", "/v2/", "", header{"X-Request-Id": "a b"}, map[string]any{"status": 401.0}},
	} {
		r := httptest.NewRequest(tc.method, "/", strings.NewReader(tc.body))
		r.URL.Path, r.URL.RawQuery, _ = strings.Cut(tc.target, "?")
		if tc.want["status"] != 401.0 {
			r.SetBasicAuth("ann", "ann")
		}
		for k, v := range tc.header {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		c.s.ServeHTTP(w, r)
		raw := buf.String()
		for _, secret := range []string{r.Header.Get("Authorization"), "Basic", name, "hello", "from=b", "password"} {
			if secret != "" && strings.Contains(raw, secret) {
				t.Errorf("%s %s: %q is in the log: %s", tc.method, tc.target, secret, raw)
			}
		}
		all := logged(t, &buf)
		if len(all) != 1 {
			t.Fatalf("%s %s: %d records", tc.method, tc.target, len(all))
		}
		for k, want := range tc.want {
			got := all[0][k]
			if want == "" && got == nil {
				continue
			}
			if got != want {
				t.Errorf("%s %s: %s is %v, want %v: %v", tc.method, tc.target, k, got, want, all[0])
			}
		}
		if id := w.Header().Get("X-Request-Id"); id != all[0]["id"] || !validRequestID(id) {
			t.Errorf("%s %s: the answer says %q, the log %v", tc.method, tc.target, id, all[0]["id"])
		}
	}
}

func TestLevels(t *testing.T) {
	for _, tc := range []struct {
		e    Event
		want slog.Level
	}{
		{Event{Status: 200}, slog.LevelInfo},
		{Event{Status: 304}, slog.LevelInfo},
		{Event{Status: 200, Aborted: true}, slog.LevelWarn},
		{Event{}, slog.LevelInfo},
		{Event{Status: 401}, slog.LevelInfo},
		{Event{Status: 403}, slog.LevelWarn},
		{Event{Status: 404}, slog.LevelInfo},
		{Event{Status: 416}, slog.LevelWarn},
		{Event{Status: 429}, slog.LevelWarn},
		{Event{Status: 500}, slog.LevelError},
		{Event{Status: 503}, slog.LevelError},
	} {
		if got := levelOf(&tc.e); got != tc.want {
			t.Errorf("%d, aborted %v: %v, want %v", tc.e.Status, tc.e.Aborted, got, tc.want)
		}
	}
}

// TestFailuresAreLoggedOnce: by the access log where it goes to the same logger, and by the server where it does not.
func TestFailuresAreLoggedOnce(t *testing.T) {
	var buf, other bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&buf, nil))
	for name, i := range map[string]struct {
		inspector Inspector
		want      string
	}{
		"access log": {AccessLog(log), "request"},
		"another":    {AccessLog(slog.New(slog.NewJSONHandler(&other, nil))), "request failed"},
		"inspector":  {&events{}, "request failed"},
	} {
		broken := &door{allow: func(Context) error { return errors.New("the database is gone") }}
		c := start(t, mem.New(), append(broken.options(), WithInspector(i.inspector), WithLogger(log))...)
		if w := ask(c.s, "GET", "/v2/a/tags/list", "192.0.2.1:1", basic("ann", password("ann"))); w.Code != http.StatusInternalServerError {
			t.Fatalf("%s: status %d", name, w.Code)
		}
		all := logged(t, &buf)
		if len(all) != 1 || all[0]["msg"] != i.want || all[0]["level"] != "ERROR" || !strings.Contains(fmt.Sprint(all[0]["error"]), "database") {
			t.Errorf("%s: the log has %v", name, all)
		}
	}
}

// TestAccessLogCosts holds that a log that is off costs no memory.
func TestAccessLogCosts(t *testing.T) {
	log := AccessLog(slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError})))
	e := &Event{
		Context: Context{Method: "GET", Endpoint: EndpointBlob, Repository: "a", Remote: netip.MustParseAddr("192.0.2.1")},
		ID:      "x", Status: 200, Duration: time.Second, Request: httptest.NewRequest("GET", "/v2/", nil), Header: http.Header{},
	}
	if n := testing.AllocsPerRun(100, func() { log.Inspect(e) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRequestID(t *testing.T) {
	for id, want := range map[string]bool{
		"": false, "a": true, "01HZ-x_y.z": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false,
		"a b": false, "a\nb": false, "a\x00": false, `a"`: false, "a=b": false, "ä": false, "<script>": false,
	} {
		r := &http.Request{Header: http.Header{"X-Request-Id": {id}}}
		got := requestID(r)
		if (got == id) != want || !validRequestID(got) {
			t.Errorf("a request that says it is %q is called %q", id, got)
		}
	}
	a, b := requestID(&http.Request{}), requestID(&http.Request{})
	if a == b {
		t.Error("two requests have one name")
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain":     "plain",
		"a b":       "a b",
		"äö 世":      "äö 世",
		"a\nb\r\tc": "a?b??c",
		"\x1b[31m":  "?[31m",
		"\u009b31m": "?31m",
		"a\u202eb":  "a?b",
		"a\u2028b":  "a?b",
		"\xff\xfe":  "??",
		"1234567890123456789012345678901234567890é": "1234567890123456789012345678901234567890…",
	} {
		if got := clean(in, 40); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
