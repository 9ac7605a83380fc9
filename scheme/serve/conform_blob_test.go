package serve_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/errs"
)

// The names of the programme's two repositories.
const (
	repo1 = "conformance/repo1"
	repo2 = "conformance/repo2"
)

// algorithms are those that every case of blobs is tried with.
var algorithms = []digest.Algorithm{digest.SHA256, digest.SHA512}

const octets = "Content-Type: application/octet-stream"

// pushes are all ways to push a blob. Each returns the last answer.
var pushes = map[string]func(w *wire, d digest.Digest, content string) reply{
	"post only": func(w *wire, d digest.Digest, content string) reply {
		return w.ask("POST", "/v2/"+repo1+"/blobs/uploads/?digest="+d.String(), content, octets)
	},
	"post only, streamed": func(w *wire, d digest.Digest, content string) reply {
		return w.ask("POST", "/v2/"+repo1+"/blobs/uploads/?digest="+d.String(), stream(content), octets)
	},
	"post+put": func(w *wire, d digest.Digest, content string) reply {
		return w.ask("PUT", with(w.session(repo1), "digest="+d.String()), content, octets)
	},
	"post+put, streamed": func(w *wire, d digest.Digest, content string) reply {
		return w.ask("PUT", with(w.session(repo1), "digest="+d.String()), stream(content), octets)
	},
	"post+put, announced algorithm": func(w *wire, d digest.Digest, content string) reply {
		at := w.want("202", "POST", "/v2/"+repo1+"/blobs/uploads/?digest-algorithm="+d.Algorithm().String(), "").header("Location")
		return w.ask("PUT", with(at, "digest="+d.String()), content, octets)
	},
	"stream": func(w *wire, d digest.Digest, content string) reply {
		a := w.want("202", "PATCH", w.session(repo1), stream(content), octets)
		w.has(a, fmt.Sprintf("Range: 0-%d", len(content)-1))
		return w.ask("PUT", with(a.header("Location"), "digest="+d.String()), "", octets)
	},
	"patch without a range": func(w *wire, d digest.Digest, content string) reply {
		a := w.want("202", "PATCH", w.session(repo1), content, octets)
		return w.ask("PUT", with(a.header("Location"), "digest="+d.String()), nil)
	},
	"chunked single":                     func(w *wire, d digest.Digest, content string) reply { return w.chunks(d, content, 1, false, false) },
	"chunked multi":                      func(w *wire, d digest.Digest, content string) reply { return w.chunks(d, content, 3, false, false) },
	"chunked multi and put chunk":        func(w *wire, d digest.Digest, content string) reply { return w.chunks(d, content, 3, true, false) },
	"chunked out-of-order":               func(w *wire, d digest.Digest, content string) reply { return w.chunks(d, content, 3, false, true) },
	"chunked out-of-order and put chunk": func(w *wire, d digest.Digest, content string) reply { return w.chunks(d, content, 3, true, true) },
}

// chunks pushes in n chunks, the last in the PUT if lastInPut. With disorder a wrong chunk goes before each: it must be
// refused with 416, and the session must go on.
func (w *wire) chunks(d digest.Digest, content string, n int, lastInPut, disorder bool) reply {
	w.t.Helper()
	at := w.session(repo1)
	size := len(content)/n + 1
	for start := 0; start < len(content); start += size {
		end := min(start+size, len(content))
		if disorder {
			at = w.outOfOrder(at, d, content, start, size, lastInPut)
		}
		if lastInPut && end == len(content) {
			return w.ask("PUT", with(at, "digest="+d.String()), content[start:end], octets, chunkRange(start, end))
		}
		a := w.want("202", "PATCH", at, content[start:end], octets, chunkRange(start, end))
		w.has(a, fmt.Sprintf("Range: 0-%d", end-1))
		at = a.header("Location")
	}
	return w.ask("PUT", with(at, "digest="+d.String()), "", octets)
}

// outOfOrder sends a chunk that is not the next, and asks where to go on.
func (w *wire) outOfOrder(at string, d digest.Digest, content string, have, size int, lastInPut bool) string {
	w.t.Helper()
	start := have + size
	if start >= len(content) {
		start = 0
	}
	end := min(start+size, len(content))
	method, target := "PATCH", at
	if lastInPut && end == len(content) {
		method, target = "PUT", with(at, "digest="+d.String())
	}
	a := w.want("416 BLOB_UPLOAD_INVALID", method, target, content[start:end], octets, chunkRange(start, end))
	if a.header("Location") == "" || !strings.HasPrefix(a.header("Range"), "0-") {
		w.t.Errorf("%s: a 416 must say where to go on: %v", a.asked, a.res.Header)
	}
	a = w.want("204", "GET", at, nil)
	w.has(a, fmt.Sprintf("Range: 0-%d", max(have-1, 0)))
	return a.header("Location")
}

func chunkRange(start, end int) string { return fmt.Sprintf("Content-Range: %d-%d", start, end-1) }

func TestConformEveryWayToPushABlob(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		for _, algorithm := range algorithms {
			for name, push := range pushes {
				t.Run(algorithm.String()+"/"+name, func(t *testing.T) {
					w := w.on(t)
					text := content(name, 3*1024-5)
					d := algorithm.FromString(text)
					w.gone("/v2/" + repo1 + "/blobs/" + d.String())
					a := push(w, d, text)
					w.is("201", "PUT", a)
					w.pulls(a, d, text)
					w.deletesBlob(repo1, d)
				})
			}
		}
	})
}

// pulls checks what a finished push must have brought about.
func (w *wire) pulls(a reply, d digest.Digest, text string) {
	w.t.Helper()
	w.has(a, "Docker-Content-Digest: "+d.String(), "Content-Length: 0", "Content-Type:")
	if at := w.want("200", "GET", a.header("Location"), nil); at.body != text {
		w.t.Errorf("%s: Location leads to %d other bytes", a.asked, len(at.body))
	}
	w.reads(repo1, d, text)
}

// reads checks HEAD and GET of a blob.
func (w *wire) reads(repo string, d digest.Digest, text string) {
	w.t.Helper()
	for _, method := range []string{"HEAD", "GET"} {
		a := w.want("200", method, "/v2/"+repo+"/blobs/"+d.String(), nil)
		w.has(a, "Docker-Content-Digest: "+d.String(), fmt.Sprintf("Content-Length: %d", len(text)), "Content-Type: application/octet-stream",
			"Accept-Ranges: bytes", `ETag: "`+d.String()+`"`, "Content-Range:")
		if method == "GET" && a.body != text {
			w.t.Errorf("%s: %d other bytes", a.asked, len(a.body))
		}
	}
}

// deletesBlob checks that a delete is visible at once, and that there is nothing to delete then.
func (w *wire) deletesBlob(repo string, d digest.Digest) {
	w.t.Helper()
	target := "/v2/" + repo + "/blobs/" + d.String()
	w.has(w.want("202", "DELETE", target, nil), "Content-Length: 0")
	w.gone(target)
	w.want("404 BLOB_UNKNOWN", "DELETE", target, nil)
}

func TestConformBlobsOfKnownContent(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		for _, algorithm := range algorithms {
			for _, text := range []string{"", "{}"} {
				d := algorithm.FromString(text)
				for _, name := range []string{"post only", "post only, streamed", "post+put", "post+put, streamed"} {
					a := pushes[name](w, d, text)
					w.is("201", "PUT", a)
					w.pulls(a, d, text)
					w.deletesBlob(repo1, d)
				}
			}
		}
	})
}

func TestConformABadDigestStoresNothing(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		for _, algorithm := range algorithms {
			for name, push := range pushes {
				text := content(name, 3*1024-5)
				d := algorithm.FromString(text)
				w.is("400 DIGEST_INVALID", "PUT", push(w, d, text+"oh no"))
				w.gone("/v2/" + repo1 + "/blobs/" + d.String())
			}
		}
	})
}

func TestConformMounts(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		for _, algorithm := range algorithms {
			text := "mounted " + algorithm.String()
			d := algorithm.FromString(text)
			start := "/v2/" + repo1 + "/blobs/uploads/?mount=" + d.String()
			missing := func(target string) {
				t.Helper()
				at := w.want("202", "POST", target, "").header("Location")
				w.pulls(w.want("201", "PUT", with(at, "digest="+d.String()), text, octets), d, text)
				w.deletesBlob(repo1, d)
			}
			missing(start + "&from=" + repo2)       // a repository that does not exist
			missing(start)                          // a blob that is nowhere
			w.push(repo2, "makes it a repository")  //
			missing(start + "&from=" + repo2)       // a repository that lacks the blob
			missing(start + "&from=" + repo1 + "x") // another that does not exist

			w.want("201", "POST", "/v2/"+repo2+"/blobs/uploads/?digest="+d.String(), text)
			w.pulls(w.want("201", "POST", start+"&from="+repo2, ""), d, text)
			w.pulls(w.want("201", "POST", start+"&from="+repo2, ""), d, text) // what is there already
			w.deletesBlob(repo1, d)
			w.reads(repo2, d, text)
			w.deletesBlob(repo2, d)
		}
	})
}

// A mount need not say from where ("Mounting a blob from another repository").
func TestConformAnonymousMounts(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		for _, algorithm := range algorithms {
			text := "mounted from anywhere " + algorithm.String()
			d := algorithm.FromString(text)
			w.want("201", "POST", "/v2/"+repo2+"/blobs/uploads/?digest="+d.String(), text)
			w.pulls(w.want("201", "POST", "/v2/"+repo1+"/blobs/uploads/?mount="+d.String(), ""), d, text)
			w.deletesBlob(repo1, d)
			w.deletesBlob(repo2, d)
		}
	})
}

// unreadable lets everybody do everything but read one repository.
type unreadable string

func (name unreadable) Authorize(_ context.Context, c serve.Context) error {
	if c.Repository == string(name) && c.Action == serve.ActionPull {
		return errs.ErrDenied
	}
	return nil
}

// Neither kind of mount tells, or gives, anything of a repository that one may not read: the answer is as if it were not there.
func TestConformMountsFindOnlyWhatMayBeRead(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		w.push("open", "something else")
		d := w.push("secret", "the blob")
		target := "/v2/open/blobs/uploads/?mount=" + d.String()
		none := "/v2/open/blobs/uploads/?mount=" + digest.FromString("nowhere").String()
		for _, from := range []string{"", "&from=secret", "&from=absent"} {
			a, b := w.want("202", "POST", target+from, ""), w.want("202", "POST", none+from, "")
			for name := range b.res.Header {
				if _, ok := a.res.Header[name]; !ok || len(a.res.Header) != len(b.res.Header) {
					t.Errorf("%q: an answer of %v, and of %v when there is no such blob", from, a.res.Header, b.res.Header)
				}
			}
		}
		w.gone("/v2/open/blobs/" + d.String())
	}, serve.WithAuthorizer(unreadable("secret")))
}

func TestConformACancelledUploadIsGone(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		at := w.session(repo1)
		a := w.want("204", "DELETE", at, nil)
		w.has(a, "Content-Length:", "Content-Type:")
		for _, method := range []string{"GET", "DELETE", "PATCH"} {
			w.want("404 BLOB_UPLOAD_UNKNOWN", method, at, "")
		}
		w.want("404 BLOB_UPLOAD_UNKNOWN", "PUT", with(at, "digest="+digest.FromString("").String()), "")

		at = w.want("202", "PATCH", w.session(repo1), "some bytes", octets).header("Location")
		w.want("204", "DELETE", at, nil)
		w.want("404 BLOB_UPLOAD_UNKNOWN", "GET", at, nil)
	})
}

func TestConformSessionsDiffer(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		a, b := w.session(repo1), w.session(repo1)
		if a == b {
			t.Errorf("two sessions are both %s", a)
		}
		w.want("202", "PATCH", a, "of a", octets)
		w.want("202", "PATCH", b, "of the other", octets)
		w.has(w.want("204", "GET", a, nil), "Range: 0-3")
		w.has(w.want("204", "GET", b, nil), "Range: 0-11")
		w.want("201", "PUT", with(a, "digest="+digest.FromString("of a").String()), "")
		w.want("201", "PUT", with(b, "digest="+digest.FromString("of the other").String()), "")
	})
}

func TestConformRanges(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		for _, algorithm := range algorithms {
			text := content("ranges", 2048)
			d := algorithm.FromString(text)
			w.want("201", "POST", "/v2/"+repo1+"/blobs/uploads/?digest="+d.String(), text)
			target := "/v2/" + repo1 + "/blobs/" + d.String()
			for rng, want := range map[string][2]int{
				"500-1499": {500, 1500}, "500-": {500, 2048}, "-500": {1548, 2048}, "2000-5000": {2000, 2048}, "0-0": {0, 1},
				"2047-": {2047, 2048}, "-5000": {0, 2048}, "0-": {0, 2048}, "0-9223372036854775807": {0, 2048},
			} {
				a := w.want("206", "GET", target, nil, "Range: bytes="+rng)
				w.has(a, fmt.Sprintf("Content-Length: %d", want[1]-want[0]), fmt.Sprintf("Content-Range: bytes %d-%d/2048", want[0], want[1]-1),
					"Docker-Content-Digest: "+d.String(), "Accept-Ranges: bytes")
				if a.body != text[want[0]:want[1]] {
					t.Errorf("%s: other bytes", rng)
				}
			}
			for _, rng := range []string{"500-0", "5000-10000", "2048-", "-0", "x", "-", "1-x", "--1", "9223372036854775808-"} {
				a := w.want("416", "GET", target, nil, "Range: bytes="+rng)
				w.has(a, "Content-Range: bytes */2048", "Docker-Content-Digest:", "ETag:")
			}
			for _, rng := range []string{"lines=0-1", "bytes=0-0,2-2"} { // RFC 9110: everything instead
				if a := w.want("200", "GET", target, nil, "Range: "+rng); a.body != text {
					t.Errorf("%s: not all of it", rng)
				}
			}
			w.deletesBlob(repo1, d)
			w.want("404 BLOB_UNKNOWN", "GET", target, nil, "Range: bytes=0-1")
			w.want("404 BLOB_UNKNOWN", "GET", target, nil, "Range: bytes=5-0")
		}
	})
}
