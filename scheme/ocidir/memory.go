package ocidir

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// memory is what this process knows of files: that their bytes were found to have a digest or not to have it, that they
// are durable, or that making them durable failed. A file that changes has another fileID and so is unknown again. It is shared by all
// layouts, since hard links are.
type memory struct {
	mu       sync.Mutex
	verified map[fileID]digest.Digest
	durable  map[fileID]struct{}
	suspect  map[fileID]struct{} // by sameFile
	bad      map[badFile]struct{}
	hashing  map[badFile]chan struct{} // closed when whoever reads the file is done

	manifests recollection[knownManifest]
	blobs     recollection[[]byte]
}

// badFile is a file that does not have the digest whose name it has. Under another name it may be what it should be.
type badFile struct {
	id fileID
	d  digest.Digest
}

// turn waits until nobody else reads the file to hash it, and is then the only one who does, until done is called. Of
// many who open a large blob for the first time, to read a range each, one reads all of it; the others know what it found.
func (m *memory) turn(ctx context.Context, id fileID, d digest.Digest) (done func(), err error) {
	key := badFile{id, d}
	for {
		m.mu.Lock()
		other, busy := m.hashing[key]
		if !busy {
			mine := make(chan struct{})
			m.hashing[key] = mine
			m.mu.Unlock()
			return func() {
				m.mu.Lock()
				defer m.mu.Unlock()
				delete(m.hashing, key)
				close(mine)
			}, nil
		}
		m.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// maxKnown bounds each map. What is forgotten costs a hash or a sync of a clean file.
const maxKnown = 1 << 18

func newMemory() *memory {
	return &memory{
		verified: map[fileID]digest.Digest{}, durable: map[fileID]struct{}{}, suspect: map[fileID]struct{}{},
		bad: map[badFile]struct{}{}, hashing: map[badFile]chan struct{}{},
		manifests: recollection[knownManifest]{most: maxRecallManifest, size: func(m knownManifest) int { return len(m.m.Raw()) }},
		blobs:     recollection[[]byte]{most: maxRecallBlob, size: func(raw []byte) int { return len(raw) }},
	}
}

func remember[K comparable, V any](m map[K]V, id K, v V) {
	if len(m) >= maxKnown {
		clear(m)
	}
	m[id] = v
}

func (m *memory) setVerified(id fileID, d digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	remember(m.verified, id, d)
}

func (m *memory) isVerified(id fileID, d digest.Digest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.verified[id] == d
}

func (m *memory) setDurable(ids ...fileID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		remember(m.durable, id, struct{}{})
	}
}

func (m *memory) isDurable(id fileID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.durable[id]
	return ok
}

// setSuspect notes that a sync of the file failed: its bytes may be in memory only, where a second sync would report
// success. Only a new file helps.
func (m *memory) setSuspect(id fileID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	remember(m.suspect, id.sameFile(), struct{}{})
	delete(m.verified, id)
	delete(m.durable, id)
}

// sameFile is id without what a new name changes: a link does not bring lost bytes back.
func (id fileID) sameFile() fileID {
	id.ctime = 0
	return id
}

func (m *memory) isSuspect(id fileID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.suspect[id.sameFile()]
	return ok
}

// setBad notes that the file was read, twice, and does not have the digest.
func (m *memory) setBad(id fileID, d digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	remember(m.bad, badFile{id, d}, struct{}{})
	if m.verified[id] == d {
		delete(m.verified, id)
	}
}

func (m *memory) isBad(id fileID, d digest.Digest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.bad[badFile{id, d}]
	return ok
}
