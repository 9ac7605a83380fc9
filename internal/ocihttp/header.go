package ocihttp

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers that the specification adds to HTTP's own.
const (
	HeaderContentDigest  = "Docker-Content-Digest"
	HeaderAPIVersion     = "Docker-Distribution-Api-Version"
	HeaderUploadUUID     = "Docker-Upload-UUID"
	HeaderSubject        = "OCI-Subject"
	HeaderTag            = "OCI-Tag"
	HeaderFiltersApplied = "OCI-Filters-Applied"
	HeaderChunkMinLength = "OCI-Chunk-Min-Length"
	HeaderNamespace      = "OCI-Namespace"
)

// APIVersion is the value of HeaderAPIVersion.
const APIVersion = "registry/2.0"

// FilterArtifactType is the name of the artifactType filter in HeaderFiltersApplied.
const FilterArtifactType = "artifactType"

// List reads a header that holds a list, over one field or several, as OCI-Tag and OCI-Filters-Applied do.
func List(values []string) []string {
	var out []string
	for _, v := range values {
		for e := range strings.SplitSeq(v, ",") {
			if e = strings.TrimSpace(e); e != "" {
				out = append(out, e)
			}
		}
	}
	return out
}

// RetryAfter reads a Retry-After header, which is a number of seconds or a date, as the time from now on. A date that
// has passed is no time at all. The caller caps it: servers have asked for a year.
func RetryAfter(value string, now time.Time) (time.Duration, bool) {
	value = strings.TrimSpace(value)
	if value != "" && strings.Trim(value, "0123456789") == "" {
		secs, err := strconv.ParseInt(value, 10, 64)
		if err != nil || secs > int64(maxDuration/time.Second) {
			return maxDuration, true
		}
		return time.Duration(secs) * time.Second, true
	}
	t, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return max(t.Sub(now), 0), true
}

const maxDuration = 1<<63 - 1

// FormatRetryAfter prints d in seconds, rounded up: who comes a fraction too early is only sent away again.
func FormatRetryAfter(d time.Duration) string {
	secs := int64(d / time.Second)
	if d%time.Second > 0 {
		secs++
	}
	return strconv.FormatInt(max(secs, 0), 10)
}

// MaxWarnings bounds the text of all warnings of one answer, in bytes (distribution-spec, "Warnings").
const MaxWarnings = 4096

// Warnings reads the texts of Warning headers of the specification's form, `299 - "text"`. Others are left out, and
// so is what exceeds MaxWarnings.
func Warnings(values []string) []string {
	var out []string
	total := 0
	for _, v := range values {
		l := lexer{s: v}
		for {
			l.skip(" \t,")
			if l.done() {
				break
			}
			code := l.until(" \t")
			l.skip(" \t")
			agent := l.until(" \t")
			l.skip(" \t")
			text, ok := l.quoted()
			if !ok {
				break
			}
			l.skip(" \t")
			if l.peek() == '"' { // a date, which the specification forbids
				if _, ok := l.quoted(); !ok {
					break
				}
			}
			if code != "299" || agent != "-" || text == "" {
				continue
			}
			if total += len(text); total > MaxWarnings {
				return out
			}
			out = append(out, text)
		}
	}
	return out
}

// FormatWarning prints a Warning header. Control characters become spaces.
func FormatWarning(text string) string { return "299 - " + quote(text) }

// quote prints a quoted-string of RFC 9110. Control characters, which it cannot hold, become spaces.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		c := s[i]
		switch {
		case c < ' ' && c != '\t' || c == 0x7f:
			b.WriteByte(' ')
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// lexer walks through the value of a header. It never fails: what does not fit is an empty result.
type lexer struct {
	s string
	i int
}

func (l *lexer) done() bool { return l.i >= len(l.s) }

// peek is the next byte, 0 at the end.
func (l *lexer) peek() byte {
	if l.done() {
		return 0
	}
	return l.s[l.i]
}

// skip passes over all bytes that are in set.
func (l *lexer) skip(set string) {
	for !l.done() && strings.IndexByte(set, l.s[l.i]) >= 0 {
		l.i++
	}
}

// until takes all bytes that are not in set.
func (l *lexer) until(set string) string {
	start := l.i
	for !l.done() && strings.IndexByte(set, l.s[l.i]) < 0 {
		l.i++
	}
	return l.s[start:l.i]
}

// token takes a token of RFC 9110, "" if there is none.
func (l *lexer) token() string {
	start := l.i
	for !l.done() && isToken(l.s[l.i]) {
		l.i++
	}
	return l.s[start:l.i]
}

func isToken(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// quoted takes a quoted-string and removes the quotes and backslashes; false if there is none, or it does not end.
func (l *lexer) quoted() (string, bool) {
	if l.peek() != '"' {
		return "", false
	}
	var b strings.Builder
	for i := l.i + 1; i < len(l.s); i++ {
		switch c := l.s[i]; c {
		case '"':
			l.i = i + 1
			return b.String(), true
		case '\\':
			if i++; i < len(l.s) {
				b.WriteByte(l.s[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	l.i = len(l.s)
	return "", false
}
