package serve_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// What each client sends, as a proxy recorded it: the order of requests, and the headers that differ.
var clients = map[string]func(w *wire, text string, d digest.Digest){
	"go-containerregistry and skopeo": func(w *wire, text string, d digest.Digest) {
		w.want("200", "GET", "/v2/", nil)
		w.want("404", "HEAD", "/v2/"+repo1+"/blobs/"+d.String(), nil)
		w.want("404", "HEAD", "/v2/"+repo1+"/blobs/"+d.String(), nil) // skopeo asks twice
		at := w.want("202", "POST", "/v2/"+repo1+"/blobs/uploads/", "", "Content-Type: application/json").header("Location")
		at = w.want("202", "PATCH", at, text).header("Location")
		w.want("201", "PUT", at+"?digest="+url.QueryEscape(d.String()), "")
	},
	"oras-go: a raw mount digest": func(w *wire, text string, d digest.Digest) {
		at := w.want("202", "POST", "/v2/"+repo1+"/blobs/uploads/?mount="+d.String()+"&from=a/b", "").header("Location")
		w.want("201", "PUT", with(at, "digest="+url.QueryEscape(d.String())), text, octets)
	},
	"regclient: an escaped mount digest without from": func(w *wire, text string, d digest.Digest) {
		at := w.want("202", "POST", "/v2/"+repo1+"/blobs/uploads/?mount="+strings.Replace(d.String(), ":", "%3A", 1), "").header("Location")
		half := len(text) / 2
		at = w.want("202", "PATCH", at, text[:half], octets, chunkRange(0, half)).header("Location")
		at = w.want("202", "PATCH", at, text[half:], octets, chunkRange(half, len(text))).header("Location")
		w.want("201", "PUT", with(at, "digest="+strings.Replace(d.String(), ":", "%3A", 1)), "", octets)
	},
	"containerd": func(w *wire, text string, d digest.Digest) {
		at := w.want("202", "POST", "/v2/"+repo1+"/blobs/uploads/?mount="+url.QueryEscape(d.String())+"&from=a%2Fb", "").header("Location")
		w.want("201", "PUT", with(at, "digest="+url.QueryEscape(d.String())), stream(text), octets)
		if a := w.want("206", "GET", "/v2/"+repo1+"/blobs/"+d.String(), nil, "Range: bytes=1000-", "Accept: application/vnd.oci.image.layer.v1.tar+gzip, */*"); a.body != text[1000:] {
			w.t.Errorf("a download that goes on has %d bytes", len(a.body))
		}
		w.want("200", "GET", "/v2/"+repo1+"/referrers/"+d.String(), nil)
	},
	"ociclient: one chunk in the PUT": func(w *wire, text string, d digest.Digest) {
		at := w.session(repo1)
		w.want("201", "PUT", with(at, "digest="+d.String()), text, octets, chunkRange(0, len(text)))
	},
	"ociclient: an inverted, empty range in the last PUT": func(w *wire, text string, d digest.Digest) {
		at := w.session(repo1)
		at = w.want("202", "PATCH", at, text, octets, chunkRange(0, len(text))).header("Location")
		w.has(w.want("204", "GET", at, nil), fmt.Sprintf("Range: 0-%d", len(text)-1))
		w.want("201", "PUT", with(at, "digest="+d.String()), "", octets, chunkRange(len(text), len(text)))
	},
	"docker: a stream, then an empty PUT": func(w *wire, text string, d digest.Digest) {
		w.want("404", "HEAD", "/v2/"+repo1+"/blobs/"+d.String(), nil)
		at := w.want("202", "POST", "/v2/"+repo1+"/blobs/uploads/", "").header("Location")
		at = w.want("202", "PATCH", at, stream(text)).header("Location")
		w.want("201", "PUT", with(at, "digest="+url.QueryEscape(d.String())), nil)
		w.want("200", "HEAD", "/v2/"+repo1+"/blobs/"+d.String(), nil)
	},
	"go on after a lost connection": func(w *wire, text string, d digest.Digest) {
		at := w.session(repo1)
		at = w.want("202", "PATCH", at, text[:700], octets).header("Location")
		a := w.want("204", "GET", at, nil)
		w.has(a, "Range: 0-699")
		at = w.want("202", "PATCH", a.header("Location"), text[700:], octets, chunkRange(700, len(text))).header("Location")
		w.want("201", "PUT", with(at, "digest="+d.String()), nil)
	},
}

func TestConformWhatClientsSend(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		for name, push := range clients {
			t.Run(name, func(t *testing.T) {
				w := w.on(t)
				text := content(name, 4000)
				d := digest.FromString(text)
				push(w, text, d)
				w.reads(repo1, d, text)
				w.deletesBlob(repo1, d)
			})
		}
	})
}

// An inverted range is empty only where it says so: at the end of what was received, with nothing in the body.
func TestConformOtherInvertedRangesAreRefused(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		at := w.want("202", "PATCH", w.session(repo1), "0123456789", octets).header("Location")
		put := with(at, "digest="+digest.FromString("0123456789").String())
		for _, rng := range []string{"10-8", "9-8", "11-10", "0--1", "10-0", "-1--2"} {
			a := w.ask("PUT", put, "", octets, "Content-Range: "+rng)
			if s := a.res.StatusCode; s != 400 && s != 416 {
				t.Errorf("%s with %s: status %d", a.asked, rng, s)
			}
		}
		w.want("400", "PUT", put, "x", octets, "Content-Range: 10-9")
		w.has(w.want("204", "GET", at, nil), "Range: 0-9")
		w.want("201", "PUT", put, "", octets, "Content-Range: 10-9")
	})
}

// containerd pushes children under the tag that its pusher was opened with, and the index last: the tag points to each
// of them for a moment.
func TestConformATagPointsToChildrenForAMoment(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		s := newSet()
		s.index(nil)
		w.pushBlobs(repo1, s)
		for _, m := range s.manifests {
			w.want("201", "PUT", "/v2/"+repo1+"/manifests/latest", m.raw, "Content-Type: "+m.MediaType)
			w.readsManifest(repo1, "latest", m)
		}
		for _, m := range s.manifests {
			w.readsManifest(repo1, m.Digest.String(), m)
		}
	})
}
