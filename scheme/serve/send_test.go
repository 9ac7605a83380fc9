package serve

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ocisync/ocisync/scheme/mem"
)

// A client that takes a file slowly gets all of it, however long that takes, and its deadline moves on between the
// pieces of the file. One that stops is cut off.
func TestAFileIsSentToASlowReader(t *testing.T) {
	const idle = time.Minute
	for name, stops := range map[string]bool{"slow": false, "stops": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content := strings.Repeat("0123456789abcdef", (inFlight+3*maxSendfile)/16) + "end"
				var seen events
				s, err := New(files{mem.New(), t.TempDir()}, root, WithInspector(&seen), WithWriteIdle(idle))
				if err != nil {
					t.Fatal(err)
				}
				d := putBlob(t, s, content)
				p := newPipes()
				srv := s.HTTPServer()
				served := make(chan error, 1)
				go func() { served <- srv.Serve(p) }()
				c := p.dial()
				defer c.Close()
				send(c, "GET /v2/a/blobs/"+string(d)+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				began := time.Now()
				got := readSlowly(c, stops, idle/40)
				switch {
				case stops:
					time.Sleep(2 * idle)
					synctest.Wait()
					if ev := seen.take(); len(ev) != 1 || !ev[0].Aborted {
						t.Errorf("the server still waits for it: %+v", ev)
					}
				case !strings.HasSuffix(got, content):
					t.Errorf("it got %d bytes of %d, %+v", len(got), len(content), seen.take())
				case time.Since(began) < 2*idle:
					t.Error("it was not slow: this test tests nothing")
				}
				if err := srv.Close(); err != nil {
					t.Error(err)
				}
				<-served
				if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// readSlowly reads 32 KiB at a time, and a pause after each. If it stops it does so after half a megabyte.
func readSlowly(c net.Conn, stops bool, pause time.Duration) string {
	var got strings.Builder
	for {
		n, err := io.CopyN(&got, c, 32<<10)
		if err != nil || n == 0 || stops && got.Len() > 512<<10 {
			return got.String()
		}
		time.Sleep(pause)
	}
}

// What is sent from memory that is used again is the blob's, not what was in it before.
func TestFilesOfAnySize(t *testing.T) {
	c := start(t, files{mem.New(), t.TempDir()})
	var all []string
	for _, n := range []int{0, 1, copyBuffer - 1, copyBuffer, copyBuffer + 1, 7, 3 * copyBuffer, inFlight, inFlight + 1, inFlight + 2*copyBuffer + 3} {
		s := strings.Repeat(string(rune('a'+len(all))), n)
		c.push("a", s)
		all = append(all, s)
	}
	for range 3 {
		for _, s := range all {
			if a := c.want(http.StatusOK, "", "GET", "/v2/a/blobs/"+sum(s), nil, nil); a.body != s {
				t.Errorf("%d bytes that are not those of the blob of %d", len(a.body), len(s))
			}
			if len(s) > 2 {
				if a := c.want(http.StatusPartialContent, "", "GET", "/v2/a/blobs/"+sum(s), nil, header{"Range": "bytes=1-"}); a.body != s[1:] {
					t.Errorf("a range: %d bytes that are not those of the blob of %d", len(a.body), len(s))
				}
			}
		}
	}
}
