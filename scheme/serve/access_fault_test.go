package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/tag"
)

// syncBuffer is a log that many requests write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// everything is a logger of every level.
func (s *syncBuffer) everything() *slog.Logger {
	return slog.New(slog.NewJSONHandler(s, &slog.HandlerOptions{Level: slog.Level(-100), AddSource: true}))
}

// untouched fails if a request had an effect on what fill("r") has made.
func (c *client) untouched() {
	c.t.Helper()
	for _, path := range []string{"manifests/t", "blobs/" + sum("x")} {
		c.root("GET", "/v2/r/"+path, nil, nil)
	}
	for _, path := range []string{"manifests/u", "blobs/" + sum("y")} {
		if a := c.do("GET", "/v2/r/"+path, nil, as("root")); a.StatusCode != 404 {
			c.t.Errorf("%s: status %d", path, a.StatusCode)
		}
	}
}

// TestWhatFailsInsideLetsNobodyIn, and tells nobody why.
func TestWhatFailsInsideLetsNobodyIn(t *testing.T) {
	inside := errors.New("ldap://10.1.2.3: bind as admin with hunter2")
	for _, c := range []struct {
		name   string
		err    error
		panics bool
		status int
		code   string
		retry  string
	}{
		{"failure", inside, false, 500, "UNKNOWN", ""},
		{"absent", fmt.Errorf("%w: %w", errs.ErrUnavailable, inside), false, 503, "UNAVAILABLE", ""},
		{"timeout", fmt.Errorf("%w: %w", context.DeadlineExceeded, inside), false, 503, "UNAVAILABLE", ""},
		{"busy", &errs.Error{Op: "login", RetryAfter: 7 * time.Second, Err: fmt.Errorf("%w: %w", errs.ErrRateLimited, inside)}, false, 429, "TOOMANYREQUESTS", "7"},
		{"panic", inside, true, 500, "UNKNOWN", ""},
	} {
		fail := func() error {
			if c.panics {
				panic(c.err)
			}
			return c.err
		}
		for _, where := range []string{"authenticator", "authorizer"} {
			t.Run(c.name+" of the "+where, func(t *testing.T) {
				d := &door{allow: rights()}
				d.login = func(r *http.Request) (Identity, error) {
					user, _, _ := r.BasicAuth()
					if user != "root" && where == "authenticator" {
						return Identity{Subject: "root"}, fail() // a subject beside an error is none
					}
					return Identity{Subject: user}, nil
				}
				cl := start(t, mem.New(), d.options()...)
				cl.fill("r")
				session := cl.open("root", "r")
				d.set(func(c Context) error {
					if c.Subject != "root" {
						return fail()
					}
					return nil
				})
				for _, r := range requests {
					if r.kind == ocihttp.Ping && where == "authorizer" {
						continue
					}
					a := cl.want(c.status, c.code, r.method, target(r.kind, "r", strings.ReplaceAll(r.path, "SESSION", session)), r.body, as("guest"))
					a.has(t, header{"Retry-After": c.retry, "WWW-Authenticate": ""})
					if strings.Contains(a.same(), "10.1.2.3") || strings.Contains(a.same(), "hunter2") {
						t.Errorf("the client is told: %s", a.same())
					}
				}
				cl.untouched()
			})
		}
	}
}

// TestAFailureInAListOrAMountIsNoAnswer: what cannot be decided is neither listed nor left out.
func TestAFailureInAListOrAMountIsNoAnswer(t *testing.T) {
	d := &door{allow: rights()}
	c := start(t, mem.New(), d.options()...)
	c.fill("r")
	d.set(func(c Context) error {
		if c.Subject == "guest" && c.Action == ActionPull {
			return errors.New("the database is gone")
		}
		return nil
	})
	for _, r := range [][2]string{
		{"GET", "/v2/_catalog"},
		{"POST", "/v2/mine/blobs/uploads/?from=r&mount=" + sum("x")},
		{"POST", "/v2/mine/blobs/uploads/?mount=" + sum("x")},
	} {
		c.want(500, "UNKNOWN", r[0], r[1], nil, as("guest"))
	}
	c.want(404, "", "GET", "/v2/mine/blobs/"+sum("x"), nil, as("root"))
}

// TestATokenForAnotherScopeIsAskedForAgain: an Authorizer may say that other credentials would do.
func TestATokenForAnotherScopeIsAskedForAgain(t *testing.T) {
	d := &door{scoped: true, allow: func(c Context) error {
		if c.Claims != "claims of robot" || len(c.Groups) != 1 || c.Groups[0] != "robots" {
			return fmt.Errorf("groups %q and claims %v", c.Groups, c.Claims)
		}
		return fmt.Errorf("%w: the token is for something else", errs.ErrUnauthorized)
	}}
	d.login = func(r *http.Request) (Identity, error) {
		user, _, _ := r.BasicAuth()
		return Identity{Subject: user, Groups: []string{"robots"}, Claims: "claims of " + user}, nil
	}
	c := start(t, mem.New(), d.options()...)
	for _, r := range requests {
		if r.kind == ocihttp.Ping {
			continue
		}
		scope := Context{Action: r.action, Repository: "a/b"}.Scope()
		if scope == "" {
			t.Errorf("%v has no scope", r.kind)
		}
		c.want(401, "UNAUTHORIZED", r.method, target(r.kind, "a/b", r.path), r.body, as("robot")).
			has(t, header{"WWW-Authenticate": `Basic realm="test",scope="` + scope + `"`})
	}
}

func TestNoLogHasCredentials(t *testing.T) {
	var log, printed syncBuffer
	d := &door{scoped: true}
	d.login = func(r *http.Request) (Identity, error) {
		user, pass, _ := r.BasicAuth()
		switch {
		case user == "panics":
			panic("in the authenticator")
		case pass != password(user):
			return Identity{}, fmt.Errorf("%w: wrong", errs.ErrUnauthorized)
		}
		return Identity{Subject: user}, nil
	}
	d.allow = func(c Context) error {
		if c.Subject == "falls" {
			panic("in the authorizer")
		}
		return rights("guest pull s")(c)
	}
	c := start(t, mem.New(), append(d.options(), WithLogger(log.everything()), WithInspector(AccessLog(log.everything())), WithInspector(Printer(&printed)))...)
	c.srv.Config.ErrorLog = slog.NewLogLogger(log.everything().Handler(), slog.LevelError)
	c.fill("r")
	right, wrong := as("root")["Authorization"], "Basic "+base64.StdEncoding.EncodeToString([]byte("root:sesame"))
	headers := []header{{"Authorization": "Bearer sesame"}, {"Authorization": "Basic sesame"}, {"Authorization": "sesame"}, {"Authorization": wrong}}
	secrets := []string{"pw-", "sesame", right[6:], wrong[6:]}
	for _, user := range []string{"root", "guest", "panics", "falls", "nobody"} {
		headers = append(headers, as(user))
		secrets = append(secrets, as(user)["Authorization"][6:])
	}
	session := c.open("root", "r")
	for _, h := range headers {
		c.do("PUT", "/v2/r/blobs/uploads/"+session+"?digest="+sum("nothing"), nil, h)
		for _, r := range requests {
			c.do(r.method, target(r.kind, "r", r.path), r.body, h.with(header{"Proxy-Authorization": "Basic sesame", "Cookie": "token=sesame"}))
			query := "?"
			if strings.Contains(r.path, "?") {
				query = "&"
			}
			c.do(r.method, target(r.kind, "r", r.path+query+"account=sesame&_state=sesame"), r.body, h)
		}
		c.do("GET", "/v2/r/unknown", nil, h)
		c.do("BREW", "/v2/", nil, h)
	}
	text := log.String()
	for _, want := range []string{`"status":401`, `"status":403`, `"status":500`, `"status":404`} {
		if !strings.Contains(text, want) {
			t.Errorf("nothing was logged with %s: this test tests nothing", want)
		}
	}
	if !strings.Contains(printed.String(), hidden) {
		t.Error("nothing was printed: this test tests nothing")
	}
	for _, secret := range secrets {
		for line := range strings.Lines(text + printed.String()) {
			if strings.Contains(line, secret) {
				t.Fatalf("%q is in the log: %s", secret, line)
			}
		}
	}
	if id, _, _ := strings.Cut(session, "."); strings.Contains(text, id) || !strings.Contains(text, id[:shownSession]) {
		t.Errorf("who reads the log can go on with an upload, or nothing says which it was: %q", id)
	}
}

// TestWhoSentItIsThePeer: what a client says about itself decides nothing.
func TestWhoSentItIsThePeer(t *testing.T) {
	d := &door{allow: func(Context) error { return nil }}
	c := start(t, mem.New(), d.options()...)
	c.want(404, "", "GET", "/v2/r/tags/list", nil, header{
		"X-Forwarded-For": "10.0.0.1", "X-Real-Ip": "10.0.0.1", "Forwarded": "for=10.0.0.1", "True-Client-Ip": "10.0.0.1", "X-Remote-User": "root", "Remote-User": "root",
	})
	asked := d.take()
	if len(asked) != 1 || asked[0].Remote.String() != "127.0.0.1" || asked[0].Subject != "" {
		t.Errorf("%+v", asked)
	}
}

// refusing is a registry that does not take this server's credentials.
type refusing struct{ scheme.Unimplemented }

func (refusing) TagList(context.Context, ref.Ref, ...scheme.TagListOption) (tag.List, error) {
	return tag.List{}, &errs.Error{Op: "tag list", Ref: "upstream.internal/r", Status: 401, Code: "UNAUTHORIZED", Err: errs.ErrUnauthorized}
}

// TestCredentialsOfTheServerAreNotTheClients: what is behind the server does not know the client.
func TestCredentialsOfTheServerAreNotTheClients(t *testing.T) {
	d := &door{allow: func(Context) error { return nil }}
	c := start(t, refusing{}, d.options()...)
	for _, user := range []string{"guest", ""} {
		a := c.want(403, "DENIED", "GET", "/v2/r/tags/list", nil, as(user))
		a.has(t, header{"WWW-Authenticate": ""})
		if strings.Contains(a.body, "internal") {
			t.Errorf("the client is told: %s", a.body)
		}
	}
}
