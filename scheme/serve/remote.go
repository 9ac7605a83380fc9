package serve

import (
	"net/http"
	"net/netip"
	"strings"
)

// WithTrustedProxies says which peers are reverse proxies whose X-Forwarded-For counts: Context.Remote is then the last
// address in it that is not a trusted proxy's itself. From everybody else the header is ignored, as are, from all, all
// other headers of this kind (Forwarded, X-Real-IP, X-Forwarded-Host, X-Forwarded-Proto): locations and links have no
// host. Default: none.
func WithTrustedProxies(prefixes ...netip.Prefix) Option {
	return func(c *config) {
		for _, p := range prefixes {
			if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 { // a peer is an IPv4 address then
				p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
			}
			c.proxies = append(c.proxies, p.Masked())
		}
	}
}

// trusts reports whether a is a reverse proxy of ours.
func (c *config) trusts(a netip.Addr) bool {
	for _, p := range c.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// addrOf reads the address of a peer, which is invalid for a socket that has none.
func addrOf(hostport string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// remote is who sent a request, as far as that is known.
func (c *config) remote(r *http.Request) netip.Addr {
	peer := addrOf(r.RemoteAddr)
	if len(c.proxies) == 0 || !c.trusts(peer) {
		return peer
	}
	// Each proxy adds whom it saw at the end; what came before is what that one says.
	values := r.Header["X-Forwarded-For"]
	for i := len(values) - 1; i >= 0; i-- {
		for rest, more := values[i], true; more; {
			var last string
			rest, last, more = cutLast(rest)
			addr, ok := forwarded(last)
			if !ok {
				return peer // whoever wrote that, the one after it is the last that is known
			}
			if peer = addr; !c.trusts(peer) {
				return peer
			}
		}
	}
	return peer
}

// cutLast cuts the last element from a list. more is false when it was the only one.
func cutLast(list string) (rest, last string, more bool) {
	if i := strings.LastIndexByte(list, ','); i >= 0 {
		return list[:i], list[i+1:], true
	}
	return "", list, false
}

// forwarded reads an element of X-Forwarded-For: an address, which some proxies write with its port.
func forwarded(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	if a := addrOf(s); a.IsValid() {
		return a, true
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return a.Unmap().WithZone(""), err == nil
}

// network is whom an address is taken for where something is counted: one IPv6 host can have a whole /64 of them.
func network(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil { // an invalid address: all of them are one
		return netip.Prefix{}
	}
	return p
}
