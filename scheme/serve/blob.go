package serve

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// smallBlob is the size in bytes up to which a blob is checked before it is sent, and not while.
const smallBlob = 4 << 20

// blobHead answers HEAD of a blob.
func (s *Server) blobHead(x *exchange) error {
	d, err := s.api.BlobHead(x.r.Context(), x.ref, types.Descriptor{Digest: x.req.Digest})
	if err != nil {
		return err
	}
	x.blobHeaders(d)
	if x.notModified(d) {
		return x.done(http.StatusNotModified)
	}
	x.start(http.StatusOK, d.Size)
	return nil
}

// blobDelete removes a blob from the repository.
func (s *Server) blobDelete(x *exchange) error {
	if err := s.checkDelete(x.req); err != nil {
		return err
	}
	if err := s.api.BlobDelete(x.r.Context(), x.ref, types.Descriptor{Digest: x.req.Digest}); err != nil {
		return err
	}
	return x.done(http.StatusAccepted)
}

// blobGet answers with a blob or a part of it. A file goes out as it is (sendfile); so do ranges of a place with
// random access; anything else is a verified stream.
func (s *Server) blobGet(x *exchange) error {
	d := types.Descriptor{Digest: x.req.Digest}
	rng, partial, err := ocihttp.ParseRange(x.r.Header.Get("Range"))
	if cond := x.r.Header.Get("If-Range"); cond != "" && cond != etag(d) {
		rng, partial, err = ocihttp.Range{}, false, nil
	}
	if err != nil {
		return s.blobRangeError(x, d, err)
	}
	ra, err := s.open(x, d, partial)
	if errors.Is(err, scheme.ErrUnproven) {
		return s.blobStream(x, d)
	}
	if err != nil {
		return err
	}
	if ra == nil {
		if partial {
			return s.blobPart(x, d, rng)
		}
		return s.blobStream(x, d)
	}
	defer ra.Close()
	raw, file := bytesOf(ra), fileOf(ra)
	if !partial && file == nil && raw == nil {
		return s.blobStream(x, d)
	}
	d.Size = ra.Size()
	offset, length, status, err := x.choose(d, rng, partial)
	if err != nil || status == http.StatusNotModified {
		return err
	}
	if raw != nil {
		x.start(status, length)
		_, err = x.Write(raw[offset:][:length])
		return err
	}
	if file == nil {
		x.start(status, length)
		_, err = io.CopyN(x, io.NewSectionReader(ra, offset, length), length)
		return err
	}
	return x.sendFile(ra, file, offset, length, status)
}

// open returns random access to a blob, or nil where the place has none. A large blob that was not checked yet is
// scheme.ErrUnproven when it is not for a part of it: all of it can be checked while it is sent. A small one is read
// before, so that damage is answered with an error and not with a connection that ends; and a large one for the sake of a
// part, too, as a part by itself cannot be checked.
func (s *Server) open(x *exchange, d types.Descriptor, partial bool) (ra blob.ReaderAt, err error) {
	var prover scheme.BlobProver
	var opener scheme.BlobOpener
	switch {
	case !partial && scheme.As(s.api, x.ref, &prover):
		ra, err = prover.BlobOpenProven(x.r.Context(), x.ref, d, smallBlob)
	case scheme.As(s.api, x.ref, &opener):
		ra, err = opener.BlobOpen(x.r.Context(), x.ref, d)
	}
	if errors.Is(err, errs.ErrUnsupported) {
		return nil, nil
	}
	return ra, err
}

// bytesOf returns ra's content if that is in memory, or nil.
func bytesOf(ra blob.ReaderAt) []byte {
	if b, ok := ra.(scheme.Byter); ok {
		if raw, ok := b.Bytes(); ok {
			return raw
		}
	}
	return nil
}

// fileOf returns the file that ra's content is, or nil.
func fileOf(ra blob.ReaderAt) *os.File {
	if f, ok := ra.(scheme.Filer); ok {
		if file, ok := f.File(); ok {
			return file
		}
	}
	return nil
}

// blobStream answers with all of a blob, verified while it is sent.
func (s *Server) blobStream(x *exchange, d types.Descriptor) error {
	rdr, err := s.api.BlobGet(x.r.Context(), x.ref, d)
	if err != nil {
		return err
	}
	defer rdr.Close()
	d = rdr.Descriptor()
	if !types.SizeKnown(d) {
		if d, err = s.api.BlobHead(x.r.Context(), x.ref, d); err != nil {
			return err
		}
	}
	_, length, status, err := x.choose(d, ocihttp.Range{}, false)
	if err != nil || status == http.StatusNotModified {
		return err
	}
	return copyVerified(x, rdr, func() { x.start(status, length) })
}

// blobPart answers with a part of a blob of a place without random access.
func (s *Server) blobPart(x *exchange, d types.Descriptor, rng ocihttp.Range) error {
	d, err := s.api.BlobHead(x.r.Context(), x.ref, d)
	if err != nil {
		return err
	}
	offset, length, status, err := x.choose(d, rng, true)
	if err != nil || status == http.StatusNotModified {
		return err
	}
	rdr, err := scheme.OpenBlobAt(x.r.Context(), s.api, x.ref, d, offset)
	if err != nil {
		return err
	}
	defer rdr.Close()
	x.start(status, length)
	_, err = io.CopyN(x, rdr, length)
	return err
}

// blobRangeError refuses a range that makes no sense, of a blob that is there.
func (s *Server) blobRangeError(x *exchange, d types.Descriptor, cause error) error {
	d, err := s.api.BlobHead(x.r.Context(), x.ref, d)
	if err != nil {
		return err
	}
	x.header("Content-Range", ocihttp.ContentRange{First: -1, Last: -1, Total: d.Size}.String())
	return ocihttp.Public(cause)
}

// choose sets the headers of a blob or of a part of it, and says which bytes follow under which status. It has
// answered already when the status is 304.
func (x *exchange) choose(d types.Descriptor, rng ocihttp.Range, partial bool) (offset, length int64, status int, err error) {
	if x.notModified(d) {
		x.blobHeaders(d)
		return 0, 0, http.StatusNotModified, x.done(http.StatusNotModified)
	}
	if !partial {
		x.blobHeaders(d)
		return 0, d.Size, http.StatusOK, nil
	}
	offset, length, err = rng.Resolve(d.Size)
	if err != nil {
		x.header("Content-Range", ocihttp.ContentRange{First: -1, Last: -1, Total: d.Size}.String())
		return 0, 0, 0, ocihttp.Public(err)
	}
	x.blobHeaders(d)
	x.header("Content-Range", ocihttp.ContentRange{First: offset, Last: offset + length - 1, Total: d.Size}.String())
	return offset, length, http.StatusPartialContent, nil
}

func (x *exchange) blobHeaders(d types.Descriptor) {
	d.MediaType = types.MediaTypeOctetStream // a blob's type is in the manifests that use it
	x.content(d)
	x.header("Accept-Ranges", "bytes")
}

func etag(d types.Descriptor) string { return `"` + string(d.Digest) + `"` }

// notModified reports whether the client says that it has d.
func (x *exchange) notModified(d types.Descriptor) bool {
	for _, v := range ocihttp.List(x.r.Header.Values("If-None-Match")) {
		if v == "*" || strings.TrimPrefix(v, "W/") == etag(d) {
			return true
		}
	}
	return false
}
