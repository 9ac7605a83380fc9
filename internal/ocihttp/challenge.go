package ocihttp

import (
	"slices"
	"strings"
)

// How much of an answer's challenges is looked at.
const (
	maxChallenges      = 16
	maxChallengeParams = 32
)

// Challenge is one way to authenticate that a 401 offers (RFC 9110, "WWW-Authenticate").
type Challenge struct {
	Scheme string            // in lower case: "bearer", "basic", …
	Params map[string]string // names in lower case; the first of equal names counts
}

// ParseChallenges reads WWW-Authenticate headers. One field may hold several challenges, with the same comma between
// them as between their parameters: a word that is followed by "=" is a parameter, any other begins a challenge. What
// cannot be read is passed over.
func ParseChallenges(values []string) []Challenge {
	var out []Challenge
	for _, v := range values {
		l := lexer{s: v}
		for !l.done() && len(out) <= maxChallenges {
			l.skip(" \t,")
			word := l.token()
			if word == "" { // nothing that belongs here: go on behind the next comma
				if l.peek() == '"' {
					l.quoted()
				}
				l.until(",")
				continue
			}
			if value, ok := l.param(); ok {
				if len(out) > 0 {
					out[len(out)-1].add(word, value)
				}
				continue
			}
			out = append(out, Challenge{Scheme: strings.ToLower(word), Params: map[string]string{}})
			l.token68()
		}
	}
	return out[:min(len(out), maxChallenges)]
}

func (c Challenge) add(name, value string) {
	name = strings.ToLower(name)
	if _, seen := c.Params[name]; !seen && len(c.Params) < maxChallengeParams {
		c.Params[name] = value
	}
}

// param reads =value behind a name. The padding of a token68 ("abc==") is not a value.
func (l *lexer) param() (string, bool) {
	start := l.i
	l.skip(" \t")
	if l.peek() != '=' {
		l.i = start
		return "", false
	}
	l.i++
	l.skip(" \t")
	if l.peek() == '"' {
		value, _ := l.quoted()
		return value, true
	}
	return strings.TrimRight(l.until(","), " \t"), true
}

// token68 passes over the other form of what follows a scheme: one opaque word, as in "Negotiate YII/abc==".
func (l *lexer) token68() {
	start := l.i
	l.skip(" \t")
	word := strings.TrimRight(l.until(","), "= \t")
	if strings.ContainsAny(word, "=\" \t") {
		l.i = start
	}
}

// String prints the challenge, its parameters in the order of their names with the realm first.
func (c Challenge) String() string {
	names := make([]string, 0, len(c.Params))
	for n := range c.Params {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		if (a == "realm") != (b == "realm") {
			if a == "realm" {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	var b strings.Builder
	if c.Scheme != "" {
		b.WriteString(strings.ToUpper(c.Scheme[:1]) + c.Scheme[1:])
	}
	for i, n := range names {
		if i > 0 {
			b.WriteByte(',')
		} else {
			b.WriteByte(' ')
		}
		b.WriteString(n + "=" + quote(c.Params[n]))
	}
	return b.String()
}
