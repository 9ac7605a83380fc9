package ocidir

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/referrer"
)

// net is what hangs together in a layout: every digest that index.json reaches, once, and who names it. It grows with
// the number of descriptors in manifests that are there, however often they share what they name.
type net struct {
	items []item
	at    map[digest.Digest]int32
	todo  []int32            // the manifests, in the order in which they were met
	tags  map[int32][]string // by manifest: see tagsOf
}

// item is one digest.
type item struct {
	digest    digest.Digest
	mediaType string // as it was named first
	manifest  bool   // somebody names it as a manifest
	roots     []*entry
	up        []naming
}

// naming leads from an item to a manifest that names it, or, for a referrer, to its subject.
type naming struct {
	from int32
	size int64 // that the manifest says, or -1
	kind namingKind
}

type namingKind uint8

const (
	asBlob    namingKind = iota
	asForeign            // a layer that may be elsewhere
	asChild              // a manifest in an index, which may have been left out
	asWeak               // to a referrer from its subject, which may be absent
	asSubject            // to the subject from a referrer, which goes with it
)

func newNet() *net { return &net{at: map[digest.Digest]int32{}, tags: map[int32][]string{}} }

func (n *net) item(d digest.Digest, mediaType string) int32 {
	if i, known := n.at[d]; known {
		return i
	}
	i := int32(len(n.items))
	n.items = append(n.items, item{digest: d, mediaType: mediaType})
	n.at[d] = i
	return i
}

// named notes as what the item is named.
func (n *net) named(i int32, mediaType string, asManifest bool) {
	it := &n.items[i]
	if it.mediaType == "" {
		it.mediaType = mediaType
	}
	if asManifest && !it.manifest {
		it.manifest, it.mediaType = true, mediaType
		n.todo = append(n.todo, i)
	}
}

// root notes an entry of index.json. Whatever has one is a manifest, but some tools list layers there.
func (n *net) root(e *entry) {
	i := n.item(e.digest, e.mediaType)
	n.named(i, e.mediaType, e.mediaType == "" || types.IsManifest(e.mediaType) || e.size <= types.MaxManifestSize)
	n.items[i].roots = append(n.items[i].roots, e)
}

// add notes what a manifest names.
func (n *net) add(i int32, v *manifest.View) {
	if v.Config != nil {
		n.link(i, *v.Config, asBlob)
	}
	for _, d := range v.Layers {
		if types.IsForeignLayer(d.MediaType) {
			n.link(i, d, asForeign)
		} else {
			n.link(i, d, asBlob)
		}
	}
	for _, d := range v.Manifests {
		if d.MediaType == "" || types.IsManifest(d.MediaType) {
			n.link(i, d, asChild)
		} else {
			n.link(i, d, asBlob) // build caches list layers in an index
		}
	}
	if v.Subject != nil {
		s := n.link(i, *v.Subject, asWeak)
		n.items[i].up = append(n.items[i].up, naming{from: s, size: -1, kind: asSubject})
	}
}

func (n *net) link(from int32, d types.Descriptor, kind namingKind) int32 {
	i := n.item(d.Digest, d.MediaType)
	n.named(i, d.MediaType, kind == asChild || kind == asWeak)
	e := naming{from: from, size: -1, kind: kind}
	if types.SizeKnown(d) {
		e.size = d.Size
	}
	if up := n.items[i].up; len(up) == 0 || up[len(up)-1] != e { // the same manifest may name it again
		n.items[i].up = append(n.items[i].up, e)
	}
	return i
}

// sizes returns the sizes that somebody says the item has, each once, those of entries first.
func (it *item) sizes() []int64 {
	var all []int64
	add := func(size int64) {
		if size >= 0 && !slices.Contains(all, size) {
			all = append(all, size)
		}
	}
	for _, e := range it.roots {
		if e.size > 0 {
			add(e.size)
		}
	}
	for _, e := range it.up {
		add(e.size)
	}
	return all
}

// namedBy returns the manifests that name the item, in byte order.
func (n *net) namedBy(i int32) []digest.Digest {
	var all []digest.Digest
	for _, e := range n.items[i].up {
		if e.kind != asSubject {
			all = append(all, n.items[e.from].digest)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// above calls visit with the item and all that is above it, each once. Subjects and indexes can form a circle. What is
// there for the sake of a referrer only is not needed by it, but with weak it counts.
func (n *net) above(i int32, weak bool, visit func(it *item)) {
	seen := map[int32]bool{i: true}
	for todo := []int32{i}; len(todo) > 0; {
		it := &n.items[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		visit(it)
		for _, e := range it.up {
			if !seen[e.from] && (weak || e.kind != asWeak) {
				seen[e.from] = true
				todo = append(todo, e.from)
			}
		}
	}
}

// tagsOf returns the tags that need the item, in byte order: those that lead to it, or to what it refers to. What many
// blobs of one manifest have in common is found once. The walk is over when it is called, by one goroutine at a time.
func (n *net) tagsOf(i int32) []string {
	it := &n.items[i]
	if !it.manifest && len(it.up) == 1 && len(it.roots) == 0 { // as most blobs
		return n.tagsOf(it.up[0].from)
	}
	if known, ok := n.tags[i]; ok {
		return known
	}
	var all []string
	n.above(i, false, func(it *item) {
		for _, e := range it.roots {
			if tag, _ := e.tag(); tag != "" && !referrer.IsFallbackTag(tag) {
				all = append(all, tag)
			}
		}
	})
	slices.Sort(all)
	all = slices.Compact(all)
	n.tags[i] = all
	return all
}
