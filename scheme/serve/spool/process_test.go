package spool_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/ocisync/ocisync/internal/memdir"
	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// The environment that makes the test binary a server, of a directory or of a registry, which prints its address.
const (
	serverDir      = "SPOOL_TEST_DIR"      // served, as ocidir
	serverUpstream = "SPOOL_TEST_UPSTREAM" // HOST:PORT of the registry that is served instead
	serverState    = "SPOOL_TEST_STATE"
)

func TestMain(m *testing.M) {
	if os.Getenv(serverDir) != "" || os.Getenv(serverUpstream) != "" {
		if err := serverMain(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(memdir.After(memdir.Use())))
}

// serverMain serves until SIGTERM, and then ends in good order, without waiting for slow clients.
func serverMain() error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	var api scheme.API = ocidir.New()
	root := ref.Ref{Scheme: ref.SchemeOCIDir, Root: os.Getenv(serverDir)}
	if up := os.Getenv(serverUpstream); up != "" {
		api, root = reg.New(), ref.Ref{Scheme: ref.SchemeReg, Root: up}
	}
	s, err := serve.New(api, root, serve.WithStateDir(os.Getenv(serverState)))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	srv := &http.Server{Handler: s}
	go func() { _ = srv.Serve(l) }()
	<-stop.Done()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	err = s.Shutdown(over)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, srv.Close(), scheme.Close(api))
}

// server is a server in a process of its own.
type server struct {
	t   *testing.T
	env []string
	cmd *exec.Cmd
	url string
}

func startServer(t *testing.T, env ...string) *server {
	t.Helper()
	s := &server{t: t, env: env}
	s.start()
	t.Cleanup(func() { s.end(syscall.SIGKILL) })
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), s.env...)
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.t.Fatal("the server does not start:", err)
	}
	s.url = "http://" + strings.TrimSpace(addr)
}

// end sends the signal, and waits until the process is gone.
func (s *server) end(sig os.Signal) {
	s.t.Helper()
	if s.cmd == nil {
		return
	}
	cmd := s.cmd
	s.cmd = nil
	if err := cmd.Process.Signal(sig); err != nil {
		s.t.Error(err)
	}
	kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	err := cmd.Wait()
	if sig == syscall.SIGTERM && err != nil {
		s.t.Error("the server does not end in good order:", err)
	}
}

// again ends the server, and starts the next one.
func (s *server) again(sig os.Signal) {
	s.t.Helper()
	s.end(sig)
	s.start()
}

// at is a location as this server has it.
func (s *server) at(res *http.Response) string { return s.url + res.Header.Get("Location") }

// part sends the beginning of a chunk, and returns when the server has it.
func (s *server) part(loc, part string, offset, length int) net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	path := strings.TrimPrefix(loc, s.url)
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, length, part)
	rng := ocihttp.FormatUploadRange(int64(offset + len(part)))
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if res := do(s.t, "GET", loc, "", nil); res.StatusCode == http.StatusNoContent && res.Header.Get("Range") == rng {
			return conn
		}
		if time.Now().After(end) {
			s.t.Fatal("the server does not get ", part)
		}
	}
}

// places calls test with servers whose uploads outlive them.
func places(t *testing.T, test func(t *testing.T, s *server, check func(repo, content string))) {
	t.Run("ocidir", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "tree")
		o := ocidir.New()
		t.Cleanup(func() { o.Close() })
		test(t, startServer(t, serverDir+"="+dir), func(repo, content string) {
			stored(t, o, ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir, Repo: repo}, []byte(content), "the directory")
		})
	})
	t.Run("registry", func(t *testing.T) {
		m, root := mem.New(), ref.Ref{Scheme: mem.Scheme, Root: "x"}
		s, err := serve.New(m, root)
		if err != nil {
			t.Fatal(err)
		}
		up := httptest.NewServer(s)
		t.Cleanup(func() {
			up.Close()
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		})
		test(t, startServer(t, serverUpstream+"="+strings.TrimPrefix(up.URL, "http://"), serverState+"="+t.TempDir()), func(repo, content string) {
			stored(t, m, root.WithRepo(repo), []byte(content), "the registry behind")
		})
	})
}

// An upload outlives its server, however that ends, between requests and in the middle of them.
func TestUploadsOutliveTheServer(t *testing.T) {
	for name, sig := range map[string]os.Signal{"SIGKILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			places(t, func(t *testing.T, s *server, check func(repo, content string)) {
				res := want(t, 202, "0-0", "POST", s.url+"/v2/a/b/blobs/uploads/", "", nil)
				s.again(sig) // nothing was sent yet
				res = want(t, 202, "0-3", "PATCH", s.at(res), "0123", nil)
				s.again(sig)
				want(t, 204, "0-3", "GET", s.at(res), "", nil)
				want(t, 404, "", "GET", strings.Replace(s.at(res), "/a/b/", "/a/c/", 1), "", nil)
				res = want(t, 202, "0-5", "PATCH", s.at(res), "45", map[string]string{"Content-Range": "4-5"})
				s.again(sig)
				res = want(t, 202, "0-7", "PATCH", s.at(res), "67", nil) // without asking, and without saying where

				conn := s.part(s.at(res), "89a", 8, 6)
				s.again(sig) // in the middle of a chunk
				conn.Close()
				want(t, 416, "0-10", "PATCH", s.at(res), "zz", map[string]string{"Content-Range": "9-10"})
				asked := want(t, 204, "0-10", "GET", s.at(res), "", nil)
				s.again(sig)
				want(t, 202, "0-10", "PATCH", s.at(res), "89a", nil) // who did not hear what came sends it again
				res = want(t, 202, "0-13", "PATCH", s.at(asked), "bcd", nil)
				s.again(sig)
				want(t, 400, "", "PUT", s.at(res)+"?digest="+string(digest.FromString("x")), "ef", nil)
				s.again(sig)
				want(t, 201, "", "PUT", s.at(asked)+"?digest="+string(digest.FromString("0123456789abcd")), "bcd", nil)
				want(t, 404, "", "GET", s.at(asked), "", nil)
				check("a/b", "0123456789abcd")
			})
		})
	}
}

// Killed at any moment of an upload, again and again, servers lose nothing that a client was told of.
func TestUploadsWhileServersAreKilled(t *testing.T) {
	places(t, func(t *testing.T, s *server, check func(repo, content string)) {
		content := strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB
		proxy := newCutter(t, "")
		all := func(int) int { return -1 }
		proxy.up, proxy.down = all, all
		set := func() {
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			proxy.to = strings.TrimPrefix(s.url, "http://")
		}
		set()
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		p := &pusher{base: "http://" + proxy.Addr().String(), http: &http.Client{Transport: tr}, chunk: 16 << 10, patient: true}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- p.push(ctx, "a", []byte(content)) }()
		for kills := 0; ; kills++ {
			select {
			case err := <-done:
				if err != nil {
					t.Fatalf("after %d kills: %v", kills, err)
				}
				t.Logf("%d kills", kills)
				check("a", content)
				return
			case <-time.After(time.Duration(1+kills%7) * 5 * time.Millisecond):
				if kills < 20 {
					s.again(syscall.SIGKILL)
					set()
				}
			}
		}
	})
}

// Two servers of one directory: the bytes of two writers never mix, and either can go on where the other one was.
func TestTwoServersOfOneDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	a, b := startServer(t, serverDir+"="+dir), startServer(t, serverDir+"="+dir)
	res := want(t, 202, "", "POST", a.url+"/v2/r/blobs/uploads/", "", nil)
	res = want(t, 202, "0-1", "PATCH", b.at(res), "01", nil)
	conn := a.part(a.at(res), "23", 2, 4)
	for _, h := range []map[string]string{nil, {"Content-Range": "2-5"}, {"Content-Range": "4-7"}} {
		if res := want(t, 416, "0-3", "PATCH", b.at(res), "zzzz", h); !strings.HasSuffix(res.Header.Get("Location"), ".4") {
			t.Error("a 416 does not say where the session is:", res.Header)
		}
	}
	want(t, 416, "0-3", "PUT", b.at(res)+"?digest="+string(digest.FromString("x")), "", nil)
	want(t, 204, "0-3", "GET", b.at(res), "", nil)
	if _, err := io.WriteString(conn, "45"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	conn.Close()
	if answer.StatusCode != 202 || answer.Header.Get("Range") != "0-5" {
		t.Fatal(answer.StatusCode, answer.Header)
	}
	want(t, 201, "", "PUT", b.at(answer)+"?digest="+string(digest.FromString("01234567")), "67", nil)
	want(t, 404, "", "GET", a.at(answer), "", nil)
	for i := range 20 {
		race(t, a, b, i)
	}
}

// race sends two chunks to one session at once, by way of two servers: one is taken whole, the other refused.
func race(t *testing.T, a, b *server, round int) {
	t.Helper()
	res := want(t, 202, "", "POST", a.url+"/v2/r/blobs/uploads/", "", nil)
	length := 100_000 + round
	var contents [2]string
	var codes [2]int
	var both sync.WaitGroup
	for i, s := range []*server{a, b} {
		contents[i] = strings.Repeat(string(rune('a'+i)), length)
		both.Go(func() {
			h := map[string]string{"Content-Range": ocihttp.FormatChunkRange(0, int64(length))}
			codes[i] = do(t, "PATCH", s.at(res), contents[i], h).StatusCode
		})
	}
	both.Wait()
	won := 0
	if codes[1] == 202 {
		won = 1
	}
	if codes[won] != 202 || codes[1-won] != 416 {
		t.Fatalf("two chunks at once are answered with %v", codes)
	}
	want(t, 400, "", "PUT", a.at(res)+"?digest="+string(digest.FromString(contents[1-won])), "", nil)
	want(t, 201, "", "PUT", b.at(res)+"?digest="+string(digest.FromString(contents[won])), "", nil)
}

// Over memory, and with a folder that goes with the server, the next one knows nothing.
func TestWhatDoesNotOutliveTheServer(t *testing.T) {
	root := ref.Ref{Scheme: mem.Scheme, Root: "x"}
	for name, next := range map[string]func() scheme.API{
		"memory": func() scheme.API { return mem.New() },
		"spool":  func() scheme.API { return only{mem.New()} },
	} {
		t.Run(name, func(t *testing.T) {
			var loc string
			for i := range 2 {
				s, err := serve.New(next(), root)
				if err != nil {
					t.Fatal(err)
				}
				srv := httptest.NewServer(s)
				if i == 0 {
					loc = want(t, 202, "", "POST", srv.URL+"/v2/a/blobs/uploads/", "", nil).Header.Get("Location")
					loc = want(t, 202, "", "PATCH", srv.URL+loc, "x", nil).Header.Get("Location")
				} else {
					for _, m := range []string{"GET", "PATCH", "PUT", "DELETE"} {
						want(t, 404, "", m, srv.URL+loc+"?digest="+string(digest.FromString("x")), "", nil)
					}
				}
				srv.Close()
				if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
