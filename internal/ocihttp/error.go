package ocihttp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// How much of an error goes over the wire.
const (
	// MaxErrorBody is how many bytes of an error's body a client should read.
	MaxErrorBody = 1 << 20
	maxErrors    = 4096 // so that the body of WriteError fits in MaxErrorBody
	maxMessage   = 512
)

// The codes of answers that the specification has no code for. It restricts those of 4xx answers only.
const (
	codeUnknown     = "UNKNOWN"
	codeUnavailable = "UNAVAILABLE"
)

// wire is how one sentinel looks in HTTP. Where the specification's codes are coarser than the sentinels, kind (in
// the error's detail) names the finer one; clients that do not know it read the coarser. code and status are as the
// specification has them; sentinels that it has no code for borrow the nearest.
type wire struct {
	err    error
	status int
	code   string
	kind   string
}

// wires is in order from fine to coarse: the first that an error is decides.
var wires = []wire{
	{errs.ErrCorrupt, http.StatusInternalServerError, codeUnknown, "corrupt"}, // whatever it was found out by

	{errs.ErrBlobUnknown, http.StatusNotFound, "BLOB_UNKNOWN", ""},
	{errs.ErrManifestUnknown, http.StatusNotFound, "MANIFEST_UNKNOWN", ""},
	{errs.ErrNameUnknown, http.StatusNotFound, "NAME_UNKNOWN", ""},
	{errs.ErrUploadUnknown, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", ""},
	{errs.ErrNotFound, http.StatusNotFound, "NAME_UNKNOWN", "not-found"},

	{errs.ErrNameInvalid, http.StatusBadRequest, "NAME_INVALID", ""},
	{errs.ErrManifestBlobUnknown, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", ""},
	{errs.ErrManifestInvalid, http.StatusBadRequest, "MANIFEST_INVALID", ""},
	{errs.ErrUnknownType, http.StatusBadRequest, "MANIFEST_INVALID", "unknown-type"},
	{errs.ErrSizeMismatch, http.StatusBadRequest, "DIGEST_INVALID", "size-mismatch"},
	{errs.ErrDigestMismatch, http.StatusBadRequest, "DIGEST_INVALID", "digest-mismatch"},
	{errs.ErrDigestInvalid, http.StatusBadRequest, "DIGEST_INVALID", ""},
	{errs.ErrSizeInvalid, http.StatusRequestEntityTooLarge, "SIZE_INVALID", ""},
	{errs.ErrRangeInvalid, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "range-invalid"},
	{errs.ErrUploadInvalid, http.StatusBadRequest, "BLOB_UPLOAD_INVALID", ""},

	{errs.ErrUnauthorized, http.StatusUnauthorized, "UNAUTHORIZED", ""},
	{errs.ErrDenied, http.StatusForbidden, "DENIED", ""},
	{errs.ErrRateLimited, http.StatusTooManyRequests, "TOOMANYREQUESTS", ""},
	{errs.ErrReadOnly, http.StatusMethodNotAllowed, "UNSUPPORTED", "read-only"},
	{errs.ErrUnsupported, http.StatusMethodNotAllowed, "UNSUPPORTED", ""},

	{errs.ErrExists, http.StatusConflict, "UNSUPPORTED", "exists"},
	{errs.ErrConflict, http.StatusPreconditionFailed, "UNSUPPORTED", "conflict"},
	{errs.ErrClobber, http.StatusConflict, "UNSUPPORTED", "clobber"},
	{errs.ErrInvalid, http.StatusBadRequest, "UNSUPPORTED", "invalid"},
	{errs.ErrNoSpace, http.StatusInsufficientStorage, codeUnavailable, "no-space"},
	{errs.ErrUnavailable, http.StatusServiceUnavailable, codeUnavailable, ""},
	{context.Canceled, http.StatusServiceUnavailable, codeUnavailable, ""},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, codeUnavailable, ""},
}

// body is the JSON of an error ("Error Codes").
type body struct {
	Errors []entry `json:"errors"`
}

type entry struct {
	Code    string `json:"code"`
	Message string `json:"message,omitempty"`
	Detail  any    `json:"detail,omitempty"`
}

// detail is the Detail of our own entries. Other servers put anything there.
type detail struct {
	Kind   string        `json:"kind,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
}

// public is an error whose text may be shown to who sent the request.
type public struct{ err error }

func (p *public) Error() string { return p.err.Error() }
func (p *public) Unwrap() error { return p.err }

// Public marks err: its text has nothing that the request itself did not say, and may go into an answer. Of all
// other errors only the sentinel's text is told, as they name paths, hosts and tokens of the server.
func Public(err error) error {
	if err == nil {
		return nil
	}
	return &public{err: err}
}

// WriteError returns the status and the JSON body that say err. An error that is no sentinel's is a 500.
func WriteError(err error) (status int, raw []byte) {
	w := wire{status: http.StatusInternalServerError, code: codeUnknown}
	for _, c := range wires {
		if errors.Is(err, c.err) {
			w = c
			break
		}
	}
	b := body{}
	for _, d := range missing(err) {
		if len(b.Errors) == maxErrors {
			break
		}
		b.Errors = append(b.Errors, entry{Code: w.code, Message: w.err.Error(), Detail: detail{Digest: d}})
	}
	if len(b.Errors) == 0 {
		e := entry{Code: w.code, Message: message(err, w)}
		if w.kind != "" {
			e.Detail = detail{Kind: w.kind}
		}
		b.Errors = []entry{e}
	}
	raw, jerr := json.Marshal(b)
	if jerr != nil { // strings always marshal
		panic(jerr)
	}
	return w.status, raw
}

// missing returns the digests that an ErrManifestBlobUnknown names.
func missing(err error) []digest.Digest {
	if !errors.Is(err, errs.ErrManifestBlobUnknown) {
		return nil
	}
	var e *errs.Error
	for errors.As(err, &e) && len(e.Missing) == 0 {
		err = e.Err
	}
	if e == nil {
		return nil
	}
	return e.Missing
}

func message(err error, w wire) string {
	var p *public
	switch {
	case errors.As(err, &p):
		return strings.ToValidUTF8(truncate(p.Error(), maxMessage), "\uFFFD")
	case w.err != nil && w.status < http.StatusInternalServerError:
		return w.err.Error()
	default:
		return strings.ToLower(http.StatusText(w.status))
	}
}

func truncate(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// ParseError turns an answer that is a failure into an *errs.Error with Code, Status, Message and Missing. raw is the
// body, as far as it was read, and may be anything: empty (HEAD), HTML, JSON of another form. Err is the sentinel of
// the first code that has one, else that of the status; some statuses say more than any code.
func ParseError(status int, raw []byte) *errs.Error {
	e := &errs.Error{Status: status}
	var entries struct {
		Errors []struct {
			Code    string          `json:"code"`
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
	}
	var messages []string
	var kind string
	if json.Unmarshal(raw, &entries) == nil {
		for _, in := range entries.Errors {
			known := errs.FromCode(in.Code) != nil
			if e.Code == "" || known && errs.FromCode(e.Code) == nil {
				e.Code = in.Code
			}
			if m := printable(in.Message); m != "" && !slices.Contains(messages, m) && len(messages) < 8 {
				messages = append(messages, m)
			}
			k, digests := readDetail(in.Detail)
			if kind == "" {
				kind = k
			}
			if in.Code == "MANIFEST_BLOB_UNKNOWN" {
				e.Missing = append(e.Missing, digests...)
			}
		}
	}
	e.Code = truncate(printable(e.Code), 64)
	e.Message = strings.Join(messages, "; ")
	e.Err = sentinel(status, e.Code, kind)
	return e
}

// sentinel decides between status, code and our own kind.
func sentinel(status int, code, kind string) error {
	for _, w := range wires {
		if kind != "" && w.kind == kind && w.status == status && w.code == code {
			return w.err
		}
	}
	byCode := errs.FromCode(code)
	switch {
	case status == http.StatusUnauthorized || status == http.StatusTooManyRequests || status == http.StatusRequestedRangeNotSatisfiable:
		return byStatus(status)
	case status >= 500 && !errors.Is(byCode, errs.ErrUnsupported) && !errors.Is(byCode, errs.ErrRateLimited):
		return byStatus(status) // whatever it says it could not do, it may be able to later
	case byCode != nil:
		return byCode
	}
	return byStatus(status)
}

// byStatus is what is left to go by after a HEAD, and with codes outside of the specification (Harbor's NOT_FOUND).
func byStatus(status int) error {
	switch status {
	case http.StatusUnauthorized:
		return errs.ErrUnauthorized
	case http.StatusForbidden, http.StatusUnavailableForLegalReasons:
		return errs.ErrDenied
	case http.StatusNotFound, http.StatusGone:
		return errs.ErrNotFound
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return errs.ErrUnsupported
	case http.StatusRequestEntityTooLarge:
		return errs.ErrSizeInvalid
	case http.StatusRequestedRangeNotSatisfiable:
		return errs.ErrRangeInvalid
	case http.StatusTooManyRequests:
		return errs.ErrRateLimited
	case http.StatusInsufficientStorage:
		return errs.ErrNoSpace
	case http.StatusRequestTimeout, http.StatusTooEarly:
		return errs.ErrUnavailable
	}
	if status >= 500 {
		return errs.ErrUnavailable
	}
	return errs.ErrInvalid
}

// readDetail finds our kind and every valid digest in a detail of any form: distribution sends a digest as a string,
// others objects or lists of them.
func readDetail(raw json.RawMessage) (kind string, digests []digest.Digest) {
	var v any
	if len(raw) == 0 || json.Unmarshal(raw, &v) != nil {
		return "", nil
	}
	if m, ok := v.(map[string]any); ok {
		kind, _ = m["kind"].(string)
	}
	return kind, digestsIn(v, 0)
}

func digestsIn(v any, depth int) []digest.Digest {
	var out []digest.Digest
	switch v := v.(type) {
	case string:
		if d := digest.Digest(v); types.ValidDigest(d) == nil {
			out = append(out, d)
		}
	case []any:
		for _, e := range v {
			if depth < 3 {
				out = append(out, digestsIn(e, depth+1)...)
			}
		}
	case map[string]any:
		for _, k := range []string{"digest", "Digest", "digests", "missing", "blobSum"} {
			if e, ok := v[k]; ok && depth < 3 {
				out = append(out, digestsIn(e, depth+1)...)
			}
		}
	}
	return out
}

// printable makes the words of a server safe for a terminal and a log: no control characters, one line, not too long.
func printable(s string) string {
	s = truncate(s, maxMessage)
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\uFFFD' {
			return ' '
		}
		return r
	}, s))
}
