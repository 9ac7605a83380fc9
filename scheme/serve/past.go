package serve

import (
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// maxPast is how many uploads that are over are remembered.
	maxPast = 4096
	// pastAge is for how long a request that finished one is answered again.
	pastAge = 10 * time.Minute
)

// pastUploads remembers the sessions that ended last, and which blobs they became: a client that did not get the answer
// sends its PUT again. It is guarded by sessions.mu.
type pastUploads struct {
	all  map[string]pastUpload
	keys []string // a ring of those in all
	next int
}

type pastUpload struct {
	digest digest.Digest // "" for one that became nothing
	until  time.Time
}

func newPastUploads() pastUploads { return pastUploads{all: map[string]pastUpload{}} }

func (p *pastUploads) add(key string, u pastUpload) {
	if _, again := p.all[key]; !again {
		if len(p.keys) < maxPast {
			p.keys = append(p.keys, key)
		} else {
			delete(p.all, p.keys[p.next])
			p.keys[p.next] = key
			p.next = (p.next + 1) % maxPast
		}
	}
	p.all[key] = u
}

// end notes what a session became, "" for nothing, and drops it.
func (t *sessions) end(s *session, d digest.Digest) {
	t.mu.Lock()
	t.past.add(s.key, pastUpload{digest: d, until: t.now().Add(pastAge)})
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

// ended reports whether a session is known to be over.
func (t *sessions) ended(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.past.all[key]
	return ok
}
