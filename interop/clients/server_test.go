package clients_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/scheme/serve/access"
	"github.com/ocisync/ocisync/types/ref"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for: a bug is then a failure, and not the end of all tests minutes later.
const patience = time.Minute

// mode is how a registry is spoken to.
type mode struct {
	name        string
	https, auth bool
}

var modes = []mode{
	{name: "HTTP"},
	{name: "HTTPS", https: true},
	{name: "HTTPS with user and password", https: true, auth: true},
	{name: "HTTP with user and password", auth: true},
}

// The users of a registry with passwords. Others may do nothing.
const (
	pusher   = "pusher" // pulls and pushes below team
	reader   = "reader" // only pulls there
	password = "correct horse"
)

// registry is one of ours, over a directory.
type registry struct {
	t      *testing.T
	mode   mode
	host   string
	client *http.Client // trusts the certificate, and has no password

	open    func() // makes api and handler
	api     *ocidir.OCIDir
	handler *serve.Server
}

func start(t *testing.T, m mode) *registry {
	t.Helper()
	var opts []serve.Option
	if m.auth {
		users, err := access.NewBasic(access.BasicConfig{Users: []access.User{{Name: pusher, Password: password}, {Name: reader, Password: password}}})
		if err != nil {
			t.Fatal(err)
		}
		team := []string{"team/**"}
		rules, err := access.NewPolicy(
			access.Rule{Subjects: []string{pusher}, Repositories: team, Actions: []serve.Action{serve.ActionPull, serve.ActionPush}},
			access.Rule{Subjects: []string{reader}, Repositories: team, Actions: []serve.Action{serve.ActionPull}},
		)
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, serve.WithAuthenticator(users), serve.WithAuthorizer(rules))
	}
	r := &registry{t: t, mode: m}
	place := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
	r.open = func() {
		var err error
		r.api = ocidir.New()
		if r.handler, err = serve.New(r.api, place, opts...); err != nil {
			t.Fatal(err)
		}
	}
	r.open()
	server := httptest.NewUnstartedServer(nil)
	server.Config = r.handler.HTTPServer()
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.handler.ServeHTTP(w, req) })
	r.host = server.Listener.Addr().String()
	transport := &http.Transport{}
	if m.https {
		server.StartTLS()
		pool := x509.NewCertPool()
		pool.AddCert(server.Certificate())
		transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		transport.TLSClientConfig.RootCAs = pool
	} else {
		server.Start()
	}
	r.client = &http.Client{Transport: transport, Timeout: patience}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
		r.stop()
	})
	return r
}

// stop ends what open has made.
func (r *registry) stop() {
	r.t.Helper()
	if err := errors.Join(r.handler.Shutdown(context.Background()), r.api.Close()); err != nil {
		r.t.Error(err)
	}
}

// restart is another server over the same directory, which knows nothing from before. No request may be under way.
func (r *registry) restart() {
	r.t.Helper()
	r.stop()
	r.open()
}

// transport returns what a client sends its requests with.
func (r *registry) transport() http.RoundTripper { return r.client.Transport }

// get asks for path as somebody who may read.
func (r *registry) get(path string) (status int, header http.Header, body []byte) {
	r.t.Helper()
	url := "http://" + r.host + path
	if r.mode.https {
		url = "https://" + r.host + path
	}
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.mode.auth {
		req.SetBasicAuth(reader, password)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}

// errCut is what breaks a request off.
var errCut = errors.New("the connection was cut by the test")

// cutter ends the connection in the middle of the first request whose body is longer than after bytes.
type cutter struct {
	http.RoundTripper
	after int64
	done  bool
}

func (c *cutter) RoundTrip(req *http.Request) (*http.Response, error) {
	if !c.done && req.ContentLength > c.after {
		c.done = true
		req = req.Clone(req.Context())
		req.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(req.Body, c.after), broken{}), req.Body}
		req.GetBody = nil
	}
	return c.RoundTripper.RoundTrip(req)
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errCut }

// wasCut checks that an operation failed because of a cutter.
func wasCut(t *testing.T, c *cutter, err error) {
	t.Helper()
	if !c.done || !errors.Is(err, errCut) && !strings.Contains(fmt.Sprint(err), errCut.Error()) {
		t.Fatalf("the push was to break off in the middle: %v", err)
	}
}
