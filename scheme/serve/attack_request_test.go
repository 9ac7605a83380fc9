package serve_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bytes are stored under the digest that they have, or not at all, whatever else the request says.
func TestAttackDigestsOfOtherBytes(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		a, b := "these bytes", "other bytes"
		da, db := digest.FromString(a), digest.FromString(b)
		blobs := "/v2/" + repo1 + "/blobs/"
		lie := "Docker-Content-Digest: " + db.String()

		got := w.want("201", "POST", blobs+"uploads/?digest="+da.String(), a, lie, "Content-Digest: sha-256=:AAAA:", "Content-MD5: AAAA")
		w.has(got, "Docker-Content-Digest: "+da.String())
		w.gone(blobs + db.String())
		w.want("400 DIGEST_INVALID", "POST", blobs+"uploads/?digest="+da.String(), b, lie) // though the blob is there
		w.reads(repo1, da, a)

		for _, query := range []string{"digest=" + db.String() + "&digest=" + da.String(), "digest=" + da.String() + "&digest=" + db.String()} {
			w.ask("PUT", with(w.session(repo1), query), a) // whichever counts
			w.gone(blobs + db.String())
		}
		w.want("400 DIGEST_INVALID", "POST", blobs+"uploads/?digest=sha512:"+da.Encoded(), a)
		w.want("400 DIGEST_INVALID", "POST", blobs+"uploads/?digest="+digest.SHA512.FromString(b).String(), a)
		w.want("400 DIGEST_INVALID", "POST", blobs+"uploads/?digest-algorithm=sha512&digest="+db.String(), a)

		// One blob under two algorithms is two blobs.
		d512 := digest.SHA512.FromString(a)
		w.want("201", "POST", blobs+"uploads/?digest="+d512.String(), a)
		w.deletesBlob(repo1, da)
		w.reads(repo1, d512, a)
		w.want("201", "POST", blobs+"uploads/?digest="+da.String(), a)
		w.deletesBlob(repo1, d512)
		w.reads(repo1, da, a)
	})
}

func TestAttackManifestsUnderOtherDigests(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		w.push(repo1, "{}")
		a, b := imageDoc(v1.MediaTypeImageManifest, ""), imageDoc(v1.MediaTypeImageManifest, `,"annotations":{"a":"b"}`)
		at, ct := "/v2/"+repo1+"/manifests/", "Content-Type: "+v1.MediaTypeImageManifest
		w.want("400 DIGEST_INVALID", "PUT", at+digest.FromString(a).String(), b, ct)
		w.want("400 DIGEST_INVALID", "PUT", at+digest.FromString(a).String()+"?tag=v1&tag=v2", b, ct)
		w.want("400 DIGEST_INVALID", "PUT", at+"sha512:"+digest.FromString(a).Encoded(), a, ct)
		w.want("400 DIGEST_INVALID", "PUT", at+digest.SHA512.FromString(a).String(), b, ct)
		for _, name := range []string{digest.FromString(a).String(), digest.FromString(b).String(), digest.SHA512.FromString(a).String(), "v1", "v2"} {
			w.gone(at + name)
		}
		got := w.want("201", "PUT", at+"v1", a, ct, "Docker-Content-Digest: "+digest.FromString(b).String())
		w.has(got, "Docker-Content-Digest: "+digest.FromString(a).String())
		w.gone(at + digest.FromString(b).String())
	})
}

// Where a request seems to come from, and which host it says it is for, changes nothing: a Location is a path.
func TestAttackSpoofedHeaders(t *testing.T) {
	spoofed := []string{
		"X-Forwarded-Host: evil.example", "X-Forwarded-Proto: javascript", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Prefix: //evil.example", "X-Forwarded-Port: 1",
		"Forwarded: for=127.0.0.1;host=evil.example;proto=http", "X-Real-IP: 127.0.0.1", "X-Original-URL: /v2/other/tags/list", "X-Rewrite-URL: /v2/other/tags/list",
		"X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE", "Via: 1.1 evil.example", "Referer: http://evil.example", "Origin: http://evil.example", "X-Host: evil.example",
	}
	each(t, func(t *testing.T, w *wire) {
		text := "a blob"
		d := digest.FromString(text)
		honest := func(a reply) string {
			t.Helper()
			all := fmt.Sprint(a.res.Header)
			if a.res.StatusCode < 400 { // a refusal may quote the path that it refuses
				all += a.body
			}
			if strings.Contains(all, "evil") || strings.Contains(all, "javascript") {
				t.Errorf("%s: the answer repeats what was spoofed: %s", a.asked, all)
			}
			return a.header("Location")
		}
		at := honest(w.want("202", "POST", "/v2/"+repo1+"/blobs/uploads/", "", spoofed...))
		at = honest(w.want("202", "PATCH", at, text, spoofed...))
		if got := honest(w.want("201", "PUT", with(at, "digest="+d.String()), "", spoofed...)); got != "/v2/"+repo1+"/blobs/"+d.String() {
			t.Errorf("Location %q", got)
		}
		honest(w.want("200", "GET", "/v2/"+repo1+"/blobs/"+d.String(), nil, spoofed...))
		w.reads(repo1, d, text) // it was not deleted
		w.tagged(repo1, "a", "b", "c")
		honest(w.want("200", "GET", "/v2/"+repo1+"/tags/list?n=1", nil, spoofed...))
		honest(w.want("200", "GET", "/v2/_catalog?n=1", nil, spoofed...))
		honest(w.want("404", "GET", "/v2/other/tags/list", nil, spoofed...))
		for _, request := range []string{
			"POST http://evil.example/v2/" + repo1 + "/blobs/uploads/ HTTP/1.1\r\nHost: evil.example\r\n", "POST /v2/" + repo1 + "/blobs/uploads/ HTTP/1.1\r\nHost: evil.example:80\r\n",
			"POST //evil.example/v2/" + repo1 + "/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n", "POST https://evil.example//v2/ HTTP/1.1\r\nHost: x\r\n",
		} {
			honest(w.raw("POST", []byte(request+"Content-Length: 0\r\nConnection: close\r\n\r\n")))
		}
	})
}

// What a client sends comes back in headers and documents only in a form that is no header of its own.
func TestAttackLineBreaksInParameters(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		w.tagged(repo1, "a", "b", "c")
		d := digest.FromString("x").String()
		for _, evil := range []string{"%0d%0aX-Injected:%201", "%0aX-Injected:%201", "%0d%0a%0d%0a<html>", `">;%20rel="next",<http://evil.example>`, "%22%3E%3B%0d%0a", "%E5%98%8A%E5%98%8DX-Injected:1", "%00", "%ff%fe"} {
			evil = strings.ReplaceAll(evil, " ", "%20")
			for _, target := range []string{
				"/v2/" + repo1 + "/tags/list?n=1&last=" + evil, "/v2/_catalog?n=1&last=" + evil, "/v2/" + repo1 + "/referrers/" + d + "?artifactType=" + evil + "&n=1",
				"/v2/" + repo1 + "/manifests/x" + evil, "/v2/" + repo1 + "/tags/list?n=" + evil, "/v2/" + repo1 + "/blobs/" + d + evil, "/v2/" + evil + "/tags/list",
			} {
				target = strings.NewReplacer(`"`, "%22", "<", "%3C", ">", "%3E").Replace(target)
				a := w.ask("GET", target, nil)
				if a.header("X-Injected") != "" || strings.Contains(a.header("Link"), "evil.example>") {
					t.Errorf("%s: headers %v", a.asked, a.res.Header)
				}
				if ct := a.header("Content-Type"); strings.Contains(ct, "html") {
					t.Errorf("%s: type %s", a.asked, ct)
				}
			}
			for _, target := range []string{"/v2/" + repo1 + "/manifests/x?tag=" + evil, "/v2/" + repo1 + "/blobs/uploads/?from=" + evil + "&mount=" + d, "/v2/" + repo1 + "/blobs/uploads/?digest-algorithm=" + evil} {
				target = strings.NewReplacer(`"`, "%22", "<", "%3C", ">", "%3E").Replace(target)
				method := map[bool]string{true: "PUT", false: "POST"}[strings.Contains(target, "/manifests/")]
				w.want("400", method, target, imageDoc(v1.MediaTypeImageManifest, ""), "Content-Type: "+v1.MediaTypeImageManifest)
			}
		}
		w.tags(repo1, "", "a", "b", "c")
	})
}

// Two lengths, or one that is no number, are how one request is made to look like two.
func TestAttackRequestsThatHaveTwoLengths(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		start := "POST /v2/" + repo1 + "/blobs/uploads/?digest=" + digest.FromString("hello").String() + " HTTP/1.1\r\nHost: x\r\n"
		for _, lengths := range []string{
			"Content-Length: 5\r\nContent-Length: 6\r\n", "Content-Length: 5, 6\r\n", "Content-Length: +5\r\n", "Content-Length: -5\r\n", "Content-Length: 0x5\r\n", "Content-Length: 5 5\r\n",
			"Content-Length: 99999999999999999999\r\n", "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding: chunked, identity\r\n", "Transfer-Encoding: gzip, chunked\r\n",
			"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "Content-Length : 5\r\n", " Content-Length: 5\r\n", "Transfer-Encoding : chunked\r\n",
		} {
			a := w.exchange("POST", []byte(start+lengths+"\r\nhello"))
			if s := a.res.StatusCode; s != 400 && s != 501 {
				t.Errorf("%q is answered with %s", lengths, a.res.Status)
			}
		}
		w.gone("/v2/" + repo1 + "/blobs/" + digest.FromString("hello").String())

		// Both kinds of length: the chunked coding counts (RFC 9112, 6.3), and what it holds is the body, all of it.
		inner := "DELETE /v2/" + repo1 + "/blobs/" + digest.FromString("hello").String() + " HTTP/1.1\r\nHost: x\r\n\r\n"
		a := w.raw("POST", []byte(start+"Connection: close\r\nContent-Length: 15\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"+inner))
		if s := a.res.StatusCode; s != 201 && s != 400 {
			t.Errorf("both lengths are answered with %s", a.res.Status)
		}
		if a.res.StatusCode == 201 {
			w.reads(repo1, digest.FromString("hello"), "hello")
		}
		for _, body := range []string{"5\r\nhello", "5;x=y\r\nhelloX\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n", "zz\r\n", "6\r\nhello\r\n0\r\n\r\n"} { // chunks that are none
			repo := "chunks"
			a := w.cut("POST", strings.Replace(start, repo1, repo, 1)+"Transfer-Encoding: chunked\r\n\r\n"+body)
			if strings.HasPrefix(a, "2") || strings.HasPrefix(a, "5") && !strings.HasPrefix(a, "503") { // 503: nobody seems to be there any more
				t.Errorf("the body %q is answered with %s", body, a)
			}
			w.gone("/v2/" + repo + "/blobs/" + digest.FromString("hello").String())
		}
		if a := w.cut("POST", strings.Replace(start, repo1, "short", 1)+"Content-Length: 6\r\n\r\nhello"); strings.HasPrefix(a, "2") || strings.HasPrefix(a, "5") && !strings.HasPrefix(a, "503") {
			t.Errorf("a body that ends too early is answered with %s", a)
		}
		w.gone("/v2/short/blobs/" + digest.FromString("hello").String())
	})
}

// cut sends a request and closes its direction of the connection. It returns the status that is answered, or "".
func (w *wire) cut(method, request string) string {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		w.t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		w.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return "" // a connection that was closed is an answer, too
	}
	defer res.Body.Close()
	return res.Status
}

// A coding of the content is not undone: what is stored is what was hashed.
func TestAttackCompressedBodies(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(bytes.Repeat([]byte("0"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	packed, plain := b.String(), strings.Repeat("0", 1<<20)
	each(t, func(t *testing.T, w *wire) {
		w.want("400 DIGEST_INVALID", "POST", "/v2/"+repo1+"/blobs/uploads/?digest="+digest.FromString(plain).String(), packed, "Content-Encoding: gzip")
		w.gone("/v2/" + repo1 + "/blobs/" + digest.FromString(plain).String())
		d := w.push(repo1, packed)
		a := w.want("200", "GET", "/v2/"+repo1+"/blobs/"+d.String(), nil, "Accept-Encoding: gzip, deflate, br, zstd")
		w.has(a, "Content-Encoding:")
		if a.body != packed {
			t.Error("the blob comes back as something else")
		}
		d = w.push(repo1, plain)
		a = w.want("200", "GET", "/v2/"+repo1+"/blobs/"+d.String(), nil, "Accept-Encoding: gzip")
		w.has(a, "Content-Encoding:")
		if a.body != plain {
			t.Error("the blob comes back in another coding")
		}
	})
}

func TestAttackManyRanges(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		text := content("many ranges", 20000)
		d := w.push(repo1, text)
		many := make([]string, 10000)
		for i := range many {
			many[i] = fmt.Sprintf("%d-%d", i, i)
		}
		for _, rng := range []string{strings.Join(many, ","), strings.Repeat("0-,", 10000) + "0-", "0-0,0-1,0-2", "-1,-2", "0-1,", ",0-1", "0-1,x"} {
			a := w.want("200", "GET", "/v2/"+repo1+"/blobs/"+d.String(), nil, "Range: bytes="+rng)
			if a.body != text {
				t.Errorf("%.20s…: %d bytes", rng, len(a.body))
			}
		}
		w.want("404", "GET", "/v2/"+repo1+"/manifests/none", nil, "Range: bytes=0-1")
	})
}

func TestAttackHugeHeaders(t *testing.T) {
	w := overMem(t) // a server has read the head before it knows the place
	w.want("431", "GET", "/v2/", nil, "X: "+strings.Repeat("x", 2<<20))
	w.want("431", "GET", "/v2/", nil, slices.Repeat([]string{"X: " + strings.Repeat("x", 1000)}, 2000)...)
	w.want("431", "GET", "/v2/"+strings.Repeat("a", 2<<20)+"/tags/list", nil)
	w.want("200", "GET", "/v2/", nil, "Range: bytes="+strings.Repeat("0", 10000), "If-None-Match: "+strings.Repeat(`"x",`, 3000), "Accept: "+strings.Repeat("a/b,", 3000))
	w.want("200", "GET", "/v2/", nil)
}

// A request that is refused by its head is refused before its body is asked for.
func TestAttackExpectations(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		w.push(repo1, "{}")
		at := w.session(repo1)
		for _, request := range []string{
			"PUT /v2/UPPER/manifests/x", "POST /v2/" + repo1 + "/blobs/uploads/?digest=sha256:x", "PATCH /v2/" + repo1 + "/blobs/uploads/none", "PUT /v2/" + repo1 + "/manifests/sha256:x", "PATCH /v2/" + repo1 + "/manifests/x",
		} {
			method, _, _ := strings.Cut(request, " ")
			a := w.raw(method, []byte(request+" HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n"))
			if s := a.res.StatusCode; s < 400 || s >= 500 {
				t.Errorf("%s: %s before the body", request, a.res.Status)
			}
		}
		a := w.raw("PATCH", []byte("PATCH "+at+" HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\nContent-Range: 5-14\r\n\r\n"))
		w.is("416 BLOB_UPLOAD_INVALID", "PATCH", a)
		a = w.raw("PUT", fmt.Appendf(nil, "PUT /v2/%s/manifests/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", repo1, v1.MediaTypeImageManifest, 1<<30))
		w.is("413 SIZE_INVALID", "PUT", a)
		w.want("417", "GET", "/v2/", nil, "Expect: something else")
	})
}

// Request lines of which HTTP has some use, and a registry none.
func TestAttackOddRequestLines(t *testing.T) {
	w := overMem(t)
	for _, tc := range []struct {
		status int
		line   string
	}{
		{404, "GET * HTTP/1.1"}, {404, "CONNECT evil.example:80 HTTP/1.1"}, {405, "CONNECT /v2/ HTTP/1.1"}, {404, "GET http: HTTP/1.1"}, {404, "GET mailto:x HTTP/1.1"},
		{404, "PRI * HTTP/2.0"}, {400, "GET v2/ HTTP/1.1"}, {400, "GET ?x HTTP/1.1"}, {400, "GET /v2/\x00 HTTP/1.1"}, {400, "GET /v2/%zz HTTP/1.1"}, {505, "GET /v2/ HTTP/3.7"},
		{400, "GET /v2/a/tags/list?%zz HTTP/1.1"}, {400, "GET /v2/a/tags/list?n=1;last=x HTTP/1.1"}, {400, "GET /v2/\tHTTP/1.1"}, {400, "GET  /v2/ HTTP/1.1"}, {400, "G\x7fT /v2/ HTTP/1.1"},
		{200, "GET /v2/ HTTP/1.0"}, {404, "HEAD /v2/a/manifests/x HTTP/1.0"}, {202, "POST /v2/a/blobs/uploads/ HTTP/1.0"}, {200, "GET /v2/?%00 HTTP/1.1"}, {200, "GET http:///v2/ HTTP/1.1"},
	} {
		method, _, _ := strings.Cut(tc.line, " ")
		a := w.exchange(method, []byte(tc.line+"\r\nHost: registry.example\r\nConnection: close\r\n\r\n"))
		if a.res.StatusCode != tc.status {
			t.Errorf("%q is answered with %s, want %d", tc.line, a.res.Status, tc.status)
		}
		if a.header("Docker-Distribution-Api-Version") != "" { // else it is net/http's answer
			w.check(method, a)
		}
	}
	for _, h := range []string{"Host: a\r\nHost: b", "Host: a b", "Host: a/b", "X: y"} {
		if a := w.exchange("GET", []byte("GET /v2/ HTTP/1.1\r\n"+h+"\r\nConnection: close\r\n\r\n")); a.res.StatusCode != 400 {
			t.Errorf("%q is answered with %s", h, a.res.Status)
		}
	}
}
