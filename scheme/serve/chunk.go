package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// chunkBuffer is how much of a chunk is in memory at once, in bytes.
const chunkBuffer = 64 << 10

var chunkBuffers = sync.Pool{New: func() any { b := make([]byte, chunkBuffer); return &b }}

// uploadChunk answers PATCH: a chunk with Content-Range, or whatever comes next without it. What came of a chunk that
// broke off is kept: the client may ask, and go on there. What was refused is not.
func (s *Server) uploadChunk(x *exchange) error {
	err := s.withSession(x, func(u *session, offset int64) error {
		if err := s.enough(x, u); err != nil {
			return err
		}
		up, err := s.resume(x, u)
		if err != nil {
			return err
		}
		before := u.received
		defer up.Close()
		_, err = s.chunk(x, u, up, offset)
		if u.dead.Load() {
			return errors.Join(errs.ErrUploadUnknown, err, up.Close()) // release removes it
		}
		if err = errors.Join(err, u.leave(up)); err != nil {
			return err
		}
		if u.received > before {
			u.short, u.begun = u.received-u.begun < s.minChunk, u.received
		}
		if x.r.Context().Err() == nil { // else nobody hears it
			s.tellAll(x, u)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return x.done(http.StatusAccepted)
}

// enough refuses a chunk after one below the least length, which only the last one may be.
func (s *Server) enough(x *exchange, u *session) error {
	if u.short && x.r.ContentLength != 0 {
		return ocihttp.Public(fmt.Errorf("%w: only the last chunk may have fewer than %d bytes", errs.ErrUploadInvalid, s.minChunk))
	}
	return nil
}

// resume opens the ingest of a session, and sees what it has. That of a fresh one is made.
func (s *Server) resume(x *exchange, u *session) (scheme.Upload, error) {
	var opts []scheme.IngestOption
	if u.fresh.Load() {
		opts = []scheme.IngestOption{scheme.WithIngestAlgorithm(u.algorithm), scheme.WithIngestOwner(u.owner)}
	}
	up, err := u.in.Ingest(context.WithoutCancel(x.r.Context()), u.in.ref, u.key, opts...) // the body ends with the request
	if err != nil {
		return nil, err
	}
	u.fresh.Store(false)
	if at := up.Status().Offset; at != u.received { // another process has written since this one looked
		u.received, u.told = at, false
	}
	u.begun = min(u.begun, u.received) // or gone back
	return up, nil
}

// syncFrom is the size in bytes from which on every chunk is made durable, and the hash of all that came kept with it.
// Hashing again what is less takes less time than that. A power loss costs the client some chunks, of which it is told.
const syncFrom = 4 << 20

// leave closes the ingest for the time being.
func (u *session) leave(up scheme.Upload) error {
	if l, ok := up.(scheme.Leaver); ok && u.received < syncFrom {
		return l.Leave()
	}
	return up.Close()
}

// from says where a request without Content-Range goes on, whose URL says that the client was told of offset bytes:
//
//	the URL of a later answer          there: what a client sends again, since the answer was lost, must not be there twice
//	the first URL, and no other yet    where the client was told last: some keep it
//	the first URL, after others        at the beginning: the request was on its way for long
//	the first URL, after a restart     at the beginning: nobody knows better
//
// If the session does not reach that far the client must learn that.
func (u *session) from(offset int64) (int64, error) {
	at := max(offset, 0)
	switch {
	case offset == 0 && u.told && !u.later:
		at = u.acked
	case offset < 0: // our URLs always say it
		at = u.received
	}
	if at > u.received {
		return 0, ocihttp.Public(fmt.Errorf("%w: of %d bytes %d are left", errs.ErrRangeInvalid, at, u.received))
	}
	return at, nil
}

// chunk appends the body to the session, and says where. One with a Content-Range must begin where the session ends, or
// ended when its client heard of it last, and have the length that it says. Nothing of one that is refused is kept.
func (s *Server) chunk(x *exchange, u *session, up scheme.Upload, told int64) (at int64, err error) {
	header := x.r.Header.Get("Content-Range")
	if header == "" {
		if at, err = u.from(told); err != nil {
			return u.received, err
		}
		body, err := s.limited(x, at)
		if err != nil {
			return u.received, err
		}
		if _, err = u.receive(x, up, at, body); errors.Is(err, errs.ErrSizeInvalid) {
			err = errors.Join(err, u.rollback(x, up, at))
		}
		return min(at, u.received), err
	}
	at, length, err := ocihttp.ParseChunkRange(header)
	if err != nil {
		return u.received, ocihttp.Public(err)
	}
	if err := s.follows(x, u, at, length); err != nil {
		return u.received, err
	}
	n, err := u.receive(x, up, at, io.LimitReader(x.body, length))
	if err != nil {
		return at, err
	}
	if n == length {
		var more [1]byte
		if k, _ := io.ReadFull(x.body, more[:]); k == 0 {
			return at, nil
		}
	}
	err = ocihttp.Public(fmt.Errorf("%w: the body does not have the %d bytes of Content-Range %s", errs.ErrUploadInvalid, length, header))
	if n > 0 {
		err = errors.Join(err, u.rollback(x, up, at)) // which is not for the client to read
	}
	return at, err
}

// follows reports what forbids to append length bytes at offset at, as Content-Range says.
func (s *Server) follows(x *exchange, u *session, at, length int64) error {
	if x.r.ContentLength >= 0 && x.r.ContentLength != length {
		return ocihttp.Public(fmt.Errorf("%w: Content-Range says %d bytes, Content-Length %d", errs.ErrUploadInvalid, length, x.r.ContentLength))
	}
	if at != u.received && (at > u.received || at != u.lastTold()) {
		return ocihttp.Public(fmt.Errorf("%w: the chunk begins at %d, not at %d", errs.ErrRangeInvalid, at, u.received))
	}
	return s.fits(at, length)
}

// lastTold is what the client was told last, as far as is known. What the URL says does not count here: a chunk that comes
// late must not cut off what others brought since.
func (u *session) lastTold() int64 {
	if u.told {
		return u.acked
	}
	return u.received
}

// receive appends rdr at offset, which drops what was behind it, unless rdr is empty, and returns how much came. What came
// before a failure is kept, but on a full disk.
func (u *session) receive(x *exchange, up scheme.Upload, offset int64, rdr io.Reader) (int64, error) {
	in := bufio.NewReaderSize(&alive{r: rdr, u: u}, 16) // longer reads go past it
	if _, err := in.Peek(1); err != nil {
		return 0, unless(err, io.EOF)
	}
	if err := u.rollback(x, up, offset); err != nil {
		return 0, err
	}
	buf := chunkBuffers.Get().(*[]byte)
	defer chunkBuffers.Put(buf)
	_, err := io.CopyBuffer(struct{ io.Writer }{up}, struct{ io.Reader }{in}, *buf)
	u.received = up.Status().Offset
	if errors.Is(err, errs.ErrNoSpace) { // others need the space more than this client needs half a chunk
		err = errors.Join(err, u.rollback(x, up, offset))
	}
	return u.received - offset, err
}

// alive ends a stream when its session was cancelled.
type alive struct {
	r io.Reader
	u *session
}

func (a *alive) Read(p []byte) (int, error) {
	if err := a.u.over(); err != nil {
		return 0, err
	}
	n, err := a.r.Read(p) // may wait for long: what comes after the end of the session is not kept
	if over := a.u.over(); over != nil {
		return 0, over
	}
	return n, err
}

// over reports why nothing more is to be written.
func (u *session) over() error {
	switch {
	case u.dead.Load():
		return errs.ErrUploadUnknown
	case u.broken.Load():
		return &statusError{status: http.StatusServiceUnavailable, err: fmt.Errorf("%w: the server ends", errs.ErrUnavailable)}
	}
	return nil
}

// rollback forgets what was received behind offset.
func (u *session) rollback(x *exchange, up scheme.Upload, offset int64) error {
	if u.received <= offset {
		return nil
	}
	ctx, cancel := afterwards(x)
	defer cancel()
	cut, ok := up.(scheme.Truncater)
	if !ok {
		return fmt.Errorf("%w: the place keeps %d bytes", errs.ErrRangeInvalid, u.received)
	}
	if err := cut.Truncate(ctx, offset); err != nil {
		return err
	}
	u.received, u.begun = offset, min(u.begun, offset)
	return nil
}

// fits refuses length bytes at offset at that make the blob too large.
func (s *Server) fits(at, length int64) error {
	if s.maxBlob > 0 && length > s.maxBlob-at {
		return tooLarge(s.maxBlob)
	}
	return nil
}

func tooLarge(limit int64) error {
	return ocihttp.Public(fmt.Errorf("%w: a blob has at most %d bytes here", errs.ErrSizeInvalid, limit))
}

// limited is the body, which is to follow at bytes, and which fails when it makes the blob too large.
func (s *Server) limited(x *exchange, at int64) (io.Reader, error) {
	if s.maxBlob <= 0 {
		return x.body, nil
	}
	if err := s.fits(at, max(x.r.ContentLength, 0)); err != nil {
		return nil, err
	}
	return &capped{r: x.body, left: s.maxBlob - at, limit: s.maxBlob}, nil
}

// capped is a stream that fails after left bytes if there are more.
type capped struct {
	r           io.Reader
	left, limit int64
}

func (c *capped) Read(p []byte) (int, error) {
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.r.Read(p)
	if int64(n) > c.left {
		n = int(c.left)
		c.left = 0
		return n, tooLarge(c.limit)
	}
	c.left -= int64(n)
	return n, err
}

// finish makes the blob of a session, the last part of which may be the body of this request.
func (s *Server) finish(x *exchange, u *session, told int64) error {
	ranged := x.r.Header.Get("Content-Range") != ""
	if at, err := u.from(told); err == nil && at == 0 && u.received == 0 && !ranged {
		if err := s.putBody(x, u); err != nil {
			return err
		}
		if !u.fresh.Load() {
			s.remove(x, u)
		}
		return nil
	}
	up, err := s.resume(x, u)
	if err != nil {
		return err
	}
	defer up.Close()
	at := u.received
	if ranged || x.r.ContentLength != 0 {
		at, err = s.chunk(x, u, up, told)
	} else {
		err = u.settle(x, up, told)
	}
	if err == nil {
		err = s.commit(x, u, up)
	}
	if err == nil || u.dead.Load() {
		return err
	}
	return errors.Join(err, s.undo(x, u, up, at))
}

// settle drops what came behind the end that the client knows, before a PUT that brings nothing: it is of a request that
// broke off. Where the client may know of nothing, all that came is what it means, unless that is nothing.
func (u *session) settle(x *exchange, up scheme.Upload, told int64) error {
	at, err := u.from(told)
	if err != nil || at == 0 && !types.EmptyDigest(x.req.Digest) {
		return err
	}
	return u.rollback(x, up, at)
}

// undo takes back what a PUT that failed has appended at at.
func (s *Server) undo(x *exchange, u *session, up scheme.Upload, at int64) error {
	err := u.rollback(x, up, at)
	if errors.Is(err, fs.ErrClosed) { // by commit
		ctx, cancel := afterwards(x)
		defer cancel()
		if _, err := u.in.IngestStat(ctx, u.in.ref, u.key); err != nil {
			return unless(err, errs.ErrUploadUnknown)
		}
		if up, err = s.resume(x, u); err != nil {
			return err
		}
		err = u.rollback(x, up, at)
	}
	return errors.Join(err, up.Close())
}

// commit makes the blob of what the session has.
func (s *Server) commit(x *exchange, u *session, up scheme.Upload) error {
	desc := types.Descriptor{Digest: x.req.Digest, Size: u.received}
	if !u.in.spooled {
		_, err := up.Commit(x.r.Context(), desc, nil)
		return unless(err, errs.ErrExists)
	}
	content, ok := up.(scheme.Rereader)
	if !ok {
		return errs.ErrUnsupported
	}
	lent := &loan{r: content}
	defer lent.end()
	part := func(offset int64) io.ReadCloser {
		return io.NopCloser(io.NewSectionReader(lent, offset, u.received-offset))
	}
	vr, err := blob.NewReader(part(0), desc)
	if err != nil {
		return err
	}
	src := blob.NewSource(vr, func(_ context.Context, offset int64) (io.ReadCloser, error) { return part(offset), nil })
	if err := s.put(x, desc, src, vr); err != nil {
		return err
	}
	ctx, cancel := afterwards(x)
	defer cancel()
	if err := up.Abort(ctx); err != nil { // the blob is stored; what is left is found as a leftover later
		s.log.ErrorContext(ctx, "upload: remove what was received", "id", x.id, "error", err)
	}
	return nil
}
