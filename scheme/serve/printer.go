package serve

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Printer is an inspector for people: it prints every request and its answer to w, line by line with all headers, by
// name, and who sent it, how long it took and how much was moved. Credentials, and parameters of the query that are not
// the specification's, are printed as (hidden). Requests of a group (HeaderGroup) stand below its name. What belongs to
// one request is written at once, so that requests at the same time do not mix. Writes that fail are not repeated.
func Printer(w io.Writer) Inspector { return &printer{w: w} }

type printer struct {
	mu    sync.Mutex
	w     io.Writer
	group string // of the request that was printed last
}

func (p *printer) Inspect(e *Event) {
	var b bytes.Buffer
	printRequest(&b, e)
	printAnswer(&b, e)
	b.WriteByte('\n')

	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Group != p.group {
		p.group = e.Group
		name := clean(e.Group, maxLogged)
		if name == "" {
			name = "(no group)"
		}
		if _, err := fmt.Fprintf(p.w, "=== %s\n\n", name); err != nil {
			return
		}
	}
	_, _ = p.w.Write(b.Bytes()) // nobody could be told
}

func printRequest(b *bytes.Buffer, e *Event) {
	r := e.Request
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") { // with a host, and maybe a password
		target = r.URL.EscapedPath()
		if r.URL.RawQuery != "" {
			target += "?" + r.URL.RawQuery
		}
	}
	fmt.Fprintf(b, "%s %s %s\n", clean(e.Method, maxLogged), clean(hideQuery(target), maxPrinted), r.Proto)
	if r.Host != "" {
		fmt.Fprintf(b, "    Host: %s\n", clean(r.Host, maxLogged))
	}
	printHeader(b, r.Header)
	what := []string{"from " + e.Remote.String()}
	if e.Subject != "" {
		what = append(what, "subject "+clean(e.Subject, maxLogged))
	}
	if e.Action != "" {
		what = append(what, strings.TrimSpace(string(e.Action)+" "+string(e.Endpoint)+" "+clean(e.Repository, maxLogged)))
	}
	fmt.Fprintf(b, "  %s; %d bytes received\n", strings.Join(what, ", "), e.Received)
}

func printAnswer(b *bytes.Buffer, e *Event) {
	if e.Status == 0 {
		b.WriteString("(no answer)\n")
	} else {
		fmt.Fprintf(b, "%d %s\n", e.Status, http.StatusText(e.Status))
		printHeader(b, e.Header)
	}
	end := ""
	if e.Aborted {
		end = ", then cut"
	}
	fmt.Fprintf(b, "  %d bytes sent in %v%s; id %s\n", e.Sent, e.Duration.Round(10*time.Microsecond), end, clean(e.ID, maxLogged))
	if e.Err != nil {
		fmt.Fprintf(b, "  error: %s\n", clean(e.Err.Error(), maxLoggedError))
	}
}

// maxPrinted is how much of a header or request line is printed, in bytes.
const maxPrinted = 4096

func printHeader(b *bytes.Buffer, h http.Header) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			fmt.Fprintf(b, "    %s: %s\n", clean(name, maxLogged), clean(shownHeader(name, v), maxPrinted))
		}
	}
}

const hidden = "(hidden)"

// shownHeader is what of a header may be shown: of credentials only their scheme.
func shownHeader(name, value string) string {
	switch name {
	case "Authorization", "Proxy-Authorization":
		scheme, _, ok := strings.Cut(value, " ")
		if !ok {
			return hidden
		}
		return scheme + " " + hidden
	case "Cookie", "Set-Cookie":
		return hidden
	case "Location", "Content-Location", "Link", "Referer":
		return hideQuery(value)
	}
	for _, word := range []string{"Token", "Secret", "Password", "Key", "Auth"} {
		if strings.Contains(name, word) && name != "Www-Authenticate" {
			return hidden
		}
	}
	return value
}

// shown are the parameters of the specification.
var shown = []string{"n", "last", "mount", "from", "digest", "digest-algorithm", "tag", "artifactType", "ns"}

// hideQuery hides the values of all other parameters in a URL, or in the <URL> of a link.
func hideQuery(s string) string {
	before, query, ok := strings.Cut(s, "?")
	if !ok {
		return s
	}
	query, after, link := strings.Cut(query, ">")
	params := strings.Split(query, "&")
	for i, p := range params {
		key, _, ok := strings.Cut(p, "=")
		name, err := url.QueryUnescape(key)
		if ok && (err != nil || !slices.Contains(shown, name)) {
			params[i] = key + "=" + hidden
		}
	}
	s = before + "?" + strings.Join(params, "&")
	if link {
		s += ">" + after
	}
	return s
}
