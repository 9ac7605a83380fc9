package ocidir

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/referrer"
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

	tags    map[string]held        // by exact tag
	digests map[digest.Digest]held // by digest
	aliases map[string]*entry      // by the tag of a full image name; nil when it is ambiguous
	named   int                    // entries with a full image name
	sorted  func() []string        // the tags that are listed, in byte order
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

const emptyIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

// parseIndex reads index.json. What it has in common with prev, from the beginning and from the end, is not read again:
// when processes alternate each finds the other's few changes. prev may be nil.
func parseIndex(raw []byte, prev *index) (*index, error) {
	if ix := reparse(raw, prev); ix != nil {
		return ix.link(), nil
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

// reparse reads only the entries between what raw and prev begin and end with. It returns nil when that cannot be done.
func reparse(raw []byte, prev *index) *index {
	if prev == nil || len(prev.entries) == 0 {
		return nil
	}
	n := min(len(raw), len(prev.raw))
	front := common(raw[:n], prev.raw[:n])
	shift := len(raw) - len(prev.raw)
	back := commonEnd(raw[front:], prev.raw[front:])
	keep, _ := slices.BinarySearchFunc(prev.spans, front+1, func(s span, at int) int { return s.end - at })
	from, _ := slices.BinarySearchFunc(prev.spans, len(prev.raw)-back, func(s span, at int) int { return s.start - at })
	if keep == 0 || from < keep {
		return nil
	}
	ix := &index{raw: raw, head: prev.head, tail: prev.tail, sep: prev.sep, end: prev.end}
	ix.entries = slices.Clone(prev.entries[:keep])
	ix.spans = slices.Clone(prev.spans[:keep])
	s := &scanner{b: raw, i: prev.spans[keep-1].end}
	for {
		last := s.i
		if s.next() == ']' {
			ix.end = string(raw[last:s.i])
			if from < len(prev.entries) || !bytes.Equal(raw[s.i:], prev.tail) {
				return nil
			}
			return ix
		}
		if s.token(',') != nil {
			return nil
		}
		if s.next(); from < len(prev.entries) && s.i == prev.spans[from].start+shift {
			for i, e := range prev.entries[from:] {
				ix.add(e, prev.spans[from+i].start+shift)
			}
			return ix
		}
		e, err := s.entry()
		if err != nil || from < len(prev.entries) && s.i > prev.spans[from].start+shift {
			return nil
		}
		start := s.i - len(e.raw)
		e.raw = bytes.Clone(e.raw)
		ix.add(e, start)
	}
}

// common returns how many bytes a and b, which have one length, begin with in common.
func common(a, b []byte) int {
	const chunk = 4096
	i := 0
	for i+chunk <= len(a) && bytes.Equal(a[i:i+chunk], b[i:i+chunk]) {
		i += chunk
	}
	for i < len(a) && a[i] == b[i] {
		i++
	}
	return i
}

// commonEnd returns how many bytes a and b end with in common.
func commonEnd(a, b []byte) int {
	const chunk = 4096
	n := min(len(a), len(b))
	a, b = a[len(a)-n:], b[len(b)-n:]
	i := n
	for i >= chunk && bytes.Equal(a[i-chunk:i], b[i-chunk:i]) {
		i -= chunk
	}
	for i > 0 && a[i-1] == b[i-1] {
		i--
	}
	return n - i
}

// link makes the maps of an index whose entries are complete.
func (ix *index) link() *index {
	ix.tags = make(map[string]held, len(ix.entries))
	ix.digests = make(map[digest.Digest]held, len(ix.entries))
	for _, e := range ix.entries {
		ix.hold(e)
	}
	return ix.finish()
}

// hold enters e into the maps.
func (ix *index) hold(e *entry) {
	if e.digest == "" {
		return
	}
	h := ix.digests[e.digest].with(e, 1)
	if e.bare {
		h.bare++
	}
	ix.digests[e.digest] = h
	switch tag, exact := e.tag(); {
	case exact:
		ix.tags[tag] = ix.tags[tag].with(e, 1)
	case tag != "":
		ix.named++
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
	ix.sorted = sync.OnceValue(ix.list)
	return ix
}

// list returns the tags that name images. Those that other tools keep referrers under are not among them.
func (ix *index) list() []string {
	all := make([]string, 0, len(ix.tags)+len(ix.aliases))
	for tag := range ix.tags {
		all = append(all, tag)
	}
	for tag, e := range ix.aliases {
		if _, exact := ix.tags[tag]; !exact && e != nil {
			all = append(all, tag)
		}
	}
	all = slices.DeleteFunc(all, referrer.IsFallbackTag)
	slices.Sort(all)
	return all
}

// lookup returns the entry that a tag names, or nil.
func (ix *index) lookup(tag string) *entry {
	if h, ok := ix.tags[tag]; ok {
		return h.e
	}
	return ix.aliases[tag]
}

// clone returns a copy to be changed. Its raw is still the old file's.
func (ix *index) clone() *index {
	out := *ix
	out.entries = slices.Clone(ix.entries)
	out.tags, out.digests = maps.Clone(ix.tags), maps.Clone(ix.digests)
	return &out
}

// encode makes raw and spans of the entries.
func (ix *index) encode() *index {
	head, tail := ix.head, ix.tail
	size := len(head) + len(ix.end) + len(tail)
	for _, e := range ix.entries {
		size += len(e.raw) + len(ix.sep) + 1
	}
	raw := make([]byte, 0, size)
	raw = append(raw, head...)
	ix.spans = make([]span, 0, len(ix.entries))
	for i, e := range ix.entries {
		if i > 0 {
			raw = append(raw, ',')
		}
		raw = append(raw, ix.sep...)
		ix.spans = append(ix.spans, span{len(raw), len(raw) + len(e.raw)})
		raw = append(raw, e.raw...)
	}
	raw = append(raw, ix.end...)
	raw = append(raw, tail...)
	ix.raw = raw
	return ix.finish()
}
