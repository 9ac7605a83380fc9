package ocidir

import (
	"iter"
	"maps"
	"sync"
)

// lookup finds entries by a key. Successive indexes share most of it: what a commit changes is in over, which is small and
// copied, and what is in base is looked for when over does not say. It is safe for concurrent readers; set and remove are
// for who makes the next index.
type lookup[K comparable] struct {
	base *lazyMap[K]
	over map[K]held // n is 0 for what is not there any more
}

// lazyMap is a map that is made when it is first needed.
type lazyMap[K comparable] struct {
	once sync.Once
	make func() map[K]held
	all  map[K]held
}

func (f *lazyMap[K]) get() map[K]held {
	f.once.Do(func() { f.all, f.make = f.make(), nil })
	return f.all
}

func newLookup[K comparable](fill func() map[K]held) lookup[K] {
	return lookup[K]{base: &lazyMap[K]{make: fill}}
}

func (l lookup[K]) get(k K) (held, bool) {
	h, ok := l.over[k]
	if !ok {
		h, ok = l.base.get()[k]
	}
	return h, ok && h.n > 0
}

func (l lookup[K]) set(k K, h held) { l.over[k] = h }

func (l lookup[K]) remove(k K) { l.over[k] = held{} }

// clone returns a lookup to be changed. Now and then it joins the two maps, so that over stays small: a commit then costs
// little that grows with the index.
func (l lookup[K]) clone() lookup[K] {
	base := l.base.get()
	if len(l.over) <= 64+len(base)/32 {
		over := maps.Clone(l.over)
		if over == nil {
			over = map[K]held{}
		}
		return lookup[K]{base: l.base, over: over}
	}
	all := maps.Collect(l.all())
	return lookup[K]{base: &lazyMap[K]{make: func() map[K]held { return all }}, over: map[K]held{}}
}

func (l lookup[K]) all() iter.Seq2[K, held] {
	return func(yield func(K, held) bool) {
		for k, h := range l.over {
			if h.n > 0 && !yield(k, h) {
				return
			}
		}
		for k, h := range l.base.get() {
			if _, changed := l.over[k]; !changed && !yield(k, h) {
				return
			}
		}
	}
}
