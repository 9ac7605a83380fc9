package reg

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/ocisync/ocisync/internal/ocihttp"
)

// auth is how one host wants to be shown who we are, and what it is shown. No lock is held while something is fetched.
type auth struct {
	h           *host
	tokens      flights[*token]
	credentials flights[Credential]

	mu       sync.Mutex // guards what follows
	method   method
	granted  []*token
	accounts map[string]Credential // by repository
}

// method is what the last challenge asked for.
type method struct {
	scheme  string // "", "basic", "bearer"
	realm   string // of bearer: an absolute URL
	service string
}

// authorization is what one request was sent with.
type authorization struct {
	header    string
	method    method
	bearer    bool
	token     *token // nil without one
	fresh     bool   // the token was made for this request
	anonymous bool   // no credential stands behind it
}

func newAuth(h *host) *auth {
	a := &auth{h: h, accounts: map[string]Credential{}}
	a.tokens.background, a.credentials.background = &h.reg.background, &h.reg.background
	return a
}

// authorize returns what a request that needs scope is to be sent with. Until the host has asked for anything, that
// is nothing.
func (a *auth) authorize(ctx context.Context, need scope, repo string) (*authorization, error) {
	a.mu.Lock()
	m := a.method
	a.mu.Unlock()
	used := &authorization{method: m, anonymous: true}
	if m.scheme == "" {
		return used, nil
	}
	cred, err := a.account(ctx, repo)
	if err != nil {
		return nil, err
	}
	used.anonymous = cred.anonymous()
	switch {
	case m.scheme == "basic":
		if cred.Username != "" || cred.Password != "" {
			used.header = basic(cred)
		}
	case cred.AccessToken != "":
		used.bearer, used.header = true, "Bearer "+cred.AccessToken
	default:
		used.bearer = true
		used.token, used.fresh, err = a.token(ctx, m, cred, need)
		if err != nil {
			return nil, err
		}
		used.header = "Bearer " + used.token.value
	}
	return used, nil
}

// challenged learns from a 401 to a request that was sent with used. again says that sending it once more may help:
// with another method, with a token or credential newer than the one that was refused, or with the scope that the
// challenge names besides what we asked for.
func (a *auth) challenged(resp *http.Response, used *authorization) (extra scope, again bool) {
	m, extra, ok := chooseMethod(ocihttp.ParseChallenges(resp.Header.Values("WWW-Authenticate")), resp.Request.URL)
	if !ok {
		return nil, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.method = m
	switch {
	case used.token != nil:
		a.dropToken(used.token)
		return extra, !used.fresh || used.method != m || !used.token.scope.contains(extra)
	case used.method == m && used.header == "":
		return nil, false // it wants a password, and there is none
	case used.method == m:
		clear(a.accounts) // a helper may have a newer password; if it has not, the second 401 is the last
	}
	return extra, true
}

// chooseMethod takes the challenge that can be met best: Bearer with a realm, else Basic.
func chooseMethod(all []ocihttp.Challenge, from *url.URL) (found method, extra scope, ok bool) {
	for _, c := range all {
		switch c.Scheme {
		case "bearer":
			realm, err := url.Parse(c.Params["realm"])
			if err != nil || c.Params["realm"] == "" {
				continue
			}
			found = method{scheme: "bearer", realm: from.ResolveReference(realm).String(), service: c.Params["service"]}
			return found, parseScope(c.Params["scope"]), true
		case "basic":
			found = method{scheme: "basic"}
		}
	}
	return found, nil, found.scheme != ""
}

// account returns the credential for a repository of this host.
func (a *auth) account(ctx context.Context, repo string) (Credential, error) {
	if c := a.h.conf; c.Username != "" || c.Password != "" {
		return Credential{Username: c.Username, Password: c.Password}, nil
	}
	a.mu.Lock()
	cred, ok := a.accounts[repo]
	a.mu.Unlock()
	if ok {
		return cred, nil
	}
	return a.credentials.do(ctx, repo, func(ctx context.Context) (Credential, error) {
		cred, err := a.h.reg.credential(ctx, a.h.name, repo)
		if err != nil {
			return Credential{}, err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.accounts) >= maxFeatures {
			clear(a.accounts)
		}
		a.accounts[repo] = cred
		return cred, nil
	})
}

// cached returns a token that allows what is needed and is not about to expire.
func (a *auth) cached(realm, service string, cred Credential, need scope) *token {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.granted {
		if t.realm == realm && t.service == service && t.cred == cred && now.Before(t.renew) && t.scope.contains(need) {
			return t
		}
	}
	return nil
}

// maxTokens bounds the tokens of one host: one for each repository that is worked on at the moment is enough.
const maxTokens = 1024

func (a *auth) keep(t *token) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := a.granted[:0]
	for _, old := range a.granted {
		if now.Before(old.renew) {
			kept = append(kept, old)
		}
	}
	if len(kept) >= maxTokens {
		kept = kept[len(kept)-maxTokens/2:]
	}
	a.granted = append(kept, t)
}

// dropToken forgets a token that was refused. The caller holds mu.
func (a *auth) dropToken(t *token) {
	for i, have := range a.granted {
		if have == t {
			a.granted = append(a.granted[:i:i], a.granted[i+1:]...)
			return
		}
	}
}

func basic(c Credential) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// headerSafe reports whether a token from outside can stand in a header.
func headerSafe(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}
