package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/bcrypt"
)

// scriptPatience bounds every wait of a script, so that what never comes is a failure.
const scriptPatience = time.Minute

// servers are the processes of ocisync serve that scripts started.
type servers struct {
	mu sync.Mutex
	by map[*testscript.TestScript]map[string]*serverProcess
}

// serverProcess is one of them. Its stderr is copied to a file, and searched meanwhile.
type serverProcess struct {
	cmd *exec.Cmd

	mu   sync.Mutex
	said []string
	more chan struct{} // closed and replaced with every line
	done chan struct{} // closed at the end of stderr
}

// serveCommands are what scripts have for ocisync serve:
//
//	serve NAME ARG…              starts ocisync serve --addr 127.0.0.1:0 ARG…, and sets $NAME to where it listens
//	serversays NAME TEXT         waits until a line on its stderr contains TEXT
//	stopserver NAME [SIG [CODE]] sends INT, TERM or KILL, and waits for the exit code (INT, 0); stderr is in NAME.log then
//	certificate NAME             writes a new certificate for 127.0.0.1, NAME.pem, and its key, NAME.key
//	htpasswd FILE USER PASSWORD  adds a user to a file
//	answers CODE [METHOD] URL [USER PW]  holds the status of a request, ~CODE the one that it has at last, and puts
//	                             headers and body into the file "answer"
//	servescert HOST NAME         waits until the server's certificate is that of certificate NAME
func serveCommands() map[string]func(*testscript.TestScript, bool, []string) {
	all := &servers{by: map[*testscript.TestScript]map[string]*serverProcess{}}
	return map[string]func(*testscript.TestScript, bool, []string){
		"serve": all.start,
		"serversays": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(all.find(ts, args[0]).await(func(line string) bool { return strings.Contains(line, args[1]) }))
		},
		"stopserver":  all.stop,
		"certificate": scriptCertificate,
		"htpasswd":    scriptHtpasswd,
		"answers":     scriptAnswers,
		"servescert":  scriptServesCert,
	}
}

var signals = map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill}

func (s *servers) find(ts *testscript.TestScript, name string) *serverProcess {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.by[ts][name]
	if p == nil {
		ts.Fatalf("no server %s", name)
	}
	return p
}

func (s *servers) start(ts *testscript.TestScript, _ bool, args []string) {
	log, err := os.Create(ts.MkAbs(args[0] + ".log"))
	ts.Check(err)
	p, err := startServer(ts.MkAbs("."), scriptEnv(ts), log, args[1:])
	ts.Check(err)
	ts.Defer(p.kill)
	s.mu.Lock()
	if s.by[ts] == nil {
		s.by[ts] = map[string]*serverProcess{}
	}
	s.by[ts][args[0]] = p
	s.mu.Unlock()
	host, err := p.host()
	ts.Check(err)
	ts.Setenv(args[0], host)
}

// scriptEnv is what of a script's environment a server gets.
func scriptEnv(ts *testscript.TestScript) (env []string) {
	for _, v := range []string{"PATH", "HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "REGISTRY_AUTH_FILE", "GORACE", "TMPDIR", "SECRET"} {
		if value := ts.Getenv(v); value != "" {
			env = append(env, v+"="+value)
		}
	}
	return env
}

// nowhere is a log that nobody reads.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Close() error                { return nil }

// startServer runs this test binary as ocisync serve on a free port. What it says on stderr goes to log, too.
func startServer(dir string, env []string, log io.WriteCloser, args []string) (*serverProcess, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &serverProcess{more: make(chan struct{}), done: make(chan struct{})}
	p.cmd = exec.Command(exe)
	p.cmd.Args = append([]string{"ocisync", "serve", "--addr", "127.0.0.1:0"}, args...) // TestMain goes by the name
	p.cmd.Dir, p.cmd.Env = dir, env
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.read(stderr, log)
	return p, nil
}

// kill ends it, if it has not ended.
func (p *serverProcess) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// host waits until it says where it listens.
func (p *serverProcess) host() (host string, err error) {
	err = p.await(func(line string) bool {
		if !strings.HasPrefix(line, "serving ") && !strings.Contains(line, `"note":"serving `) {
			return false
		}
		_, port, found := strings.Cut(line, "://127.0.0.1:")
		port = port[:len(port)-len(strings.TrimLeft(port, "0123456789"))]
		host = "127.0.0.1:" + port
		return found
	})
	return host, err
}

func (p *serverProcess) read(stderr io.Reader, log io.WriteCloser) {
	for lines := bufio.NewScanner(io.TeeReader(stderr, log)); lines.Scan(); {
		p.mu.Lock()
		p.said = append(p.said, lines.Text())
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
	_ = log.Close()
	close(p.done)
}

// first returns the first n lines that it has said, or all.
func (p *serverProcess) first(n int) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.said[:min(n, len(p.said))])
}

// await waits for a line that is what is wanted.
func (p *serverProcess) await(wanted func(string) bool) error {
	deadline, seen := time.After(scriptPatience), 0
	for ended := false; ; {
		p.mu.Lock()
		lines, more := p.said[seen:], p.more
		seen = len(p.said)
		p.mu.Unlock()
		for _, line := range lines {
			if wanted(line) {
				return nil
			}
		}
		if ended {
			return fmt.Errorf("the server ended without saying so; it said\n%s", strings.Join(p.said, "\n"))
		}
		select {
		case <-more:
		case <-p.done:
			ended = true
		case <-deadline:
			return errors.New("the server did not say so")
		}
	}
}

func (s *servers) stop(ts *testscript.TestScript, _ bool, args []string) {
	p := s.find(ts, args[0])
	sig, want := "INT", 0
	if len(args) > 1 {
		sig = args[1]
	}
	if len(args) > 2 {
		var err error
		want, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	p.end(ts, sig, want)
}

// end sends a signal and holds the exit code. What was killed has none.
func (p *serverProcess) end(ts *testscript.TestScript, sig string, want int) {
	ts.Check(p.cmd.Process.Signal(signals[sig]))
	select {
	case <-p.done:
	case <-time.After(scriptPatience):
		ts.Fatalf("the server does not stop")
	}
	err := p.cmd.Wait()
	if got := p.cmd.ProcessState.ExitCode(); sig != "KILL" && got != want {
		ts.Fatalf("exit code %d, want %d (%v)\n%s", got, want, err, strings.Join(p.said, "\n"))
	}
}

func scriptCertificate(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(makeCertificate(ts.MkAbs(args[0]), time.Now().Add(-time.Hour)))
}

// makeCertificate writes a certificate for 127.0.0.1, good for two hours, and its key to path.pem and path.key.
func makeCertificate(path string, from time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: filepath.Base(path)}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: from, NotAfter: from.Add(2 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(path+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(path+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

func scriptHtpasswd(ts *testscript.TestScript, _ bool, args []string) {
	hash, err := bcrypt.GenerateFromPassword([]byte(args[2]), bcrypt.MinCost)
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = fmt.Fprintf(f, "%s:%s\n", args[1], hash)
	ts.Check(errors.Join(err, f.Close()))
}

func scriptAnswers(ts *testscript.TestScript, _ bool, args []string) {
	want, eventually := strings.CutPrefix(args[0], "~")
	deadline := time.Now().Add(scriptPatience)
	for {
		got, answer := scriptAnswer(ts, args[1:])
		switch {
		case got == want:
			ts.Check(os.WriteFile(ts.MkAbs("answer"), answer, 0o644))
			return
		case !eventually || time.Now().After(deadline):
			ts.Fatalf("%v: %s, want %s\n%s", args[1:], got, want, answer)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// scriptAnswer sends [METHOD] URL [USER PW], and returns the status, and the headers and the body.
func scriptAnswer(ts *testscript.TestScript, args []string) (status string, answer []byte) {
	method := http.MethodGet
	if !strings.Contains(args[0], "://") {
		method, args = args[0], args[1:]
	}
	req, err := http.NewRequest(method, args[0], nil)
	ts.Check(err)
	if len(args) > 2 {
		req.SetBasicAuth(args[1], args[2])
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	res, err := (&http.Client{Transport: transport, Timeout: scriptPatience}).Do(req)
	ts.Check(err)
	var b bytes.Buffer
	ts.Check(res.Header.Write(&b))
	fmt.Fprintf(&b, "Protocol: %s\n\n", res.Proto)
	_, err = b.ReadFrom(res.Body)
	ts.Check(errors.Join(err, res.Body.Close()))
	return strconv.Itoa(res.StatusCode), b.Bytes()
}

func scriptServesCert(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(scriptPatience)
	for {
		conn, err := tls.Dial("tcp", args[0], &tls.Config{InsecureSkipVerify: true})
		ts.Check(err)
		name := conn.ConnectionState().PeerCertificates[0].Subject.CommonName
		ts.Check(conn.Close())
		if name == args[1] {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("the certificate stays that of %s", name)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
