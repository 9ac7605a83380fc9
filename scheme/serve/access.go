package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types/errs"
)

// Action is what a request does with a repository. None of them implies another: who pushes with a client that first
// looks what is there needs pull and push, and push alone removes nothing.
type Action string

// The actions.
const (
	ActionPull    Action = "pull"    // read blobs, manifests, tags and referrers
	ActionPush    Action = "push"    // write blobs and manifests, move tags; also look at and cancel an own upload
	ActionDelete  Action = "delete"  // remove tags, manifests and blobs
	ActionCatalog Action = "catalog" // list repositories; Context.Repository is empty
)

// Endpoint is the kind of resource that a request is about.
type Endpoint string

// The endpoints.
const (
	EndpointPing      Endpoint = "ping"
	EndpointBlob      Endpoint = "blob"
	EndpointUpload    Endpoint = "upload"
	EndpointManifest  Endpoint = "manifest"
	EndpointTags      Endpoint = "tags"
	EndpointReferrers Endpoint = "referrers"
	EndpointCatalog   Endpoint = "catalog"
)

// Context says who asks for what.
type Context struct {
	Subject    string     // who, in the Authenticator's words; "" is nobody in particular
	Groups     []string   // that the subject is in; not to be changed
	Claims     any        // what else the Authenticator says, for an Authorizer that knows it: what a token allows
	Action     Action     // "" for ping, and for what is no request of the specification
	Endpoint   Endpoint   // "" for what is no request of the specification
	Repository string     // as the client names it; "" for ping and catalog
	Resource   string     // the tag, digest or upload session; "" where there is none
	Method     string     // of HTTP
	Remote     netip.Addr // who sent the request: the peer, or what a trusted proxy says; invalid if that is no address
}

// Scope says in the words of token servers what c needs: "repository:NAME:pull", or "registry:catalog:*".
// Push comes with pull, as clients do both with one token.
func (c Context) Scope() string {
	switch c.Action {
	case "":
		return ""
	case ActionCatalog:
		return "registry:catalog:*"
	case ActionPush:
		return "repository:" + c.Repository + ":pull,push"
	}
	return "repository:" + c.Repository + ":" + string(c.Action)
}

// Challenge is one way to authenticate that a 401 offers: Challenge{Scheme: "basic", Params: …}.
type Challenge = ocihttp.Challenge

// Identity is who sent a request, as far as its credentials prove that. The zero Identity is nobody in particular.
type Identity struct {
	// Subject is a name that stays the same as long as it means the same, as uploads belong to it: that of a user, and
	// not that of one of its tokens.
	Subject string
	// Groups are what the subject is in, for the Authorizer. Nobody changes the slice afterwards.
	Groups []string
	// Claims is whatever else the Authorizer wants to know from this Authenticator, such as what a token allows.
	Claims any
}

// Authenticator finds out who sent a request. It is used by many requests at once.
type Authenticator interface {
	// Authenticate returns who r's credentials prove it is from, and nobody in particular when it has none (an empty
	// user name without a password is none, too: some clients send that). Errors: errs.ErrUnauthorized for credentials
	// that are wrong, which is answered with 401 and a challenge; errs.ErrRateLimited and errs.ErrUnavailable, which
	// the client is told; every other error is the server's own failure, of which the client learns nothing.
	Authenticate(r *http.Request) (Identity, error)

	// Challenge returns what a 401 says to a request for c: how to authenticate.
	Challenge(c Context) []Challenge
}

// Authorizer decides what a subject may do. It is used by many requests at once, and more than once for one request: a
// manifest under several tags asks for each of them, a mount also for the pull from its source, a list for the pull of
// each repository in it.
type Authorizer interface {
	// Authorize returns nil if c.Subject may do c.Action to c.Repository. Errors: errs.ErrDenied if it may not, which is
	// answered with 403, or with 401 and a challenge when nobody in particular asks; errs.ErrUnauthorized if it might
	// with other credentials, as with a token for another scope, which is answered with 401 and a challenge. Every other
	// error is the server's own failure. It is not asked about pings.
	Authorize(ctx context.Context, c Context) error
}

// WithAuthenticator sets who finds out who asks. Without one nobody is anybody in particular. With one and without an
// Authorizer whoever is somebody may do everything, and nobody else anything.
func WithAuthenticator(a Authenticator) Option { return func(c *config) { c.authenticator = a } }

// WithAuthorizer sets who decides what a subject may do.
func WithAuthorizer(a Authorizer) Option { return func(c *config) { c.authorizer = a } }

// admit authenticates and authorizes a request, before anything of it has an effect or is looked up.
func (s *Server) admit(x *exchange) error {
	if s.authenticator != nil {
		if err := s.patience(x); err != nil {
			return err
		}
		who, err := s.authenticator.Authenticate(x.r)
		if err != nil {
			if errors.Is(err, errs.ErrUnauthorized) {
				s.wrong(x)
				x.challenge(s.authenticator)
			}
			return err
		}
		x.ctx.Subject, x.ctx.Groups, x.ctx.Claims = who.Subject, who.Groups, who.Claims
	}
	if err := s.throttle(x); err != nil {
		return err
	}
	if x.req.Kind == ocihttp.Ping {
		return s.admitPing(x)
	}
	if err := s.may(x, x.ctx); err != nil {
		return s.refuse(x, err)
	}
	for _, tag := range x.req.Tags[:min(len(x.req.Tags), s.maxTags)] { // with more of them the request is refused
		c := x.ctx
		c.Resource = tag
		if err := s.may(x, c); err != nil {
			return s.refuse(x, err)
		}
	}
	return nil
}

// admitPing lets in whoever is somebody. Clients ask for nothing but a ping to learn how to authenticate: one that is
// answered with 200 sends no credentials with what comes later, and fails there, even if it has some.
func (s *Server) admitPing(x *exchange) error {
	if s.authenticator == nil || x.ctx.Subject != "" {
		return nil
	}
	x.challenge(s.authenticator)
	return fmt.Errorf("%w: no credentials", errs.ErrUnauthorized)
}

// may asks whether the request's subject may do what c says.
func (s *Server) may(x *exchange, c Context) error {
	switch {
	case s.authorizer != nil:
		return s.authorizer.Authorize(x.r.Context(), c)
	case s.authenticator != nil && c.Subject == "":
		return errs.ErrDenied
	}
	return nil
}

// refuse makes of a denial to nobody in particular the question who asks.
func (s *Server) refuse(x *exchange, err error) error {
	switch {
	case s.authenticator == nil:
	case errors.Is(err, errs.ErrUnauthorized):
		x.challenge(s.authenticator)
	case errors.Is(err, errs.ErrDenied) && x.ctx.Subject == "":
		x.challenge(s.authenticator)
		return fmt.Errorf("%w: %w", errs.ErrUnauthorized, err)
	}
	return err
}

// ofPlace makes of a place's errs.ErrUnauthorized, which is what a registry behind this server thinks of the server's
// own credentials, a denial: the client's are good, and no others would help. A 401 would need a challenge, and make
// clients ask people for passwords.
func ofPlace(err error) error {
	if !errors.Is(err, errs.ErrUnauthorized) {
		return err
	}
	return fmt.Errorf("%w: by what is behind this server: %v", errs.ErrDenied, err) // not to be found to be both
}

// mayPull reports whether the subject may read another repository than the one it asked for. That it may not is no
// error: the repository is as good as absent.
func (s *Server) mayPull(x *exchange, name string) (bool, error) {
	if !s.named(name) {
		return false, nil
	}
	c := x.ctx
	c.Action, c.Repository = ActionPull, name
	err := s.may(x, c)
	if errors.Is(err, errs.ErrDenied) || errors.Is(err, errs.ErrUnauthorized) {
		return false, nil
	}
	return err == nil, err
}

// challenge sets WWW-Authenticate.
func (x *exchange) challenge(a Authenticator) {
	for _, c := range a.Challenge(x.ctx) {
		x.w.Header().Add("WWW-Authenticate", c.String())
	}
}
