package mem

import (
	"context"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/ref"
)

// held is a blob or manifest of a repository that somebody leased. It need not be there.
type held struct {
	place ref.Ref // key of the repository
	d     digest.Digest
}

// holder is who leased it: a user of the memory by putting or finding it, or one call of Lease.
type holder struct {
	m    *Mem
	call *byte // nil for what m put or found
}

// leases say who holds what. They have a lock of their own: it is taken while mu is held, so that a collector, who
// holds mu for writing, cannot come between finding something and leasing it.
type leases struct {
	mu sync.Mutex
	by map[held]map[holder]bool
}

// Lease implements scheme.Leaser.
func (m *Mem) Lease(ctx context.Context, r ref.Ref, blobs ...digest.Digest) (release func(), err error) {
	const op = "lease"
	r = r.Place()
	if err := begin(ctx, op, r, ""); err != nil {
		return nil, err
	}
	blobs = slices.Clone(blobs)
	for _, d := range blobs {
		if err := beginBlob(ctx, op, r, d); err != nil {
			return nil, err
		}
	}
	who := holder{m, new(byte)}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, d := range blobs {
		m.leases.add(held{key(r), d}, who)
	}
	return func() {
		for _, d := range blobs {
			m.leases.release(held{key(r), d}, func(h holder) bool { return h == who })
		}
	}, nil
}

// lease holds what m has put or found. The caller holds mu, for reading at least, since it looked.
func (m *Mem) lease(r ref.Ref, d digest.Digest) { m.leases.add(held{key(r), d}, holder{m: m}) }

// forgetLeases releases what users of the memory hold because they saw what was then deleted.
func (m *Mem) forgetLeases(r ref.Ref, d digest.Digest) {
	m.leases.release(held{key(r), d}, func(h holder) bool { return h.call == nil })
}

func (l *leases) add(it held, who holder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[it] == nil {
		l.by[it] = map[holder]bool{}
	}
	l.by[it][who] = true
}

// of reports whether somebody holds it.
func (l *leases) of(r ref.Ref, d digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.by[held{key(r), d}]) > 0
}

// release ends the leases of it whose holders over says.
func (l *leases) release(it held, over func(holder) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(it, over)
}

// releaseAll ends all leases of m.
func (l *leases) releaseAll(m *Mem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for it := range l.by {
		l.end(it, func(h holder) bool { return h.m == m })
	}
}

// end is release for a caller that holds mu.
func (l *leases) end(it held, over func(holder) bool) {
	for h := range l.by[it] {
		if over(h) {
			delete(l.by[it], h)
		}
	}
	if len(l.by[it]) == 0 {
		delete(l.by, it)
	}
}
