package serve_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// overSocket serves a directory with one large blob over a real connection, whose client has sent a GET and read the
// head of the answer. over is closed when the request is over.
func overSocket(t *testing.T, idle time.Duration) (client net.Conn, file string, over <-chan *serve.Event) {
	t.Helper()
	root := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
	api := ocidir.New(ocidir.WithDurability(ocidir.None))
	t.Cleanup(func() { api.Close() })
	data := bytes.Repeat(schemetest.Blob("large", 1<<20), 48) // more than the buffers of a connection
	d, err := api.BlobPut(t.Context(), root.WithRepo("a"), types.Descriptor{}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	ra, err := api.BlobOpen(t.Context(), root.WithRepo("a"), d) // from now on it is known to be good
	if err != nil {
		t.Fatal(err)
	}
	ra.Close()
	ended := make(chan *serve.Event, 1)
	s, err := serve.New(api, root, serve.WithWriteIdle(idle), serve.WithInspector(inspector(func(e *serve.Event) { c := *e; ended <- &c })))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := s.HTTPServer()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		<-served
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	fmt.Fprintf(client, "GET /v2/a/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n", d.Digest)
	head := make([]byte, 12)
	if _, err := io.ReadFull(client, head); err != nil || string(head) != "HTTP/1.1 200" {
		t.Fatalf("%q, %v", head, err)
	}
	return client, "blobs/sha256/" + d.Digest.Encoded(), ended
}

type inspector func(*serve.Event)

func (i inspector) Inspect(e *serve.Event) { i(e) }

// eventually waits for something that a goroutine is about to do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// The kernel sends a verified file by itself: the server's goroutine that waits for a client waits in sendfile. Whoever
// wraps the ResponseWriter, or the file, breaks that.
func TestFilesAreSentBySendfile(t *testing.T) {
	client, file, over := overSocket(t, time.Minute)
	eventually(t, "a goroutine in sendfile", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return bytes.Contains(stacks, []byte("internal/poll.SendFile("))
	})
	if !isOpen(t, file) {
		t.Error("the blob's file is not open: the next test tests nothing")
	}
	client.Close()
	<-over
}

// A client that stops reading is given up after the idle time: its request ends, and the file is closed.
func TestAReaderThatStopsIsGivenUp(t *testing.T) {
	_, file, over := overSocket(t, 50*time.Millisecond)
	select {
	case e := <-over:
		if !e.Aborted || e.Status != http.StatusOK {
			t.Errorf("status %d, aborted %v", e.Status, e.Aborted)
		}
	case <-time.After(time.Minute):
		t.Fatal("the request still runs")
	}
	eventually(t, "the blob's file is closed", func() bool { return !isOpen(t, file) })
}

// isOpen reports whether this process has a file open whose path ends in name.
func isOpen(t *testing.T, name string) bool {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasSuffix(to, name) {
			return true
		}
	}
	return false
}
