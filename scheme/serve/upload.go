package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// uploadStart answers POST: a mount, a blob in one request, or a session.
func (s *Server) uploadStart(x *exchange) error {
	if x.req.Mount != "" {
		mounted, err := s.mount(x)
		if err != nil {
			return err
		}
		if mounted {
			return s.created(x, x.req.Mount)
		}
	} else if x.req.Digest != "" {
		if err := s.putBody(x, x.req.Digest); err != nil {
			return err
		}
		return s.created(x, x.req.Digest)
	}
	u, err := s.sessions.add(x.req.Repo) // the bytes are hashed when the digest is known: its algorithm may be any
	if err != nil {
		return err
	}
	s.session(x, u)
	return x.done(http.StatusAccepted)
}

// mount tries to take a blob over from another repository. Whatever prevents it, the answer is a session: who may not
// read the other repository cannot tell that from a blob that is not there.
func (s *Server) mount(x *exchange) (bool, error) {
	d := types.Descriptor{Digest: x.req.Mount}
	if x.req.From != "" {
		return s.mountFrom(x, x.req.From, d)
	}
	if _, err := s.api.BlobHead(x.r.Context(), x.ref, d); err == nil {
		return true, nil
	}
	for i := range s.places {
		mounted, err := s.mountAny(x, &s.places[i], d)
		if mounted || err != nil {
			return mounted, err
		}
	}
	return false, nil
}

// mountAny looks for the blob in all repositories of a place that the subject may read.
func (s *Server) mountAny(x *exchange, p *Place, d types.Descriptor) (mounted bool, err error) {
	var finder scheme.BlobFinder
	if !scheme.As(s.api, p.Root, &finder) {
		return s.mountSeen(x, p, d)
	}
	var failed error
	err = finder.BlobFind(x.r.Context(), p.Root.Base(), d.Digest, func(repo string) error {
		if name, ok := s.places.name(p, repo); ok {
			mounted, failed = s.mountFrom(x, name, d)
		}
		if mounted || failed != nil {
			return io.EOF
		}
		return nil
	})
	if err != nil { // nobody asked for the search: what it cannot find is not there
		s.log.DebugContext(x.r.Context(), "mount: search", "id", x.id, "error", err)
	}
	return mounted, failed
}

// mountSeen tries the repositories of a place in which this server knows, without asking, that the blob was.
func (s *Server) mountSeen(x *exchange, p *Place, d types.Descriptor) (bool, error) {
	for _, name := range s.seen.names(d.Digest) {
		if owner, _, ok := s.places.find(name); !ok || owner != p || name == x.req.Repo {
			continue
		}
		if mounted, err := s.mountFrom(x, name, d); mounted || err != nil {
			return mounted, err
		}
	}
	return false, nil
}

// mountFrom takes the blob over from repository name, if the subject may read that.
func (s *Server) mountFrom(x *exchange, name string, d types.Descriptor) (bool, error) {
	if may, err := s.mayPull(x, name); !may || err != nil {
		return false, err
	}
	_, from, ok := s.places.find(name)
	return ok && s.api.BlobMount(x.r.Context(), from, x.ref, d) == nil, nil
}

// uploadChunk answers PATCH: a chunk with Content-Range, or whatever comes next without it.
func (s *Server) uploadChunk(x *exchange) error {
	err := s.withSession(x, func(u *session) error {
		if err := s.chunk(x, u); err != nil {
			return err
		}
		u.acked = u.received
		s.session(x, u)
		return nil
	})
	if err != nil {
		return err
	}
	return x.done(http.StatusAccepted)
}

// uploadStatus answers GET: how much has been received.
func (s *Server) uploadStatus(x *exchange) error {
	err := s.withSession(x, func(u *session) error {
		u.acked = u.received
		s.session(x, u)
		return nil
	})
	if err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

// uploadCancel answers DELETE.
func (s *Server) uploadCancel(x *exchange) error {
	if err := s.sessions.remove(x.req.Repo, x.req.UploadID); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

// uploadFinish answers PUT. After a failure the session is as it was before: the client may send the last part, or
// the digest, again.
func (s *Server) uploadFinish(x *exchange) error {
	err := s.withSession(x, func(u *session) error {
		var err error
		if u.received == 0 && x.r.Header.Get("Content-Range") == "" {
			err = s.putBody(x, x.req.Digest)
		} else {
			err = s.putSession(x, u)
		}
		if err != nil {
			return err
		}
		return s.sessions.remove(u.repo, u.id)
	})
	if err != nil {
		return err
	}
	return s.created(x, x.req.Digest)
}

// withSession calls fn with the session of the request, which only sets headers: the answer goes out when the session
// is free for the next request. A 416 tells the client where to go on.
func (s *Server) withSession(x *exchange, fn func(*session) error) error {
	u, err := s.sessions.acquire(x.req.Repo, x.req.UploadID)
	if err != nil {
		if u != nil {
			s.location(x, ocihttp.Request{Kind: ocihttp.UploadStatus, Repo: u.repo, UploadID: u.id})
			err = ocihttp.Public(err)
		}
		return err
	}
	err = fn(u)
	if errors.Is(err, errs.ErrRangeInvalid) {
		s.session(x, u)
	}
	// The request has had its effect; a file that could not be removed goes with the folder.
	if rerr := s.sessions.release(u); rerr != nil {
		s.log.ErrorContext(x.r.Context(), "upload: remove spool file", "error", rerr)
	}
	return err
}

// chunk appends the body to the session. One with a Content-Range must begin where the session ends, and have the
// length that it says.
func (s *Server) chunk(x *exchange, u *session) error {
	header := x.r.Header.Get("Content-Range")
	if header == "" {
		_, err := u.receive(u.acked, x.body)
		return err
	}
	offset, length, err := ocihttp.ParseChunkRange(header)
	if err != nil {
		return ocihttp.Public(err)
	}
	if x.r.ContentLength >= 0 && x.r.ContentLength != length {
		return ocihttp.Public(fmt.Errorf("%w: Content-Range %s has %d bytes, Content-Length says %d", errs.ErrUploadInvalid, header, length, x.r.ContentLength))
	}
	if offset != u.received && offset != u.acked {
		return ocihttp.Public(fmt.Errorf("%w: the chunk begins at %d, not at %d", errs.ErrRangeInvalid, offset, u.received))
	}
	n, err := u.receive(offset, io.LimitReader(x.body, length))
	if err != nil {
		return err
	}
	if n == length {
		var more [1]byte
		if k, _ := io.ReadFull(x.body, more[:]); k == 0 {
			return nil
		}
	}
	err = fmt.Errorf("%w: the body does not have the %d bytes of Content-Range %s", errs.ErrUploadInvalid, length, header)
	return errors.Join(ocihttp.Public(err), u.rollback(offset))
}

// putBody stores a blob that arrives in one request. Nothing is spooled.
func (s *Server) putBody(x *exchange, d digest.Digest) error {
	desc := types.Descriptor{Digest: d, Size: max(x.r.ContentLength, 0)}
	vr, err := blob.NewReader(io.NopCloser(x.body), desc)
	if err != nil {
		return err
	}
	return s.put(x, desc, vr, vr)
}

// putSession stores a blob that arrived in parts, the last of which may be the body of this request.
func (s *Server) putSession(x *exchange, u *session) (err error) {
	before := u.received
	if x.r.Header.Get("Content-Range") == "" {
		before = u.acked
	}
	defer func() {
		if err != nil && !u.dead.Load() {
			err = errors.Join(err, u.rollback(min(before, u.received)))
		}
	}()
	if x.r.ContentLength != 0 || x.r.Header.Get("Content-Range") != "" {
		if err := s.chunk(x, u); err != nil {
			return err
		}
	} else if err := u.rollback(before); err != nil {
		return err
	}
	f, err := os.Open(u.path)
	if err != nil {
		return err
	}
	defer f.Close()
	desc := types.Descriptor{Digest: x.req.Digest, Size: u.received}
	vr, err := blob.NewReader(io.NopCloser(f), desc)
	if err != nil {
		return err
	}
	src := blob.NewSource(vr, func(_ context.Context, offset int64) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(f, offset, u.received-offset)), nil
	})
	return s.put(x, desc, src, vr)
}

// put stores rdr as blob desc. A place that has the blob may leave rdr unread; the client is told about a wrong digest
// all the same, and its body is read to the end, so that it sees the answer.
func (s *Server) put(x *exchange, desc types.Descriptor, rdr io.Reader, vr *blob.VerifyReader) error {
	if _, err := s.api.BlobPut(x.r.Context(), x.ref, desc, rdr); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, vr)
	return err
}

// created answers that a blob is stored.
func (s *Server) created(x *exchange, d digest.Digest) error {
	var finder scheme.BlobFinder
	if !scheme.As(s.api, x.place.Root, &finder) {
		s.seen.add(d, x.req.Repo)
	}
	s.location(x, ocihttp.Request{Kind: ocihttp.BlobGet, Repo: x.req.Repo, Digest: d})
	x.header(ocihttp.HeaderContentDigest, string(d))
	return x.done(http.StatusCreated)
}

// session sets the headers that say where a session is and what it has.
func (s *Server) session(x *exchange, u *session) {
	s.location(x, ocihttp.Request{Kind: ocihttp.UploadStatus, Repo: u.repo, UploadID: u.id})
	x.header(ocihttp.HeaderUploadUUID, u.id)
	x.header("Range", ocihttp.FormatUploadRange(u.received))
}
