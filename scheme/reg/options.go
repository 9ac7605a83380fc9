package reg

import (
	"context"
	"log/slog"
	"time"
)

// TLS says how a host is spoken to.
type TLS int

// The ways to speak to a host.
const (
	// TLSAuto is HTTPS. Only hosts on the loopback interface that answer HTTPS with HTTP are spoken to over HTTP.
	TLSAuto TLS = iota
	// TLSEnabled is HTTPS and nothing else.
	TLSEnabled
	// TLSInsecure is HTTPS with a certificate that nobody checks: whoever is in between reads the credentials.
	TLSInsecure
	// TLSDisabled is HTTP: whoever is in between reads and changes everything but content with a known digest.
	TLSDisabled
)

// Host is what is particular to one registry. The zero value suits most.
type Host struct {
	TLS TLS
	CA  []byte // PEM: certificates trusted for this host, besides the system's
	// Concurrency is how many transfers may run at once (see Reg.Slots); 16 if it is not positive.
	Concurrency int
	// Username and Password, when set, are used in place of any other credential.
	Username, Password string
}

// Credential is what a registry, or its token server, is shown. The zero value is nobody: anonymous.
type Credential struct {
	Username, Password string
	RefreshToken       string // an identity token, which the token server takes in place of a password
	AccessToken        string // a token that the registry itself takes, used as it is
}

func (c Credential) anonymous() bool { return c == Credential{} }

// CredentialFunc finds the credential for a host, named as in references (docker.io for Docker Hub). It is called
// from several goroutines, and again when a registry did not accept what it gave last. The zero Credential without an
// error is anonymous access.
type CredentialFunc func(ctx context.Context, host string) (Credential, error)

// Option is a setting of New.
type Option func(*Reg)

// WithHost sets what is particular to a registry, named as in references: host, or host:port.
func WithHost(host string, h Host) Option {
	return func(r *Reg) { r.conf[canonical(host)] = h }
}

// WithCredentials sets where credentials come from, in place of the files of Docker and Podman.
func WithCredentials(f CredentialFunc) Option {
	return func(r *Reg) {
		r.credential = func(ctx context.Context, host, _ string) (Credential, error) { return f(ctx, host) }
	}
}

// WithLogger sets where each request is logged, at level Debug and without secrets. Without it nothing is.
func WithLogger(l *slog.Logger) Option {
	return func(r *Reg) { r.log = l }
}

// WithUserAgent sets the User-Agent header.
func WithUserAgent(s string) Option {
	return func(r *Reg) { r.agent = s }
}

// limits are what a request may cost in time and attempts. Tests make them small.
type limits struct {
	attempts   int           // how often one request is sent, or a download goes on without a byte of progress
	backoff    time.Duration // before the second attempt; doubled before each further one
	maxBackoff time.Duration
	retryAfter time.Duration // the longest wait that a registry may ask for
	dial       time.Duration
	header     time.Duration // from the end of a request to the first byte of its answer
	commit     time.Duration // the same where a registry has a whole upload to check and store
	idle       time.Duration // between two bytes of a body, in both directions
	cleanup    time.Duration // for the cancel of an upload that failed
}

var defaultLimits = limits{
	attempts:   5,
	backoff:    200 * time.Millisecond,
	maxBackoff: 10 * time.Second,
	retryAfter: time.Minute,
	dial:       15 * time.Second,
	header:     time.Minute,
	commit:     10 * time.Minute,
	idle:       time.Minute,
	cleanup:    5 * time.Second,
}

func withLimits(l limits) Option {
	return func(r *Reg) { r.limits = l }
}
