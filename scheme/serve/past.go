package serve

import (
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// maxPast is how many finished uploads are remembered.
	maxPast = 4096
	// pastAge is for how long.
	pastAge = 10 * time.Minute
)

// pastUploads remembers which blobs the sessions became that were finished last: a client that did not get the answer
// sends its PUT again. It is guarded by sessions.mu.
type pastUploads struct {
	all  map[string]pastUpload
	keys []string // a ring of those in all
	next int
}

type pastUpload struct {
	digest digest.Digest
	until  time.Time
}

func newPastUploads() pastUploads { return pastUploads{all: map[string]pastUpload{}} }

// finished notes what a session became, and drops it.
func (t *sessions) finished(s *session, d digest.Digest) {
	t.mu.Lock()
	p := &t.past
	if len(p.keys) < maxPast {
		p.keys = append(p.keys, s.key)
	} else {
		delete(p.all, p.keys[p.next])
		p.keys[p.next] = s.key
		p.next = (p.next + 1) % maxPast
	}
	p.all[s.key] = pastUpload{digest: d, until: t.now().Add(pastAge)}
	t.mu.Unlock()
	t.drop(s)
}

// became reports whether the session of key has become the blob d a while ago.
func (t *sessions) became(key string, d digest.Digest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.past.all[key]
	return ok && p.digest == d && t.now().Before(p.until)
}
