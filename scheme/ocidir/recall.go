package ocidir

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

const (
	// maxRecalled bounds the bytes of manifests that are kept in memory, of all layouts together, and those of blobs.
	maxRecalled = 64 << 20
	// maxRecallManifest and maxRecallBlob are how large one may be to be kept.
	maxRecallManifest = 1 << 20
	maxRecallBlob     = 64 << 10
	// recallCost is what one takes in memory besides its bytes, about.
	recallCost = 1 << 10
)

// recollection is contents of files that were read and verified. The bytes cannot become wrong here; that they are still
// the layout's shows in the file: a layout has them as long as the name that the digest stands for has that very file.
// A look at the name follows links on the way, wherever they lead. So each layout remembers for itself what it has read,
// in a way that does not leave it: what another one has read is not found by a link to there.
type recollection[V any] struct {
	size  func(V) int
	most  int // how large one may be
	mu    sync.RWMutex
	known map[recallKey]V
	bytes int
}

type recallKey struct {
	layout string // its path
	id     fileID
	d      digest.Digest
}

// knownManifest is a manifest, and the type that was asked for when it was read.
type knownManifest struct {
	m         *manifest.Manifest
	mediaType string
}

func (r *recollection[V]) keep(layout string, id fileID, d digest.Digest, v V) {
	size := r.size(v)
	if size > r.most {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[recallKey]V{}
	}
	key := recallKey{layout, id, d}
	r.drop(key)
	for old := range r.known { // whichever comes first: all can be read again
		if r.bytes+size+recallCost <= maxRecalled {
			break
		}
		r.drop(old)
	}
	r.known[key] = v
	r.bytes += size + recallCost
}

func (r *recollection[V]) drop(key recallKey) {
	if old, ok := r.known[key]; ok {
		delete(r.known, key)
		r.bytes -= r.size(old) + recallCost
	}
}

func (r *recollection[V]) get(layout string, id fileID, d digest.Digest) (V, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	v, ok := r.known[recallKey{layout, id, d}]
	return v, ok
}

// recall returns a manifest from memory if the layout has the file that it was read from. It is nil otherwise.
func (l *layout) recall(d digest.Digest, mediaType string) *manifest.Manifest {
	name, err := blobPath(d)
	if err != nil {
		return nil
	}
	id, ok := l.vol.lstat(name)
	if !ok {
		return nil
	}
	known, ok := l.mem.manifests.get(l.path, id, d)
	if !ok || known.mediaType != mediaType || l.mem.isBad(id, d) {
		return nil
	}
	return known.m
}

// recallBlob returns a small blob from memory if the layout at path, which is open, has the file that it was read from.
func (o *OCIDir) recallBlob(path string, d digest.Digest) ([]byte, bool) {
	name, err := blobPath(d)
	if err != nil {
		return nil, false
	}
	l := o.opened(path)
	if l == nil {
		return nil, false
	}
	defer o.release(l)
	id, ok := l.vol.lstat(name)
	if !ok {
		return nil, false
	}
	raw, ok := o.mem.blobs.get(l.path, id, d)
	return raw, ok && !o.mem.isBad(id, d) && l.inPlace()
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

// again takes the layout of path into use if it is open and its index is the one that is in memory.
func (o *OCIDir) again(path string) (*layout, *index) {
	l := o.opened(path)
	if l == nil {
		return nil, nil
	}
	if c := l.cache.Load(); c != nil && c.sure && l.vol.confirm(indexName, c.id) && l.inPlace() {
		return l, c.ix
	}
	o.release(l)
	return nil, nil
}

// trusted is for how long a layout that was open and in its place is taken to be there, by who only reads. Every change
// of what is in the layout is seen at once; that the directory itself was renamed, or lost its oci-layout, this much later.
const trusted = 100 * time.Millisecond

// inPlace reports whether l is the layout at its path, and still one.
func (l *layout) inPlace() bool {
	now := time.Now()
	if last := l.placed.Load(); last != nil && now.Sub(*last) < l.o.trusted {
		return true
	}
	dir, err := statDir(l.path)
	marker := l.marker.Load()
	if err != nil || !l.dir.same(dir) || marker == nil || !l.vol.confirm(markerName, *marker) {
		l.placed.Store(nil)
		return false
	}
	l.placed.Store(&now)
	return true
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
