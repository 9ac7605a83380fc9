package ocihttp

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// The most that is taken from outside, in bytes.
const (
	maxUploadID = 128
	maxParam    = 1024
)

// MethodError says that a path exists, but not with the method of the request. It is errs.ErrUnsupported.
type MethodError struct {
	Method string
	Allow  []string // what the Allow header of a 405 has to list
}

func (e *MethodError) Error() string {
	return fmt.Sprintf("%v: method %.16q, only %s", errs.ErrUnsupported, e.Method, strings.Join(e.Allow, ", "))
}

// Unwrap returns errs.ErrUnsupported.
func (e *MethodError) Unwrap() error { return errs.ErrUnsupported }

// Parse reads a request from its method and URL; the host and parameters that the specification does not know are
// ignored. Its errors repeat nothing but what the request said (see Public): errs.ErrNotFound for a path that is none
// of the specification's, *MethodError, errs.ErrNameInvalid for a repository or tag, errs.ErrDigestInvalid,
// errs.ErrUploadUnknown for a session id that nobody wrote, errs.ErrInvalid for other parameters. Reading a manifest
// by a malformed tag is errs.ErrManifestUnknown: no tag can have that name, so none is there.
func Parse(method string, u *url.URL) (*Request, error) {
	r, err := parse(method, u)
	if err != nil {
		return nil, Public(err)
	}
	return r, nil
}

func parse(method string, u *url.URL) (*Request, error) {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w query: %w", errs.ErrInvalid, err)
	}
	segs, err := segments(u)
	if err != nil {
		return nil, err
	}
	n := len(segs)
	switch {
	case n == 0:
		return one(method, Request{}, http.MethodGet, Ping)
	case n == 1 && segs[0] == "_catalog":
		r := Request{}
		if err := r.page(q); err != nil {
			return nil, err
		}
		return one(method, r, http.MethodGet, Catalog)
	case n >= 4 && segs[n-3] == "blobs" && segs[n-2] == "uploads" && segs[n-1] != "":
		return parseSession(method, segs[:n-3], segs[n-1], q)
	case n >= 4 && segs[n-3] == "blobs" && segs[n-2] == "uploads":
		return parseUpload(method, segs[:n-3], q)
	case n >= 3 && segs[n-2] == "blobs" && segs[n-1] == "uploads": // the slash at the end is often forgotten
		return parseUpload(method, segs[:n-2], q)
	case n >= 3 && segs[n-2] == "blobs":
		return parseBlob(method, segs[:n-2], segs[n-1])
	case n >= 3 && segs[n-2] == "manifests":
		return parseManifest(method, segs[:n-2], segs[n-1], q)
	case n >= 3 && segs[n-2] == "tags" && segs[n-1] == "list":
		return parseTags(method, segs[:n-2], q)
	case n >= 3 && segs[n-2] == "referrers":
		return parseReferrers(method, segs[:n-2], segs[n-1], q)
	}
	return nil, unknownPath(u)
}

func unknownPath(u *url.URL) error {
	return fmt.Errorf("%w: %.100q is no path of the distribution specification", errs.ErrNotFound, u.Path)
}

// segments splits the path below /v2/. Components are unescaped one by one, so that an escaped slash never counts as
// a separator: whoever stands before the server, and decides by the path, must see the same repository.
func segments(u *url.URL) ([]string, error) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), "/v2")
	switch {
	case !ok || rest != "" && rest[0] != '/':
		return nil, unknownPath(u)
	case rest == "" || rest == "/":
		return nil, nil
	}
	segs := strings.Split(rest[1:], "/")
	for i, s := range segs {
		plain, err := url.PathUnescape(s)
		if err != nil || strings.Contains(plain, "/") {
			return nil, fmt.Errorf("%w: path component %.100q", errs.ErrNameInvalid, s)
		}
		segs[i] = plain
	}
	return segs, nil
}

// one finishes a request whose path has one method.
func one(method string, r Request, want string, k Kind) (*Request, error) {
	if method != want && (method != http.MethodHead || want != http.MethodGet) {
		return nil, &MethodError{Method: method, Allow: []string{want}}
	}
	r.Kind = k
	return &r, nil
}

// repository checks the components of a name.
func (r *Request) repository(segs []string) error {
	r.Repo = strings.Join(segs, "/")
	return ref.ValidRepo(r.Repo)
}

func parseBlob(method string, repo []string, d string) (*Request, error) {
	r := Request{Digest: digest.Digest(d)}
	switch method {
	case http.MethodGet:
		r.Kind = BlobGet
	case http.MethodHead:
		r.Kind = BlobHead
	case http.MethodDelete:
		r.Kind = BlobDelete
	default:
		return nil, &MethodError{Method: method, Allow: []string{http.MethodGet, http.MethodHead, http.MethodDelete}}
	}
	if err := r.repository(repo); err != nil {
		return nil, err
	}
	return &r, types.ValidDigest(r.Digest)
}

func parseUpload(method string, repo []string, q url.Values) (*Request, error) {
	r := Request{
		Mount:           digest.Digest(q.Get("mount")),
		From:            q.Get("from"),
		Digest:          digest.Digest(q.Get("digest")),
		DigestAlgorithm: digest.Algorithm(q.Get("digest-algorithm")),
	}
	if err := r.repository(repo); err != nil {
		return nil, err
	}
	for _, d := range []digest.Digest{r.Mount, r.Digest} {
		if d != "" {
			if err := types.ValidDigest(d); err != nil {
				return nil, err
			}
		}
	}
	if r.DigestAlgorithm != "" && !r.DigestAlgorithm.Available() {
		return nil, fmt.Errorf("%w: algorithm %.32q", errs.ErrDigestInvalid, string(r.DigestAlgorithm))
	}
	if r.From != "" {
		if err := ref.ValidRepo(r.From); err != nil {
			return nil, err
		}
	}
	if method != http.MethodPost {
		return nil, &MethodError{Method: method, Allow: []string{http.MethodPost}}
	}
	r.Kind = UploadStart
	return &r, nil
}

func parseSession(method string, repo []string, id string, q url.Values) (*Request, error) {
	r := Request{UploadID: id}
	switch method {
	case http.MethodPatch:
		r.Kind = UploadChunk
	case http.MethodPut:
		r.Kind = UploadFinish
	case http.MethodGet, http.MethodHead:
		r.Kind = UploadStatus
	case http.MethodDelete:
		r.Kind = UploadCancel
	default:
		return nil, &MethodError{Method: method, Allow: []string{http.MethodGet, http.MethodPatch, http.MethodPut, http.MethodDelete}}
	}
	if err := r.repository(repo); err != nil {
		return nil, err
	}
	if err := validUploadID(id); err != nil {
		return nil, err
	}
	if r.Kind == UploadFinish {
		r.Digest = digest.Digest(q.Get("digest"))
		return &r, types.ValidDigest(r.Digest)
	}
	return &r, nil
}

// validUploadID accepts what can be a file's name anywhere and needs no escaping in a path.
func validUploadID(id string) error {
	ok := len(id) <= maxUploadID && id[0] != '.'
	for i := range len(id) {
		c := id[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return fmt.Errorf("%w: %.64q", errs.ErrUploadUnknown, id)
	}
	return nil
}

func parseManifest(method string, repo []string, reference string, q url.Values) (*Request, error) {
	r := Request{}
	switch method {
	case http.MethodGet:
		r.Kind = ManifestGet
	case http.MethodHead:
		r.Kind = ManifestHead
	case http.MethodPut:
		r.Kind = ManifestPut
	case http.MethodDelete:
		r.Kind = ManifestDelete
	default:
		return nil, &MethodError{Method: method, Allow: []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete}}
	}
	if err := r.repository(repo); err != nil {
		return nil, err
	}
	if strings.Contains(reference, ":") {
		r.Digest = digest.Digest(reference)
		if err := types.ValidDigest(r.Digest); err != nil {
			return nil, err
		}
	} else {
		r.Tag = reference
		if err := ref.ValidTag(r.Tag); err != nil {
			if r.Kind == ManifestGet || r.Kind == ManifestHead {
				return nil, fmt.Errorf("%w: %q is not a tag", errs.ErrManifestUnknown, clip(reference))
			}
			return nil, err
		}
	}
	if r.Kind == ManifestPut {
		for _, t := range q["tag"] {
			if err := ref.ValidTag(t); err != nil {
				return nil, err
			}
			r.Tags = append(r.Tags, t)
		}
	}
	return &r, nil
}

func parseTags(method string, repo []string, q url.Values) (*Request, error) {
	r := Request{}
	if err := r.repository(repo); err != nil {
		return nil, err
	}
	if err := r.page(q); err != nil {
		return nil, err
	}
	return one(method, r, http.MethodGet, TagList)
}

func parseReferrers(method string, repo []string, d string, q url.Values) (*Request, error) {
	r := Request{Digest: digest.Digest(d), ArtifactType: q.Get("artifactType")}
	if err := r.repository(repo); err != nil {
		return nil, err
	}
	if err := types.ValidDigest(r.Digest); err != nil {
		return nil, err
	}
	if len(r.ArtifactType) > maxParam {
		return nil, fmt.Errorf("%w: artifactType has %d bytes", errs.ErrInvalid, len(r.ArtifactType))
	}
	if err := r.page(q); err != nil {
		return nil, err
	}
	return one(method, r, http.MethodGet, Referrers)
}

// page reads n and last. An n that no int holds is as good as the largest; a negative one is refused, as what it
// could mean differs between servers.
func (r *Request) page(q url.Values) error {
	r.Last = q.Get("last")
	if len(r.Last) > maxParam {
		return fmt.Errorf("%w: last has %d bytes", errs.ErrInvalid, len(r.Last))
	}
	s := q.Get("n")
	if s == "" {
		return nil
	}
	if strings.Trim(s, "0123456789") != "" {
		return fmt.Errorf("%w: n=%.32q is not a number of entries", errs.ErrInvalid, s)
	}
	n, err := strconv.Atoi(s)
	if err != nil || n > math.MaxInt32 {
		n = math.MaxInt32
	}
	r.N = &n
	return nil
}

// clip shortens what is repeated in a message.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
