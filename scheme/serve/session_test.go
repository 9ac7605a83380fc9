package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/ref"
)

// plain is a place that keeps no uploads: it has the methods of scheme.API and nothing else.
type plain struct{ scheme.API }

// everyPlace calls test with a server over each kind of place: one with ingests in memory, one on disk, and one without.
func everyPlace(t *testing.T, test func(t *testing.T, c *client), opts ...Option) {
	t.Run("mem", func(t *testing.T) { test(t, start(t, mem.New(), opts...)) })
	t.Run("spool", func(t *testing.T) { test(t, start(t, plain{mem.New()}, opts...)) })
	t.Run("ocidir", func(t *testing.T) {
		o := ocidir.New()
		t.Cleanup(func() { o.Close() })
		test(t, startAt(t, o, ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}, opts...))
	})
}

func TestEveryWayToUploadOverEveryPlace(t *testing.T) {
	everyPlace(t, func(t *testing.T, c *client) {
		loc := c.session("a/b")
		c.want(202, "", "PATCH", loc, "0123", nil)              // the first location
		c.want(202, "", "PATCH", loc, "45", nil)                // again: it is understood by who gave it
		c.want(202, "", "PATCH", at(loc, 6), "67", chunk(6, 7)) // the newest
		c.want(202, "", "PATCH", at(loc, 8), nil, chunk(8, 7))  // nothing, as ociclient says it
		c.want(202, "", "PATCH", at(loc, 6), "zz", nil)         // what the client was not told of is sent again
		c.want(202, "", "PATCH", at(loc, 6), "67", nil)         //
		loc = c.want(204, "", "GET", loc, nil, nil).Header.Get("Location")
		c.want(201, "", "PUT", loc+"?digest="+sum("0123456789"), "89", nil)
		c.stored("a/b", "0123456789")
		for _, alg := range []digest.Algorithm{digest.SHA512, digest.SHA384} { // with and without a hint
			for _, q := range []string{"", "?digest-algorithm=" + string(alg)} {
				content := string(alg) + q
				loc := c.want(202, "", "POST", "/v2/a/blobs/uploads/"+q, nil, nil).Header.Get("Location")
				loc = c.want(202, "", "PATCH", loc, content, nil).Header.Get("Location")
				d := string(alg.FromString(content))
				c.want(400, "DIGEST_INVALID", "PUT", loc+"?digest="+string(alg.FromString("x")), nil, nil)
				c.want(201, "", "PUT", loc+"?digest="+d, nil, nil).has(t, header{"Docker-Content-Digest": d})
				c.want(200, "", "GET", "/v2/a/blobs/"+d, nil, nil)
			}
		}
		loc = c.want(202, "", "PATCH", c.session("a"), "again", nil).Header.Get("Location") // the place has it by now
		c.push("a", "again")
		c.want(201, "", "PUT", loc+"?digest="+sum("again"), nil, nil)
		c.want(201, "", "PUT", c.session("a")+"?digest="+sum(""), nil, nil)
		if n := c.spooled(); n != 0 {
			t.Errorf("%d uploads are left", n)
		}
	})
}

// A PUT that fails leaves the session as it was, whatever it brought.
func TestAFailedPutChangesNothing(t *testing.T) {
	everyPlace(t, func(t *testing.T, c *client) {
		loc := c.want(202, "", "PATCH", c.session("a"), "0123", nil).Header.Get("Location")
		wrong, right := loc+"?digest="+sum("x"), loc+"?digest="+sum("012345")
		for range 2 {
			c.want(400, "DIGEST_INVALID", "PUT", wrong, nil, nil)
			c.want(400, "DIGEST_INVALID", "PUT", wrong, "45", nil)
			c.want(400, "DIGEST_INVALID", "PUT", wrong, strings.NewReader("45"), chunk(4, 5))
			c.want(416, "BLOB_UPLOAD_INVALID", "PUT", right, "45", chunk(5, 6)).has(t, header{"Location": loc, "Range": "0-3"})
			c.want(204, "", "GET", loc, nil, nil).has(t, header{"Location": loc, "Range": "0-3"})
		}
		c.want(201, "", "PUT", right, "45", nil)
		c.stored("a", "012345")
	})
}

// The answer to a PUT may be lost: who sends it again is told the same, for a while, and as long as it is true.
func TestAPutIsAnsweredAgain(t *testing.T) {
	everyPlace(t, func(t *testing.T, c *client) {
		loc := c.session("a")
		whole := loc + "?digest=" + sum("01")
		c.want(202, "", "PATCH", loc, "0", nil)
		for range 2 {
			c.want(201, "", "PUT", whole, "1", nil).has(t, header{"Location": "/v2/a/blobs/" + sum("01"), "Docker-Content-Digest": sum("01")})
		}
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "PUT", loc+"?digest="+sum("x"), "x", nil)
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "PUT", strings.Replace(whole, "/v2/a/", "/v2/b/", 1), "1", nil)
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", loc, nil, nil)
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "PATCH", loc, "1", nil)
		c.want(202, "", "DELETE", "/v2/a/blobs/"+sum("01"), nil, nil)
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "PUT", whole, "1", nil)
		other := c.session("a")
		c.want(201, "", "PUT", other+"?digest="+sum("2"), "2", nil) // in one piece
		c.want(201, "", "PUT", other+"?digest="+sum("2"), "2", nil)
	})
}

func TestFinishedUploadsAreForgottenInTime(t *testing.T) {
	tab := newSessions(10, 0, time.Hour, nil)
	defer tab.close()
	now := time.Now()
	tab.now = func() time.Time { return now }
	const d = digest.Digest("sha256:x")
	for i := range 3 * maxPast {
		tab.end(&session{key: fmt.Sprint(i)}, d)
	}
	if len(tab.past.all) != maxPast || len(tab.past.keys) != maxPast {
		t.Errorf("%d finished uploads are remembered in %d places", len(tab.past.all), len(tab.past.keys))
	}
	last := fmt.Sprint(3*maxPast - 1)
	if !tab.became(last, d) || tab.became(last, "sha256:y") || tab.became("0", d) {
		t.Error("the wrong ones are remembered")
	}
	if now = now.Add(pastAge); tab.became(last, d) {
		t.Error("a finished upload is remembered for ever")
	}
}

// by is an Authenticator that believes what X-Subject says.
type by struct{}

func (by) Authenticate(r *http.Request) (Identity, error) {
	return Identity{Subject: r.Header.Get("X-Subject")}, nil
}
func (by) Challenge(Context) []Challenge { return nil }

// Others do not find a session, even if they know its name: neither in its repository nor in another, neither the process
// that began it nor a later one.
func TestASessionBelongsToWhoBeganIt(t *testing.T) {
	everyPlace(t, func(t *testing.T, c *client) {
		alice, bob := header{"X-Subject": "alice"}, header{"X-Subject": "bob"}
		loc := c.want(202, "", "POST", "/v2/a/blobs/uploads/", nil, alice).Header.Get("Location")
		c.want(202, "", "PATCH", loc, "0", alice)
		for range 2 {
			for _, m := range []string{"GET", "PATCH", "PUT", "DELETE"} {
				c.want(404, "BLOB_UPLOAD_UNKNOWN", m, loc+"?digest="+sum("01"), nil, bob)
				c.want(404, "BLOB_UPLOAD_UNKNOWN", m, strings.Replace(loc, "/v2/a/", "/v2/b/", 1)+"?digest="+sum("01"), nil, alice)
			}
			c.s.sessions.mu.Lock()
			clear(c.s.sessions.open) // as in a later process
			c.s.sessions.mu.Unlock()
		}
		for _, in := range c.ingests() {
			id, _, _ := strings.Cut(loc[strings.LastIndexByte(loc, '/')+1:], ".")
			if s := fmt.Sprintf("%+v", in); strings.Contains(s, id) || !strings.HasPrefix(in.Key, keyPrefix) {
				t.Errorf("what is stored gives the session away: %s", s)
			}
		}
		c.want(201, "", "PUT", loc+"?digest="+sum("01"), "1", header{"X-Subject": "alice", "Content-Range": "1-1"})
	}, WithAuthenticator(by{}))
}

func TestSessionNames(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		if id := newID("a", "", time.Now()); len(id) < 26 || seen[id] {
			t.Fatalf("%q", id)
		} else {
			seen[id] = true
		}
	}
	for s, want := range map[string]struct {
		id string
		at int64
		ok bool
	}{
		"x": {"x", -1, true}, "x.0": {"x", 0, true}, "x.17": {"x", 17, true}, "x.": {ok: false}, "x.-1": {ok: false}, "x.017": {ok: false},
		"x.1.2": {ok: false}, "x.99999999999999999999": {ok: false}, "x.+1": {ok: false},
	} {
		id, at, ok := splitID(s)
		if ok != want.ok || ok && (id != want.id || at != want.at) {
			t.Errorf("%q: %q %d %v", s, id, at, ok)
		}
	}
	if id, at, ok := splitID(resumeID("ABC", 1<<40)); id != "ABC" || at != 1<<40 || !ok {
		t.Error(id, at, ok)
	}
	keys := map[string]bool{}
	for _, k := range [][3]string{{"i", "r", "s"}, {"j", "r", "s"}, {"i", "q", "s"}, {"i", "r", "t"}, {"i", "r", ""}, {"i", "rs", ""}} {
		keys[sessionKey(k[0], k[1], k[2])] = true
	}
	if len(keys) != 6 {
		t.Error("two sessions have one key")
	}
}

// A session without bytes is nowhere but in its name. That is understood by another process, if it is for this repository
// and subject, and for as long as a session lasts.
func TestASessionWithoutBytesIsOnlyAName(t *testing.T) {
	everyPlace(t, func(t *testing.T, c *client) {
		h := header{"X-Subject": "alice"}
		post := func() string {
			return c.want(202, "", "POST", "/v2/a/blobs/uploads/", nil, h).Header.Get("Location")
		}
		elsewhere := func() { // what another process knows
			c.s.sessions.mu.Lock()
			defer c.s.sessions.mu.Unlock()
			clear(c.s.sessions.open)
			clear(c.s.sessions.of)
		}
		locs := make([]string, 6)
		for i := range locs {
			locs[i] = post()
		}
		in, err := c.s.ingests(root.WithRepo("a"))
		if err != nil {
			t.Fatal(err)
		}
		if err := in.IngestList(t.Context(), in.ref, func(st blob.Ingest) error { return fmt.Errorf("an ingest %s", st.Key) }); err != nil {
			t.Error("a session that has nothing keeps", err)
		}
		elsewhere()
		c.want(204, "", "GET", locs[0], nil, h).has(t, header{"Range": "0-0"})
		next := c.want(202, "", "PATCH", locs[0], "01", h).Header.Get("Location")
		c.want(201, "", "PUT", next+"?digest="+sum("012"), "2", h)
		c.want(201, "", "PUT", locs[1]+"?digest="+sum("x"), "x", h)
		c.want(202, "", "PATCH", locs[2], "0", header{"X-Subject": "alice", "Content-Range": "0-0"})
		c.want(204, "", "DELETE", locs[3], nil, h)
		const unknown = "BLOB_UPLOAD_UNKNOWN"
		for _, over := range []string{locs[0], locs[1], locs[3]} {
			c.want(404, unknown, "PATCH", over, "x", h)
		}
		c.want(404, unknown, "PATCH", locs[4], "x", header{"X-Subject": "bob"})
		c.want(404, unknown, "PATCH", strings.Replace(locs[4], "/v2/a/", "/v2/b/", 1), "x", h)
		c.want(404, unknown, "PATCH", strings.TrimSuffix(locs[4], ".0")+".1", "x", h)
		c.want(404, unknown, "PATCH", strings.TrimSuffix(locs[4], ".0"), "x", h)
		c.want(404, unknown, "PATCH", strings.TrimSuffix(locs[4], "0.0")+"g.0", "x", h)
		c.s.sessions.now = func() time.Time { return time.Now().Add(c.s.sessionTTL + time.Second) }
		c.want(404, unknown, "PATCH", locs[5], "x", h)
		c.s.sessions.now = time.Now
		c.want(202, "", "PATCH", locs[5], "x", h)
	}, WithAuthenticator(by{}))
}

func TestASubjectCannotTakeAllSessions(t *testing.T) {
	c := start(t, mem.New(), WithMaxSessions(4), WithAuthenticator(by{}), WithAuthorizer(allow{}))
	open := func(status int, who string) string {
		a := c.want(status, map[int]string{429: "TOOMANYREQUESTS"}[status], "POST", "/v2/a/blobs/uploads/", nil, header{"X-Subject": who})
		if status == 429 {
			a.has(t, header{"Retry-After": "5"})
		}
		return a.Header.Get("Location")
	}
	first := open(202, "alice")
	open(202, "alice")
	open(429, "alice")
	open(202, "bob")
	open(202, "") // by address
	open(429, "carol")
	c.want(204, "", "DELETE", first, nil, header{"X-Subject": "alice"})
	open(202, "carol")
	for _, a := range [][2]string{{"2001:db8::1", "2001:db8::ffff:1"}, {"192.0.2.1", "::ffff:192.0.2.1"}} {
		x, y := owner(Context{Remote: netip.MustParseAddr(a[0])}), owner(Context{Remote: netip.MustParseAddr(a[1]).Unmap()})
		if x != y || x == owner(Context{Subject: x}) {
			t.Errorf("%v count as %q and %q", a, x, y)
		}
	}
	if owner(Context{Remote: netip.MustParseAddr("192.0.2.1")}) == owner(Context{Remote: netip.MustParseAddr("192.0.2.2")}) {
		t.Error("two addresses count as one")
	}
}

// allow lets everybody do everything.
type allow struct{}

func (allow) Authorize(context.Context, Context) error { return nil }

// A session of an earlier process that comes back counts, and may be cancelled although there is no room for it.
func TestASessionThatComesBackCounts(t *testing.T) {
	c := start(t, mem.New(), WithMaxSessions(1))
	forget := func() {
		c.s.sessions.mu.Lock()
		defer c.s.sessions.mu.Unlock()
		clear(c.s.sessions.open)
		clear(c.s.sessions.of)
	}
	old := c.session("a")
	forget()
	gone := c.session("a")
	forget()
	second := c.session("a")
	c.want(429, "TOOMANYREQUESTS", "PATCH", old, "x", nil)
	c.want(204, "", "DELETE", gone, nil, nil) // which is no reason to refuse
	c.want(204, "", "DELETE", second, nil, nil)
	c.want(202, "", "PATCH", old, "x", nil)
	c.want(429, "TOOMANYREQUESTS", "POST", "/v2/a/blobs/uploads/", nil, nil)
	c.want(204, "", "DELETE", old, nil, nil)
}

func TestBlobsThatAreTooLargeAreRefused(t *testing.T) {
	everyPlace(t, func(t *testing.T, c *client) {
		const code = "SIZE_INVALID"
		for _, body := range []any{"0123456789", strings.NewReader("0123456789"), strings.NewReader(strings.Repeat("x", 100_000))} {
			c.want(413, code, "POST", "/v2/a/blobs/uploads/?digest="+sum("0123456789"), body, nil)
		}
		loc := c.session("a")
		c.want(413, code, "PUT", loc+"?digest="+sum("0123456789"), strings.NewReader("0123456789"), nil)
		c.want(413, code, "PATCH", loc, "0123456789", chunk(0, 9))
		c.want(413, code, "PATCH", loc, strings.NewReader("0123456789"), nil)
		c.want(204, "", "GET", loc, nil, nil).has(t, header{"Range": "0-0"})
		loc = c.want(202, "", "PATCH", loc, "012345", nil).Header.Get("Location")
		for _, body := range []func() any{func() any { return "678" }, func() any { return strings.NewReader("678") }} {
			c.want(413, code, "PATCH", loc, body(), nil)
			c.want(413, code, "PATCH", loc, body(), chunk(6, 8))
			c.want(413, code, "PUT", loc+"?digest="+sum("012345678"), body(), nil)
			c.want(204, "", "GET", loc, nil, nil).has(t, header{"Range": "0-5"})
		}
		c.want(201, "", "PUT", loc+"?digest="+sum("01234567"), strings.NewReader("67"), nil) // just fits
		c.push("a", "abcdefgh")
	}, WithMaxBlob(8))
}

func TestTheLeastLengthOfAChunk(t *testing.T) {
	c := start(t, mem.New(), WithMinChunk(4))
	a := c.want(202, "", "POST", "/v2/a/blobs/uploads/", nil, nil)
	a.has(t, header{"OCI-Chunk-Min-Length": "4"})
	loc := a.Header.Get("Location")
	c.want(202, "", "POST", "/v2/a/blobs/uploads/?mount="+sum("x")+"&from=b", nil, nil).has(t, header{"OCI-Chunk-Min-Length": "4"})
	loc = c.want(202, "", "PATCH", loc, "0123", chunk(0, 3)).Header.Get("Location")
	loc = c.want(202, "", "PATCH", loc, "45", chunk(4, 5)).Header.Get("Location") // it may be the last one
	c.want(400, "BLOB_UPLOAD_INVALID", "PATCH", loc, "6789", chunk(6, 9))
	c.want(400, "BLOB_UPLOAD_INVALID", "PATCH", loc, "6", nil)
	c.want(204, "", "GET", loc, nil, nil).has(t, header{"Range": "0-5"})
	c.want(201, "", "PUT", loc+"?digest="+sum("0123456"), "6", nil)
	start(t, mem.New()).want(202, "", "POST", "/v2/a/blobs/uploads/", nil, nil).has(t, header{"OCI-Chunk-Min-Length": ""})
}

// What a client sends for a chunk that broke off is no chunk of its own, however short it is.
func TestARestOfAChunkIsNoChunk(t *testing.T) {
	c := start(t, mem.New(), WithMinChunk(4))
	loc := c.session("a")
	conn := c.raw("PATCH " + loc + " HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n012")
	c.received(3)
	conn.Close()
	c.idle()
	c.want(202, "", "PATCH", at(loc, 3), "3", chunk(3, 3))
	c.want(202, "", "PATCH", at(loc, 4), "4567", chunk(4, 7))
}

// Idle sessions cost neither descriptors nor goroutines, over any place.
func TestManyIdleSessions(t *testing.T) {
	const n = 1100
	everyPlace(t, func(t *testing.T, c *client) {
		send := func(method, target, body string) *http.Response { // without the cost of a connection
			r, err := http.NewRequest(method, target, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.RemoteAddr = "192.0.2.1:1"
			w := &recorder{header: http.Header{}}
			c.s.ServeHTTP(w, r)
			return &http.Response{StatusCode: w.status, Header: w.header}
		}
		var all []string
		for i := range n {
			res := send("POST", fmt.Sprintf("/v2/r%d/blobs/uploads/", i%3), "")
			if res.StatusCode != 202 {
				t.Fatal(i, res.StatusCode)
			}
			all = append(all, res.Header.Get("Location"))
		}
		for _, loc := range all[:50] {
			if res := send("PATCH", loc, "x"); res.StatusCode != 202 {
				t.Fatal(res.StatusCode)
			}
		}
		if fds, err := os.ReadDir("/proc/self/fd"); err == nil && len(fds) >= 50 {
			t.Errorf("%d descriptors for %d idle sessions", len(fds), n)
		}
		if k := runtime.NumGoroutine(); k > 50 {
			t.Errorf("%d goroutines for %d idle sessions", k, n)
		}
		for i, loc := range all {
			if res := send("DELETE", loc, ""); res.StatusCode != 204 {
				t.Fatal(i, res.StatusCode)
			}
		}
		if k := c.spooled(); k != 0 {
			t.Errorf("%d sessions are left", k)
		}
	}, WithMaxSessions(n), WithMaxSessionsEach(n))
}

// recorder is a ResponseWriter without a connection.
type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }

// openIn returns the locations of new sessions with a byte each, and what tells how many of them are still there.
func openIn(t *testing.T, s *Server, n int) (locations []string, there func() int) {
	t.Helper()
	for range n {
		w := request(s, "PATCH", openSession(t, s), strings.NewReader("0"))
		if w.Code != 202 {
			t.Fatal(w.Code, w.Body)
		}
		locations = append(locations, w.Header().Get("Location"))
	}
	return locations, func() (n int) {
		for _, loc := range locations {
			id, _, _ := splitID(path.Base(loc))
			in, err := s.ingests(root.WithRepo("a"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := in.IngestStat(t.Context(), in.ref, sessionKey(id, "a", "")); err == nil {
				n++
			}
		}
		return n
	}
}

// request sends a request to s without a connection.
func request(s *Server, method, target string, body io.Reader) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, target, body))
	return w
}

// Sessions end when nobody came back to them in the time that they have, and not before.
func TestSessionsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(mem.New(), root, WithSessionTTL(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		all, there := openIn(t, s, 3)
		body, sender := io.Pipe()
		busy := make(chan int)
		go func() { busy <- request(s, "PATCH", all[2], body).Code }()
		for range 4 {
			time.Sleep(40 * time.Minute)
			if w := request(s, "GET", all[1], nil); w.Code != 204 {
				t.Fatalf("a session that is looked at expires: %d", w.Code)
			}
		}
		if n := there(); n != 2 {
			t.Errorf("%d of 3 sessions are there, one is idle", n)
		}
		if w := request(s, "PATCH", all[0], strings.NewReader("x")); w.Code != 404 {
			t.Error("an expired session is answered with", w.Code)
		}
		if _, err := io.WriteString(sender, "x"); err != nil {
			t.Fatal(err)
		}
		sender.Close()
		if code := <-busy; code != 202 {
			t.Error("a session that is held expires:", code)
		}
		time.Sleep(2 * time.Hour)
		if n := there(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
		s.sessions.mu.Lock()
		if len(s.sessions.open)+len(s.sessions.of) != 0 || s.sessions.timer != nil {
			t.Errorf("of no session is left: %v %v %v", s.sessions.open, s.sessions.of, s.sessions.timer)
		}
		s.sessions.mu.Unlock()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What earlier processes left ends, too: in repositories that exist and in others, and only what was a session.
func TestLeftoversOfEarlierProcessesExpire(t *testing.T) {
	for name, keeps := range map[string]bool{"ingests of the place": true, "repositories only": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := mem.New()
				var api scheme.API = m
				if !keeps {
					api = listed{m, m, m, m}
				}
				d := types.Descriptor{Digest: digest.FromString("x"), Size: 1}
				if _, err := m.BlobPut(t.Context(), root.WithRepo("a"), d, strings.NewReader("x")); err != nil {
					t.Fatal(err)
				}
				first, err := New(api, root, WithSessionTTL(time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				_, old := openIn(t, first, 2)
				u, err := m.Ingest(t.Context(), root.WithRepo("a"), "somebody else's")
				if err == nil {
					err = u.Close()
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := first.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				time.Sleep(50 * time.Minute)
				second, err := New(api, root, WithSessionTTL(time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Minute)
				if n := old(); n != 2 {
					t.Errorf("%d of 2 are there, before their time", n)
				}
				time.Sleep(time.Hour)
				if n := old(); n != 0 {
					t.Errorf("%d of 2 are left", n)
				}
				if _, err := m.IngestStat(t.Context(), root.WithRepo("a"), "somebody else's"); err != nil {
					t.Error("another program's ingest is gone, too:", err)
				}
				if err := second.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// listed has ingests and repositories, but cannot find ingests.
type listed struct {
	scheme.API
	scheme.Ingester
	scheme.IngestManager
	scheme.RepoLister
}

// A session that another process still writes to is not expired by one that has not heard of it for long.
func TestAnotherProcessKeepsASessionAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New()
		var servers [2]*Server
		for i := range servers {
			s, err := New(m.Share(), root, WithSessionTTL(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			servers[i] = s
		}
		all, there := openIn(t, servers[0], 1)
		loc := all[0]
		for range 10 {
			time.Sleep(30 * time.Minute)
			w := request(servers[1], "PATCH", loc, strings.NewReader("x"))
			if loc = w.Header().Get("Location"); w.Code != 202 {
				t.Fatal(w.Code, w.Body)
			}
		}
		if w := request(servers[0], "PUT", loc+"?digest="+sum("0"+strings.Repeat("x", 10)), nil); w.Code != 201 {
			t.Error(w.Code, w.Body)
		}
		if n := there(); n != 0 {
			t.Error("a session is left")
		}
		for _, s := range servers {
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

// Shutdown waits for requests; when it must not wait any longer it breaks off uploads, and keeps what they have received.
func TestShutdownBreaksOffUploads(t *testing.T) {
	everyPlace(t, func(t *testing.T, c *client) {
		loc := c.session("a")
		conn := c.raw("PATCH " + loc + " HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
		defer conn.Close()
		c.received(3)
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.s.Shutdown(over); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if _, temp := c.s.api.(plain); res.StatusCode != 503 && !temp {
			t.Error("an upload that the server breaks off is answered with", res.StatusCode)
		}
		if err := c.s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A place that is full says so, and the session goes on from what it was told of when there is room again.
func TestUploadsWhenThePlaceIsFull(t *testing.T) {
	c := start(t, mem.New(mem.WithLimit(10)))
	other := c.session("b")
	c.want(202, "", "PATCH", other, "xxxx", nil)
	loc := c.want(202, "", "PATCH", c.session("a"), "0123", nil).Header.Get("Location")
	for range 2 {
		c.want(507, "", "PATCH", loc, "4567", nil)
		c.want(507, "", "PATCH", loc, "4567", chunk(4, 7))
		c.want(507, "", "PUT", loc+"?digest="+sum("01234567"), "4567", nil)
	}
	c.want(204, "", "DELETE", other, nil, nil)
	c.want(201, "", "PUT", loc+"?digest="+sum("01234567"), "4567", chunk(4, 7))
	c.stored("a", "01234567")
}

// What POST announces is hashed from the first byte on, so that a PUT need not read everything again.
func TestTheAnnouncedAlgorithmHashesFromTheStart(t *testing.T) {
	everyPlace(t, func(t *testing.T, c *client) {
		loc := c.want(202, "", "POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", nil, nil).Header.Get("Location")
		c.want(202, "", "PATCH", loc, "x", nil)
		at := c.s.places[0].Root.WithRepo("a")
		in, err := c.s.ingests(at)
		if err != nil {
			t.Fatal(err)
		}
		u, err := in.Ingest(t.Context(), in.ref, c.ingests()[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		if got := u.Digest(); got != digest.SHA512.FromString("x") {
			t.Error("hashed is", got)
		}
	})
}

// A request that the client gave up on may arrive after those that came in its place. It does no harm that the client does
// not learn of.
func TestRequestsThatComeLate(t *testing.T) {
	everyPlace(t, func(t *testing.T, c *client) {
		loc := c.session("a")
		c.want(202, "", "PATCH", loc, "0123", nil)
		c.want(202, "", "PATCH", at(loc, 4), "45", nil)
		c.want(202, "", "PATCH", loc, "01", nil).has(t, header{"Range": "0-1"}) // the first one, again
		c.want(416, "", "PATCH", at(loc, 6), "67", nil).has(t, header{"Range": "0-1", "Location": at(loc, 2)})
		c.want(416, "", "PUT", at(loc, 6)+"?digest="+sum("012345"), nil, nil).has(t, header{"Range": "0-1"})
		c.want(201, "", "PUT", at(loc, 2)+"?digest="+sum("01234567"), "234567", nil)

		loc = c.session("a")
		c.want(202, "", "PATCH", loc, "abcd", nil)
		conn := c.raw("PATCH " + loc + " HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
		c.received(6)
		conn.Close()
		c.idle()
		c.want(201, "", "PUT", at(loc, 4)+"?digest="+sum("abcd"), nil, nil) // who knows of nothing else
		c.stored("a", "abcd")
	})
}
