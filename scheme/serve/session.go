package serve

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/errs"
)

// retryFull is what a client is told to wait when all sessions are taken.
const retryFull = 5 * time.Second

// errBusy is a second request to a session that is just being written, by this process or another.
var errBusy = fmt.Errorf("%w: another request is writing to this session", errs.ErrRangeInvalid)

// sessions are the uploads that this process knows to be open. Their bytes, once there are some, are ingests of the place
// or of the spool (ingests.go), which outlive the process: one of an earlier process is added here when its client comes
// back. A session is in one of three states:
//
//	        add                acquire
//	(none) ─────▶  busy  ◀────────────────▶  idle
//	                │          release
//	                │ kill
//	                ▼
//	               dead   the writer notices at its next read; release, then drop
//
// One request at a time holds a busy session, and only that opens the ingest. An idle session costs some hundred bytes
// of memory, and of disk what it has received.
type sessions struct {
	max, each int
	ttl       time.Duration
	now       func() time.Time
	expire    func(*session) // removes what an idle session has received; it holds the session

	mu    sync.Mutex // guards all below, and the fields of sessions that say so; never held across I/O
	open  map[string]*session
	of    map[string]int // how many sessions an owner has
	past  pastUploads
	timer *time.Timer // sweeps; nil while nothing is open
	done  bool

	sweeping sync.WaitGroup // nothing is added when done
}

// session is one upload.
type session struct {
	id, key, owner string
	in             ingests
	algorithm      digest.Algorithm // that the client has announced, to the process that began it
	fresh          atomic.Bool      // there is no ingest yet: it is made for the first byte

	busy    bool          // guarded by sessions.mu
	touched time.Time     // guarded by sessions.mu
	looking chan struct{} // guarded by sessions.mu: closed when who holds the session has looked at it; nil for one who writes
	stop    func()        // guarded by sessions.mu: ends the reading of the request that holds the session
	dead    atomic.Bool   // cancelled; its writer stops
	broken  atomic.Bool   // the server ends: so does its writer, and the session stays

	// What follows belongs to whoever holds the session. received is how many bytes there are, as the ingest says.
	// acked is how many of them this process has told the client of; it has told nothing yet if told is false.
	received, acked int64
	told            bool
	later           bool  // the client has used the URL of a later answer than the first
	left            int64 // what received was when this process let it go: if it is something else, another one has it, too
	begun           int64 // where the chunk began that came last or is still incomplete
	short           bool  // that was a complete one below the least length: none may follow
}

// newID names a session of a repository and subject: 130 random bits, when it began, and a check of what it is for. Who
// knows it, and is who began it, can go on with it.
//
// A session that has no bytes yet is nowhere but in its name and in the memory of who gave it: most blobs come whole in the
// next request, and need no ingest at all. After a restart a name with the right check, of which the client was told 0
// bytes, is as good as a new one, as long as a session may last. The check is no secret: who makes up such a name gets what
// a POST gives to everybody.
func newID(repo, subject string, now time.Time) string {
	id := fmt.Sprintf("%s%0*x", rand.Text(), timeLen, max(now.Unix(), 0))
	return id + idCheck(id, repo, subject)
}

const (
	timeLen  = 10 // hexadecimal digits of the seconds since 1970
	checkLen = 10
)

// isID reports whether newID may have made id for this repository and subject, not longer ago than ttl.
func isID(id, repo, subject string, now time.Time, ttl time.Duration) bool {
	at := len(id) - checkLen
	if at < timeLen || id[at:] != idCheck(id[:at], repo, subject) {
		return false
	}
	began, err := strconv.ParseInt(id[at-timeLen:at], 16, 64)
	age := now.Sub(time.Unix(began, 0))
	return err == nil && age < ttl && age > -ttl // clocks differ
}

func idCheck(id, repo, subject string) string {
	sum := sha256.Sum256([]byte("session\x00" + id + "\x00" + repo + "\x00" + subject))
	return hex.EncodeToString(sum[:])[:checkLen]
}

// keyPrefix is what keys of sessions' ingests begin with.
const keyPrefix = "serve:"

// sessionKey is the key of a session's ingest. It gives no id away, and another subject's or repository's session has
// another key, so that it is not even found.
func sessionKey(id, repo, subject string) string {
	sum := sha256.Sum256([]byte(id + "\x00" + repo + "\x00" + subject))
	return keyPrefix + hex.EncodeToString(sum[:])
}

// resumeID is a session's id as a Location has it: with how many bytes the client is told of. So a client that uses the
// newest Location is understood by a process that has told it nothing.
func resumeID(id string, offset int64) string { return id + "." + strconv.FormatInt(offset, 10) }

// splitID is resumeID backwards. offset is -1 where none is said.
func splitID(s string) (id string, offset int64, ok bool) {
	id, text, found := strings.Cut(s, ".")
	if !found {
		return id, -1, true
	}
	offset, err := strconv.ParseInt(text, 10, 64)
	return id, offset, err == nil && offset >= 0 && text == strconv.FormatInt(offset, 10)
}

// owner is who a session counts for: the subject, else the address, of which IPv6 gives everybody 2^64.
func owner(c Context) string {
	switch {
	case c.Subject != "":
		return "subject " + c.Subject
	case c.Remote.Is6():
		if net, err := c.Remote.WithZone("").Prefix(64); err == nil {
			return net.String()
		}
	}
	return netip.Addr.String(c.Remote)
}

func newSessions(limit, each int, ttl time.Duration, expire func(*session)) *sessions {
	if each <= 0 {
		each = (limit + 1) / 2
	}
	return &sessions{
		max: limit, each: each, ttl: ttl, now: time.Now, expire: expire,
		open: map[string]*session{}, of: map[string]int{}, past: newPastUploads(),
	}
}

// add makes s, which is new or of an earlier process, known; the caller holds it. Errors: errs.ErrRateLimited when there
// are too many, unless h.force is set; errBusy when somebody else has added it.
func (t *sessions) add(s *session, h holding) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return errs.ErrUnavailable
	}
	if t.open[s.key] != nil {
		return errBusy
	}
	if !h.force && (len(t.open) >= t.max || t.of[s.owner] >= t.each) {
		err := fmt.Errorf("%w: %d uploads are open, %d of them yours", errs.ErrRateLimited, len(t.open), t.of[s.owner])
		return &errs.Error{Op: "upload start", RetryAfter: retryFull, Err: err}
	}
	s.hold(h)
	s.touched = t.now()
	t.open[s.key] = s
	t.of[s.owner]++
	if t.timer == nil {
		t.timer = time.AfterFunc(t.ttl, t.sweep)
	}
	return nil
}

// acquire takes a session for one request. It is nil if this process does not know it. Errors: errs.ErrUploadUnknown for
// one that was cancelled; errBusy, but somebody who only looks is waited for; ctx's error.
func (t *sessions) acquire(ctx context.Context, key string, h holding) (*session, error) {
	for {
		s, looking, err := t.tryAcquire(key, h)
		if looking == nil {
			return s, err
		}
		select {
		case <-looking:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (t *sessions) tryAcquire(key string, h holding) (s *session, looking chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s = t.open[key]
	switch {
	case t.done:
		return nil, nil, errs.ErrUnavailable
	case s == nil:
		return nil, nil, nil
	case s.dead.Load():
		return nil, nil, errs.ErrUploadUnknown
	case s.busy && s.looking != nil:
		return nil, s.looking, nil
	case s.busy:
		return nil, nil, errBusy
	}
	s.hold(h)
	return s, nil, nil
}

// holding is how a request holds a session.
type holding struct {
	stop  func() // ends the reading of its body
	looks bool   // it is done soon
	force bool   // there need not be room for a session that is added
}

// hold lets a request have the session. The caller holds mu.
func (s *session) hold(h holding) {
	s.busy, s.stop = true, h.stop
	if h.looks {
		s.looking = make(chan struct{})
	}
}

// release gives a session back, and reports whether it was cancelled meanwhile: then what it has received must be
// removed, and it must be dropped.
func (t *sessions) release(s *session) (dead bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.stop, s.touched = nil, t.now()
	if s.looking != nil {
		close(s.looking)
		s.looking = nil
	}
	if s.dead.Load() {
		return true // it stays busy
	}
	s.busy = false
	return false
}

// isFresh reports whether a session has no bytes yet, of which there could be an ingest.
func (t *sessions) isFresh(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.open[key]
	return s != nil && s.fresh.Load()
}

// drop forgets a session that the caller holds.
func (t *sessions) drop(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[s.key] != s {
		return
	}
	delete(t.open, s.key)
	if t.of[s.owner]--; t.of[s.owner] == 0 {
		delete(t.of, s.owner)
	}
}

// kill cancels a session that a request holds: its reading ends, and when it releases the session that is gone. It
// reports false if nobody holds it.
func (t *sessions) kill(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.open[key]
	if s == nil || !s.busy || s.dead.Load() {
		return false
	}
	s.dead.Store(true)
	if s.stop != nil {
		s.stop()
	}
	return true
}

// knows reports whether a session is this process's to expire.
func (t *sessions) knows(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[key] != nil
}

// sweep removes idle sessions that nobody has used for too long, and comes back when the next may be due.
func (t *sessions) sweep() {
	var old []*session
	t.mu.Lock()
	if t.done {
		t.mu.Unlock()
		return
	}
	t.sweeping.Add(1)
	defer t.sweeping.Done()
	limit := t.now().Add(-t.ttl)
	for _, s := range t.open {
		if !s.busy && !s.touched.After(limit) {
			s.busy = true
			old = append(old, s)
		}
	}
	t.mu.Unlock()
	for _, s := range old {
		t.expire(s)
		t.end(s, "")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.done:
	case len(t.open) == 0:
		t.timer = nil
	default:
		t.timer = time.AfterFunc(max(t.ttl/4, time.Millisecond), t.sweep)
	}
}

// close takes no more sessions, and waits for a sweep. What was received stays.
func (t *sessions) close() {
	t.mu.Lock()
	t.done = true
	if t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	t.sweeping.Wait()
}

// interrupt ends the reading of all requests that hold a session. What they have received is kept.
func (t *sessions) interrupt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.open {
		s.broken.Store(true)
		if s.stop != nil {
			s.stop()
		}
	}
}
