package serve

import (
	"strings"
	"unicode"
)

// maxLogged is how much of a value that a client chose is logged, in bytes.
const maxLogged = 256

// clean makes what a client said safe for a log and a terminal: one line without control characters, and without those
// that are not seen or turn the direction of what follows; not longer than limit bytes.
func clean(s string, limit int) string {
	cut := len(s) > limit
	if cut {
		s = s[:limit]
	}
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if cut {
		s += "…"
	}
	return s
}
