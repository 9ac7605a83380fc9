package reg

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

// newTransport makes a transport for connections in HTTP/1.1: one stream each, so that several transfers use several
// connections and a stalled one stops no other. check, if not nil, sees every address before it is connected to,
// except those of proxies that the environment names.
func newTransport(l limits, conf *tls.Config, conns int, check func(netip.Addr) error) *http.Transport {
	d := &dialer{check: check, proxies: map[string]bool{}}
	d.plain = net.Dialer{Timeout: l.dial, KeepAlive: 30 * time.Second}
	d.checked = d.plain
	d.checked.ControlContext = d.control
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  d.proxy,
		DialContext:            d.dial,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    l.dial,
		Protocols:              protocols,
		DisableCompression:     true, // bytes are moved as they are
		MaxIdleConnsPerHost:    conns,
		IdleConnTimeout:        30 * time.Second, // below what load balancers allow
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         32 << 10,
		WriteBufferSize:        32 << 10,
	}
}

// dialer connects to what it may.
type dialer struct {
	check          func(netip.Addr) error
	plain, checked net.Dialer

	mu      sync.Mutex // guards proxies
	proxies map[string]bool
}

// proxy is http.ProxyFromEnvironment, whose answers are remembered: a proxy on this machine is the user's wish.
func (d *dialer) proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if err == nil && u != nil {
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
		}
		d.mu.Lock()
		d.proxies[net.JoinHostPort(u.Hostname(), port)] = true
		d.mu.Unlock()
	}
	return u, err
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d.mu.Lock()
	proxy := d.proxies[addr]
	d.mu.Unlock()
	if d.check == nil || proxy {
		return d.plain.DialContext(ctx, network, addr)
	}
	return d.checked.DialContext(ctx, network, addr)
}

// control runs after a name was resolved and before the connection is made, so that no name leads around the check.
func (d *dialer) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return d.check(ap.Addr().Unmap())
}

// guard keeps registries from using this program to reach what only this machine can: its own services, and the
// metadata service of a cloud.
func guard(ip netip.Addr) error {
	if ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() {
		return fmt.Errorf("%w: a registry leads to %s, which only this machine can reach", errs.ErrDenied, ip)
	}
	return nil
}
