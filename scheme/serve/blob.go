package serve

import (
	"errors"
	"fmt"
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

// copyBuffer is how much of a verified stream is in memory, twice: what was read last is held back until more of it,
// or its end, has proved to be good.
const copyBuffer = 64 << 10

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
	if !partial && s.slowToOpen(x, d) {
		return s.blobStream(x, d)
	}
	ra, err := s.open(x, d)
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
	file := fileOf(ra)
	if !partial && file == nil {
		return s.blobStream(x, d)
	}
	d.Size = ra.Size()
	offset, length, status, err := x.choose(d, rng, partial)
	if err != nil || status == http.StatusNotModified {
		return err
	}
	if file == nil {
		x.start(status, length)
		_, err = io.CopyN(x, io.NewSectionReader(ra, offset, length), length)
		return err
	}
	return x.sendFile(ra, file, offset, length, status)
}

// sendFile sends a part of a file, with what belongs before it. The end is held back until the file is known not to
// have changed meanwhile: the client, who was promised a length, must not take wrong bytes for the blob.
func (x *exchange) sendFile(ra blob.ReaderAt, file *os.File, offset, length int64, status int) error {
	last := make([]byte, min(length, copyBuffer))
	if begin := length - int64(len(last)); begin > 0 {
		x.start(status, length)
		if _, err := file.Seek(offset, io.SeekStart); err != nil {
			return err
		}
		n, err := io.CopyN(x.w, file, begin) // not to x: the connection itself has sendfile
		x.sent += n
		if err != nil {
			return err
		}
	}
	n, err := file.ReadAt(last, offset+length-int64(len(last)))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if fileOf(ra) == nil || n < len(last) {
		return fmt.Errorf("%w: %s was changed while it was sent", errs.ErrCorrupt, file.Name())
	}
	if !x.begun {
		x.start(status, length)
	}
	_, err = x.Write(last)
	return err
}

// slowToOpen reports whether opening a blob would read all of it before the first byte is sent. Small ones are read all
// the same, so that damage is answered with an error and not with a connection that ends.
func (s *Server) slowToOpen(x *exchange, d types.Descriptor) bool {
	var prover scheme.BlobProver
	if !scheme.As(s.api, x.ref, &prover) || prover.BlobProven(x.r.Context(), x.ref, d) {
		return false
	}
	d, err := s.api.BlobHead(x.r.Context(), x.ref, d)
	return err == nil && d.Size > smallBlob
}

// open returns random access to a blob, or nil where the place has none.
func (s *Server) open(x *exchange, d types.Descriptor) (blob.ReaderAt, error) {
	var opener scheme.BlobOpener
	if !scheme.As(s.api, x.ref, &opener) {
		return nil, nil
	}
	ra, err := opener.BlobOpen(x.r.Context(), x.ref, d)
	if errors.Is(err, errs.ErrUnsupported) {
		return nil, nil
	}
	return ra, err
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

// copyVerified copies r to w, always one buffer behind: when r turns out to be damaged the last bytes are not sent,
// and the client, who was promised a length, cannot take it for the blob. start is called before the first write: what
// is found to be damaged until then can still be answered with an error.
func copyVerified(w io.Writer, r io.Reader, start func()) error {
	var held []byte
	next, spare := make([]byte, copyBuffer), make([]byte, copyBuffer)
	for first := true; ; first = false {
		n, err := fill(r, next)
		if err != nil && err != io.EOF {
			return fmt.Errorf("read: %w", err)
		}
		end := err == io.EOF
		if len(held) > 0 || first && end {
			if start != nil {
				start()
				start = nil
			}
			if _, err := w.Write(held); err != nil {
				return err
			}
		}
		if end {
			_, err := w.Write(next[:n])
			return err
		}
		held, next, spare = next[:n], spare, next
	}
}

// fill reads until p is full or r ends. Unlike io.ReadFull it leaves r's error as it is: a stream that was cut
// (io.ErrUnexpectedEOF) must not look like a short one.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}
