package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

// graph remembers how manifests hang together: which index lists which manifests, and which manifest refers to which.
// It is filled from manifests that were read, which never change, so nothing in it becomes wrong; whether something is
// still in the layout is asked of the index.
type graph struct {
	mu        sync.Mutex
	nodes     map[digest.Digest]node
	parents   map[digest.Digest][]edge
	referrers map[digest.Digest][]digest.Digest
	orphans   map[digest.Digest]string // children that were put before their index: media types
	indexes   *index                   // everything was read that can be reached from it by way of indexes
	all       *index                   // everything was read that can be reached from it
}

// node is a manifest that was read.
type node struct {
	kids []child
}

type child struct {
	digest    digest.Digest
	mediaType string
}

// edge leads to an index that lists a manifest, as being of that type.
type edge struct {
	parent    digest.Digest
	mediaType string
}

// maxNodes bounds the memory. What is forgotten is read again.
const maxNodes = 1 << 20

func newGraph() *graph {
	g := &graph{orphans: map[digest.Digest]string{}}
	g.reset()
	return g
}

func (g *graph) reset() {
	g.indexes, g.all = nil, nil
	g.nodes, g.parents, g.referrers = map[digest.Digest]node{}, map[digest.Digest][]edge{}, map[digest.Digest][]digest.Digest{}
}

func (g *graph) hasOrphans() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.orphans) > 0
}

func (g *graph) addOrphan(d types.Descriptor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.orphans) >= maxKnown {
		clear(g.orphans)
	}
	g.orphans[d.Digest] = d.MediaType
}

func (g *graph) dropOrphan(d digest.Digest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.orphans, d)
}

// add notes what a manifest says. One that does not parse says nothing.
func (g *graph) add(m *manifest.Manifest) node {
	var n node
	v, err := m.View()
	g.mu.Lock()
	defer g.mu.Unlock()
	if old, known := g.nodes[m.Digest()]; known {
		return old
	}
	if len(g.nodes) >= maxNodes {
		g.reset()
	}
	if err == nil {
		for _, d := range v.Manifests {
			// Some indexes list layers (build caches do). What is no manifest is not served as one.
			if types.IsManifest(d.MediaType) {
				n.kids = append(n.kids, child{d.Digest, d.MediaType})
				g.parents[d.Digest] = append(g.parents[d.Digest], edge{m.Digest(), d.MediaType})
			}
		}
		if v.Subject != nil {
			g.referrers[v.Subject.Digest] = append(g.referrers[v.Subject.Digest], m.Digest())
		}
	}
	g.nodes[m.Digest()] = n
	return n
}

func (g *graph) node(d digest.Digest) (node, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, ok := g.nodes[d]
	return n, ok
}

// adopt forgets the orphans that an index has now listed.
func (g *graph) adopt(v *manifest.View) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range v.Manifests {
		delete(g.orphans, d.Digest)
	}
}

// reached looks for a way from d up to an entry of ix, through what was read. It returns the media type under which d
// is listed.
func (g *graph) reached(ix *index, d digest.Digest) (mediaType string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if mt, orphan := g.orphans[d]; orphan {
		return mt, true
	}
	seen := map[digest.Digest]bool{d: true}
	var up func(d digest.Digest) (string, bool)
	up = func(d digest.Digest) (string, bool) {
		for _, e := range g.parents[d] {
			if seen[e.parent] {
				continue
			}
			seen[e.parent] = true
			_, there := ix.digests.get(e.parent)
			if !there {
				_, there = g.orphans[e.parent]
			}
			if !there {
				_, there = up(e.parent)
			}
			if there {
				return e.mediaType, true
			}
		}
		return "", false
	}
	return up(d)
}

// referring returns the manifests that were read and say that they refer to d.
func (g *graph) referring(d digest.Digest) []digest.Digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.referrers[d])
}

// find returns the media type of the manifest d: it has an entry, or an index lists it that has one.
func (l *layout) find(ctx context.Context, ix *index, d digest.Digest) (mediaType string, err error) {
	if h, ok := ix.digests.get(d); ok {
		return h.e.mediaType, nil
	}
	if mt, ok := l.graph.reached(ix, d); ok {
		return mt, nil
	}
	if _, err := l.explore(ctx, ix, false); err != nil {
		return "", err
	}
	if mt, ok := l.graph.reached(ix, d); ok {
		return mt, nil
	}
	return "", errs.ErrManifestUnknown
}

// done reports whether everything below ix was read, and notes it.
func (g *graph) done(ix *index, images, note bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if note {
		g.indexes = ix
		if images {
			g.all = ix
		}
	}
	return g.all == ix || !images && g.indexes == ix
}

// explore reads every index below ix that was not read before, or every manifest that may refer to another. Each is
// read once in the life of l. Damaged and missing ones are passed over: what they say cannot be known. It returns why.
func (l *layout) explore(ctx context.Context, ix *index, images bool) (unread map[digest.Digest]error, err error) {
	if l.graph.done(ix, images, false) {
		return nil, nil
	}
	x := &explorer{l: l, images: images, seen: make(map[digest.Digest]bool, len(ix.entries)), unread: map[digest.Digest]error{}}
	for _, e := range ix.entries {
		if e.digest == "" {
			continue
		}
		if err := x.visit(ctx, child{e.digest, e.mediaType}, 0); err != nil {
			return nil, err
		}
	}
	if len(x.unread) == 0 {
		l.graph.done(ix, images, true)
	}
	return x.unread, nil
}

type explorer struct {
	l      *layout
	images bool
	seen   map[digest.Digest]bool
	unread map[digest.Digest]error // what could not be read: it may be there the next time
}

func (x *explorer) visit(ctx context.Context, c child, depth int) error {
	wanted := c.mediaType == "" || types.IsIndex(c.mediaType) || x.images && types.IsImage(c.mediaType)
	if !wanted || x.seen[c.digest] || depth > maxDepth {
		return nil
	}
	x.seen[c.digest] = true
	n, known := x.l.graph.node(c.digest)
	if !known {
		m, err := x.l.readManifest(ctx, c.digest, c.mediaType)
		switch {
		case err == nil:
			n = x.l.graph.add(m)
		case unreadable(err):
			x.unread[c.digest] = err
			return nil
		default:
			return err
		}
	}
	for _, k := range n.kids {
		if err := x.visit(ctx, k, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// readManifest reads and verifies a manifest's file. One that is damaged is set aside.
func (l *layout) readManifest(ctx context.Context, d digest.Digest, mediaType string) (*manifest.Manifest, error) {
	if m := l.recall(d, mediaType); m != nil {
		return m, ctx.Err()
	}
	m, id, err := l.loadManifest(ctx, d, mediaType, func(f *os.File, id fileID, name string) error {
		return l.condemn(ctx, f, id, name, d)
	})
	if err == nil {
		l.mem.manifests.keep(l.path, id, d, knownManifest{m, mediaType})
	}
	return m, err
}

// loadManifest reads and verifies a manifest's file. damaged is asked for the error when its bytes are wrong.
func (l *layout) loadManifest(ctx context.Context, d digest.Digest, mediaType string, damaged func(f *os.File, id fileID, name string) error) (*manifest.Manifest, fileID, error) {
	if err := ctx.Err(); err != nil {
		return nil, fileID{}, err
	}
	name, err := blobPath(d)
	if err != nil {
		return nil, fileID{}, err
	}
	f, id, err := l.openBlobFile(d, name)
	if absent(err) {
		return nil, id, errs.ErrManifestUnknown
	}
	if err != nil {
		return nil, id, err
	}
	defer f.Close()
	if id.size > types.MaxManifestSize {
		return nil, id, fmt.Errorf("%w: %s has %d bytes, more than %d", errs.ErrSizeInvalid, l.file(name), id.size, types.MaxManifestSize)
	}
	raw := make([]byte, id.size)
	if _, err := io.ReadFull(f, raw); err != nil {
		return nil, id, err
	}
	m, err := manifest.New(raw, manifest.WithMediaType(mediaType), manifest.WithDigest(d))
	if errors.Is(err, errs.ErrDigestMismatch) {
		if bad := damaged(f, id, name); bad != nil {
			return nil, id, bad
		}
	}
	if err != nil {
		return nil, id, err
	}
	l.mem.setVerified(id, d)
	return m, id, nil
}
