package reg

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

const (
	defaultConcurrency = 16

	dockerHub    = "docker.io"            // in references
	dockerHubAPI = "registry-1.docker.io" // where its registry is
)

// host is one registry: how to reach it, and what was learned about it.
type host struct {
	reg       *Reg
	name      string // as references write it
	addr      string // host[:port] that is connected to
	conf      Host
	transport *http.Transport
	slots     *scheme.Slots
	auth      *auth

	// plain is set when HTTP is spoken: by setting, or as a loopback host turned out to speak no HTTPS.
	plain atomic.Bool

	// answered is set once anything came from the host: from then on a refused connection is a restart, and not a
	// registry that is not there.
	answered atomic.Bool

	features features
}

// canonical is the name under which a host is known, of the several that Docker Hub has.
func canonical(name string) string {
	switch name = strings.ToLower(name); name {
	case "index.docker.io", dockerHubAPI:
		return dockerHub
	}
	return name
}

// host returns the host of that name, which it makes the first time.
func (r *Reg) host(name string) (*host, error) {
	if err := (ref.Ref{Scheme: ref.SchemeReg, Root: name}).Validate(); err != nil {
		return nil, err
	}
	name = canonical(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.hosts[name]; h != nil {
		return h, nil
	}
	h := &host{reg: r, name: name, addr: name, conf: r.conf[name]}
	if name == dockerHub {
		h.addr = dockerHubAPI
	}
	if h.conf.Concurrency <= 0 {
		h.conf.Concurrency = defaultConcurrency
	}
	tlsConf, err := tlsConfig(h.conf)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errs.ErrInvalid, name, err)
	}
	h.transport = newTransport(r.limits, tlsConf, h.conf.Concurrency, nil)
	h.slots = scheme.NewSlots("reg://"+name, h.conf.Concurrency)
	h.plain.Store(h.conf.TLS == TLSDisabled)
	h.auth = newAuth(h)
	r.hosts[name] = h
	return h, nil
}

// base is the URL that paths are below.
func (h *host) base() *url.URL {
	if h.plain.Load() {
		return &url.URL{Scheme: "http", Host: h.addr}
	}
	return &url.URL{Scheme: "https", Host: h.addr}
}

// owns reports whether u is of this host's origin: the same scheme, name and port. A host that may fall back to HTTP
// keeps owning its address in HTTPS: another request may find out about HTTP while this one, whose URL was made before,
// is on its way, and it must not pass for one to a stranger.
func (h *host) owns(u *url.URL) bool {
	return origin(u) == origin(h.base()) || h.mayFallBack(u)
}

// mayFallBack reports whether a request to u is to be sent over HTTP when its handshake is answered in HTTP: u is the
// HTTPS of a loopback host that was set to nothing else.
func (h *host) mayFallBack(u *url.URL) bool {
	return h.conf.TLS == TLSAuto && h.local() && u.Scheme == "https" && sameHost(h.addr, u)
}

// local reports whether the host is this machine.
func (h *host) local() bool { return isLoopback(hostname(h.addr)) }

// roundTripper is what sends a request to u: this host's own transport, that of another host which was set up by the
// user, or one for strangers.
func (h *host) roundTripper(u *url.URL) (http.RoundTripper, error) {
	if h.owns(u) {
		return h.transport, nil
	}
	for _, name := range []string{canonical(u.Host), canonical(u.Hostname())} {
		if _, known := h.reg.conf[name]; known && sameHost(name, u) {
			other, err := h.reg.host(name)
			if err != nil {
				return nil, err
			}
			return other.transport, nil
		}
	}
	if h.local() {
		return h.reg.lenient, nil
	}
	return h.reg.strict, nil
}

// resolve reads a Location or Link that came as the answer to a request to from. A registry behind a proxy that ends
// TLS may not know that it is spoken to over HTTPS: its own name with http means https.
func (h *host) resolve(from *url.URL, location string) (*url.URL, error) {
	u, err := url.Parse(location)
	if err != nil || location == "" || len(location) > 16<<10 {
		return nil, fmt.Errorf("%w: the registry sent the location %.200q", errs.ErrInvalid, location)
	}
	u = from.ResolveReference(u)
	return u, h.admit(from, u)
}

// admit checks a URL that a registry named, and corrects the scheme of its own (see resolve).
func (h *host) admit(from, u *url.URL) error {
	u.User, u.Fragment = nil, ""
	if from.Scheme == "https" && u.Scheme == "http" {
		base := h.base()
		if base.Scheme == "https" && strings.EqualFold(u.Hostname(), base.Hostname()) && (u.Port() == "" || u.Port() == "80" || u.Port() == base.Port()) {
			u.Scheme, u.Host = base.Scheme, base.Host
			return nil
		}
		if !h.local() && h.reg.conf[canonical(u.Host)].TLS != TLSDisabled {
			return fmt.Errorf("%w: %s leads from HTTPS to HTTP, at %s", errs.ErrDenied, h.name, u.Host)
		}
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("%w: %s names a location with scheme %.20q", errs.ErrInvalid, h.name, u.Scheme)
	}
	_, wanted := h.reg.conf[canonical(u.Host)]
	if !h.owns(u) && !h.local() && !wanted && isLoopback(u.Hostname()) {
		return fmt.Errorf("%w: %s leads to this machine, at %s", errs.ErrDenied, h.name, u.Host)
	}
	return nil
}

// origin is scheme, host and port, in one form.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// sameHost reports whether name, with or without a port, is u's host and port.
func sameHost(name string, u *url.URL) bool {
	return origin(&url.URL{Scheme: u.Scheme, Host: name}) == origin(u)
}

func hostname(addr string) string { return (&url.URL{Host: addr}).Hostname() }

// isLoopback reports whether name is this machine by definition: localhost, 127.0.0.0/8, ::1.
func isLoopback(name string) bool {
	if strings.EqualFold(strings.TrimSuffix(name, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

// maxFeatures bounds what is remembered about the repositories of one host; beyond it everything is asked anew.
const maxFeatures = 1 << 14

// features are what a host, or one repository of it, was seen to be able to do.
type features struct {
	mu          sync.Mutex
	noReferrers map[string]bool    // by repository: the referrers API answers 404
	noMount     map[[2]string]bool // from, to: the registry wants no mention of from
	noTagParam  bool               // ?tag= of a manifest put is ignored
}

func (f *features) referrers(repo string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.noReferrers[repo]
}

func (f *features) setReferrers(repo string, have bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have {
		delete(f.noReferrers, repo)
		return
	}
	if f.noReferrers == nil || len(f.noReferrers) >= maxFeatures {
		f.noReferrers = map[string]bool{}
	}
	f.noReferrers[repo] = true
}

func (f *features) mount(from, to string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.noMount[[2]string{from, to}]
}

func (f *features) refuseMount(from, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.noMount == nil || len(f.noMount) >= maxFeatures {
		f.noMount = map[[2]string]bool{}
	}
	f.noMount[[2]string{from, to}] = true
}

func (f *features) tagParam() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.noTagParam
}

func (f *features) setTagParam(have bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noTagParam = !have
}
