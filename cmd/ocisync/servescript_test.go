package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
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
//	signalserver NAME SIG        sends a signal, and does not wait
func serveCommands() map[string]func(*testscript.TestScript, bool, []string) {
	all := &servers{by: map[*testscript.TestScript]map[string]*serverProcess{}}
	return map[string]func(*testscript.TestScript, bool, []string){
		"serve": all.start,
		"serversays": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(all.find(ts, args[0]).await(func(line string) bool { return strings.Contains(line, args[1]) }))
		},
		"stopserver": all.stop,
		"signalserver": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(all.find(ts, args[0]).cmd.Process.Signal(signals[args[1]]))
		},
	}
}

var signals = map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill, "HUP": syscall.SIGHUP}

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
	name := args[0]
	exe, err := os.Executable()
	ts.Check(err)
	p := &serverProcess{more: make(chan struct{}), done: make(chan struct{})}
	p.cmd = exec.Command(exe)
	p.cmd.Args = append([]string{"ocisync", "serve", "--addr", "127.0.0.1:0"}, args[1:]...) // TestMain goes by the name
	p.cmd.Dir = ts.MkAbs(".")
	for _, v := range []string{"PATH", "HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "REGISTRY_AUTH_FILE", "GORACE", "TMPDIR", "SECRET"} {
		if value := ts.Getenv(v); value != "" {
			p.cmd.Env = append(p.cmd.Env, v+"="+value)
		}
	}
	stderr, err := p.cmd.StderrPipe()
	ts.Check(err)
	log, err := os.Create(ts.MkAbs(name + ".log"))
	ts.Check(err)
	ts.Check(p.cmd.Start())
	ts.Defer(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
	})
	go p.read(stderr, log)
	s.mu.Lock()
	if s.by[ts] == nil {
		s.by[ts] = map[string]*serverProcess{}
	}
	s.by[ts][name] = p
	s.mu.Unlock()
	ts.Check(p.await(func(line string) bool {
		if !strings.HasPrefix(line, "serving ") {
			return false
		}
		_, host, found := strings.Cut(line, "://127.0.0.1:")
		ts.Setenv(name, "127.0.0.1:"+host)
		return found
	}))
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
	ts.Check(p.cmd.Process.Signal(signals[sig]))
	s.wait(ts, p, sig, want)
}

// wait waits for the end of a server. One that was killed has no exit code.
func (s *servers) wait(ts *testscript.TestScript, p *serverProcess, sig string, want int) {
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
