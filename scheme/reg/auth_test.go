package reg

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

// guarded is a registry that wants a token of its own token server, which is on the same host below /token.
type guarded struct {
	*script
	mu      sync.Mutex
	n       int
	granted map[string][]string // scopes by token
	life    string              // expires_in
	token   func(w http.ResponseWriter, r *http.Request) bool
}

func newGuarded(t *testing.T, serve func(w http.ResponseWriter, r *http.Request)) *guarded {
	g := &guarded{granted: map[string][]string{}, life: "300"}
	g.script = newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.URL.Path == "/token" {
			if g.token == nil || !g.token(w, r) {
				g.grant(w, r)
			}
			return
		}
		if !g.allows(r) {
			answer(w, 401, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`, "WWW-Authenticate",
				fmt.Sprintf(`Bearer realm="http://%s/token",service="svc",scope="%s"`, r.Host, needed(r)))
			return
		}
		serve(w, r)
	})
	return g
}

func needed(r *http.Request) string {
	repo := "repository:" + strings.Split(r.URL.Path, "/")[2]
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return repo + ":pull"
	case http.MethodDelete:
		return repo + ":delete"
	}
	return repo + ":pull,push"
}

func (g *guarded) allows(r *http.Request) bool {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	g.mu.Lock()
	defer g.mu.Unlock()
	have := scope{}
	for _, s := range g.granted[token] {
		have = have.union(parseScope(s))
	}
	_, ok := g.granted[token]
	return ok && have.contains(parseScope(needed(r)))
}

func (g *guarded) grant(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
	token := fmt.Sprintf("t%d", g.n)
	g.granted[token] = r.URL.Query()["scope"]
	if r.Method == http.MethodPost {
		g.granted[token] = strings.Fields(r.PostFormValue("scope"))
	}
	answer(w, 200, fmt.Sprintf(`{"token":%q,"expires_in":%s}`, token, g.life))
}

func (g *guarded) tokens() []string {
	return slices.DeleteFunc(g.requests(), func(s string) bool { return !strings.Contains(s, "/token") })
}

func serveBlob(data []byte) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			answer(w, 201, "")
		case http.MethodDelete:
			answer(w, 202, "")
		default:
			part(w, r, data)
		}
	}
}

func TestTokenIsFetchedOnceAndShared(t *testing.T) {
	data, d := content(10)
	g := newGuarded(t, serveBlob(data))
	api := newTest(t)
	path := "/v2/a/blobs/" + string(d.Digest)
	for range 2 {
		if _, err := api.BlobHead(t.Context(), g.ref("a"), d); err != nil {
			t.Fatal(err)
		}
	}
	token := "GET /token?scope=" + url.QueryEscape("repository:a:pull") + "&service=svc"
	g.want("HEAD "+path, token, "HEAD "+path, "HEAD "+path)

	// More needs another token; that one serves for less, too. A mount needs to read where it mounts from.
	if err := api.BlobMount(t.Context(), g.ref("b"), g.ref("a"), d); err != nil {
		t.Fatal(err)
	}
	for _, repo := range []string{"a", "b"} {
		if _, err := api.BlobHead(t.Context(), g.ref(repo), d); err != nil {
			t.Fatal(err)
		}
	}
	if err := api.BlobDelete(t.Context(), g.ref("a"), d); err != nil {
		t.Fatal(err)
	}
	want := []string{
		token,
		"GET /token?scope=" + url.QueryEscape("repository:a:pull,push") + "&scope=" + url.QueryEscape("repository:b:pull") + "&service=svc",
		"GET /token?scope=" + url.QueryEscape("repository:a:delete,pull") + "&service=svc",
	}
	if got := g.tokens(); !slices.Equal(got, want) {
		t.Errorf("token requests %q, want %q", got, want)
	}
}

func TestConcurrentRequestsFetchOneToken(t *testing.T) {
	data, d := content(10)
	g := newGuarded(t, serveBlob(data))
	api := newTest(t)
	g.token = func(_ http.ResponseWriter, r *http.Request) bool {
		waitForWaiters(r.Context(), t, api, g.host(), 16)
		return false
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := api.BlobHead(t.Context(), g.ref("a"), d); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(g.tokens()); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

// waitForWaiters returns when n requests wait for one token. That they never do when ctx ends fails the test.
func waitForWaiters(ctx context.Context, t *testing.T, api *Reg, host string, n int) {
	h, err := api.host(host)
	if err != nil {
		t.Error(err)
		return
	}
	for waiting := 0; waiting < n; {
		time.Sleep(time.Millisecond)
		if ctx.Err() != nil || t.Failed() {
			t.Errorf("%d requests wait for the token, want %d", waiting, n)
			return
		}
		h.auth.tokens.mu.Lock()
		for _, f := range h.auth.tokens.m {
			waiting = f.waiters
		}
		h.auth.tokens.mu.Unlock()
	}
}

// A token server that hangs holds nobody longer than their context (regclient holds everybody of the host).
func TestHangingTokenServer(t *testing.T) {
	data, d := content(10)
	asked := make(chan struct{}, 8)
	left := make(chan struct{}, 8)
	g := newGuarded(t, serveBlob(data))
	g.token = func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.RawQuery, "slow") {
			return false
		}
		asked <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
		return true
	}
	api := newTest(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := api.BlobHead(ctx, g.ref("slow"), d)
		done <- err
	}()
	receive(t, asked)
	if _, err := api.BlobHead(t.Context(), g.ref("fast"), d); err != nil { // another repository does not wait
		t.Error(err)
	}
	cancel()
	if err := receive(t, done); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	receive(t, left) // nobody wants the token any more: its request is given up
}

// Who leaves does not take the token from those who still wait for it.
func TestTokenOutlivesTheFirstWaiter(t *testing.T) {
	data, d := content(10)
	asked, grant := make(chan struct{}), make(chan struct{})
	g := newGuarded(t, serveBlob(data))
	g.token = func(_ http.ResponseWriter, r *http.Request) bool {
		close(asked)
		select {
		case <-grant:
		case <-r.Context().Done():
		}
		return false
	}
	api := newTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	first, second := make(chan error, 1), make(chan error, 1)
	head := func(ctx context.Context, done chan error) {
		_, err := api.BlobHead(ctx, g.ref("a"), d)
		done <- err
	}
	go head(ctx, first)
	receive(t, asked)
	go head(t.Context(), second)
	waitForWaiters(ctx, t, api, g.host(), 2)
	cancel()
	if err := receive(t, first); !errors.Is(err, context.Canceled) {
		t.Errorf("first: %v", err)
	}
	close(grant)
	if err := receive(t, second); err != nil {
		t.Errorf("second: %v", err)
	}
}

func TestTokenIsRenewedBeforeItExpires(t *testing.T) {
	data, d := content(10)
	g := newGuarded(t, serveBlob(data))
	g.life = "0.000001"
	api := newTest(t)
	for range 3 {
		if _, err := api.BlobHead(t.Context(), g.ref("a"), d); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(g.tokens()); n != 3 {
		t.Errorf("%d token requests, want 3", n)
	}
	if all := g.requests(); len(all) != 7 { // one challenge; afterwards nobody waits for a refusal
		t.Errorf("requests %q", all)
	}
}

// A token that was revoked is replaced once.
func TestRefusedTokenIsReplaced(t *testing.T) {
	data, d := content(10)
	g := newGuarded(t, serveBlob(data))
	api := newTest(t)
	for range 2 {
		if _, err := api.BlobHead(t.Context(), g.ref("a"), d); err != nil {
			t.Fatal(err)
		}
		g.mu.Lock()
		clear(g.granted)
		g.mu.Unlock()
	}
	if n := len(g.tokens()); n != 2 {
		t.Errorf("%d token requests, want 2", n)
	}
}

func TestWhoAsksForTokens(t *testing.T) {
	data, d := content(10)
	for name, tc := range map[string]struct {
		cred Credential
		want func(r *http.Request) bool
	}{
		"nobody": {Credential{}, func(r *http.Request) bool {
			return r.Method == http.MethodGet && r.Header.Get("Authorization") == "" && !r.URL.Query().Has("account")
		}},
		"user and password": {Credential{Username: "u", Password: "p"}, func(r *http.Request) bool {
			u, p, ok := r.BasicAuth()
			return r.Method == http.MethodGet && ok && u == "u" && p == "p" && r.URL.Query().Get("account") == "u"
		}},
		"identity token": {Credential{RefreshToken: "id"}, func(r *http.Request) bool {
			return r.Method == http.MethodPost && r.Header.Get("Authorization") == "" && r.PostFormValue("refresh_token") == "id" &&
				r.PostFormValue("grant_type") == "refresh_token" && r.PostFormValue("service") == "svc" && !strings.Contains(r.URL.RawQuery, "id")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuarded(t, serveBlob(data))
			g.token = func(_ http.ResponseWriter, r *http.Request) bool {
				if !tc.want(r) {
					t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
				}
				return false
			}
			api := newTest(t, WithCredentials(func(_ context.Context, host string) (Credential, error) {
				if host != g.host() {
					t.Errorf("credentials for %q", host)
				}
				return tc.cred, nil
			}))
			if _, err := api.BlobHead(t.Context(), g.ref("a"), d); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("access token", func(t *testing.T) {
		g := newGuarded(t, serveBlob(data))
		g.granted["given"] = []string{"repository:a:pull"}
		api := newTest(t, WithCredentials(func(context.Context, string) (Credential, error) { return Credential{AccessToken: "given"}, nil }))
		if _, err := api.BlobHead(t.Context(), g.ref("a"), d); err != nil {
			t.Fatal(err)
		}
		if n := len(g.tokens()); n != 0 {
			t.Errorf("%d token requests, want none", n)
		}
	})
}

func TestDenials(t *testing.T) {
	_, d := content(10)
	user := Host{Username: "u", Password: "p"}
	bearer := func(w http.ResponseWriter, r *http.Request) {
		answer(w, 401, "", "WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, r.Host))
	}
	basic := func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 401, "", "WWW-Authenticate", `Basic realm="r"`)
	}
	ok := func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, `{"token":"x"}`) }
	for name, tc := range map[string]struct {
		host     Host
		answer   func(w http.ResponseWriter, r *http.Request)
		token    func(w http.ResponseWriter, r *http.Request)
		want     error
		hint     bool
		requests int
	}{
		"basic, nobody":                      {Host{}, basic, nil, errs.ErrUnauthorized, true, 2},
		"basic, wrong password":              {user, basic, nil, errs.ErrUnauthorized, true, 2},
		"bearer, nobody":                     {Host{}, bearer, ok, errs.ErrUnauthorized, true, 3},
		"bearer, known but not allowed":      {user, bearer, ok, errs.ErrDenied, false, 3},
		"forbidden, nobody":                  {Host{}, func(w http.ResponseWriter, _ *http.Request) { answer(w, 403, "") }, nil, errs.ErrDenied, true, 1},
		"no challenge":                       {user, func(w http.ResponseWriter, _ *http.Request) { answer(w, 401, "") }, nil, errs.ErrUnauthorized, true, 1},
		"token server does not know us":      {user, bearer, func(w http.ResponseWriter, _ *http.Request) { answer(w, 401, "") }, errs.ErrUnauthorized, true, 2},
		"token server has other objections":  {user, bearer, func(w http.ResponseWriter, _ *http.Request) { answer(w, 400, "") }, errs.ErrUnauthorized, true, 2},
		"token server is down":               {user, bearer, func(w http.ResponseWriter, _ *http.Request) { answer(w, 503, "") }, errs.ErrUnavailable, false, -1},
		"token server answers in HTML":       {user, bearer, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, "<html>") }, errs.ErrUnavailable, false, 2},
		"token server answers without token": {user, bearer, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, "{}") }, errs.ErrUnavailable, false, 2},
		"token with a line break":            {user, bearer, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, `{"token":"a\r\nX-Y: z"}`) }, errs.ErrUnavailable, false, 2},
		"endless token": {user, bearer, func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 200, `{"token":"`+strings.Repeat("x", maxTokenBody)+`"}`)
		}, errs.ErrSizeInvalid, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
				if r.URL.Path == "/token" {
					tc.token(w, r)
					return
				}
				tc.answer(w, r)
			})
			_, err := newTest(t, WithHost(s.host(), tc.host)).BlobHead(t.Context(), s.ref("group/repo"), d)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if !strings.Contains(err.Error(), s.host()+"/group/repo") {
				t.Errorf("%q does not name host and repository", err)
			}
			if hint := errs.Hint(err); (hint != "") != tc.hint || tc.hint && !strings.Contains(hint, "docker login "+s.host()) {
				t.Errorf("hint %q", hint)
			}
			if n := len(s.requests()); tc.requests >= 0 && n > tc.requests {
				t.Errorf("%d requests, want %d: %q", n, tc.requests, s.requests())
			}
		})
	}
}

// What a registry names as its token server is checked before it is spoken to.
func TestRealm(t *testing.T) {
	api := newTest(t)
	for name, tc := range map[string]struct {
		host, realm string
		plain, ok   bool
	}{
		"HTTPS elsewhere":                        {"registry.example", "https://auth.example/token", false, true},
		"HTTP elsewhere":                         {"registry.example", "http://auth.example/token", false, false},
		"HTTP on this machine":                   {"registry.example", "http://127.0.0.1/token", false, false},
		"HTTPS on this machine":                  {"registry.example", "https://localhost/token", false, false},
		"another scheme":                         {"registry.example", "file:///etc/passwd", false, false},
		"HTTP, as the registry itself":           {"registry.example", "http://auth.example/token", true, true},
		"this machine, of a registry on it":      {"localhost:5000", "http://127.0.0.1:5001/token", false, true},
		"its own name with HTTP means HTTPS":     {"registry.example", "http://registry.example/token", false, true},
		"HTTP elsewhere, of a loopback registry": {"localhost:5000", "http://auth.example/token", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := api.host(tc.host)
			if err != nil {
				t.Fatal(err)
			}
			h.plain.Store(tc.plain)
			u, err := h.auth.realm(tc.realm)
			if (err == nil) != tc.ok {
				t.Fatalf("got %v", err)
			}
			if err != nil && !errors.Is(err, errs.ErrUnauthorized) {
				t.Errorf("got %v", err)
			}
			if tc.ok && !tc.plain && u.Scheme == "http" && !isLoopback(u.Hostname()) {
				t.Errorf("credentials would go to %s", u)
			}
		})
	}
}

// Neither a redirect to another host, nor one that comes back from there, carries credentials.
func TestRedirectsCarryNoCredentials(t *testing.T) {
	data, d := content(10)
	var home *script
	stranger := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a stranger was sent an Authorization")
		}
		answer(w, 302, "", "Location", home.URL+"/back")
	})
	home = newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.URL.Path == "/back" {
			if r.Header.Get("Authorization") != "" {
				t.Error("an Authorization came back from a stranger")
			}
			part(w, r, data)
			return
		}
		if _, _, ok := r.BasicAuth(); !ok {
			answer(w, 401, "", "WWW-Authenticate", "Basic")
			return
		}
		answer(w, 302, "", "Location", stranger.URL)
	})
	api := newTest(t, WithHost(home.host(), Host{Username: "u", Password: "p"}))
	if _, err := api.BlobHead(t.Context(), home.ref("a"), d); err != nil {
		t.Fatal(err)
	}
	if len(stranger.requests()) != 1 {
		t.Error("the redirect was not followed")
	}
}

func TestRedirects(t *testing.T) {
	_, d := content(10)
	t.Run("endless", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
			answer(w, 302, "", "Location", fmt.Sprintf("/%d", n))
		})
		_, err := newTest(t).BlobHead(t.Context(), s.ref("a"), d)
		if n := len(s.requests()); err == nil || n != maxRedirects+1 {
			t.Errorf("%d requests, %v", n, err)
		}
	})
	t.Run("a manifest put is sent again with its body", func(t *testing.T) {
		m := image(t, "x")
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				answer(w, 307, "", "Location", "/elsewhere")
				return
			}
			if r.ContentLength != int64(len(m.Raw())) {
				t.Errorf("%d bytes", r.ContentLength)
			}
			answer(w, 201, "")
		})
		if _, err := newTest(t).ManifestPut(t.Context(), s.ref("a"), m); err != nil {
			t.Error(err)
		}
		s.want("PUT /v2/a/manifests/latest", "PUT /elsewhere")
	})
	t.Run("but not to a stranger", func(t *testing.T) {
		stranger := newScript(t, func(http.ResponseWriter, *http.Request, int) {})
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) { answer(w, 307, "", "Location", stranger.URL) })
		if _, err := newTest(t).ManifestPut(t.Context(), s.ref("a"), image(t, "x")); !errors.Is(err, errs.ErrDenied) {
			t.Errorf("got %v", err)
		}
		stranger.want()
	})
}

// A user's own answer that fails is the user's to see.
func TestCredentialsThatFail(t *testing.T) {
	_, d := content(10)
	broken := errors.New("the helper crashed")
	s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, 401, "", "WWW-Authenticate", "Basic") })
	api := newTest(t, WithCredentials(func(context.Context, string) (Credential, error) { return Credential{}, broken }))
	if _, err := api.BlobHead(t.Context(), s.ref("a"), d); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	s.want("HEAD /v2/a/blobs/" + string(d.Digest))
}

// A helper may have a newer password than the one that was refused.
func TestNewerPassword(t *testing.T) {
	data, d := content(10)
	s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if _, p, _ := r.BasicAuth(); p != "new" {
			answer(w, 401, "", "WWW-Authenticate", "Basic")
			return
		}
		part(w, r, data)
	})
	api := newTest(t, WithCredentials(func(context.Context, string) (Credential, error) {
		return Credential{Username: "u", Password: "new"}, nil
	}))
	h, err := api.host(s.host())
	if err != nil {
		t.Fatal(err)
	}
	h.auth.method, h.auth.accounts["a"] = method{scheme: "basic"}, Credential{Username: "u", Password: "old"}
	if _, err := api.BlobHead(t.Context(), s.ref("a"), d); err != nil {
		t.Error(err)
	}
}
