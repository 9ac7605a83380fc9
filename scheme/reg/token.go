package reg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

// token is what a token server gave for some credential and scope. It is not changed once made.
type token struct {
	realm, service string
	cred           Credential
	scope          scope
	value          string
	renew          time.Time // when it is not to be used any more, some time before it expires
}

const (
	maxTokenBody = 1 << 20
	// A token without a lifetime lasts a minute (distribution's token specification). None is kept for a day.
	defaultTokenLife = time.Minute
	maxTokenLife     = 24 * time.Hour
	clientID         = "ocisync"
)

// token returns one that allows what is needed; fresh says that it was just made. Those who need the same at the same
// time cause one request.
func (a *auth) token(ctx context.Context, m method, cred Credential, need scope) (t *token, fresh bool, err error) {
	if t := a.cached(m.realm, m.service, cred, need); t != nil {
		return t, false, nil
	}
	realm, err := a.realm(m.realm)
	if err != nil {
		return nil, false, err
	}
	key := strings.Join(append([]string{m.realm, m.service, cred.Username, cred.Password, cred.RefreshToken}, need.strings()...), "\x00")
	t, err = a.tokens.do(ctx, key, func(ctx context.Context) (*token, error) {
		// Who came between the look into the cache and this flight may find what the flight before it has left.
		if t := a.cached(m.realm, m.service, cred, need); t != nil {
			return t, nil
		}
		for attempt := 1; ; attempt++ {
			t, err := a.fetchToken(ctx, realm, m, cred, need)
			if err == nil {
				a.keep(t)
				return t, nil
			}
			if werr := a.h.pause(ctx, err, attempt); werr != nil {
				return nil, werr
			}
		}
	})
	return t, true, err
}

// realm checks where a challenge sends us. The credential must not travel in the clear where the registry itself is
// spoken to over HTTPS, and a registry elsewhere has nothing to ask of this machine.
func (a *auth) realm(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err == nil {
		base := a.h.base()
		if err = a.h.admit(base, u); err == nil && u.Scheme == "http" && base.Scheme == "https" && !isLoopback(u.Hostname()) {
			err = fmt.Errorf("%w: its token server is spoken to over HTTP", errs.ErrDenied)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the registry's token server %.200q is refused: %w", errs.ErrUnauthorized, s, err)
	}
	return u, nil
}

// fetchToken asks the token server once.
func (a *auth) fetchToken(ctx context.Context, realm *url.URL, m method, cred Credential, need scope) (*token, error) {
	msg := message{url: realm, header: http.Header{}}
	home := origin(realm)
	msg.owner = func(u *url.URL) bool { return origin(u) == home }
	if cred.RefreshToken != "" {
		form := url.Values{"grant_type": {"refresh_token"}, "client_id": {clientID}, "refresh_token": {cred.RefreshToken}}
		if m.service != "" {
			form.Set("service", m.service)
		}
		if len(need) > 0 {
			form.Set("scope", strings.Join(need.strings(), " "))
		}
		msg.method, msg.body = http.MethodPost, bytesBody(form.Encode())
		msg.header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		q := realm.Query()
		if m.service != "" {
			q.Set("service", m.service)
		}
		for _, s := range need.strings() {
			q.Add("scope", s)
		}
		if cred.Username != "" || cred.Password != "" {
			q.Set("account", cred.Username)
			msg.auth = basic(cred)
		}
		u := *realm
		u.RawQuery = q.Encode()
		msg.method, msg.url = http.MethodGet, &u
	}
	resp, err := a.h.exchange(ctx, msg)
	if err != nil {
		return nil, fmt.Errorf("token server %s: %w", realm.Host, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, a.refused(resp, realm, cred)
	}
	raw, err := readAll(resp, maxTokenBody)
	if err != nil {
		return nil, fmt.Errorf("token server %s: %w", realm.Host, err)
	}
	t := &token{realm: m.realm, service: m.service, cred: cred, scope: need}
	if err := t.parse(raw); err != nil {
		return nil, fmt.Errorf("%w: token server %s: %w", errs.ErrUnavailable, realm.Host, err)
	}
	return t, nil
}

// refused says that the token server gave none.
func (a *auth) refused(resp *http.Response, realm *url.URL, cred Credential) error {
	err := a.h.refusal(resp, &authorization{anonymous: cred.anonymous()})
	var e *errs.Error
	if !errors.As(err, &e) {
		return err
	}
	e.Message = "token server " + realm.Host + ": " + e.Message
	if e.Status >= 400 && e.Status < 500 && !transient(e) && !errors.Is(e, errs.ErrDenied) {
		e.Err = errs.ErrUnauthorized // whatever it did not like, there is no token
		if e.Hint == "" {
			e.Hint = a.h.loginHint()
		}
	}
	return e
}

// parse reads a token server's answer, in any of the forms that are in use.
func (t *token) parse(raw []byte) error {
	var answer struct {
		Token       string      `json:"token"`
		AccessToken string      `json:"access_token"`
		ExpiresIn   json.Number `json:"expires_in"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return errors.New("the answer is no token") // the error might quote one
	}
	t.value = answer.Token
	if t.value == "" {
		t.value = answer.AccessToken
	}
	if !headerSafe(t.value) {
		return errors.New("the answer has no token that can be used")
	}
	life := defaultTokenLife
	if secs, err := answer.ExpiresIn.Float64(); err == nil && secs > 0 {
		life = maxTokenLife
		if secs < maxTokenLife.Seconds() {
			life = time.Duration(secs * float64(time.Second))
		}
	}
	t.renew = time.Now().Add(life - min(life/4, 30*time.Second))
	return nil
}
