package serve

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

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
		if err := s.putBody(x, nil); err != nil {
			return err
		}
		return s.created(x, x.req.Digest)
	}
	if err := s.begin(x); err != nil {
		return err
	}
	return x.done(http.StatusAccepted)
}

// begin opens a session, of which there is nothing in the place before the first byte (see newID).
func (s *Server) begin(x *exchange) error {
	in, err := s.ingests(x.ref)
	if err != nil {
		return err
	}
	id := newID(x.req.Repo, x.ctx.Subject, s.sessions.now())
	u := &session{id: id, key: sessionKey(id, x.req.Repo, x.ctx.Subject), owner: owner(x.ctx), in: in, told: true}
	u.algorithm = x.req.DigestAlgorithm
	u.fresh.Store(true)
	_, err = in.IngestStat(x.r.Context(), in.ref, u.key) // can there be any in this repository?
	if err = unless(err, errs.ErrUploadUnknown); err != nil {
		return err
	}
	if err := s.sessions.add(u, holding{}); err != nil {
		return err
	}
	s.release(x, u)
	s.tell(x, u.id, 0)
	if s.minChunk > 0 {
		x.header(ocihttp.HeaderChunkMinLength, strconv.FormatInt(s.minChunk, 10))
	}
	return nil
}

// uploadStatus answers GET: how much has been received. While another request writes it is what there is at the moment.
func (s *Server) uploadStatus(x *exchange) error {
	err := s.withSession(x, func(u *session, _ int64) error {
		if !u.told && !u.fresh.Load() { // of an earlier process: opening says what a power loss has left
			up, err := s.resume(x, u)
			if err == nil {
				err = u.leave(up)
			}
			if err != nil {
				return err
			}
		}
		s.tellHow(x, u)
		return nil
	})
	if errors.Is(err, errBusy) { // withSession has said how much there is
		return x.done(http.StatusNoContent)
	}
	if err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

// uploadCancel answers DELETE. A request that is writing to the session ends.
func (s *Server) uploadCancel(x *exchange) error {
	err := s.withSession(x, func(u *session, _ int64) error {
		err := u.in.IngestAbort(x.r.Context(), u.in.ref, u.key)
		if u.fresh.Load() {
			err = unless(err, errs.ErrUploadUnknown)
		}
		if err != nil {
			return err
		}
		s.sessions.end(u, "")
		return nil
	})
	if errors.Is(err, errBusy) {
		id, _, _ := splitID(x.req.UploadID)
		if s.sessions.kill(sessionKey(id, x.req.Repo, x.ctx.Subject)) {
			err = nil
			for _, h := range []string{"Location", "Range", ocihttp.HeaderUploadUUID} { // of what is gone
				x.w.Header().Del(h)
			}
		}
	}
	if err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

// uploadFinish answers PUT. After a failure the session is as it was before: the client may send the last part, or
// the digest, again. Who has not heard the answer and sends it again gets it again, as long as the blob is there.
func (s *Server) uploadFinish(x *exchange) error {
	id, _, _ := splitID(x.req.UploadID)
	if s.sessions.became(sessionKey(id, x.req.Repo, x.ctx.Subject), x.req.Digest) {
		if _, err := s.api.BlobHead(x.r.Context(), x.ref, types.Descriptor{Digest: x.req.Digest}); err == nil {
			x.drain()
			return s.created(x, x.req.Digest)
		}
	}
	err := s.withSession(x, func(u *session, offset int64) error {
		if err := s.finish(x, u, offset); err != nil {
			return err
		}
		s.sessions.end(u, x.req.Digest)
		return nil
	})
	if err != nil {
		return err
	}
	return s.created(x, x.req.Digest)
}

// withSession calls fn with the session of the request, and the offset that its URL says the client was told of (-1 for
// none). fn only sets headers: the answer goes out when the session is free for the next request. A 416 tells the client
// where to go on.
func (s *Server) withSession(x *exchange, fn func(u *session, offset int64) error) error {
	id, offset, ok := splitID(x.req.UploadID)
	if !ok {
		return errs.ErrUploadUnknown
	}
	in, err := s.ingests(x.ref)
	if err != nil {
		return err
	}
	u := &session{id: id, key: sessionKey(id, x.req.Repo, x.ctx.Subject), owner: owner(x.ctx), in: in}
	u, st, err := s.acquire(x, u, offset)
	if errors.Is(err, errBusy) {
		s.tell(x, id, st.Offset)
		return ocihttp.Public(err)
	}
	if err != nil {
		return err
	}
	if u.received = st.Offset; u.received != u.left { // another process has it, too: what is known of it is old
		u.told, u.short = false, false
	}
	u.later = u.later || offset > 0
	free := sync.OnceFunc(func() { s.release(x, u) })
	defer free() // also in a panic
	err = fn(u, offset)
	locked := errors.Is(err, errs.ErrLocked) // by another process
	switch {
	case locked:
		s.tell(x, id, u.received)
	case errors.Is(err, errs.ErrRangeInvalid):
		s.tellHow(x, u)
	}
	free() // the next request has it: nothing of u is this one's any more
	switch {
	case locked:
		return ocihttp.Public(errBusy)
	case errors.Is(err, errs.ErrUploadUnknown): // somebody else removed it
		s.sessions.end(u, "")
	}
	return err
}

// acquire takes the session u, of which only what identifies it is known, for this request, whose URL says offset, and says
// what it has received. One that this process does not know is added, if there is one. With errBusy, st says what there is.
func (s *Server) acquire(x *exchange, u *session, offset int64) (held *session, st blob.Ingest, err error) {
	h := holding{stop: x.interrupt, looks: x.req.Kind == ocihttp.UploadStatus, force: x.req.Kind == ocihttp.UploadCancel}
	held, err = s.sessions.acquire(x.r.Context(), u.key, h)
	if err != nil && !errors.Is(err, errBusy) {
		return nil, st, err
	}
	st, serr := u.in.IngestStat(x.r.Context(), u.in.ref, u.key)
	if errors.Is(serr, errs.ErrUploadUnknown) {
		switch {
		case held != nil && held.fresh.Load(), err != nil && s.sessions.isFresh(u.key):
			serr = nil
		case held == nil && err == nil && s.anew(x, u, offset):
			serr = nil
			u.fresh.Store(true)
		}
	} else if serr == nil && held != nil {
		held.fresh.Store(false) // another process has begun to write
	}
	switch {
	case serr != nil && held != nil:
		s.release(x, held)
		if errors.Is(serr, errs.ErrUploadUnknown) { // else it is there again when the place is, or the client
			s.sessions.end(held, "")
		}
		return nil, st, serr
	case serr != nil && err != nil: // it is just becoming a blob
		return nil, st, &errs.Error{Op: "upload", Err: errs.ErrUnavailable, RetryAfter: time.Second}
	case serr != nil || err != nil:
		return nil, st, errors.Join(serr, err)
	case held != nil:
		return held, st, nil
	}
	if err := s.sessions.add(u, h); err != nil {
		return nil, st, err
	}
	return u, st, nil
}

// anew reports whether a session that nobody knows may have been begun by another process, and has no bytes yet.
func (s *Server) anew(x *exchange, u *session, offset int64) bool {
	t := s.sessions
	return offset == 0 && isID(u.id, x.req.Repo, x.ctx.Subject, t.now(), t.ttl) && !t.ended(u.key)
}

// release gives a session back. One that was cancelled meanwhile is removed.
func (s *Server) release(x *exchange, u *session) {
	u.left = u.received
	if s.sessions.release(u) {
		s.discard(x, u)
	}
}

// discard removes a session that the caller holds.
func (s *Server) discard(x *exchange, u *session) {
	s.remove(x, u)
	s.sessions.end(u, "")
}

// remove removes what a session has received. If that fails it is found as a leftover later.
func (s *Server) remove(x *exchange, u *session) {
	ctx, cancel := afterwards(x)
	defer cancel()
	if err := unless(u.in.IngestAbort(ctx, u.in.ref, u.key), errs.ErrUploadUnknown); err != nil {
		s.log.ErrorContext(ctx, "upload: remove what was received", "id", x.id, "error", err)
	}
}

// cleanupTime is how long what is to be put in order after a request may take.
const cleanupTime = time.Minute

// afterwards is the context for what must be done although the request's has ended.
func afterwards(x *exchange) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(x.r.Context()), cleanupTime)
}

// interrupt ends the reading of the request's body, at once.
func (x *exchange) interrupt() {
	x.body.cut()
	// A server that has no deadlines ends it at the next read, see alive.
	_ = http.NewResponseController(x.w).SetReadDeadline(time.Unix(1, 0))
}

// putBody stores a blob that arrives in one request. Nothing is spooled. It ends with the session u, nil if there is none.
func (s *Server) putBody(x *exchange, u *session) error {
	body, err := s.limited(x, 0)
	if err != nil {
		return err
	}
	if u != nil {
		body = &alive{r: body, u: u}
	}
	desc := types.Descriptor{Digest: x.req.Digest, Size: max(x.r.ContentLength, 0)}
	vr, err := blob.NewReader(io.NopCloser(body), desc)
	if err != nil {
		return err
	}
	return s.put(x, desc, vr, vr)
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

// tell sets the headers that say where a session is and what it has.
func (s *Server) tell(x *exchange, id string, received int64) {
	s.location(x, ocihttp.Request{Kind: ocihttp.UploadStatus, Repo: x.req.Repo, UploadID: resumeID(id, received)})
	x.header(ocihttp.HeaderUploadUUID, id)
	x.header("Range", ocihttp.FormatUploadRange(received))
}

// tellHow tells a client that asks, or has lost count, how much the session has. What says "nothing" says "one byte" as
// well: who reads the former sends that byte again, and is understood.
func (s *Server) tellHow(x *exchange, u *session) {
	s.tellAll(x, u)
	if u.received == 1 {
		u.acked = 0
		s.tell(x, u.id, 0)
	}
}

// tellAll tells the client of all that the session has. The caller holds it.
func (s *Server) tellAll(x *exchange, u *session) {
	u.acked, u.told = u.received, true
	s.tell(x, u.id, u.received)
}
