package reg

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func newTLS(t *testing.T, handle http.HandlerFunc) (*httptest.Server, ref.Ref) {
	s := httptest.NewUnstartedServer(handle)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, ref.Ref{Scheme: ref.SchemeReg, Root: strings.TrimPrefix(s.URL, "https://"), Repo: "a"}
}

func TestTLS(t *testing.T) {
	s, r := newTLS(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("spoke %s: all transfers of a host would share one connection", r.Proto)
		}
		answer(w, 200, "{}")
	})
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, tc := range map[string]struct {
		host Host
		ok   bool
		hint string
	}{
		"unknown CA":            {Host{}, false, "--insecure " + r.Root},
		"CA given":              {Host{CA: ca}, true, ""},
		"CA given, and no more": {Host{CA: ca, TLS: TLSEnabled}, true, ""},
		"not verified":          {Host{TLS: TLSInsecure}, true, ""},
		"CA that is none":       {Host{CA: []byte("x")}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newTest(t, WithHost(r.Root, tc.host)).Ping(t.Context(), r)
			if (err == nil) != tc.ok || !strings.Contains(errs.Hint(err), tc.hint) {
				t.Errorf("got %v, hint %q", err, errs.Hint(err))
			}
		})
	}
	t.Run("one insecure host does not make others so", func(t *testing.T) {
		_, other := newTLS(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, "{}") })
		api := newTest(t, WithHost(r.Root, Host{TLS: TLSInsecure}))
		if _, err := api.Ping(t.Context(), r); err != nil {
			t.Error(err)
		}
		if _, err := api.Ping(t.Context(), other); !errors.Is(err, errs.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPlainHTTP(t *testing.T) {
	handle := func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, 200, "{}") }
	t.Run("of a loopback host is found out once", func(t *testing.T) {
		s := newScript(t, handle)
		api := newTest(t)
		for range 3 {
			if _, err := api.Ping(t.Context(), s.ref("a")); err != nil {
				t.Fatal(err)
			}
		}
		h, err := api.host(s.host())
		if err != nil || !h.plain.Load() {
			t.Error("not remembered")
		}
	})
	for name, conf := range map[string]Host{"but not with TLSEnabled": {TLS: TLSEnabled}, "nor with TLSInsecure": {TLS: TLSInsecure}} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, handle)
			_, err := newTest(t, WithHost(s.host(), conf)).Ping(t.Context(), s.ref("a"))
			if err == nil || !strings.Contains(errs.Hint(err), "--plain-http "+s.host()) {
				t.Errorf("got %v, hint %q", err, errs.Hint(err))
			}
			s.want()
		})
	}
	t.Run("of any other host needs to be asked for", func(t *testing.T) {
		s := newScript(t, handle)
		other := ref.Ref{Scheme: ref.SchemeReg, Root: "registry.example", Repo: "a"}
		api := newTest(t)
		redirectDials(t, api, other.Root, s)
		_, err := api.Ping(t.Context(), other)
		if !errors.Is(err, errs.ErrUnavailable) || errs.Hint(err) != "if this registry speaks HTTP only, use --plain-http registry.example" {
			t.Errorf("got %v, hint %q", err, errs.Hint(err))
		}
		s.want()

		api = newTest(t, WithHost(other.Root, Host{TLS: TLSDisabled}))
		redirectDials(t, api, other.Root, s)
		if _, err := api.Ping(t.Context(), other); err != nil {
			t.Error(err)
		}
	})
}

// One request finds out that a loopback host speaks HTTP while another is under way to its HTTPS. The other one is not
// taken for one to a stranger, neither before it is sent nor when it falls back in turn: it shows who sends it.
func TestPlainHTTPThatAnotherRequestFindsOut(t *testing.T) {
	data, d := content(10)
	handle := func(w http.ResponseWriter, r *http.Request, _ int) {
		if _, _, ok := r.BasicAuth(); !ok {
			answer(w, 401, "", "WWW-Authenticate", "Basic")
			return
		}
		part(w, r, data)
	}
	user := Credential{Username: "u", Password: "p"}
	t.Run("once its URL is made", func(t *testing.T) {
		s := newScript(t, handle)
		api := newTest(t, WithCredentials(func(context.Context, string) (Credential, error) { return user, nil }))
		h, err := api.host(s.host())
		if err != nil {
			t.Fatal(err)
		}
		rq := request{op: "blob head", ref: s.ref("a"), Request: ocihttp.Request{Kind: ocihttp.BlobHead, Repo: "a", Digest: d.Digest}}
		rq.url = rq.URL(h.base())
		h.plain.Store(true)
		resp, err := h.do(t.Context(), rq)
		if err != nil {
			t.Fatal(err)
		}
		discard(resp)
	})
	t.Run("once it is known what it shows", func(t *testing.T) {
		s := newScript(t, handle)
		var h *host
		api := newTest(t, WithCredentials(func(context.Context, string) (Credential, error) {
			h.plain.Store(true)
			return user, nil
		}))
		h, err := api.host(s.host())
		if err != nil {
			t.Fatal(err)
		}
		h.auth.method = method{scheme: "basic"}
		if _, err := api.BlobHead(t.Context(), s.ref("a"), d); err != nil {
			t.Fatal(err)
		}
		s.want("HEAD /v2/a/blobs/" + string(d.Digest))
	})
}

// redirectDials lets a name lead to a server of the test.
func redirectDials(t *testing.T, api *Reg, name string, s *script) {
	h, err := api.host(name)
	if err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	h.transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, s.host())
	}
}

func TestGuard(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "169.254.169.254": false, "fe80::1": false, "0.0.0.0": false, "::": false,
		"10.0.0.1": true, "192.0.2.1": true, "2001:db8::1": true,
	} {
		if err := guard(netip.MustParseAddr(addr)); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
	// The strangers' transport looks at what a name resolves to.
	s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, 200, "") })
	api := newTest(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := api.strict.RoundTrip(req); !errors.Is(err, errs.ErrDenied) {
		t.Errorf("got %v", err)
		if err == nil {
			_ = resp.Body.Close()
		}
	}
	s.want()
}

// Where a registry may lead us.
func TestAdmit(t *testing.T) {
	api := newTest(t, WithHost("plain.example", Host{TLS: TLSDisabled}), WithHost("127.0.0.2:9000", Host{}))
	for name, tc := range map[string]struct{ from, location, want string }{
		"relative":                          {"https://r.example/v2/a", "/v2/b?x=1", "https://r.example/v2/b?x=1"},
		"absolute":                          {"https://r.example/v2/", "https://cdn.example/x", "https://cdn.example/x"},
		"own name without TLS":              {"https://r.example/v2/", "http://r.example/x", "https://r.example/x"},
		"own name, port 80":                 {"https://r.example/v2/", "http://r.example:80/x", "https://r.example/x"},
		"from HTTPS to HTTP":                {"https://r.example/v2/", "http://cdn.example/x", ""},
		"from HTTPS to HTTP that is wanted": {"https://r.example/v2/", "http://plain.example/x", "http://plain.example/x"},
		"user info is dropped":              {"https://r.example/v2/", "https://u:p@cdn.example/x", "https://cdn.example/x"},
		"loopback":                          {"https://r.example/v2/", "https://127.0.0.1/x", ""},
		"loopback that is set up":           {"https://r.example/v2/", "https://127.0.0.2:9000/x", "https://127.0.0.2:9000/x"},
		"loopback by name":                  {"https://r.example/v2/", "https://localhost/x", ""},
		"another scheme":                    {"https://r.example/v2/", "ftp://r.example/x", ""},
		"no location":                       {"https://r.example/v2/", "", ""},
		"no URL":                            {"https://r.example/v2/", "https://%zz/", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := api.host("r.example")
			if err != nil {
				t.Fatal(err)
			}
			from, err := url.Parse(tc.from)
			if err != nil {
				t.Fatal(err)
			}
			u, err := h.resolve(from, tc.location)
			if (err == nil) != (tc.want != "") || err == nil && u.String() != tc.want {
				t.Errorf("got %v, %v, want %q", u, err, tc.want)
			}
		})
	}
}

func TestHostNames(t *testing.T) {
	api := newTest(t, WithHost("index.docker.io", Host{Concurrency: 3}))
	h, err := api.host("docker.io")
	if err != nil {
		t.Fatal(err)
	}
	if got := h.base().String(); got != "https://registry-1.docker.io" || h.conf.Concurrency != 3 {
		t.Errorf("base %s, %d slots", got, h.conf.Concurrency)
	}
	for _, name := range []string{"registry-1.docker.io", "Docker.IO"} {
		if other, err := api.host(name); err != nil || other != h {
			t.Errorf("%s is another host: %v", name, err)
		}
	}
	for _, bad := range []string{"", "a b", "u:p@host", "host/path", "host?x", "h:99999"} {
		if _, err := api.host(bad); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for name, want := range map[string]bool{"localhost": true, "LOCALHOST.": true, "127.1.2.3": true, "::1": true, "localhost.example": false, "10.0.0.1": false} {
		if isLoopback(name) != want {
			t.Errorf("isLoopback(%q) is %v", name, !want)
		}
	}
	if a, b := api.Slots(ref.MustParse("alpine")), api.Slots(ref.MustParse("docker.io/x/y")); a == nil || a != b {
		t.Error("slots belong to hosts")
	}
}

// Python's server answers a handshake with a page and no status line.
func TestPlainHTTPIsFoundOutWithoutAStatusLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer conn.Close()
				buf := make([]byte, 4096)
				if _, err := conn.Read(buf); err != nil {
					return
				}
				reply := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
				if buf[0] == 0x16 { // a TLS record
					reply = "<!DOCTYPE HTML><p>Bad request version"
				}
				if _, err := io.WriteString(conn, reply); err != nil {
					t.Error(err)
				}
			})
		}
	})
	t.Cleanup(open.Wait)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	r := ref.Ref{Scheme: ref.SchemeReg, Root: l.Addr().String(), Repo: "a"}
	if _, err := newTest(t).Ping(t.Context(), r); err != nil {
		t.Error(err)
	}
	_, err = newTest(t, WithHost(r.Root, Host{TLS: TLSEnabled})).Ping(t.Context(), r)
	if err == nil || !strings.Contains(errs.Hint(err), "--plain-http "+r.Root) {
		t.Errorf("got %v, hint %q", err, errs.Hint(err))
	}
}
