package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// server is one that runs.
type server struct {
	name   string
	addr   string
	static bool   // answers reads only
	auth   string // the header that its clients send
	cmd    *exec.Cmd
	log    string
}

// maker starts one kind of server, with a copy of the content below dir.
type maker func(ctx context.Context, c config, s *shelf, dir, addr string) (*exec.Cmd, error)

var makers = map[string]maker{
	"nginx": makeNginx, "ocisync": makeOcisync, "ocisync+auth+log": makeOcisyncAuth, "olareg": makeOlareg, "distribution": makeDistribution, "zot": makeZot,
}

// errMissing is what a maker says that has no program to start.
var errMissing = errors.New("missing")

// startAll starts the servers that there are. Who cannot be had is left out, and that is said.
func startAll(ctx context.Context, c config, work string, s *shelf) (all []*server, err error) {
	for _, name := range c.servers {
		start, ok := makers[name]
		if !ok {
			return all, fmt.Errorf("no server %q", name)
		}
		one, err := launch(ctx, c, s, filepath.Join(work, name), name, start)
		if errors.Is(err, errMissing) {
			fmt.Fprintf(os.Stderr, "\n*** %s is MISSING and not in the table: %v ***\n\n", name, err)
			continue
		}
		if err != nil {
			return all, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, one)
	}
	return all, nil
}

func launch(ctx context.Context, c config, s *shelf, dir, name string, start maker) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	cmd, err := start(ctx, c, s, dir, addr)
	if err != nil {
		return nil, err
	}
	out := &server{name: name, addr: addr, static: name == "nginx", auth: auths[name], cmd: cmd, log: filepath.Join(dir, "log")}
	log, err := os.Create(out.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the server has it
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := out.wait(ctx); err != nil {
		return nil, errors.Join(err, out.stop())
	}
	return out, nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// wait waits until the server answers.
func (s *server) wait(ctx context.Context) error {
	var last error
	for range 200 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			return resp.Body.Close()
		}
		last = err
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	raw, _ := os.ReadFile(s.log) // for the message only
	return fmt.Errorf("does not answer: %w\n%s", last, raw)
}

// stop ends the server, and kills it when it takes its time.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	late := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	var status *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &status) { // how a stranger ends is its own business
		return err
	}
	return nil
}

func makeNginx(_ context.Context, c config, s *shelf, dir, addr string) (*exec.Cmd, error) {
	bin, err := lookUp(c.nginx, "/usr/sbin/nginx")
	if err != nil {
		return nil, fmt.Errorf("%w (apt-get install nginx-light)", err)
	}
	if err := s.asFiles(filepath.Join(dir, "root")); err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	conf := fmt.Sprintf(`%s
worker_processes auto;
daemon off;
pid %[2]s/pid;
error_log stderr;
events { worker_connections 2048; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 100000000;
	default_type application/vnd.oci.image.manifest.v1+json;
	client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
	server { listen %[3]s; root %[2]s/root; }
}
`, user, dir, addr)
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return exec.Command(bin, "-e", "stderr", "-c", path, "-p", dir), nil
}

func lookUp(names ...string) (string, error) {
	for _, n := range names {
		if n == "" {
			continue
		}
		if path, err := exec.LookPath(n); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: there is no %q", errMissing, names[0])
}

func makeOlareg(ctx context.Context, c config, s *shelf, dir, addr string) (*exec.Cmd, error) {
	bin, err := c.peer(ctx, dir, "olareg", "github.com/olareg/olareg/cmd/olareg")
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	return exec.Command(bin, "serve", "--addr", host, "--port", port, "--dir", data), copyTree(s.dir, data)
}

func makeDistribution(ctx context.Context, c config, s *shelf, dir, addr string) (*exec.Cmd, error) {
	bin, err := c.peer(ctx, dir, "registry", "github.com/distribution/distribution/v3/cmd/registry")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	conf := fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}, tag: {concurrencylimit: 8}, maintenance: {uploadpurging: {enabled: false}}}
http: {addr: %q, secret: bench}
`, data, addr)
	path := filepath.Join(dir, "registry.yml")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, "serve", path)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	return cmd, s.asDistribution(data)
}

// makeZot starts zot, which the module proxy cannot give: who has built it names the binary.
func makeZot(_ context.Context, c config, s *shelf, dir, addr string) (*exec.Cmd, error) {
	if c.zot == "" {
		return nil, fmt.Errorf("%w: build it, and name the binary with -zot or $ZOT", errMissing)
	}
	bin, err := lookUp(c.zot)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	conf := fmt.Sprintf(`{"distSpecVersion": "1.1.1", "storage": {"rootDirectory": %q, "gc": false, "dedupe": false},
"http": {"address": %q, "port": %q}, "log": {"level": "error"}}`, data, host, port)
	path := filepath.Join(dir, "zot.json")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return exec.Command(bin, "serve", path), copyTree(s.dir, data)
}

// peer is the binary of a tool that bench/peers pins.
func (c config) peer(ctx context.Context, dir, name, pkg string) (string, error) {
	if c.peers != "" {
		return lookUp(filepath.Join(c.peers, name))
	}
	top, err := c.top(ctx)
	if err != nil {
		return "", err
	}
	return goBuild(ctx, filepath.Join(top, "bench", "peers"), filepath.Join(dir, name), pkg)
}

// top is the folder of this module.
func (c config) top(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("%w: go list: %w", errMissing, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func goBuild(ctx context.Context, in, bin, pkg string) (string, error) {
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, pkg)
	build.Dir = in
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: go build %s: %w\n%s", errMissing, pkg, err, text)
	}
	return bin, nil
}
