// Package spell finds what somebody may have meant who typed something else.
package spell

import (
	"slices"
	"strings"
)

// maxLength is how much of a word is compared, in bytes: names and tags are shorter.
const maxLength = 128

// Nearest returns up to n of names that are spelled like want, the most alike first: typing errors, and names that
// want is the beginning of.
func Nearest(want string, names []string, n int) []string {
	type candidate struct {
		name     string
		distance int
	}
	var all []candidate
	limit := max(1, len(want)/3)
	for _, name := range names {
		d := distance(want, name)
		if strings.HasPrefix(name, want) {
			d = min(d, limit)
		}
		if d <= limit {
			all = append(all, candidate{name, d})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return a.distance - b.distance })
	var out []string
	for _, c := range all[:min(n, len(all))] {
		out = append(out, c.name)
	}
	return out
}

// distance counts the bytes that must be inserted, removed or replaced to make b of a.
func distance(a, b string) int {
	a, b = a[:min(len(a), maxLength)], b[:min(len(b), maxLength)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
