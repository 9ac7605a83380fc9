package ocidir

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
)

// index is one state of index.json. It is immutable: readers use it without a lock, and a commit makes the next one.
//
// What other tools wrote stays as it is: the entries as bytes, the document around them (head and tail), and the white
// space between entries. Several entries with one tag are kept, too; the last one counts, as for umoci and skopeo,
// which append.
type index struct {
	raw        []byte // the file
	head, tail []byte // of raw, up to and with '[', and from ']' on
	sep        string // white space before an entry
	end        string // white space before ']'
	entries    []*entry
	spans      []span // where entries are in raw

	tags    lookup[string]        // by exact tag
	digests lookup[digest.Digest] // by digest
	aliases map[string]*entry     // by the tag of a full image name; nil when it is ambiguous
	named   int                   // entries with a full image name
	order   order                 // the tags that are listed

	was []*entry // of a copy to be changed: the entries that raw and spans are of
}

// span is where an entry's bytes begin and end.
type span struct{ start, end int }

// held is the last of n entries that share a tag or a digest. Of these, bare are untagged and say nothing else.
type held struct {
	e       *entry
	n, bare int
}

func (h held) with(e *entry, n int) held {
	h.e, h.n = e, h.n+n
	return h
}

// also is with for one entry more that has the digest.
func (h held) also(e *entry) held {
	if e.bare {
		h.bare++
	}
	return h.with(e, 1)
}

const emptyIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

// parseIndex reads index.json. What it has in common with prev, from the beginning and from the end, is not read again:
// when processes alternate each finds the other's few changes. prev may be nil.
func parseIndex(raw []byte, prev *index) (*index, error) {
	if ix := reparse(raw, prev); ix != nil {
		return ix, nil
	}
	ix := &index{raw: raw}
	s := &scanner{b: raw}
	found := false
	err := s.object(func(key string) error {
		switch key {
		case "manifests":
			if found {
				return fmt.Errorf("byte %d: manifests is there twice", s.i)
			}
			found = true
			return ix.scanManifests(s)
		case "schemaVersion":
			v, err := s.skip(0)
			if err == nil && string(v) != "2" {
				err = fmt.Errorf("schemaVersion is %s, not 2", v)
			}
			return err
		}
		_, err := s.skip(0)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case s.next() != 0 || s.i < len(raw):
		return nil, s.fail("the end of the document")
	case !found:
		return nil, fmt.Errorf("it has no manifests")
	}
	return ix.link(), nil
}

// scanManifests reads the entries, and where the document around them is.
func (ix *index) scanManifests(s *scanner) error {
	if s.next() == 'n' { // a Go program's empty list
		ix.head = append(slices.Clone(s.b[:s.i]), '[')
		ix.sep, ix.end = "\n", "\n"
		err := s.word("null")
		ix.tail = append([]byte{']'}, s.b[s.i:]...)
		return err
	}
	if s.next() != '[' {
		return s.fail("an array")
	}
	ix.head = bytes.Clone(s.b[:s.i+1]) // few bytes must not keep a whole file in memory
	some := len(s.b) / 200             // entries are of about that size
	ix.entries, ix.spans = make([]*entry, 0, some), make([]span, 0, some)
	sep, last := s.i+1, s.i+1
	err := s.array(func() error {
		e, err := s.entry()
		if err != nil {
			return fmt.Errorf("manifests[%d]: %w", len(ix.entries), err)
		}
		if len(ix.entries) == 0 {
			ix.sep = string(s.b[sep : s.i-len(e.raw)])
		}
		ix.add(e, s.i-len(e.raw))
		last = s.i
		return nil
	})
	if err != nil {
		return err
	}
	ix.end, ix.tail = string(s.b[last:s.i-1]), bytes.Clone(s.b[s.i-1:])
	if len(ix.entries) == 0 {
		ix.sep, ix.end = "\n", "\n"
	}
	return nil
}

func (ix *index) add(e *entry, start int) {
	ix.entries = append(ix.entries, e)
	ix.spans = append(ix.spans, span{start, start + len(e.raw)})
}

// link makes the maps of an index whose entries are complete.
func (ix *index) link() *index {
	ix.named = 0
	tags := make(map[string]held, len(ix.entries))
	for _, e := range ix.entries {
		switch tag, exact := e.tag(); {
		case exact:
			tags[tag] = tags[tag].with(e, 1)
		case tag != "":
			ix.named++
		}
	}
	ix.tags = newLookup(func() map[string]held { return tags })
	entries := ix.entries
	ix.digests = newLookup(func() map[digest.Digest]held { return byDigest(entries) }) // who only reads a tag needs none
	return ix.finish()
}

func byDigest(entries []*entry) map[digest.Digest]held {
	all := make(map[digest.Digest]held, len(entries))
	for _, e := range entries {
		if e.digest != "" {
			all[e.digest] = all[e.digest].also(e)
		}
	}
	return all
}

// hold enters e into the maps.
func (ix *index) hold(e *entry) {
	if e.digest == "" {
		return
	}
	h, _ := ix.digests.get(e.digest)
	ix.digests.set(e.digest, h.also(e))
	switch tag, exact := e.tag(); {
	case exact:
		h, _ := ix.tags.get(tag)
		ix.tags.set(tag, h.with(e, 1))
	case tag != "":
		ix.named++
	}
}

// release takes an entry that is no longer in entries, or about to leave, out of the maps.
func (ix *index) release(e *entry) {
	if e.digest == "" {
		return
	}
	last := func(match func(*entry) bool) *entry {
		for _, o := range slices.Backward(ix.entries) {
			if o != e && match(o) {
				return o
			}
		}
		return nil
	}
	h, _ := ix.digests.get(e.digest)
	if e.bare {
		h.bare--
	}
	if h.n <= 1 {
		ix.digests.remove(e.digest)
	} else {
		ix.digests.set(e.digest, h.with(last(func(o *entry) bool { return o.digest == e.digest }), -1))
	}
	tag, exact := e.tag()
	switch h, _ := ix.tags.get(tag); {
	case tag == "":
	case !exact:
		ix.named--
	case h.n <= 1:
		ix.tags.remove(tag)
	default:
		ix.tags.set(tag, h.with(last(func(o *entry) bool { return o.name == tag && o.digest != "" }), -1))
	}
}

// finish makes what depends on all entries.
func (ix *index) finish() *index {
	ix.aliases = nil
	if ix.named > 0 {
		ix.aliases = make(map[string]*entry, ix.named)
		for _, e := range ix.entries {
			tag, exact := e.tag()
			if tag == "" || exact {
				continue
			}
			if old, there := ix.aliases[tag]; there && (old == nil || old.digest != e.digest) {
				e = nil
			}
			ix.aliases[tag] = e
		}
	}
	ix.order = newOrder(ix.list)
	return ix
}

// lookup returns the entry that a tag names, or nil.
func (ix *index) lookup(tag string) *entry {
	if h, ok := ix.tags.get(tag); ok {
		return h.e
	}
	return ix.aliases[tag]
}

// at checks where a tag points.
func (ix *index) at(tag string, want scheme.Precondition) error {
	if e := ix.lookup(tag); e != nil {
		return want.Check(e.digest)
	}
	return want.Check("")
}

// clone returns a copy to be changed. Its raw is still the old file's.
func (ix *index) clone() *index {
	out := *ix
	out.was = ix.entries
	out.entries = slices.Clone(ix.entries)
	out.tags, out.digests = ix.tags.clone(), ix.digests.clone()
	return &out
}

// encode makes raw and spans of the entries. What the file begins with that does not change is copied as it is.
func (ix *index) encode() *index {
	n := ix.unchanged()
	front := ix.head
	if n > 0 {
		front = ix.raw[:ix.spans[n-1].end]
	}
	size := len(front) + len(ix.end) + len(ix.tail)
	for _, e := range ix.entries[n:] {
		size += 1 + len(ix.sep) + len(e.raw)
	}
	raw := append(make([]byte, 0, size), front...)
	spans := append(make([]span, 0, len(ix.entries)), ix.spans[:n]...)
	for i, e := range ix.entries[n:] {
		if n+i > 0 {
			raw = append(raw, ',')
		}
		raw = append(raw, ix.sep...)
		spans = append(spans, span{len(raw), len(raw) + len(e.raw)})
		raw = append(raw, e.raw...)
	}
	raw = append(raw, ix.end...)
	raw = append(raw, ix.tail...)
	ix.raw, ix.spans, ix.was = raw, spans, nil
	return ix.finish()
}

// unchanged returns how many entries the index begins with that it has in common with raw.
func (ix *index) unchanged() int {
	n := min(len(ix.entries), len(ix.was))
	for i := range n {
		if ix.entries[i] != ix.was[i] {
			return i
		}
	}
	return n
}
