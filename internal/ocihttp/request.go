// Package ocihttp is the HTTP of the OCI distribution specification as values: requests, headers and error bodies.
//
// A client (scheme/reg) prints requests and parses answers; a server (scheme/serve) parses requests and prints
// answers. Both use this package, so that what one prints the other reads: every printer here has its parser, and the
// tests hold them to be inverses. Nothing here does I/O. Everything that is parsed comes from outside: grammar and
// sizes are checked, and what breaks them is an error of package types/errs.
package ocihttp

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Kind is which of the specification's requests it is.
type Kind uint8

// The requests, by the endpoints of the specification ("Endpoints").
const (
	Ping           Kind = iota + 1 // end-1
	BlobGet                        // end-2
	BlobHead                       // end-2
	BlobDelete                     // end-10
	UploadStart                    // end-4a, end-4b with Digest, end-4c with DigestAlgorithm, end-11 with Mount
	UploadChunk                    // end-5
	UploadFinish                   // end-6
	UploadStatus                   // end-13
	UploadCancel                   // end-14
	ManifestGet                    // end-3
	ManifestHead                   // end-3
	ManifestPut                    // end-7
	ManifestDelete                 // end-9
	TagList                        // end-8
	Referrers                      // end-12
	Catalog                        // not in the specification, but everywhere since Docker's
)

// kinds names every request: its HTTP method, and a word for logs and tests.
var kinds = [...]struct{ method, name string }{
	Ping:           {http.MethodGet, "ping"},
	BlobGet:        {http.MethodGet, "blob get"},
	BlobHead:       {http.MethodHead, "blob head"},
	BlobDelete:     {http.MethodDelete, "blob delete"},
	UploadStart:    {http.MethodPost, "upload start"},
	UploadChunk:    {http.MethodPatch, "upload chunk"},
	UploadFinish:   {http.MethodPut, "upload finish"},
	UploadStatus:   {http.MethodGet, "upload status"},
	UploadCancel:   {http.MethodDelete, "upload cancel"},
	ManifestGet:    {http.MethodGet, "manifest get"},
	ManifestHead:   {http.MethodHead, "manifest head"},
	ManifestPut:    {http.MethodPut, "manifest put"},
	ManifestDelete: {http.MethodDelete, "manifest delete"},
	TagList:        {http.MethodGet, "tag list"},
	Referrers:      {http.MethodGet, "referrer list"},
	Catalog:        {http.MethodGet, "catalog"},
}

// Kinds is how many kinds there are, and one more: kinds index arrays of this length.
const Kinds = int(Catalog) + 1

// String names the kind, as in "blob get".
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kinds) {
		return "unknown request"
	}
	return kinds[k].name
}

// Method is the HTTP method of the kind.
func (k Kind) Method() string {
	if k == 0 || int(k) >= len(kinds) {
		return ""
	}
	return kinds[k].method
}

// Request is one request of the specification, without headers and body. Fields that its kind does not use are zero.
type Request struct {
	Kind Kind
	Repo string // all but Ping and Catalog

	// Tag or Digest is the manifest that manifest requests are about; exactly one is set. Digest is also the blob of
	// blob requests, the subject of Referrers, and the digest of the whole content in UploadFinish and in an
	// UploadStart that carries the content.
	Tag    string
	Digest digest.Digest

	// Tags are further tags of a ManifestPut.
	Tags []string

	// UploadID names the session of upload requests, as the server that made it wrote it.
	UploadID string
	// Mount asks UploadStart for a blob that another repository has: From, or whichever when From is empty.
	Mount digest.Digest
	From  string
	// DigestAlgorithm announces the algorithm of an upload whose digest is not known yet.
	DigestAlgorithm digest.Algorithm

	// N and Last select a page of TagList, Catalog and, where the server has such pages, Referrers, by digest. A nil N is no
	// limit; Last is exclusive and need not exist.
	N    *int
	Last string

	// ArtifactType filters Referrers.
	ArtifactType string
}

// Reference is the tag or digest of a manifest request, as it stands in the path.
func (r *Request) Reference() string {
	if r.Digest != "" {
		return string(r.Digest)
	}
	return r.Tag
}

// Method is the HTTP method.
func (r *Request) Method() string { return r.Kind.Method() }

// Path is the path, from "/v2/" on. Valid requests have nothing in it that needs escaping.
func (r *Request) Path() string {
	repo := "/v2/" + r.Repo
	switch r.Kind {
	case BlobGet, BlobHead, BlobDelete:
		return repo + "/blobs/" + string(r.Digest)
	case UploadStart:
		return repo + "/blobs/uploads/"
	case UploadChunk, UploadFinish, UploadStatus, UploadCancel:
		return repo + "/blobs/uploads/" + r.UploadID
	case ManifestGet, ManifestHead, ManifestPut, ManifestDelete:
		return repo + "/manifests/" + r.Reference()
	case TagList:
		return repo + "/tags/list"
	case Referrers:
		return repo + "/referrers/" + string(r.Digest)
	case Catalog:
		return "/v2/_catalog"
	default:
		return "/v2/"
	}
}

// Query is the encoded query, "" without one.
func (r *Request) Query() string {
	q := query{}
	switch r.Kind {
	case UploadStart:
		q.add("mount", string(r.Mount))
		q.add("from", r.From)
		q.add("digest", string(r.Digest))
		q.add("digest-algorithm", string(r.DigestAlgorithm))
	case UploadFinish:
		q.add("digest", string(r.Digest))
	case ManifestPut:
		for _, t := range r.Tags {
			q.add("tag", t)
		}
	case TagList, Catalog:
		if r.N != nil {
			q.add("n", strconv.Itoa(*r.N))
		}
		q.add("last", r.Last)
	case Referrers:
		q.add("artifactType", r.ArtifactType)
		if r.N != nil {
			q.add("n", strconv.Itoa(*r.N))
		}
		q.add("last", r.Last)
	}
	return strings.Join(q, "&")
}

// query keeps the order of parameters, as url.Values does not.
type query []string

func (q *query) add(key, value string) {
	if value != "" {
		*q = append(*q, key+"="+url.QueryEscape(value))
	}
}

// String is path and query: the target of the request below the host.
func (r *Request) String() string {
	if q := r.Query(); q != "" {
		return r.Path() + "?" + q
	}
	return r.Path()
}

// URL is the request's URL at base, which names scheme and host, and may have a path that stands before /v2/.
func (r *Request) URL(base *url.URL) *url.URL {
	return &url.URL{
		Scheme:   base.Scheme,
		Host:     base.Host,
		Path:     strings.TrimSuffix(base.Path, "/") + r.Path(),
		RawQuery: r.Query(),
	}
}

// FinishURL is the URL of the PUT that closes an upload: the location that the server gave last, with the digest
// added. The location is opaque: path and query are kept byte for byte, as servers sign them.
func FinishURL(location *url.URL, d digest.Digest) *url.URL {
	u := *location
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += "digest=" + url.QueryEscape(string(d))
	u.ForceQuery = false
	return &u
}
