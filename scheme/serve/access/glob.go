package access

import (
	"fmt"
	"strings"

	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// user is the component of a pattern that stands for the subject.
const user = "{user}"

// glob is a pattern of repository names (see Rule.Repositories). The names that it is matched with are valid.
type glob struct {
	prefix, suffix string // what names begin and end with, in the clear
	middle         []byte // what is between: bytes as they are, star, and stars. nil: nothing is, and prefix is all
	own            int    // which component, from 0, must be the subject; -1: none
}

// What the middle has in place of "*" and "**".
const (
	star  = '*'
	stars = 0
)

// newGlob checks a pattern. A pattern that no name can fit is refused where that is easy to see.
func newGlob(pattern string) (glob, error) {
	if len(pattern) > ref.MaxRepoLength {
		return glob{}, fmt.Errorf("%w: a pattern of %d bytes, more than %d", errs.ErrInvalid, len(pattern), ref.MaxRepoLength)
	}
	g := glob{own: -1}
	parts := strings.Split(pattern, "/")
	for i, part := range parts {
		switch {
		case part == "":
			return glob{}, fmt.Errorf("%w: %q has an empty component", errs.ErrInvalid, pattern)
		case strings.Contains(part, "***"):
			return glob{}, fmt.Errorf("%w: %q: there is \"*\" and \"**\"", errs.ErrInvalid, pattern)
		case part == user && g.own >= 0:
			return glob{}, fmt.Errorf("%w: %q names %s twice", errs.ErrInvalid, pattern, user)
		case part == user && strings.Contains(strings.Join(parts[:i], "/"), "**"):
			return glob{}, fmt.Errorf("%w: %q: %s behind \"**\" could be any component", errs.ErrInvalid, pattern, user)
		case part == user:
			g.own, parts[i] = i, "*"
		case strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789._-*") != "":
			return glob{}, fmt.Errorf("%w: %q: components are of lower-case letters, digits, '.', '_', '-' and '*', or they are %s", errs.ErrInvalid, pattern, user)
		}
	}
	if g.own < 0 && !strings.Contains(pattern, "*") {
		if err := ref.ValidRepo(pattern); err != nil {
			return glob{}, err
		}
	}
	g.cut(strings.Join(parts, "/"))
	return g, nil
}

// cut divides a pattern into what is in the clear at both ends, and what is between.
func (g *glob) cut(pattern string) {
	first, last := strings.IndexByte(pattern, '*'), strings.LastIndexByte(pattern, '*')
	if first < 0 {
		g.prefix = pattern
		return
	}
	g.prefix, g.suffix = pattern[:first], pattern[last+1:]
	g.middle = []byte(strings.ReplaceAll(pattern[first:last+1], "**", string(rune(stars))))
}

// match reports whether repository name fits, when subject asks for it.
func (g *glob) match(name, subject string) bool {
	if g.own >= 0 && !isComponent(name, g.own, subject) {
		return false
	}
	if g.middle == nil {
		return name == g.prefix
	}
	if len(name) < len(g.prefix)+len(g.suffix) || !strings.HasPrefix(name, g.prefix) || !strings.HasSuffix(name, g.suffix) {
		return false
	}
	rest := name[len(g.prefix) : len(name)-len(g.suffix)]
	if len(g.middle) == 1 { // most patterns
		return g.middle[0] == stars || !strings.Contains(rest, "/")
	}
	return matchMiddle(g.middle, rest)
}

// matchMiddle walks through the name once, with all the places of the pattern that may have been reached: never back,
// so that no pattern and no name can make it slow.
func matchMiddle(pattern []byte, name string) bool {
	var a, b [ref.MaxRepoLength + 1]bool
	at, next := a[:len(pattern)+1], b[:len(pattern)+1]
	at[0] = true
	skipStars(pattern, at)
	for i := range len(name) {
		clear(next)
		for j, p := range pattern {
			switch {
			case !at[j]:
			case p == stars, p == star && name[i] != '/':
				next[j] = true
			case p == name[i]:
				next[j+1] = true
			}
		}
		skipStars(pattern, next)
		at, next = next, at
	}
	return at[len(pattern)]
}

// skipStars adds the places that are reached without a character.
func skipStars(pattern []byte, at []bool) {
	for j, p := range pattern {
		if at[j] && (p == star || p == stars) {
			at[j+1] = true
		}
	}
}

// isComponent reports whether component i of name, from 0, is subject. A subject that can be no component, as "a/b"
// and "" cannot, never is.
func isComponent(name string, i int, subject string) bool {
	for ; i > 0; i-- {
		_, rest, ok := strings.Cut(name, "/")
		if !ok {
			return false
		}
		name = rest
	}
	component, _, _ := strings.Cut(name, "/")
	return component == subject && subject != ""
}
