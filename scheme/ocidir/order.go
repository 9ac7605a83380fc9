package ocidir

import (
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/ocisync/ocisync/types/referrer"
	"github.com/ocisync/ocisync/types/tag"
)

// order is the tags that are listed, in byte order. Successive indexes share it as far as it was sorted once: a commit adds
// the tags that it changed, which are looked at one by one.
type order struct {
	base    *sortedTags
	changed []string // sorted; whether base is right about them the index says
}

// sortedTags is sorted when it is first needed.
type sortedTags struct {
	once  sync.Once
	ready atomic.Bool
	make  func() []string
	tags  []string
}

func (s *sortedTags) get() []string {
	s.once.Do(func() {
		s.tags, s.make = s.make(), nil
		s.ready.Store(true)
	})
	return s.tags
}

func newOrder(make func() []string) order { return order{base: &sortedTags{make: make}} }

// reorder gives ix the order of prev, of which it differs in the tags of some entries.
func (ix *index) reorder(prev *index, differ ...[]*entry) {
	if prev.named > 0 || ix.named > 0 || !prev.order.base.ready.Load() {
		return // what finish made
	}
	changed := slices.Clone(prev.order.changed)
	for _, e := range slices.Concat(differ...) {
		if tag, exact := e.tag(); exact {
			changed = append(changed, tag)
		}
	}
	slices.Sort(changed)
	ix.order = order{base: prev.order.base, changed: slices.Compact(changed)}
	if len(ix.order.changed) > 64+len(ix.order.base.get())/32 {
		all := ix.sorted()
		ix.order = newOrder(func() []string { return all })
		ix.order.base.get()
	}
}

// listed reports whether tag names an image. Tags that other tools keep referrers under do not.
func (ix *index) listed(tag string) bool {
	return ix.lookup(tag) != nil && !referrer.IsFallbackTag(tag)
}

// list returns the tags that are listed, in byte order.
func (ix *index) list() []string {
	var all []string
	for tag := range ix.tags.all() {
		all = append(all, tag)
	}
	for tag, e := range ix.aliases {
		if _, exact := ix.tags.get(tag); !exact && e != nil {
			all = append(all, tag)
		}
	}
	all = slices.DeleteFunc(all, referrer.IsFallbackTag)
	slices.Sort(all)
	return all
}

// sorted is list by way of the order.
func (ix *index) sorted() []string { return ix.page("", -1).Tags }

// page returns limit tags after last, in byte order; all for a negative limit. It looks at no others.
func (ix *index) page(last string, limit int) tag.List {
	base, changed := behind(ix.order.base.get(), last), behind(ix.order.changed, last)
	var all []string
	if limit < 0 {
		all = make([]string, 0, len(base)+len(changed))
	}
	for (len(base) > 0 || len(changed) > 0) && (limit < 0 || len(all) <= limit) {
		if len(changed) == 0 || len(base) > 0 && base[0] < changed[0] {
			all, base = append(all, base[0]), base[1:]
			continue
		}
		next := changed[0]
		if changed = changed[1:]; len(base) > 0 && base[0] == next {
			base = base[1:]
		}
		if ix.listed(next) {
			all = append(all, next)
		}
	}
	return tag.Page(all, "", limit)
}

func behind(sorted []string, last string) []string {
	if last == "" {
		return sorted
	}
	i := sort.SearchStrings(sorted, last)
	if i < len(sorted) && sorted[i] == last {
		i++
	}
	return sorted[i:]
}
