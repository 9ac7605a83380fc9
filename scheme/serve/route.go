package serve

import (
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// route is who answers a kind of request.
type route struct {
	answer func(*Server, *exchange) error
	writes bool
	absent error // what a place's plain errs.ErrNotFound means for this resource
}

var routes = [ocihttp.Kinds]route{
	ocihttp.Ping:           {answer: (*Server).ping},
	ocihttp.BlobGet:        {answer: (*Server).blobGet, absent: errs.ErrBlobUnknown},
	ocihttp.BlobHead:       {answer: (*Server).blobHead, absent: errs.ErrBlobUnknown},
	ocihttp.BlobDelete:     {answer: (*Server).blobDelete, absent: errs.ErrBlobUnknown, writes: true},
	ocihttp.UploadStart:    {answer: (*Server).uploadStart, absent: errs.ErrNameUnknown, writes: true},
	ocihttp.UploadChunk:    {answer: (*Server).uploadChunk, absent: errs.ErrUploadUnknown, writes: true},
	ocihttp.UploadFinish:   {answer: (*Server).uploadFinish, absent: errs.ErrUploadUnknown, writes: true},
	ocihttp.UploadStatus:   {answer: (*Server).uploadStatus, absent: errs.ErrUploadUnknown, writes: true},
	ocihttp.UploadCancel:   {answer: (*Server).uploadCancel, absent: errs.ErrUploadUnknown, writes: true},
	ocihttp.ManifestGet:    {answer: (*Server).manifestGet, absent: errs.ErrManifestUnknown},
	ocihttp.ManifestHead:   {answer: (*Server).manifestHead, absent: errs.ErrManifestUnknown},
	ocihttp.ManifestPut:    {answer: (*Server).manifestPut, absent: errs.ErrNameUnknown, writes: true},
	ocihttp.ManifestDelete: {answer: (*Server).manifestDelete, absent: errs.ErrManifestUnknown, writes: true},
	ocihttp.TagList:        {answer: (*Server).tagList, absent: errs.ErrNameUnknown},
	ocihttp.Referrers:      {answer: (*Server).referrers, absent: errs.ErrNameUnknown},
	ocihttp.Catalog:        {answer: (*Server).catalog, absent: errs.ErrNameUnknown},
}

// exchange is one request and its answer. All headers and bodies go through its methods, so that it knows whether the
// answer has begun; the ResponseWriter itself is never wrapped, as that would cost sendfile.
type exchange struct {
	w     http.ResponseWriter
	r     *http.Request
	req   *ocihttp.Request
	ref   ref.Ref // the repository
	body  *body
	begun bool // the status line is out: an error can only cut the connection
}

// body is the request's body. It remembers its failure: that is the client's, whatever a place makes of it.
type body struct {
	r   io.Reader
	err error
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{w: w, r: r, body: &body{r: r.Body}}
	w.Header().Set(ocihttp.HeaderAPIVersion, ocihttp.APIVersion)
	if !s.enter() {
		s.fail(x, errs.ErrUnavailable)
		return
	}
	defer s.leave()
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v == http.ErrAbortHandler { // compared as net/http does
			panic(v)
		}
		s.log.ErrorContext(r.Context(), "panic", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
		s.fail(x, fmt.Errorf("panic: %v", v))
	}()
	if err := s.serve(x); err != nil {
		s.fail(x, err)
	}
}

func (s *Server) serve(x *exchange) error {
	req, err := ocihttp.Parse(x.r.Method, x.r.URL)
	if err != nil {
		return err
	}
	x.req = req
	x.ref = s.root.WithRepo(req.Repo)
	rt := routes[req.Kind]
	if rt.writes && s.readOnly {
		return &errs.Error{Op: req.Kind.String(), Ref: x.ref.String(), Err: errs.ErrReadOnly}
	}
	return rt.answer(s, x)
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
	x.begun = true
	x.w.WriteHeader(status)
}

// done answers without a body.
func (x *exchange) done(status int) error {
	if status == http.StatusNoContent || status == http.StatusNotModified { // neither may have a Content-Length
		x.begun = true
		x.w.WriteHeader(status)
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
	_, err := x.w.Write(raw)
	return err
}

// content sets the headers of a blob or manifest.
func (x *exchange) content(d types.Descriptor) {
	x.header(ocihttp.HeaderContentDigest, string(d.Digest))
	x.header("ETag", etag(d))
	x.header("Content-Type", d.MediaType)
}

// location points to where req reads what was written.
func (x *exchange) location(req ocihttp.Request) { x.header("Location", req.Path()) }
