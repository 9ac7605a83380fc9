package ocihttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/errs"
)

// specCodes are the codes that a 4xx may have ("Error Codes").
var specCodes = strings.Fields(`BLOB_UNKNOWN BLOB_UPLOAD_INVALID BLOB_UPLOAD_UNKNOWN DIGEST_INVALID
	MANIFEST_BLOB_UNKNOWN MANIFEST_INVALID MANIFEST_UNKNOWN NAME_INVALID NAME_UNKNOWN SIZE_INVALID UNAUTHORIZED DENIED
	UNSUPPORTED TOOMANYREQUESTS`)

func TestErrorsSurviveTheWire(t *testing.T) {
	for _, w := range wires {
		t.Run(w.err.Error(), func(t *testing.T) {
			in := &errs.Error{Op: "op", Ref: "mem:///r", Err: fmt.Errorf("wrapped: %w", w.err)}
			status, raw := WriteError(in)
			if status != w.status {
				t.Errorf("status %d, want %d", status, w.status)
			}
			want := w.err
			if errors.Is(want, context.Canceled) || errors.Is(want, context.DeadlineExceeded) {
				want = errs.ErrUnavailable
			}
			out := ParseError(status, raw)
			if !errors.Is(out, want) || out.Status != status {
				t.Errorf("read back as %v, status %d", out, out.Status)
			}
			for _, other := range wires {
				if errors.Is(out, other.err) != errors.Is(want, other.err) {
					t.Errorf("%v reads back as %v", in, other.err)
				}
			}
			if status < 500 && !strings.Contains(strings.Join(specCodes, " ")+" ", out.Code+" ") {
				t.Errorf("code %q is not in the specification", out.Code)
			}
		})
	}
}

func TestEveryCodeOfTheSpecificationIsWrittenBySomeError(t *testing.T) {
	for _, code := range specCodes {
		err := errs.FromCode(code)
		status, raw := WriteError(err)
		if got := ParseError(status, raw); err == nil || got.Code != code || !errors.Is(got, err) {
			t.Errorf("%s: %v", code, got)
		}
	}
}

func TestMissingDigestsAreAllNamed(t *testing.T) {
	var want []digest.Digest
	for i := range maxErrors {
		want = append(want, digest.SHA512.FromString(fmt.Sprint(i)))
	}
	err := &errs.Error{Op: "outer", Err: &errs.Error{Op: "manifest put", Missing: append(want, want...), Err: errs.ErrManifestBlobUnknown}}
	status, raw := WriteError(err)
	if len(raw) > MaxErrorBody {
		t.Errorf("%d bytes are more than a client reads", len(raw))
	}
	got := ParseError(status, raw)
	if d := cmp.Diff(want, got.Missing); d != "" || status != http.StatusBadRequest {
		t.Error(status, d)
	}
	if _, raw := WriteError(errs.ErrManifestBlobUnknown); len(ParseError(400, raw).Missing) != 0 {
		t.Error("digests out of nothing")
	}
}

func TestWriteErrorTellsNothingOfTheServer(t *testing.T) {
	secret := &errs.Error{
		Op: "blob get", Ref: "ocidir:///srv/secret", Message: "secret", Hint: "secret",
		Err: fmt.Errorf("%w: %w", errs.ErrBlobUnknown, &fs.PathError{Op: "open", Path: "/srv/secret", Err: fs.ErrNotExist}),
	}
	for _, err := range []error{secret, secret.Err, errors.New("secret"), errors.Join(errs.ErrNoSpace, errors.New("secret"))} {
		if _, raw := WriteError(err); strings.Contains(string(raw), "secret") {
			t.Errorf("%s", raw)
		}
	}
	_, raw := WriteError(&errs.Error{Ref: "ocidir:///srv/secret", Err: Public(fmt.Errorf("%w: tag \"\xff\u00e9\"", errs.ErrNameInvalid))})
	if got := ParseError(400, raw); !strings.Contains(got.Message, "é") || strings.Contains(string(raw), "secret") {
		t.Errorf("%s", raw)
	}
	if _, raw := WriteError(Public(fmt.Errorf("%w %s", errs.ErrInvalid, strings.Repeat("é", 1e5)))); !json.Valid(raw) || len(raw) > 2*maxMessage {
		t.Errorf("%d bytes of message", len(raw))
	}
}

func TestParseErrorReadsWhatServersSend(t *testing.T) {
	one := func(code, rest string) string { return `{"errors":[{"code":"` + code + `"` + rest + `}]}` }
	d := string(sha256d)
	for name, c := range map[string]struct {
		status  int
		body    string
		want    error
		code    string
		message string
		missing int
	}{
		"HEAD 404":                      {404, "", errs.ErrNotFound, "", "", 0},
		"HEAD 400":                      {400, "", errs.ErrInvalid, "", "", 0},
		"HEAD 401":                      {401, "", errs.ErrUnauthorized, "", "", 0},
		"HEAD 403":                      {403, "", errs.ErrDenied, "", "", 0},
		"HEAD 405":                      {405, "", errs.ErrUnsupported, "", "", 0},
		"HEAD 413":                      {413, "", errs.ErrSizeInvalid, "", "", 0},
		"HEAD 416":                      {416, "", errs.ErrRangeInvalid, "", "", 0},
		"HEAD 418":                      {418, "", errs.ErrInvalid, "", "", 0},
		"HEAD 429":                      {429, "", errs.ErrRateLimited, "", "", 0},
		"HEAD 500":                      {500, "", errs.ErrUnavailable, "", "", 0},
		"HEAD 507":                      {507, "", errs.ErrNoSpace, "", "", 0},
		"a proxy's page":                {502, "<html>Bad Gateway</html>", errs.ErrUnavailable, "", "", 0},
		"cut off":                       {404, `{"errors":[{"code":"BLOB_UNK`, errs.ErrNotFound, "", "", 0},
		"another JSON":                  {404, `[{"errors":1}]`, errs.ErrNotFound, "", "", 0},
		"no errors":                     {403, `{"errors":[]}`, errs.ErrDenied, "", "", 0},
		"Harbor":                        {404, one("NOT_FOUND", `,"message":"artifact a not found"`), errs.ErrNotFound, "NOT_FOUND", "artifact a not found", 0},
		"distribution's tag":            {400, one("TAG_INVALID", ""), errs.ErrInvalid, "TAG_INVALID", "", 0},
		"the code is finer":             {404, one("NAME_UNKNOWN", ""), errs.ErrNameUnknown, "NAME_UNKNOWN", "", 0},
		"401 means credentials":         {401, one("DENIED", ""), errs.ErrUnauthorized, "DENIED", "", 0},
		"429 means wait":                {429, one("DENIED", ""), errs.ErrRateLimited, "DENIED", "", 0},
		"416 means range":               {416, one("BLOB_UPLOAD_INVALID", ""), errs.ErrRangeInvalid, "BLOB_UPLOAD_INVALID", "", 0},
		"a server's failure is its own": {500, one("MANIFEST_UNKNOWN", ""), errs.ErrUnavailable, "MANIFEST_UNKNOWN", "", 0},
		"busy":                          {503, one("TOOMANYREQUESTS", ""), errs.ErrRateLimited, "TOOMANYREQUESTS", "", 0},
		"not implemented":               {501, one("UNSUPPORTED", ""), errs.ErrUnsupported, "UNSUPPORTED", "", 0},
		"mismatch of others":            {400, one("DIGEST_INVALID", ""), errs.ErrDigestInvalid, "DIGEST_INVALID", "", 0},
		"a kind that contradicts":       {404, one("BLOB_UNKNOWN", `,"detail":{"kind":"exists"}`), errs.ErrBlobUnknown, "BLOB_UNKNOWN", "", 0},
		"distribution's missing blobs":  {400, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","detail":"` + d + `"},{"code":"MANIFEST_BLOB_UNKNOWN","detail":{"Digest":"` + string(sha512d) + `"}}]}`, errs.ErrManifestBlobUnknown, "MANIFEST_BLOB_UNKNOWN", "", 2},
		"missing blobs in a list":       {400, one("MANIFEST_BLOB_UNKNOWN", `,"detail":{"missing":["`+d+`",{"digest":"`+d+`"},"sha256:../x",7]}`), errs.ErrManifestBlobUnknown, "MANIFEST_BLOB_UNKNOWN", "", 2},
		"digests of other errors":       {404, one("BLOB_UNKNOWN", `,"detail":"`+d+`"`), errs.ErrBlobUnknown, "BLOB_UNKNOWN", "", 0},
		"a code that is known later":    {400, `{"errors":[{"code":"X","message":"a"},{"code":"MANIFEST_INVALID","message":"b"},{"code":"Y","message":"a"}]}`, errs.ErrManifestInvalid, "MANIFEST_INVALID", "a; b", 0},
		"a terminal's escapes":          {400, one(`X\u001b[2J`, `,"message":"\u001b]0;x\u0007a\r\nb\u009b"`), errs.ErrInvalid, "X [2J", "]0;x a  b", 0},
		"very long":                     {400, one(strings.Repeat("C", 500), ""), errs.ErrInvalid, strings.Repeat("C", 64), "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := ParseError(c.status, []byte(c.body))
			if got.Err != c.want || got.Code != c.code || got.Message != c.message || len(got.Missing) != c.missing || got.Status != c.status {
				t.Errorf("%#v", got)
			}
		})
	}
}

func FuzzParseError(f *testing.F) {
	f.Add(404, []byte(`{"errors":[{"code":"BLOB_UNKNOWN","message":"m","detail":{"kind":"x","digests":["sha256:x"]}}]}`))
	f.Fuzz(func(t *testing.T, status int, raw []byte) {
		e := ParseError(status, raw)
		if e.Err == nil {
			t.Fatal("no sentinel")
		}
		if strings.ContainsAny(e.Error(), "\x1b\n\r\x00") {
			t.Errorf("%q is not safe to print", e.Error())
		}
		if s, _ := WriteError(e); s < 400 || s > 599 {
			t.Errorf("status %d", s)
		}
	})
}
