package serve

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/ref"
)

// session opens an upload and returns its location.
func (c *client) session(repo string) string {
	c.t.Helper()
	a := c.want(202, "", "POST", "/v2/"+repo+"/blobs/uploads/", nil, nil)
	a.has(c.t, header{"Range": "0-0"})
	return a.Header.Get("Location")
}

// stored checks that repo has exactly this blob.
func (c *client) stored(repo, content string) {
	c.t.Helper()
	if a := c.want(200, "", "GET", "/v2/"+repo+"/blobs/"+sum(content), nil, nil); a.body != content {
		c.t.Errorf("the blob has %d other bytes", len(a.body))
	}
}

// ingests lists what the server keeps of uploads.
func (c *client) ingests() []blob.Ingest {
	c.t.Helper()
	var all []blob.Ingest
	list := func(in ingests) error {
		return in.IngestList(c.t.Context(), in.ref, func(st blob.Ingest) error {
			all = append(all, st)
			return nil
		})
	}
	in, err := c.s.ingests(c.s.places[0].Root)
	if err != nil {
		c.t.Fatal(err)
	}
	if in.spooled {
		err = list(in)
	} else {
		err = in.Ingester.(scheme.IngestFinder).IngestFind(c.t.Context(), in.ref.Base(), func(repo string) error {
			below := in
			below.ref = in.ref.WithRepo(repo)
			return list(below)
		})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

// spooled counts the uploads that the server keeps.
func (c *client) spooled() int {
	c.t.Helper()
	return len(c.ingests())
}

// at is the location of a session with the offset that it says.
func at(loc string, offset int) string {
	return loc[:strings.LastIndexByte(loc, '.')+1] + strconv.Itoa(offset)
}

// idle waits until no request holds a session.
func (c *client) idle() {
	c.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		t, busy := c.s.sessions, false
		t.mu.Lock()
		for _, u := range t.open {
			busy = busy || u.busy
		}
		t.mu.Unlock()
		if !busy {
			return
		}
	}
	c.t.Fatal("a request holds its session for ever")
}

func chunk(from, to int) header { return header{"Content-Range": fmt.Sprintf("%d-%d", from, to)} }

func TestUploadsInOneRequest(t *testing.T) {
	c := start(t, mem.New())
	for name, body := range map[string]any{"length": "hello", "stream": strings.NewReader("hello")} {
		repo := "post/" + name
		a := c.want(201, "", "POST", "/v2/"+repo+"/blobs/uploads/?digest="+sum("hello"), body, nil)
		a.has(t, header{"Location": "/v2/" + repo + "/blobs/" + sum("hello"), "Docker-Content-Digest": sum("hello")})
		c.stored(repo, "hello")
	}
	for name, body := range map[string]any{"length": content, "stream": strings.NewReader(content)} {
		repo := "put/" + name
		a := c.want(201, "", "PUT", c.session(repo)+"?digest="+sum(content), body, nil)
		a.has(t, header{"Location": "/v2/" + repo + "/blobs/" + sum(content)})
		c.stored(repo, content)
	}
	d := digest.SHA512.FromString("x").String()
	loc := c.want(202, "", "POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", nil, nil).Header.Get("Location")
	c.want(201, "", "PUT", loc+"?digest="+d, "x", nil).has(t, header{"Docker-Content-Digest": d})
	c.want(200, "", "GET", "/v2/a/blobs/"+d, nil, nil)
	if n := c.spooled(); n != 0 {
		t.Errorf("%d files were spooled", n)
	}
}

func TestUploadsInChunks(t *testing.T) {
	for name, last := range map[string]bool{"closed without a body": false, "closed with the last chunk": true} {
		t.Run(name, func(t *testing.T) {
			c := start(t, mem.New())
			loc := c.session("a")
			c.want(202, "", "PATCH", loc, "0123", chunk(0, 3)).has(t, header{"Range": "0-3", "Location": at(loc, 4)})
			c.want(204, "", "GET", loc, nil, nil).has(t, header{"Range": "0-3", "Location": at(loc, 4)})
			if last {
				c.want(201, "", "PUT", loc+"?digest="+sum("0123456"), "456", chunk(4, 6))
			} else {
				c.want(202, "", "PATCH", loc, strings.NewReader("456"), chunk(4, 6)).has(t, header{"Range": "0-6"})
				c.want(201, "", "PUT", loc+"?digest="+sum("0123456"), nil, nil)
			}
			c.stored("a", "0123456")
			c.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", loc, nil, nil)
			if n := c.spooled(); n != 0 {
				t.Errorf("%d files are left", n)
			}
		})
	}
}

func TestUploadsAsStreams(t *testing.T) {
	c := start(t, mem.New())
	loc := c.session("a")
	c.want(202, "", "PATCH", loc, strings.NewReader(content), nil).has(t, header{"Range": fmt.Sprintf("0-%d", len(content)-1)})
	c.want(202, "", "PATCH", loc, "more", nil)
	c.want(201, "", "PUT", loc+"?digest="+sum(content+"more!"), "!", nil)
	c.stored("a", content+"more!")
}

func TestWhatDoesNotFitTheSessionIsRefusedAndTheSessionGoesOn(t *testing.T) {
	c := start(t, mem.New())
	loc := c.session("a")
	whole := sum("0123456")
	refuse := func(status int, code, method, target string, body any, h header) {
		t.Helper()
		a := c.want(status, code, method, target, body, h)
		if status == 416 && (a.Header.Get("Range") == "" || !strings.HasPrefix(a.Header.Get("Location"), strings.TrimSuffix(loc, "0"))) {
			t.Errorf("a 416 must say where to go on: %v", a.Header)
		}
	}
	refuse(416, "BLOB_UPLOAD_INVALID", "PATCH", loc, "1", chunk(1, 1))
	refuse(416, "BLOB_UPLOAD_INVALID", "PUT", loc+"?digest="+whole, "1", chunk(1, 1))
	refuse(400, "BLOB_UPLOAD_INVALID", "PUT", loc+"?digest="+whole, nil, chunk(0, 0))
	c.want(202, "", "PATCH", loc, "0123", chunk(0, 3))
	for _, m := range []string{"PATCH", "PUT"} {
		to := loc + map[string]string{"PUT": "?digest=" + whole}[m]
		refuse(416, "BLOB_UPLOAD_INVALID", m, to, "0123", chunk(0, 3))
		refuse(416, "BLOB_UPLOAD_INVALID", m, to, "56", chunk(5, 6))
		refuse(400, "BLOB_UPLOAD_INVALID", m, to, "456", header{"Content-Range": "bytes 4-6/7"})
		refuse(400, "BLOB_UPLOAD_INVALID", m, to, "4567", chunk(4, 6))
		refuse(400, "BLOB_UPLOAD_INVALID", m, to, strings.NewReader("4567"), chunk(4, 6))
		refuse(400, "BLOB_UPLOAD_INVALID", m, to, strings.NewReader("45"), chunk(4, 6))
		c.want(204, "", "GET", loc, nil, nil).has(t, header{"Range": "0-3"})
	}
	refuse(400, "DIGEST_INVALID", "PUT", loc, "456", nil)
	refuse(400, "DIGEST_INVALID", "PUT", loc+"?digest=sha256:x", "456", nil)
	refuse(400, "DIGEST_INVALID", "PUT", loc+"?digest="+sum("other"), "456", nil)
	refuse(400, "DIGEST_INVALID", "PUT", loc+"?digest="+whole, nil, nil)
	refuse(404, "BLOB_UPLOAD_UNKNOWN", "PATCH", strings.Replace(loc, "/v2/a/", "/v2/b/", 1), "x", nil)
	refuse(404, "BLOB_UPLOAD_UNKNOWN", "DELETE", strings.Replace(loc, "/v2/a/", "/v2/b/", 1), nil, nil)
	c.want(204, "", "GET", loc, nil, nil).has(t, header{"Range": "0-3"})
	c.want(201, "", "PUT", loc+"?digest="+whole, "456", chunk(4, 6))
	c.stored("a", "0123456")
}

func TestAWrongDigestStoresNothing(t *testing.T) {
	c := start(t, mem.New())
	c.push("a", "there")
	c.want(400, "DIGEST_INVALID", "POST", "/v2/a/blobs/uploads/?digest="+sum("x"), "y", nil)
	c.want(400, "DIGEST_INVALID", "POST", "/v2/a/blobs/uploads/?digest="+sum("there"), "wrong", nil) // also when the place need not read
	c.want(400, "DIGEST_INVALID", "POST", "/v2/a/blobs/uploads/?digest="+sum("there"), strings.NewReader("wrong"), nil)
	c.want(400, "DIGEST_INVALID", "POST", "/v2/a/blobs/uploads/?digest="+sum("there"), nil, nil)
	loc := c.session("a")
	c.want(400, "DIGEST_INVALID", "PUT", loc+"?digest="+sum("x"), content, nil)
	c.want(404, "BLOB_UNKNOWN", "HEAD", "/v2/a/blobs/"+sum("x"), nil, nil)
	c.want(404, "BLOB_UNKNOWN", "HEAD", "/v2/a/blobs/"+sum(content), nil, nil)
	c.want(201, "", "PUT", loc+"?digest="+sum(content), content, nil) // the session is as it was
}

func TestCancelFreesTheSession(t *testing.T) {
	c := start(t, mem.New())
	loc := c.session("a")
	c.want(202, "", "PATCH", loc, "x", nil)
	if n := c.spooled(); n != 1 {
		t.Errorf("%d files for one upload", n)
	}
	c.want(204, "", "DELETE", loc, nil, nil)
	if n := c.spooled(); n != 0 {
		t.Errorf("%d files are left", n)
	}
	c.want(404, "BLOB_UPLOAD_UNKNOWN", "DELETE", loc, nil, nil)
	c.want(404, "NAME_UNKNOWN", "GET", "/v2/a/tags/list", nil, nil) // a session makes no repository
}

func TestAnAbandonedSessionIsGivenUp(t *testing.T) {
	c := start(t, mem.New(), WithSessionTTL(20*time.Millisecond))
	loc := c.session("a")
	for range 10_000 {
		c.s.sessions.mu.Lock()
		open := len(c.s.sessions.open)
		c.s.sessions.mu.Unlock()
		if open == 0 {
			c.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", loc, nil, nil)
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("nobody came back to the upload, and it is still open")
}

func TestTooManySessionsAreRefused(t *testing.T) {
	c := start(t, mem.New(), WithMaxSessions(2), WithMaxSessionsEach(2))
	loc := c.session("a")
	c.session("b")
	a := c.want(429, "TOOMANYREQUESTS", "POST", "/v2/c/blobs/uploads/", nil, nil)
	a.has(t, header{"Retry-After": "5"})
	c.push("c", "whole blobs need no session")
	c.want(204, "", "DELETE", loc, nil, nil)
	c.session("c")
}

func TestMount(t *testing.T) {
	c := start(t, mem.New())
	c.push("src", "hello")
	c.want(201, "", "POST", "/v2/tgt/blobs/uploads/?mount="+sum("hello")+"&from=src", nil, nil).has(t, header{"Location": "/v2/tgt/blobs/" + sum("hello"), "Docker-Content-Digest": sum("hello")})
	c.stored("tgt", "hello")
	for _, q := range []string{"mount=" + sum("none") + "&from=src", "mount=" + sum("hello") + "&from=none", "mount=" + sum("none")} {
		loc := c.want(202, "", "POST", "/v2/new/blobs/uploads/?"+q, nil, nil).Header.Get("Location")
		c.want(204, "", "GET", loc, nil, nil)
	}
	c.want(201, "", "POST", "/v2/tgt/blobs/uploads/?mount="+sum("hello"), nil, nil) // it has it already
	c.want(201, "", "POST", "/v2/new/blobs/uploads/?mount="+sum("hello"), nil, nil) // it is found
	c.stored("new", "hello")
}

// finder can find blobs without being told where.
type finder struct{ *mem.Mem }

func (f finder) BlobFind(_ context.Context, _ ref.Ref, _ digest.Digest, fn func(string) error) error {
	for _, repo := range []string{"wrong", "src", "never reached"} {
		if err := fn(repo); err != nil {
			if err == io.EOF && repo == "src" {
				return nil
			}
			return err
		}
	}
	return nil
}

func TestMountWithoutASourceSearchesWhereThePlaceCan(t *testing.T) {
	c := start(t, finder{mem.New()})
	c.push("src", "hello")
	c.want(201, "", "POST", "/v2/tgt/blobs/uploads/?mount="+sum("hello"), nil, nil)
	c.stored("tgt", "hello")
	c.want(202, "", "POST", "/v2/tgt/blobs/uploads/?mount="+sum("none"), nil, nil)
}

var _ scheme.BlobFinder = finder{}

// raw sends the head of a request and a part of its body over a connection of its own, which it returns.
func (c *client) raw(request string) net.Conn {
	c.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.srv.URL, "http://"))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		c.t.Fatal(err)
	}
	return conn
}

// received waits until the only upload has n bytes.
func (c *client) received(n int64) {
	c.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if all := c.ingests(); len(all) == 1 && all[0].Offset == n {
			return
		}
	}
	c.t.Fatalf("no upload has received %d bytes", n)
}

func TestOneWriterAtATime(t *testing.T) {
	c := start(t, mem.New())
	loc := c.session("a")
	conn := c.raw("PATCH " + loc + " HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
	defer conn.Close()
	c.received(3)
	for _, r := range [][2]string{{"PATCH", loc}, {"PUT", loc + "?digest=" + sum("zzz")}} {
		c.want(416, "BLOB_UPLOAD_INVALID", r[0], r[1], "zzz", nil).has(t, header{"Location": at(loc, 3), "Range": "0-2"})
	}
	c.want(204, "", "GET", loc, nil, nil).has(t, header{"Location": at(loc, 3), "Range": "0-2"})
	if _, err := io.WriteString(conn, "def"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 202 || res.Header.Get("Range") != "0-5" {
		t.Error(res.StatusCode, res.Header)
	}
	c.want(201, "", "PUT", loc+"?digest="+sum("abcdef"), nil, nil)
	c.stored("a", "abcdef")
}

// Whoever cancels a session that is written to does not wait, and its writer learns at once that it is over.
func TestCancelStopsAWriter(t *testing.T) {
	everyPlace(t, func(t *testing.T, c *client) {
		loc := c.session("a")
		conn := c.raw("PATCH " + loc + " HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
		defer conn.Close()
		c.received(3)
		c.want(204, "", "DELETE", loc, nil, nil).has(t, header{"Location": "", "Range": ""})
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", loc, nil, nil)
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "DELETE", loc, nil, nil)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != 404 {
			t.Error("the writer of a cancelled session gets", res.StatusCode)
		}
		c.idle()
		if n := c.spooled(); n != 0 {
			t.Errorf("%d uploads are left", n)
		}
	})
}

// A client that died in the middle asks how far it came and goes on there; one that does not ask, and sends the same
// request again, must not have its bytes twice.
func TestAfterTheClientDied(t *testing.T) {
	for name, ask := range map[string]bool{"it asks and goes on": true, "it sends the same again": false} {
		t.Run(name, func(t *testing.T) {
			c := start(t, mem.New())
			loc := c.session("a")
			c.want(202, "", "PATCH", loc, "01", nil)
			conn := c.raw("PATCH " + loc + " HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n234")
			c.received(5)
			conn.Close()
			c.idle() // it was noticed
			rest := "234567"
			if ask {
				c.want(204, "", "GET", loc, nil, nil).has(t, header{"Range": "0-4"})
				rest = "567"
			}
			c.want(202, "", "PATCH", loc, rest, nil).has(t, header{"Range": "0-7"})
			c.want(201, "", "PUT", loc+"?digest="+sum("01234567"), nil, nil)
		})
	}
}

func TestABodyThatIsNoneIsTheClientsFault(t *testing.T) {
	c := start(t, mem.New())
	for _, target := range []string{"PATCH " + c.session("a"), "PUT /v2/a/manifests/x", "POST /v2/a/blobs/uploads/?digest=" + sum("x")} {
		conn := c.raw(target + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(target, err)
		}
		if res.StatusCode != 400 {
			t.Errorf("%s: %d", target, res.StatusCode)
		}
		res.Body.Close()
		conn.Close()
	}
}
