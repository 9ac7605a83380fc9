package serve

import (
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// route is who answers a kind of request, and what the request is to who decides about it.
type route struct {
	answer   func(*Server, *exchange) error
	endpoint Endpoint
	action   Action
	absent   error // what a place's plain errs.ErrNotFound means for this resource
}

// writes reports whether requests of this kind change the place, or prepare it.
func (rt route) writes() bool { return rt.action == ActionPush || rt.action == ActionDelete }

var routes = [ocihttp.Kinds]route{
	ocihttp.Ping:           {(*Server).ping, EndpointPing, "", nil},
	ocihttp.BlobGet:        {(*Server).blobGet, EndpointBlob, ActionPull, errs.ErrBlobUnknown},
	ocihttp.BlobHead:       {(*Server).blobHead, EndpointBlob, ActionPull, errs.ErrBlobUnknown},
	ocihttp.BlobDelete:     {(*Server).blobDelete, EndpointBlob, ActionDelete, errs.ErrBlobUnknown},
	ocihttp.UploadStart:    {(*Server).uploadStart, EndpointUpload, ActionPush, errs.ErrNameUnknown},
	ocihttp.UploadChunk:    {(*Server).uploadChunk, EndpointUpload, ActionPush, errs.ErrUploadUnknown},
	ocihttp.UploadFinish:   {(*Server).uploadFinish, EndpointUpload, ActionPush, errs.ErrUploadUnknown},
	ocihttp.UploadStatus:   {(*Server).uploadStatus, EndpointUpload, ActionPush, errs.ErrUploadUnknown},
	ocihttp.UploadCancel:   {(*Server).uploadCancel, EndpointUpload, ActionPush, errs.ErrUploadUnknown},
	ocihttp.ManifestGet:    {(*Server).manifestGet, EndpointManifest, ActionPull, errs.ErrManifestUnknown},
	ocihttp.ManifestHead:   {(*Server).manifestHead, EndpointManifest, ActionPull, errs.ErrManifestUnknown},
	ocihttp.ManifestPut:    {(*Server).manifestPut, EndpointManifest, ActionPush, errs.ErrNameUnknown},
	ocihttp.ManifestDelete: {(*Server).manifestDelete, EndpointManifest, ActionDelete, errs.ErrManifestUnknown},
	ocihttp.TagList:        {(*Server).tagList, EndpointTags, ActionPull, errs.ErrNameUnknown},
	ocihttp.Referrers:      {(*Server).referrers, EndpointReferrers, ActionPull, errs.ErrNameUnknown},
	ocihttp.Catalog:        {(*Server).catalog, EndpointCatalog, ActionCatalog, errs.ErrNameUnknown},
}

// exchange is one request and its answer. All headers and bodies go through its methods, so that it knows whether the
// answer has begun and how much of it is out; the ResponseWriter itself is never wrapped, as that would cost sendfile.
type exchange struct {
	w     http.ResponseWriter
	r     *http.Request
	req   *ocihttp.Request // nil until it is understood
	ctx   Context
	id    string
	began time.Time
	place *Place  // nil for ping and catalog
	ref   ref.Ref // the repository
	body  *body
	held  int64 // see hold

	writing deadline // see keepWriting

	begun   bool  // the status line is out: an error can only cut the connection
	status  int   // of the answer, once it has begun
	sent    int64 // bytes of its body
	aborted bool
	err     error // why it is no success
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{w: w, r: r, body: &body{r: r.Body}, id: requestID(r), began: time.Now()}
	x.ctx = Context{Method: r.Method, Remote: s.remote(r)}
	s.deadlines(x)
	defer x.body.end()
	defer s.drop(x)
	defer s.inspect(x)
	defer x.keepWriting() // for what net/http still has in its buffers
	x.header(ocihttp.HeaderAPIVersion, ocihttp.APIVersion)
	x.header(HeaderRequestID, x.id)
	s.warn(x)
	if !s.enter() {
		s.fail(x, errs.ErrUnavailable)
		return
	}
	defer s.leave()
	release, err := s.slot(x)
	if err != nil {
		s.fail(x, err)
		return
	}
	defer release()
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v == http.ErrAbortHandler { // compared as net/http does
			panic(v)
		}
		s.log.ErrorContext(r.Context(), "panic", "method", r.Method, "path", x.shownPath(), "panic", v, "stack", string(debug.Stack()))
		s.fail(x, fmt.Errorf("panic: %v", v))
	}()
	if err := s.serve(x); err != nil {
		s.fail(x, err)
	}
}

// serve answers, or says why not. Nothing is looked up before it is known who asks and may.
func (s *Server) serve(x *exchange) error {
	req, err := s.parse(x.r)
	if err != nil {
		if terr := s.throttle(x); terr != nil {
			return terr
		}
		return err
	}
	x.req = req
	rt := routes[req.Kind]
	x.ctx.Endpoint, x.ctx.Action = rt.endpoint, rt.action
	x.ctx.Repository, x.ctx.Resource = req.Repo, resource(req)
	if err := s.checkName(req.Repo); err != nil {
		return err
	}
	if err := s.admit(x); err != nil {
		return err
	}
	if req.Repo != "" {
		var ok bool
		if x.place, x.ref, ok = s.places.find(req.Repo); !ok {
			return fmt.Errorf("%w: no place has this name", errs.ErrNameUnknown)
		}
	}
	if rt.writes() && (s.readOnly || x.place.ReadOnly) {
		return &errs.Error{Op: req.Kind.String(), Ref: x.ref.String(), Err: errs.ErrReadOnly}
	}
	return ofPlace(rt.answer(s, x))
}

// parse reads the request behind the prefix of all paths.
func (s *Server) parse(r *http.Request) (*ocihttp.Request, error) {
	if s.prefix == "" {
		return s.known(r.Method, r.URL)
	}
	u := *r.URL
	path, ok := strings.CutPrefix(u.EscapedPath(), s.prefix)
	if !ok {
		return nil, ocihttp.Public(fmt.Errorf("%w: paths begin with %s/v2/ here", errs.ErrNotFound, s.prefix))
	}
	u.RawPath = path
	u.Path, _ = url.PathUnescape(path) // it was unescaped before: the rest can be
	return s.known(r.Method, &u)
}

// resource is what of its repository a request is about.
func resource(req *ocihttp.Request) string {
	switch {
	case req.UploadID != "":
		return req.UploadID
	case req.Mount != "":
		return string(req.Mount)
	}
	return req.Reference()
}

// ping says that this is a registry.
func (s *Server) ping(x *exchange) error {
	return x.send(http.StatusOK, "application/json", []byte("{}"))
}

// header sets one header of the answer.
func (x *exchange) header(name, value string) { x.w.Header().Set(name, value) }

// start sends the status and the headers of an answer with length bytes of body.
func (x *exchange) start(status int, length int64) {
	x.header("Content-Length", strconv.FormatInt(length, 10))
	x.begin(status)
}

// begin sends the status and the headers.
func (x *exchange) begin(status int) {
	x.begun, x.status = true, status
	x.body.last(drainTime) // nobody reads the rest but net/http, before it sends this
	x.keepWriting()
	x.w.WriteHeader(status)
	x.wrote()
}

// Write sends a part of the answer's body.
func (x *exchange) Write(p []byte) (n int, err error) {
	defer x.wrote()
	for {
		part := p[n:min(n+maxWrite, len(p))]
		x.keepWriting()
		m, err := x.w.Write(part)
		n += m
		x.sent += int64(m)
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// done answers without a body.
func (x *exchange) done(status int) error {
	if status == http.StatusNoContent || status == http.StatusNotModified { // neither may have a Content-Length
		x.begin(status)
		return nil
	}
	x.start(status, 0)
	return nil
}

// send answers with a body.
func (x *exchange) send(status int, contentType string, raw []byte) error {
	x.header("Content-Type", contentType)
	x.start(status, int64(len(raw)))
	if x.r.Method == http.MethodHead {
		return nil
	}
	_, err := x.Write(raw)
	return err
}

// content sets the headers of a blob or manifest.
func (x *exchange) content(d types.Descriptor) {
	x.header(ocihttp.HeaderContentDigest, string(d.Digest))
	x.header("ETag", etag(d))
	x.header("Content-Type", d.MediaType)
}

// location points to where req reads what was written.
func (s *Server) location(x *exchange, req ocihttp.Request) {
	x.header("Location", s.prefix+req.Path())
}
