package ocidir

import (
	"context"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
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
	name      string // of the file in its layout
	mediaType string // that was asked for
}

func (r recalled) cost() int { return len(r.m.Raw()) + recallCost }

func (c *manifestCache) keep(id fileID, mediaType string, m *manifest.Manifest) {
	name, err := blobPath(m.Digest())
	if err != nil || len(m.Raw()) > maxRecall {
		return
	}
	fresh := recalled{m, id, name, mediaType}
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
	if !l.vol.confirm(r.name, r.id) || l.mem.isBad(r.id, d) {
		return nil
	}
	return r.m
}

// beginIndex is begin for who reads the index, which is as it is now. The caller releases the layout.
func (o *OCIDir) beginIndex(ctx context.Context, op string, r ref.Ref) (*layout, *index, error) {
	path, err := o.locate(ctx, op, r)
	if err != nil {
		return nil, nil, err
	}
	if l, ix := o.again(path); l != nil {
		return l, ix, nil
	}
	l, _, err := o.begin(ctx, op, r)
	if err != nil {
		return nil, nil, err
	}
	ix, err := l.index(ctx)
	if err != nil {
		o.release(l)
		return nil, nil, failRead(op, r, "", err)
	}
	return l, ix, nil
}

// again takes the layout of path into use if path still has the index that is in memory. Whether the directory is the
// same one need not be asked then: another one with the very same file has the same content, until somebody writes to it.
func (o *OCIDir) again(path string) (*layout, *index) {
	l := o.opened(path)
	if l == nil {
		return nil, nil
	}
	if c := l.cache.Load(); c != nil && c.sure {
		id, ok := lookAtFile(path + string(os.PathSeparator) + indexName)
		if marker := l.marker.Load(); ok && id == c.id && marker != nil && l.vol.confirm(markerName, *marker) {
			return l, c.ix
		}
	}
	o.release(l)
	return nil, nil
}

// opened takes the layout of path into use if it is open.
func (o *OCIDir) opened(path string) *layout {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.layouts[path]
	if l == nil || o.closed {
		return nil
	}
	o.take(l)
	return l
}
