// Package tag has the list of a repository's tags.
package tag

import (
	"slices"
	"sort"
)

// List is a page of tags in lexical (byte) order.
type List struct {
	Tags []string
	// More reports that tags follow the last one of this page.
	More bool
}

// Page returns the page of sorted that comes after last (exclusive; it need not exist) and has limit tags at most.
// A negative limit is none. The result shares no memory with sorted.
func Page(sorted []string, last string, limit int) List {
	start := 0
	if last != "" {
		start = sort.SearchStrings(sorted, last)
		if start < len(sorted) && sorted[start] == last {
			start++
		}
	}
	rest := sorted[start:]
	if limit < 0 || limit >= len(rest) {
		return List{Tags: slices.Clone(rest)}
	}
	return List{Tags: slices.Clone(rest[:limit]), More: limit > 0}
}
