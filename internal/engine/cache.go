package engine

import (
	"container/list"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/manifest"
)

const (
	cacheSize = 16 << 20 // bytes of manifests that a run keeps
	cacheItem = 1 << 20  // a larger manifest is not kept
)

// cache keeps the manifests that were used last: an index is read for its children and again for their referrers, and
// tags often share one.
type cache struct {
	mu    sync.Mutex // guards what follows
	used  int64
	items map[digest.Digest]*list.Element // of *manifest.Manifest
	order list.List                       // last used first
}

func (c *cache) get(d digest.Digest) *manifest.Manifest {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.items[d]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*manifest.Manifest)
}

func (c *cache) put(m *manifest.Manifest) {
	size := int64(len(m.Raw()))
	if size > cacheItem {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items == nil {
		c.items = map[digest.Digest]*list.Element{}
	}
	if c.items[m.Digest()] != nil {
		return
	}
	c.items[m.Digest()] = c.order.PushFront(m)
	for c.used += size; c.used > cacheSize; {
		e := c.order.Back()
		old := c.order.Remove(e).(*manifest.Manifest)
		delete(c.items, old.Digest())
		c.used -= int64(len(old.Raw()))
	}
}
