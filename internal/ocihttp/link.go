package ocihttp

import (
	"net/url"
	"strings"
)

// maxLinks bounds how many links of one answer are looked at.
const maxLinks = 64

// Link is one link of a Link header (RFC 8288).
type Link struct {
	Target string
	Params map[string]string // names in lower case; the first of equal names counts
}

// ParseLinks reads Link headers: several links in one field, quoted and bare parameters. What cannot be read ends
// its field.
func ParseLinks(values []string) []Link {
	var out []Link
	for _, v := range values {
		l := lexer{s: v}
		for len(out) < maxLinks {
			l.skip(" \t,")
			if l.peek() != '<' {
				break
			}
			l.i++
			target := l.until(">")
			if l.done() {
				break
			}
			l.i++
			out = append(out, Link{Target: strings.TrimSpace(target), Params: l.params()})
		}
	}
	return out
}

// params reads ;name=value pairs up to a comma or the end.
func (l *lexer) params() map[string]string {
	params := map[string]string{}
	for {
		l.skip(" \t")
		if l.peek() != ';' {
			return params
		}
		l.skip("; \t")
		name := strings.ToLower(l.token())
		l.skip(" \t")
		value := ""
		if l.peek() == '=' {
			l.i++
			l.skip(" \t")
			if l.peek() == '"' {
				value, _ = l.quoted()
			} else {
				value = strings.TrimRight(l.until(";,"), " \t")
			}
		}
		if name == "" {
			return params
		}
		if _, seen := params[name]; !seen {
			params[name] = value
		}
	}
}

// Next finds the link to the next page, resolved against the URL of the request that was answered. ok is false when
// there is none, which is the end of the list. Whether another host may be followed is the caller's decision.
func Next(values []string, request *url.URL) (next *url.URL, ok bool, err error) {
	for _, l := range ParseLinks(values) {
		for rel := range strings.FieldsSeq(l.Params["rel"]) {
			if !strings.EqualFold(rel, "next") {
				continue
			}
			u, err := url.Parse(l.Target)
			if err != nil {
				return nil, false, err
			}
			return request.ResolveReference(u), true, nil
		}
	}
	return nil, false, nil
}

// FormatNext prints a Link header to the next page, which next asks for. prefix is what stands before /v2/ in the paths
// of the server, mostly nothing.
func FormatNext(prefix string, next *Request) string {
	return "<" + prefix + next.String() + `>; rel="next"`
}
