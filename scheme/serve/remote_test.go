package serve

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/scheme/mem"
)

func prefixes(t *testing.T, all ...string) []netip.Prefix {
	t.Helper()
	var out []netip.Prefix
	for _, p := range all {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestRemote(t *testing.T) {
	c := newConfig([]Option{WithTrustedProxies(prefixes(t, "10.0.0.0/8", "2001:db8:1::/48", "::ffff:172.16.0.0/108")...)})
	for _, tc := range []struct {
		name, peer string
		forwarded  []string // X-Forwarded-For
		want       string
	}{
		{"nobody in between", "192.0.2.1:1", nil, "192.0.2.1"},
		{"spoofed", "192.0.2.1:1", []string{"203.0.113.1"}, "192.0.2.1"},
		{"spoofed as a proxy", "192.0.2.1:1", []string{"10.0.0.1"}, "192.0.2.1"},
		{"through a proxy", "10.0.0.1:1", []string{"203.0.113.1"}, "203.0.113.1"},
		{"through a proxy that says nothing", "10.0.0.1:1", nil, "10.0.0.1"},
		{"through two", "10.0.0.1:1", []string{"203.0.113.1, 10.0.0.2"}, "203.0.113.1"},
		{"through two, in two fields", "10.0.0.1:1", []string{"203.0.113.1", "10.0.0.2"}, "203.0.113.1"},
		{"spoofed through a proxy", "10.0.0.1:1", []string{"192.0.2.66, 203.0.113.1"}, "203.0.113.1"},
		{"spoofed through a proxy, in two fields", "10.0.0.1:1", []string{"192.0.2.66", "203.0.113.1"}, "203.0.113.1"},
		{"spoofed as a proxy behind one", "10.0.0.1:1", []string{"192.0.2.66, 203.0.113.1, 10.0.0.9"}, "203.0.113.1"},
		{"a proxy's own request", "10.0.0.1:1", []string{"10.0.0.2"}, "10.0.0.2"},
		{"rubbish", "10.0.0.1:1", []string{"192.0.2.66, unknown"}, "10.0.0.1"},
		{"rubbish before", "10.0.0.1:1", []string{"x', 203.0.113.1"}, "203.0.113.1"},
		{"an empty element", "10.0.0.1:1", []string{"203.0.113.1, "}, "10.0.0.1"},
		{"an empty field", "10.0.0.1:1", []string{""}, "10.0.0.1"},
		{"with a port", "10.0.0.1:1", []string{"203.0.113.1:4711"}, "203.0.113.1"},
		{"IPv6 through IPv6", "[2001:db8:1::1]:1", []string{"2001:db8:2::1"}, "2001:db8:2::1"},
		{"IPv6 with a port", "10.0.0.1:1", []string{"[2001:db8:2::1]:4711"}, "2001:db8:2::1"},
		{"IPv6 in brackets", "10.0.0.1:1", []string{"[2001:db8:2::1]"}, "2001:db8:2::1"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:1", []string{"::ffff:203.0.113.1"}, "203.0.113.1"},
		{"through a proxy that was named as IPv4 in IPv6", "172.16.0.1:1", []string{"203.0.113.1"}, "203.0.113.1"},
		{"a zone", "[fe80::1%eth0]:1", nil, "fe80::1"},
		{"a Unix socket", "@", []string{"203.0.113.1"}, "invalid IP"},
	} {
		r := &http.Request{RemoteAddr: tc.peer, Header: http.Header{}}
		if tc.forwarded != nil {
			r.Header["X-Forwarded-For"] = tc.forwarded
		}
		for _, h := range []string{"Forwarded", "X-Real-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "X-Client-Ip"} {
			r.Header.Set(h, "for=198.51.100.1")
		}
		if got := c.remote(r).String(); got != tc.want {
			t.Errorf("%s: from %s with X-Forwarded-For %q is %s, want %s", tc.name, tc.peer, tc.forwarded, got, tc.want)
		}
	}
}

// TestSpoofedHost holds that what a client says about the server's name goes into no answer, trusted proxy or not.
func TestSpoofedHost(t *testing.T) {
	c := start(t, mem.New(), WithTrustedProxies(prefixes(t, "0.0.0.0/0", "::/0")...))
	for _, r := range []*http.Request{
		httptest.NewRequest("POST", "/v2/a/blobs/uploads/", nil),
		httptest.NewRequest("POST", "http://evil.example/v2/a/blobs/uploads/", nil),
	} {
		r.Host = "evil.example"
		for _, h := range []string{"X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Original-Url", "Forwarded"} {
			r.Header.Set(h, "evil.example")
		}
		w := httptest.NewRecorder()
		c.s.ServeHTTP(w, r)
		if loc := w.Header().Get("Location"); w.Code != http.StatusAccepted || !strings.HasPrefix(loc, "/v2/a/blobs/uploads/") {
			t.Errorf("%d, Location %q", w.Code, loc)
		}
		for k, v := range w.Header() {
			if strings.Contains(strings.Join(v, ""), "evil") {
				t.Errorf("%s: %q", k, v)
			}
		}
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{"192.0.2.1": "192.0.2.1/32", "2001:db8::1": "2001:db8::/64"} {
		if got := network(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("%s is of %s, want %s", in, got, want)
		}
	}
	if got := network(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("nobody is of %v", got)
	}
}
