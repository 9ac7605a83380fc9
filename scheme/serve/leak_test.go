package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ping"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
	"github.com/ocisync/ocisync/types/tag"
)

// telltale is a place that can do nothing, and tells everything it knows when it fails.
type telltale struct{ err error }

// secret is in everything that no answer may say.
const secret = "sEcReT"

func (p telltale) fail() error {
	return &errs.Error{
		Op: secret, Ref: "ocidir:///srv/" + secret, Digest: digest.FromString(secret), Code: "E_" + secret, Status: 418, Message: "http://user:" + secret + "@upstream.internal",
		Hint: "look into /srv/" + secret, Err: fmt.Errorf("open /srv/%s: %w", secret, p.err),
	}
}

func (p telltale) BlobGet(context.Context, ref.Ref, types.Descriptor, ...scheme.BlobGetOption) (blob.Reader, error) {
	return nil, p.fail()
}

func (p telltale) BlobHead(context.Context, ref.Ref, types.Descriptor, ...scheme.BlobHeadOption) (types.Descriptor, error) {
	return types.Descriptor{}, p.fail()
}

func (p telltale) BlobPut(_ context.Context, _ ref.Ref, _ types.Descriptor, r io.Reader, _ ...scheme.BlobPutOption) (types.Descriptor, error) {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return types.Descriptor{}, err
	}
	return types.Descriptor{}, p.fail()
}

func (p telltale) BlobDelete(context.Context, ref.Ref, types.Descriptor, ...scheme.BlobDeleteOption) error {
	return p.fail()
}

func (p telltale) BlobMount(context.Context, ref.Ref, ref.Ref, types.Descriptor, ...scheme.BlobMountOption) error {
	return p.fail()
}

func (p telltale) ManifestGet(context.Context, ref.Ref, ...scheme.ManifestGetOption) (*manifest.Manifest, error) {
	return nil, p.fail()
}

func (p telltale) ManifestHead(context.Context, ref.Ref, ...scheme.ManifestHeadOption) (types.Descriptor, error) {
	return types.Descriptor{}, p.fail()
}

func (p telltale) ManifestPut(context.Context, ref.Ref, *manifest.Manifest, ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	return manifest.PutResult{}, p.fail()
}

func (p telltale) ManifestDelete(context.Context, ref.Ref, ...scheme.ManifestDeleteOption) error {
	return p.fail()
}

func (p telltale) TagDelete(context.Context, ref.Ref, ...scheme.TagDeleteOption) error {
	return p.fail()
}

func (p telltale) TagList(context.Context, ref.Ref, ...scheme.TagListOption) (tag.List, error) {
	return tag.List{}, p.fail()
}

func (p telltale) ReferrerList(context.Context, ref.Ref, ...scheme.ReferrerListOption) (referrer.List, error) {
	return referrer.List{}, p.fail()
}

func (p telltale) Ping(context.Context, ref.Ref, ...scheme.PingOption) (ping.Result, error) {
	return ping.Result{}, p.fail()
}

func (p telltale) RepoList(context.Context, ref.Ref, string, func(string) error) error {
	return p.fail()
}

// telltaleFiles has the capabilities of a directory, too.
type telltaleFiles struct{ telltale }

func (p telltaleFiles) BlobOpen(context.Context, ref.Ref, types.Descriptor) (blob.ReaderAt, error) {
	return nil, p.fail()
}

func (p telltaleFiles) BlobOpenProven(context.Context, ref.Ref, types.Descriptor, int64) (blob.ReaderAt, error) {
	return nil, p.fail()
}

func (p telltaleFiles) BlobFind(context.Context, ref.Ref, digest.Digest, func(string) error) error {
	return p.fail()
}

func (p telltaleFiles) Ingest(context.Context, ref.Ref, string, ...scheme.IngestOption) (scheme.Upload, error) {
	return nil, p.fail()
}

func (p telltaleFiles) IngestStat(context.Context, ref.Ref, string) (blob.Ingest, error) {
	return blob.Ingest{}, p.fail()
}

func (p telltaleFiles) IngestList(context.Context, ref.Ref, func(blob.Ingest) error) error {
	return p.fail()
}

func (p telltaleFiles) IngestAbort(context.Context, ref.Ref, string) error { return p.fail() }

func (p telltaleFiles) IngestExpire(context.Context, ref.Ref, time.Duration) ([]blob.Ingest, error) {
	return nil, p.fail()
}

var (
	_ scheme.Ingester      = telltaleFiles{}
	_ scheme.IngestManager = telltaleFiles{}
	_ scheme.BlobFinder    = telltaleFiles{}
	_ scheme.BlobProver    = telltaleFiles{}
	_ scheme.BlobOpener    = telltaleFiles{}
)

// TestNoAnswerTellsOfTheServer: whatever a place fails with, at whatever is asked of it, the answer names no path, no host
// and nobody else's words, and has the form that clients understand. The log has it all.
func TestNoAnswerTellsOfTheServer(t *testing.T) {
	sentinels := []error{
		errs.ErrNotFound, errs.ErrBlobUnknown, errs.ErrManifestUnknown, errs.ErrNameUnknown, errs.ErrUploadUnknown, errs.ErrInvalid, errs.ErrNameInvalid, errs.ErrManifestInvalid,
		errs.ErrManifestBlobUnknown, errs.ErrDigestInvalid, errs.ErrDigestMismatch, errs.ErrSizeMismatch, errs.ErrSizeInvalid, errs.ErrUploadInvalid, errs.ErrRangeInvalid,
		errs.ErrUnknownType, errs.ErrUnauthorized, errs.ErrDenied, errs.ErrRateLimited, errs.ErrUnsupported, errs.ErrReadOnly, errs.ErrUnknownScheme, errs.ErrExists, errs.ErrClobber,
		errs.ErrCorrupt, errs.ErrNoSpace, errs.ErrUnavailable, errs.ErrLocked, errs.ErrConflict, errors.New("anything"), context.DeadlineExceeded, context.Canceled, os.ErrPermission,
		os.ErrNotExist, syscall.EIO, syscall.ENOSPC, io.EOF, io.ErrUnexpectedEOF,
	}
	for _, sentinel := range sentinels {
		for kind, api := range map[string]scheme.API{"plain": telltale{sentinel}, "files": telltaleFiles{telltale{sentinel}}} {
			t.Run(kind+"/"+sentinel.Error(), func(t *testing.T) {
				var log syncBuffer
				c := start(t, api, WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
				for _, r := range c.everything(sentinel) {
					c.tellsNothing(r)
				}
				if !strings.Contains(log.String(), secret) {
					t.Error("the log does not say what went wrong")
				}
			})
		}
	}
}

// asked is a request, and whether it can succeed over a place that fails.
type asked struct {
	method, target, body string
	h                    header
	may                  bool
}

// everything is a request of each kind, and in each way that a resource can be asked, over a place that fails with err.
func (c *client) everything(err error) []asked {
	d, typed := sum("x"), header{"Content-Type": typeImage}
	all := []asked{{method: "GET", target: "/v2/", may: true}, {method: "GET", target: "/v2/_catalog", may: errors.Is(err, errs.ErrNotFound)}, {method: "GET", target: "/v2/a/tags/list?n=1"}}
	for _, method := range []string{"GET", "HEAD"} {
		for _, h := range []header{nil, {"Range": "bytes=0-0"}, {"If-None-Match": "*"}} {
			all = append(all, asked{method: method, target: "/v2/a/blobs/" + d, h: h}, asked{method: method, target: "/v2/a/manifests/" + d, h: h}, asked{method: method, target: "/v2/a/manifests/v1", h: h})
		}
		all = append(all, asked{method: method, target: "/v2/a/referrers/" + d + "?artifactType=x", may: true})
	}
	for _, h := range []header{nil, {"If-Match": "*"}, {"If-Match": `"` + d + `"`}} {
		all = append(all, asked{method: "DELETE", target: "/v2/a/manifests/v1", h: h}, asked{method: "DELETE", target: "/v2/a/manifests/" + d, h: h})
	}
	all = append(all,
		asked{method: "DELETE", target: "/v2/a/blobs/" + d},
		asked{method: "PUT", target: "/v2/a/manifests/v1?tag=v2", body: image(""), h: typed},
		asked{method: "PUT", target: "/v2/a/manifests/" + sum(image("")), body: image(""), h: typed},
		asked{method: "PUT", target: "/v2/a/manifests/v1", body: image(""), h: header{"Content-Type": typeImage, "If-Match": "*"}},
		asked{method: "POST", target: "/v2/a/blobs/uploads/?digest=" + d, body: "x"},
		asked{method: "POST", target: "/v2/a/blobs/uploads/?mount=" + d + "&from=b", may: true},
		asked{method: "POST", target: "/v2/a/blobs/uploads/?mount=" + d, may: true},
		asked{method: "GET", target: "/v2/a/blobs/uploads/none"}, asked{method: "DELETE", target: "/v2/a/blobs/uploads/none"},
		asked{method: "PATCH", target: "/v2/a/blobs/uploads/none", body: "x"},
	)
	a := c.do("POST", "/v2/a/blobs/uploads/", nil, nil)
	if a.StatusCode != http.StatusAccepted {
		return all
	}
	at := a.Header.Get("Location")
	return append(all,
		asked{method: "PATCH", target: at, body: "x", may: true}, asked{method: "GET", target: at, may: true},
		asked{method: "PUT", target: at + "?digest=" + d, body: "x", may: true}, asked{method: "DELETE", target: at, may: true},
	)
}

// tellsNothing sends a request and checks the answer.
func (c *client) tellsNothing(r asked) {
	c.t.Helper()
	var body any
	if r.body != "" {
		body = r.body
	}
	a := c.do(r.method, r.target, body, r.h)
	what := fmt.Sprint(r.method, " ", r.target, " ", r.h, ": ", a.StatusCode, " ", a.body)
	if strings.Contains(a.body+fmt.Sprint(a.Header), secret) || strings.Contains(a.body, "upstream") || strings.Contains(a.body, digest.FromString(secret).Encoded()) {
		c.t.Errorf("%s tells of the server: %v", what, a.Header)
	}
	if a.StatusCode < 400 {
		if !r.may {
			c.t.Errorf("%s: a success", what)
		}
		return
	}
	if r.method == http.MethodHead {
		return
	}
	var got struct {
		Errors []struct{ Code, Message string }
	}
	err := json.Unmarshal([]byte(a.body), &got)
	switch {
	case err != nil || len(got.Errors) == 0 || a.Header.Get("Content-Type") != "application/json":
		c.t.Errorf("%s: no JSON of errors: %v", what, err)
	case a.StatusCode < 500 && !slices.Contains(specCodes, got.Errors[0].Code):
		c.t.Errorf("%s: the code is none of the specification's", what)
	case got.Errors[0].Message == "":
		c.t.Errorf("%s: no message", what)
	}
	if _, has := a.Header["Allow"]; (a.StatusCode == http.StatusMethodNotAllowed) != has {
		c.t.Errorf("%s: Allow %q", what, a.Header["Allow"])
	}
	if a.StatusCode == http.StatusUnauthorized && a.Header.Get("WWW-Authenticate") == "" {
		c.t.Errorf("%s: a 401 that asks for nothing", what)
	}
}
