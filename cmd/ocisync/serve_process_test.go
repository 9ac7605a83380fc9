//go:build !windows

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serveProcess runs ocisync serve in a process of its own until the test ends.
func serveProcess(t *testing.T, args ...string) (*serverProcess, string) {
	t.Helper()
	p, err := startServer(t.TempDir(), append(os.Environ(), "DOCKER_CONFIG="+t.TempDir()), nowhere{}, args)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	host, err := p.host()
	if err != nil {
		t.Fatal(err)
	}
	return p, host
}

// exits waits for the end of the process, and holds its exit code.
func (p *serverProcess) exits(t *testing.T, want int) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(scriptPatience):
		t.Fatal("the server does not stop")
	}
	err := p.cmd.Wait()
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		t.Errorf("exit code %d, want %d (%v)\n%s", got, want, err, strings.Join(p.said, "\n"))
	}
}

// says waits for a line.
func (p *serverProcess) says(t *testing.T, text string) {
	t.Helper()
	if err := p.await(func(line string) bool { return strings.Contains(line, text) }); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
}

// slowPush is an upload whose body comes as the test wants.
type slowPush struct {
	body   *io.PipeWriter
	answer chan error // nil for 201
}

// startPush begins the upload of blob in one request, whose first half it waits for the server to have taken.
func startPush(t *testing.T, host string, blob []byte) *slowPush {
	t.Helper()
	location := "http://" + host + startUpload(t, host, "app")
	r, w := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, location+fmt.Sprintf("?digest=sha256:%x", sha256.Sum256(blob)), r)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(len(blob))
	p := &slowPush{body: w, answer: make(chan error, 1)}
	go func() {
		res, err := client.Do(req)
		if err == nil {
			err = res.Body.Close()
			if res.StatusCode != http.StatusCreated {
				err = fmt.Errorf("%s", res.Status)
			}
		}
		p.answer <- err
	}()
	// More than any buffer on the way holds: when it is taken, the request is being answered.
	if _, err := w.Write(blob[:len(blob)/2]); err != nil {
		t.Fatal(err)
	}
	return p
}

var client = &http.Client{Timeout: scriptPatience, Transport: &http.Transport{DisableKeepAlives: true}}

func (p *slowPush) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.answer:
		return err
	case <-time.After(scriptPatience):
		t.Fatal("no answer")
		return nil
	}
}

// abandon ends the client's side of a push whose server is gone. net/http waits for the body before it says so.
func (p *slowPush) abandon(t *testing.T) {
	t.Helper()
	_ = p.body.CloseWithError(io.ErrUnexpectedEOF) // of a pipe, it cannot fail
	if err := p.wait(t); err == nil {
		t.Error("an upload of a half was taken for the whole")
	}
}

func bigBlob() []byte { return bytes.Repeat([]byte("sixteen bytes...\n"), 2<<20) }

// TestStopFinishesWhatRuns: whoever is in the middle of a push when the server is stopped gets to its end, while nobody
// new comes in.
func TestStopFinishesWhatRuns(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		p, host := serveProcess(t, "--create", "./mirror")
		blob := bigBlob()
		push := startPush(t, host, blob)
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		p.says(t, "stopping: no new requests; waiting up to 30s")
		awaitRefused(t, host)
		if _, err := push.body.Write(blob[len(blob)/2:]); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(push.body.Close(), push.wait(t)); err != nil {
			t.Errorf("%v: the push that was running: %v", sig, err)
		}
		p.exits(t, 0)
	}
}

// awaitRefused waits until nobody listens any more.
func awaitRefused(t *testing.T, host string) {
	t.Helper()
	deadline := time.Now().Add(scriptPatience)
	for {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			return
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("the server still takes connections")
		}
	}
}

// TestStopWaitsNoLongerThanGrace: a client that does not come to an end is cut, and the exit code tells.
func TestStopWaitsNoLongerThanGrace(t *testing.T) {
	p, host := serveProcess(t, "--create", "--grace", "100ms", "./mirror")
	push := startPush(t, host, bigBlob())
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.exits(t, exitFailed)
	push.abandon(t)
	p.says(t, "error: requests that were not done yet were cut after --grace 100ms")
}

// TestTheSecondSignalEndsAtOnce: nobody has to wait for the grace period.
func TestTheSecondSignalEndsAtOnce(t *testing.T) {
	p, host := serveProcess(t, "--create", "--grace", "1h", "./mirror")
	push := startPush(t, host, bigBlob())
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.says(t, "stopping: ")
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.exits(t, 130)
	push.abandon(t)
}

// TestPushAgainAfterTheServerWasKilled: what a server that was killed in the middle of a push has left disturbs
// nobody: the push is done again, and the directory is whole.
func TestPushAgainAfterTheServerWasKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mirror")
	_, source, err := startTestRegistry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	ocisync := func(args ...string) {
		t.Helper()
		cmd, out := command(t, args...)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	for range 3 {
		p, host := serveProcess(t, "--create", dir)
		push := startPush(t, host, bigBlob())
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-p.done
		push.abandon(t)
		p, host = serveProcess(t, dir)
		ocisync("copy", "--all-tags", source.Listener.Addr().String()+"/demo/hello", host+"/app")
		ocisync("ls", host+"/app")
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-p.done
		ocisync("verify", "--deep", dir)
		checkLayout(t, filepath.Join(dir, "app"))
	}
}

// TestUploadsGoOnAfterTheServerWasStoppedOrKilled: a chunk that was acknowledged is there when the server has been
// started again over the same directory, and the client goes on behind it; also where the place cannot keep uploads and
// the state directory does.
func TestUploadsGoOnAfterTheServerWasStoppedOrKilled(t *testing.T) {
	_, upstream := serveProcess(t, "--create", "./upstream")
	for name, args := range map[string][]string{
		"directory": {"--create", "tree=" + t.TempDir()},
		"registry":  {"--state-dir", t.TempDir(), "tree=" + upstream},
	} {
		for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
			t.Run(fmt.Sprint(name, " ", sig), func(t *testing.T) {
				p, host := serveProcess(t, args...)
				blob := append(bigBlob()[:1<<20], sig.String()...)
				location := startUpload(t, host, "tree/app")
				location = patch(t, host, location, blob[:1000])
				if err := p.cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				<-p.done

				_, host = serveProcess(t, args...)
				res := send(t, http.MethodGet, "http://"+host+location, nil)
				if res.StatusCode != http.StatusNoContent || res.Header.Get("Range") != "0-999" {
					t.Fatalf("after the restart: %s, Range %q, want 204 and 0-999", res.Status, res.Header.Get("Range"))
				}
				location = patch(t, host, res.Header.Get("Location"), blob[1000:])
				digest := fmt.Sprintf("sha256:%x", sha256.Sum256(blob))
				if res := send(t, http.MethodPut, "http://"+host+location+"?digest="+digest, nil); res.StatusCode != http.StatusCreated {
					t.Fatal(res.Status)
				}
				if res := send(t, http.MethodHead, "http://"+host+"/v2/tree/app/blobs/"+digest, nil); res.ContentLength != int64(len(blob)) {
					t.Errorf("%s, %d bytes, want %d", res.Status, res.ContentLength, len(blob))
				}
			})
		}
	}
}

// startUpload returns the location of a new session.
func startUpload(t *testing.T, host, repo string) string {
	t.Helper()
	res := send(t, http.MethodPost, "http://"+host+"/v2/"+repo+"/blobs/uploads/", nil)
	if res.StatusCode != http.StatusAccepted {
		t.Fatal(res.Status)
	}
	return res.Header.Get("Location")
}

// patch sends a chunk without Content-Range, and returns where to go on.
func patch(t *testing.T, host, location string, chunk []byte) string {
	t.Helper()
	res := send(t, http.MethodPatch, "http://"+host+location, chunk)
	if res.StatusCode != http.StatusAccepted {
		t.Fatal(res.Status)
	}
	return res.Header.Get("Location")
}

// send sends a request, and drops the answer's body.
func send(t *testing.T, method, url string, body []byte) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return res
}

// TestALogThatNobodyReads ends neither the server nor what it does when it is stopped.
func TestALogThatNobodyReads(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Args = []string{"ocisync", "serve", "--addr", "127.0.0.1:0", "mem://x"}
	cmd.Env, cmd.Stderr = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir()), w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first, err := bufio.NewReader(r).ReadString('\n')
	if err := errors.Join(err, r.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	_, host, _ := strings.Cut(strings.TrimSpace(first), "http://")
	for range 2 {
		res, err := client.Get("http://" + host + "/v2/")
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("%s, %v", res.Status, err)
		}
	}
	if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
		t.Error(err)
	}
}
