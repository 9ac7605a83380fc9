package ocidir

import (
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/manifest"
)

const (
	// maxRecalled bounds the bytes of manifests that are kept in memory, of all layouts together.
	maxRecalled = 64 << 20
	// maxRecall is how large a manifest may be to be kept.
	maxRecall = 1 << 20
	// recallCost is what a manifest takes in memory besides its bytes, about.
	recallCost = 1 << 10
)

// manifestCache has manifests that were read and verified. The bytes cannot become wrong here; that they are still the
// layout's shows in the file, which must be there and be the same.
type manifestCache struct {
	mu    sync.RWMutex
	known map[digest.Digest]recalled
	bytes int
}

type recalled struct {
	m         *manifest.Manifest
	id        fileID
	mediaType string // that was asked for
}

func (r recalled) cost() int { return len(r.m.Raw()) + recallCost }

func (c *manifestCache) keep(id fileID, mediaType string, m *manifest.Manifest) {
	fresh := recalled{m, id, mediaType}
	if len(m.Raw()) > maxRecall {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[digest.Digest]recalled{}
	}
	if old, ok := c.known[m.Digest()]; ok {
		c.drop(m.Digest(), old)
	}
	for d, old := range c.known { // whichever comes first: all can be read again
		if c.bytes+fresh.cost() <= maxRecalled {
			break
		}
		c.drop(d, old)
	}
	c.known[m.Digest()] = fresh
	c.bytes += fresh.cost()
}

func (c *manifestCache) drop(d digest.Digest, r recalled) {
	delete(c.known, d)
	c.bytes -= r.cost()
}

func (c *manifestCache) get(d digest.Digest) recalled {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.known[d]
}

// recall returns a manifest from memory if the layout still has the file that it was read from. It is nil otherwise.
func (l *layout) recall(d digest.Digest, mediaType string) *manifest.Manifest {
	r := l.mem.manifests.get(d)
	if r.m == nil || r.mediaType != mediaType {
		return nil
	}
	name, err := blobPath(d)
	if err != nil || !l.vol.confirm(name, r.id) || l.mem.isBad(r.id, d) {
		return nil
	}
	return r.m
}
