package serve

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

// retryFull is what a client is told to wait when all sessions are taken.
const retryFull = 5 * time.Second

// errBusy is a second request to a session that is just being written.
var errBusy = fmt.Errorf("%w: another request is writing to this session", errs.ErrRangeInvalid)

// sessions are the uploads that are open. A session is in one of three states:
//
//	          add                 acquire
//	(none) ───────▶  idle  ◀────────────────▶  busy
//	                  │          release         │
//	                  │ remove, sweep            │ remove
//	                  ▼                          ▼
//	               (gone)  ◀──────────────────  dead     the writer notices at its next read
//	                             release
//
// One request at a time holds a busy session, and only it touches the file, which is open only meanwhile. An idle
// session costs some bytes of memory and what it has received of disk.
type sessions struct {
	dir string
	max int
	ttl time.Duration
	now func() time.Time

	mu    sync.Mutex // guards all below, and the fields of sessions that say so; never held across I/O
	open  map[string]*session
	timer *time.Timer // sweeps; nil while nothing is open
	done  bool
}

// session is one upload.
type session struct {
	id, repo, path string

	busy    bool        // guarded by sessions.mu
	touched time.Time   // guarded by sessions.mu
	dead    atomic.Bool // removed; its writer stops

	// Two lengths, of whoever holds the session. received is what the file has. acked is what the client was told
	// of: a request without Content-Range goes on there, as a client that sends a lost request again means it.
	received, acked int64
}

func newSessions(dir string, limit int, ttl time.Duration) *sessions {
	return &sessions{dir: dir, max: limit, ttl: ttl, now: time.Now, open: map[string]*session{}}
}

// add opens a session for a repository. Its error is errs.ErrRateLimited when there are too many.
func (t *sessions) add(repo string) (*session, error) {
	s := &session{id: rand.Text(), repo: repo}
	s.path = filepath.Join(t.dir, s.id)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return nil, errs.ErrUnavailable
	}
	if len(t.open) >= t.max {
		return nil, &errs.Error{Op: "upload start", RetryAfter: retryFull, Err: fmt.Errorf("%w: %d uploads are open", errs.ErrRateLimited, len(t.open))}
	}
	s.touched = t.now()
	t.open[s.id] = s
	if t.timer == nil {
		t.timer = time.AfterFunc(t.ttl, t.sweep)
	}
	return s, nil
}

// acquire takes a session for one request. Errors: errs.ErrUploadUnknown, also for another repository's session;
// errBusy, together with the session, of which only id may then be used.
func (t *sessions) acquire(repo, id string) (*session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.open[id]
	if !ok || s.repo != repo {
		return nil, errs.ErrUploadUnknown
	}
	if s.busy {
		return s, errBusy
	}
	s.busy = true
	return s, nil
}

// release gives a session back. What it received stays, unless it was removed meanwhile.
func (t *sessions) release(s *session) error {
	t.mu.Lock()
	s.busy, s.touched = false, t.now()
	t.mu.Unlock()
	if s.dead.Load() {
		return s.discard()
	}
	return nil
}

// remove ends a session. If a request holds it, the file goes when that releases it.
func (t *sessions) remove(repo, id string) error {
	t.mu.Lock()
	s, ok := t.open[id]
	if !ok || s.repo != repo {
		t.mu.Unlock()
		return errs.ErrUploadUnknown
	}
	delete(t.open, id)
	s.dead.Store(true)
	busy := s.busy
	t.mu.Unlock()
	if busy {
		return nil
	}
	return s.discard()
}

// sweep removes idle sessions that nobody has used for too long, and comes back when the next may be due.
func (t *sessions) sweep() {
	var old []*session
	t.mu.Lock()
	limit := t.now().Add(-t.ttl)
	for id, s := range t.open {
		if !s.busy && !s.touched.After(limit) {
			delete(t.open, id)
			s.dead.Store(true)
			old = append(old, s)
		}
	}
	switch {
	case t.done:
	case len(t.open) == 0:
		t.timer = nil
	default:
		t.timer = time.AfterFunc(max(t.ttl/4, time.Millisecond), t.sweep)
	}
	t.mu.Unlock()
	for _, s := range old {
		_ = s.discard() // what is left goes with the folder
	}
}

// close ends all sessions and removes the folder.
func (t *sessions) close() error {
	t.mu.Lock()
	t.done = true
	if t.timer != nil {
		t.timer.Stop()
	}
	for _, s := range t.open {
		s.dead.Store(true)
	}
	clear(t.open)
	t.mu.Unlock()
	return os.RemoveAll(t.dir)
}

// discard removes the file. The session must not be busy.
func (s *session) discard() error {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// receive writes rdr to the file from offset on, which drops what was behind it, and returns how much came. What
// came before a failure is kept and counted: the client may go on there.
func (s *session) receive(offset int64, rdr io.Reader) (n int64, err error) {
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		s.received = offset + n
		err = errors.Join(err, f.Close())
	}()
	if err := f.Truncate(offset); err != nil {
		return 0, err
	}
	return io.Copy(io.NewOffsetWriter(f, offset), &alive{r: rdr, s: s})
}

// rollback forgets what was received behind offset.
func (s *session) rollback(offset int64) error {
	if s.received == offset {
		return nil
	}
	if err := os.Truncate(s.path, offset); err != nil {
		return err
	}
	s.received = offset
	return nil
}

// alive ends a stream when its session was removed.
type alive struct {
	r io.Reader
	s *session
}

func (a *alive) Read(p []byte) (int, error) {
	n, err := a.r.Read(p) // may wait for long: what comes after the end of the session is not kept
	if a.s.dead.Load() {
		return 0, errs.ErrUploadUnknown
	}
	return n, err
}
