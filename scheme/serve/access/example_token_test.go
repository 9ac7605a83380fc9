package access_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"

	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/scheme/serve/access"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// tokens is a token server as registries have them, an Authenticator of the tokens that it gave, and an Authorizer of
// what these allow. Users show their passwords to it alone, and nobody gets a token, too. A real one signs its tokens,
// so that the registry need not ask it, and lets them expire.
type tokens struct {
	realm string
	users serve.Authenticator
	rules serve.Authorizer

	mu     sync.Mutex
	issued map[string]grant
}

// grant is what stands behind a token.
type grant struct {
	subject string
	groups  []string
	scopes  []string // as "repository:a/b:pull"
}

// ServeHTTP gives a token for as much of the scopes as the user may have.
func (s *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who, err := s.users.Authenticate(r)
	if err != nil {
		http.Error(w, "", http.StatusUnauthorized)
		return
	}
	g := grant{subject: who.Subject, groups: who.Groups}
	for _, scope := range r.URL.Query()["scope"] {
		kind, rest, _ := strings.Cut(scope, ":")
		name, actions, _ := strings.Cut(rest, ":")
		for action := range strings.SplitSeq(actions, ",") {
			c := serve.Context{Subject: g.subject, Groups: g.groups, Repository: name, Action: serve.Action(action)}
			if kind == "repository" && s.rules.Authorize(r.Context(), c) == nil {
				g.scopes = append(g.scopes, kind+":"+name+":"+action)
			}
		}
	}
	token := rand.Text()
	s.mu.Lock()
	s.issued[token] = g
	s.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
}

// Authenticate knows the tokens.
func (s *tokens) Authenticate(r *http.Request) (serve.Identity, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return serve.Identity{}, nil
	}
	s.mu.Lock()
	g, ok := s.issued[token]
	s.mu.Unlock()
	if !ok {
		return serve.Identity{}, errs.ErrUnauthorized
	}
	return serve.Identity{Subject: g.subject, Groups: g.groups, Claims: g}, nil
}

// Challenge says where there are tokens, and for what the next one has to be.
func (s *tokens) Challenge(c serve.Context) []serve.Challenge {
	params := map[string]string{"realm": s.realm, "service": "images"}
	if scope := c.Scope(); scope != "" {
		params["scope"] = scope
	}
	return []serve.Challenge{{Scheme: "bearer", Params: params}}
}

// Authorize looks at the token alone. One that allows too little is answered with 401: the client may get another.
// What the user may not have at all is a 403, so that it does not try again.
func (s *tokens) Authorize(ctx context.Context, c serve.Context) error {
	g, _ := c.Claims.(grant)
	if slices.Contains(g.scopes, "repository:"+c.Repository+":"+string(c.Action)) {
		return nil
	}
	if err := s.rules.Authorize(ctx, c); err != nil {
		return err
	}
	return fmt.Errorf("%w: the token is not for this", errs.ErrUnauthorized)
}

// Tokens in place of passwords: this is all that an Authenticator of one's own has to do.
func Example_tokens() {
	users, err := access.NewBasic(access.BasicConfig{Users: []access.User{{Name: "robot", Password: "secret"}}})
	if err != nil {
		panic(err)
	}
	rules, err := access.NewPolicy(
		access.Rule{Subjects: []string{access.Anonymous}, Repositories: []string{"public/**"}, Actions: []serve.Action{serve.ActionPull}},
		access.Rule{Subjects: []string{"robot"}, Repositories: []string{"public/**"}, Actions: []serve.Action{serve.ActionPush}},
	)
	if err != nil {
		panic(err)
	}
	issuer := &tokens{users: users, rules: rules, issued: map[string]grant{}}
	web := httptest.NewServer(issuer)
	defer web.Close()
	issuer.realm = web.URL

	s, err := serve.New(mem.New(), ref.MustParse("mem://demo"), serve.WithAuthenticator(issuer), serve.WithAuthorizer(issuer))
	if err != nil {
		panic(err)
	}
	defer s.Shutdown(context.Background())
	registry := httptest.NewServer(s)
	defer registry.Close()
	host := strings.TrimPrefix(registry.URL, "http://")

	robot := reg.New(reg.WithHost(host, reg.Host{TLS: reg.TLSDisabled, Username: "robot", Password: "secret"}))
	defer robot.Close()
	nobody := reg.New(reg.WithHost(host, reg.Host{TLS: reg.TLSDisabled}), reg.WithCredentials(
		func(context.Context, string) (reg.Credential, error) { return reg.Credential{}, nil }))
	defer nobody.Close()

	ctx, public, private := context.Background(), ref.MustParse(host+"/public/a"), ref.MustParse(host+"/private/a")
	d, err := robot.BlobPut(ctx, public, types.Descriptor{}, bytes.NewReader([]byte("hello")))
	fmt.Println("robot puts", d.Size, "bytes:", err)
	d, err = nobody.BlobHead(ctx, public, d)
	fmt.Println("nobody sees", d.Size, "bytes:", err)
	_, err = nobody.BlobPut(ctx, public, types.Descriptor{}, bytes.NewReader([]byte("bye")))
	fmt.Println("nobody may not put:", errors.Is(err, errs.ErrUnauthorized))
	_, err = robot.BlobPut(ctx, private, types.Descriptor{}, bytes.NewReader([]byte("bye")))
	fmt.Println("robot may not put elsewhere:", errors.Is(err, errs.ErrDenied))
	// Output:
	// robot puts 5 bytes: <nil>
	// nobody sees 5 bytes: <nil>
	// nobody may not put: true
	// robot may not put elsewhere: true
}
