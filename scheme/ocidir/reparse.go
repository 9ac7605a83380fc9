package ocidir

import (
	"bytes"
	"slices"
)

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
	start, end := prev.spans[keep-1].end, len(raw)
	if from < len(prev.entries) {
		end = prev.spans[from].start + shift
	}
	if end < start {
		return nil
	}
	ix := &index{raw: raw, head: prev.head, tail: prev.tail, sep: prev.sep, end: prev.end}
	ix.entries = slices.Clone(prev.entries[:keep])
	ix.spans = slices.Clone(prev.spans[:keep])
	if !ix.scanMiddle(bytes.Clone(raw[start:end]), start, from == len(prev.entries)) { // few bytes must not keep a file in memory
		return nil
	}
	made := ix.entries[keep:]
	for i, e := range prev.entries[from:] {
		ix.add(e, prev.spans[from+i].start+shift)
	}
	return ix.relink(prev, prev.entries[keep:from], made)
}

// scanMiddle reads the entries of a part of raw, which begins at start, behind an entry, and goes up to another one or to
// the end of the file. It reports whether that is what the part is.
func (ix *index) scanMiddle(part []byte, start int, toEnd bool) bool {
	s := &scanner{b: part}
	for {
		last := s.i
		if toEnd && s.next() == ']' {
			ix.end = string(part[last:s.i])
			return bytes.Equal(part[s.i:], ix.tail)
		}
		if s.token(',') != nil {
			return false
		}
		if s.next(); !toEnd && s.i == len(part) {
			return true
		}
		e, err := s.entry()
		if err != nil {
			return false
		}
		ix.add(e, start+s.i-len(e.raw))
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

// relink is link for an index that has others for some entries of prev.
func (ix *index) relink(prev *index, gone, made []*entry) *index {
	if len(gone)+len(made) > 64+len(ix.entries)/8 {
		return ix.link()
	}
	ix.tags, ix.digests, ix.named = prev.tags.clone(), prev.digests.clone(), prev.named
	for _, e := range gone {
		ix.release(e)
	}
	for _, e := range made {
		ix.hold(e)
	}
	// Of several entries the last one in the file counts, and not the one that was looked at last.
	for _, e := range slices.Concat(gone, made) {
		if h, ok := ix.digests.get(e.digest); ok && h.n > 1 {
			return ix.link()
		}
		if h, ok := ix.tags.get(e.name); ok && h.n > 1 {
			return ix.link()
		}
	}
	ix.finish().reorder(prev, gone, made)
	return ix
}
