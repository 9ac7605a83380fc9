package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/testdata"
	"github.com/ocisync/ocisync/types/ref"
)

// testRegistry is a registry with the demo image in two repositories, and the faults that a script asks for.
type testRegistry struct {
	faults []string

	mu       sync.Mutex
	requests []string // METHOD PATH
	arrived  chan struct{}
}

// The faults: what a registry can be told to be.
const (
	faultAuth    = "auth"    // needs the user "user" with the password "secret"
	faultTLS     = "tls"     // speaks HTTPS, with a certificate that nobody knows
	faultEmpty   = "empty"   // has no image
	faultCorrupt = "corrupt" // sends blobs whose last byte is wrong
	faultDenied  = "denied"  // refuses every write
	faultLimited = "limited" // answers everything with 429
	faultHang    = "hang"    // does not send blobs
)

// startTestRegistry returns a registry's host, and its certificate if it speaks HTTPS.
func startTestRegistry(ctx context.Context, faults ...string) (*testRegistry, *httptest.Server, error) {
	api, root := mem.New(), ref.Ref{Scheme: "mem", Root: "test"}
	if !slices.Contains(faults, faultEmpty) {
		for _, repo := range []string{"demo/hello", "team/app"} {
			if err := seed(ctx, api, root.WithRepo(repo), testdata.Demo()); err != nil {
				return nil, nil, err
			}
		}
	}
	handler, err := serve.New(api, root)
	if err != nil {
		return nil, nil, err
	}
	reg := &testRegistry{faults: faults, arrived: make(chan struct{}, 1)}
	server := httptest.NewUnstartedServer(reg.wrap(handler))
	server.Config.ErrorLog = nil
	if reg.has(faultTLS) {
		server.StartTLS()
	} else {
		server.Start()
	}
	return reg, server, nil
}

func (r *testRegistry) has(fault string) bool { return slices.Contains(r.faults, fault) }

func (r *testRegistry) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.record(req)
		blob := req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/sha256:")
		user, password, _ := req.BasicAuth()
		switch {
		case r.has(faultAuth) && (user != "user" || password != "secret"):
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "who are you?")
		case r.has(faultDenied) && req.Method != http.MethodGet && req.Method != http.MethodHead:
			refuse(w, http.StatusForbidden, "DENIED", "this registry takes nothing from you")
		case r.has(faultLimited):
			w.Header().Set("Retry-After", "86400")
			refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "come back tomorrow")
		case r.has(faultHang) && blob:
			<-req.Context().Done()
		case r.has(faultCorrupt) && blob:
			next.ServeHTTP(&corrupter{ResponseWriter: w}, req)
		default:
			next.ServeHTTP(w, req)
		}
	})
}

func (r *testRegistry) record(req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, req.Method+" "+req.URL.Path)
	r.mu.Unlock()
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

// await waits until a request contains text.
func (r *testRegistry) await(text string) error {
	deadline := time.After(30 * time.Second)
	for {
		r.mu.Lock()
		found := slices.ContainsFunc(r.requests, func(s string) bool { return strings.Contains(s, text) })
		r.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-r.arrived:
		case <-deadline:
			return fmt.Errorf("no request for %q came", text)
		}
	}
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

// corrupter changes the last byte of everything that is written through it.
type corrupter struct{ http.ResponseWriter }

func (c *corrupter) Write(p []byte) (int, error) {
	wrong := slices.Clone(p)
	if len(wrong) > 0 {
		wrong[len(wrong)-1] ^= 1
	}
	return c.ResponseWriter.Write(wrong)
}

// ReadFrom keeps the server from copying past Write.
func (c *corrupter) ReadFrom(src io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, src)
}

// scriptCommands are the commands that scripts have beyond testscript's own:
//
//	registry NAME [FAULT]…   starts a registry, sets $NAME to its host, and writes its certificate to NAME.pem
//	awaitrequest NAME TEXT   waits until the registry got a request that contains TEXT
//	norequest NAME TEXT      fails if it got one
//	login NAME USER PASSWORD stores credentials as "docker login" does
//	exits CODE ocisync …     runs the command and holds its exit code
//	damage DIR               changes a byte of the largest blob of a layout
//	rundoc FILE              runs the commands of a documentation page, see rundoc_test.go
//	json FILE                fails unless FILE (or stdout) is JSON
//	jsonlines FILE           fails unless each line of FILE (or stderr) is JSON, and there are some
//
// and those of servescript_test.go for servers.
func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	registries := map[*testscript.TestScript]map[string]*testRegistry{}
	var mu sync.Mutex
	find := func(ts *testscript.TestScript, name string) *testRegistry {
		mu.Lock()
		defer mu.Unlock()
		r := registries[ts][name]
		if r == nil {
			ts.Fatalf("no registry %s", name)
		}
		return r
	}
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"registry": func(ts *testscript.TestScript, _ bool, args []string) {
			r, server, err := startTestRegistry(context.Background(), args[1:]...)
			ts.Check(err)
			ts.Defer(func() {
				server.CloseClientConnections()
				server.Close()
			})
			mu.Lock()
			if registries[ts] == nil {
				registries[ts] = map[string]*testRegistry{}
			}
			registries[ts][args[0]] = r
			mu.Unlock()
			ts.Setenv(args[0], server.Listener.Addr().String())
			if cert := server.Certificate(); cert != nil {
				block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
				ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pem"), block, 0o644))
			}
		},
		"awaitrequest": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(find(ts, args[0]).await(args[1]))
		},
		"norequest": func(ts *testscript.TestScript, _ bool, args []string) {
			r := find(ts, args[0])
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, req := range r.requests {
				if strings.Contains(req, args[1]) {
					ts.Fatalf("the registry got %s", req)
				}
			}
		},
		"rundoc": scriptRunDoc,
		"login":  scriptLogin,
		"exits":  scriptExits,
		"damage": scriptDamage,
		"jsonlines": func(ts *testscript.TestScript, _ bool, args []string) {
			n := 0
			for line := range strings.Lines(ts.ReadFile(args[0])) {
				if n++; !json.Valid([]byte(line)) {
					ts.Fatalf("%s: not JSON: %s", args[0], line)
				}
			}
			if n == 0 {
				ts.Fatalf("%s has no line", args[0])
			}
		},
		"flip": func(ts *testscript.TestScript, _ bool, args []string) { // a bit in the middle of a file
			name := ts.MkAbs(args[0])
			data, err := os.ReadFile(name)
			ts.Check(err)
			data[len(data)/2] ^= 1
			ts.Check(os.WriteFile(name, data, 0o644))
		},
		"json": func(ts *testscript.TestScript, _ bool, args []string) {
			if !json.Valid([]byte(ts.ReadFile(args[0]))) {
				ts.Fatalf("%s is not JSON", args[0])
			}
		},
	}
	maps.Copy(commands, serveCommands())
	return commands
}

func scriptLogin(ts *testscript.TestScript, _ bool, args []string) {
	auth := base64.StdEncoding.EncodeToString([]byte(args[1] + ":" + args[2]))
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, ts.Getenv(args[0]), auth)
	ts.Check(os.WriteFile(filepath.Join(ts.Getenv("DOCKER_CONFIG"), "config.json"), []byte(config), 0o600))
}

func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func scriptDamage(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "blobs", "sha256", "*"))
	ts.Check(err)
	var largest string
	var most int64
	for _, f := range files {
		info, err := os.Stat(f)
		ts.Check(err)
		if info.Size() > most {
			largest, most = f, info.Size()
		}
	}
	b, err := os.ReadFile(largest)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.Chmod(largest, 0o644))
	ts.Check(os.WriteFile(largest, b, 0o644))
}
