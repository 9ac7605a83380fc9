package ocihttp

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ocisync/ocisync/types/errs"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"0":                             0,
		" 120 ":                         2 * time.Minute,
		"99999999999999999999999":       maxDuration,
		"9999999999999":                 maxDuration,
		"Wed, 01 Jul 2026 12:00:30 GMT": 30 * time.Second,
		"Wed, 01 Jul 2026 11:00:00 GMT": 0,
	} {
		if got, ok := RetryAfter(in, now); !ok || got != want {
			t.Errorf("%q: %v %v, want %v", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "-1", "1.5", "soon", "1s"} {
		if got, ok := RetryAfter(in, now); ok {
			t.Errorf("%q: %v", in, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0", time.Millisecond: "1", time.Second: "1", 1500 * time.Millisecond: "2", -5: "0"} {
		if got := FormatRetryAfter(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestListReadsSeveralFieldsAsOne(t *testing.T) {
	got := List([]string{"1.2.3, 1.2,1", "", " latest ,"})
	if d := cmp.Diff([]string{"1.2.3", "1.2", "1", "latest"}, got); d != "" {
		t.Error(d)
	}
}

func TestWarnings(t *testing.T) {
	got := Warnings([]string{
		`299 - "one"`,
		`299 - "two \"quoted\" \\", 299 - "three, and a comma" "Wed, 01 Jul 2026 12:00:00 GMT"`,
		`110 - "stale"`, `299 host "agent"`, `299 - open`, `299 - "unclosed`, `299`, `299 - ""`,
		FormatWarning("a\r\nb\"\\"),
	})
	want := []string{"one", `two "quoted" \`, "three, and a comma", `a  b"\`}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	many := make([]string, 10)
	for i := range many {
		many[i] = FormatWarning(strings.Repeat("x", 1000))
	}
	if got := Warnings(many); len(got) != 4 {
		t.Errorf("%d warnings of 1000 bytes are kept, want 4", len(got))
	}
}

func TestNextLink(t *testing.T) {
	at, err := url.Parse("https://h/p/v2/a/tags/list?n=1")
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		`</v2/a/tags/list?n=1&last=x>; rel="next"`:                              "https://h/v2/a/tags/list?n=1&last=x",
		`</v2/a>;rel=next`:                                                      "https://h/v2/a",
		`<list?last=x>; rel = "next"`:                                           "https://h/p/v2/a/tags/list?last=x",
		`<?last=x>; REL=NEXT`:                                                   "https://h/p/v2/a/tags/list?last=x",
		`<https://evil/x>; rel="next"`:                                          "https://evil/x",
		`<a,b;c>; title="x, <y>; rel=\"prev\""; rel="next"`:                     "https://h/p/v2/a/tags/a,b;c",
		`</p>; rel=prev, </n>; rel="last next"; rel=prev`:                       "https://h/n",
		`</p>; rel=prev; title=a, </n>; flag; rel=next; rel*=UTF-8'en'next , x`: "https://h/n",
		``:                      "",
		`</x>; rel="prev"`:      "",
		`</x>`:                  "",
		`</x; rel="next"`:       "",
		`/x; rel="next"`:        "",
		`</x>; rel="next`:       "",
		`</x>; title="rel=next`: "",
	} {
		got, ok, err := Next([]string{"", in}, at)
		if err != nil || ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %v %v %v, want %q", in, got, ok, err, want)
		}
	}
	if _, _, err := Next([]string{`<http://[::1>; rel=next`}, at); err == nil {
		t.Error("a target that is no URL is silently the end of the list")
	}
}

func TestFormatNextIsReadBack(t *testing.T) {
	for _, c := range requests {
		at := c.req.URL(&url.URL{Scheme: "http", Host: "h"})
		got, ok, err := Next([]string{FormatNext("", &c.req)}, at)
		if err != nil || !ok || got.String() != at.String() {
			t.Errorf("%s: %v %v %v", FormatNext("", &c.req), got, ok, err)
		}
	}
}

func TestChallenges(t *testing.T) {
	type p = map[string]string
	for name, c := range map[string]struct {
		in   []string
		want []Challenge
	}{
		"docker":     {[]string{`Bearer realm="https://auth/token",service="r",scope="repository:a:pull,push"`}, []Challenge{{"bearer", p{"realm": "https://auth/token", "service": "r", "scope": "repository:a:pull,push"}}}},
		"bare":       {[]string{`basic Realm=x`}, []Challenge{{"basic", p{"realm": "x"}}}},
		"no params":  {[]string{`Negotiate`}, []Challenge{{"negotiate", p{}}}},
		"two fields": {[]string{`Basic realm="a"`, `BEARER realm="b"`}, []Challenge{{"basic", p{"realm": "a"}}, {"bearer", p{"realm": "b"}}}},
		"one field":  {[]string{`Basic realm="a, b", charset="UTF-8", Bearer realm = "c" , error="x\"y"`}, []Challenge{{"basic", p{"realm": "a, b", "charset": "UTF-8"}}, {"bearer", p{"realm": "c", "error": `x"y`}}}},
		"token68":    {[]string{`Negotiate YII/a+b==, NTLM abc, Bearer realm="c"`}, []Challenge{{"negotiate", p{}}, {"ntlm", p{}}, {"bearer", p{"realm": "c"}}}},
		"first wins": {[]string{`Bearer realm="a",realm="b"`}, []Challenge{{"bearer", p{"realm": "a"}}}},
		"garbage":    {[]string{`,, "x", ;;;, =a, Basic realm="open`, "\x00", ""}, []Challenge{{"basic", p{"realm": ""}}}},
		"orphan":     {[]string{`realm="x"`}, []Challenge{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := ParseChallenges(c.in)
			if d := cmp.Diff(c.want, append([]Challenge{}, got...)); d != "" {
				t.Fatal(d)
			}
			for _, ch := range got { // and back
				if d := cmp.Diff([]Challenge{ch}, ParseChallenges([]string{ch.String()})); d != "" {
					t.Error(ch, d)
				}
			}
		})
	}
	many := ParseChallenges([]string{strings.Repeat("Basic a=1,", 1e5)})
	if len(many) != maxChallenges {
		t.Errorf("%d challenges are kept", len(many))
	}
}

func TestRangeResolves(t *testing.T) {
	for _, c := range []struct {
		in             string
		size           int64
		offset, length int64
	}{
		{"bytes=0-0", 10, 0, 1},
		{"bytes=2-5", 10, 2, 4},
		{"bytes=5-", 10, 5, 5},
		{"bytes=5-100", 10, 5, 5},
		{"bytes=-3", 10, 7, 3},
		{"bytes=-30", 10, 0, 10},
		{"bytes=9-9223372036854775807", 10, 9, 1},
	} {
		r, ok, err := ParseRange(c.in)
		if err != nil || !ok || r.String() != c.in {
			t.Errorf("%s: %v %v %v", c.in, r, ok, err)
			continue
		}
		off, n, err := r.Resolve(c.size)
		if err != nil || off != c.offset || n != c.length {
			t.Errorf("%s of %d: %d+%d %v, want %d+%d", c.in, c.size, off, n, err, c.offset, c.length)
		}
	}
	for in, size := range map[string]int64{"bytes=10-": 10, "bytes=10-20": 10, "bytes=-0": 10, "bytes=0-": 0, "bytes=-1": 0} {
		r, ok, err := ParseRange(in)
		if err != nil || !ok {
			t.Errorf("%s: %v %v", in, ok, err)
		}
		if off, n, err := r.Resolve(size); !errors.Is(err, errs.ErrRangeInvalid) {
			t.Errorf("%s of %d: %d+%d %v", in, size, off, n, err)
		}
	}
	for _, in := range []string{"bytes=500-0", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=--1", "bytes=1- 2", "bytes=+1-2", "bytes=0-9223372036854775808"} {
		if r, ok, err := ParseRange(in); ok || !errors.Is(err, errs.ErrRangeInvalid) {
			t.Errorf("%s: %v %v %v", in, r, ok, err)
		}
	}
	for _, in := range []string{"", "lines=1-2", "bytes=0-1,3-4", "bytes" + strings.Repeat("0-,", 10000)} {
		if _, ok, err := ParseRange(in); ok || err != nil {
			t.Errorf("%.20s must be ignored: %v %v", in, ok, err)
		}
	}
}

func TestContentRange(t *testing.T) {
	for _, c := range []struct {
		in   string
		want ContentRange
	}{
		{"bytes 0-0/1", ContentRange{0, 0, 1}},
		{"bytes 5-9/10", ContentRange{5, 9, 10}},
		{"bytes 5-9/*", ContentRange{5, 9, -1}},
		{"bytes */10", ContentRange{-1, -1, 10}},
	} {
		got, err := ParseContentRange(c.in)
		if err != nil || got != c.want || got.String() != c.in {
			t.Errorf("%s: %v %v", c.in, got, err)
		}
	}
	for _, in := range []string{"", "bytes", "bytes 1-2", "bytes 2-1/3", "bytes 0-10/10", "bytes */*", "bytes a-b/c", "items 0-1/2", "bytes -1-2/3", "0-1/2"} {
		if got, err := ParseContentRange(in); !errors.Is(err, errs.ErrRangeInvalid) {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
}

func TestChunkRange(t *testing.T) {
	for _, c := range [][2]int64{{0, 1}, {0, 1 << 40}, {7, 3}, {7, 0}} {
		off, n, err := ParseChunkRange(FormatChunkRange(c[0], c[1]))
		if err != nil || off != c[0] || n != c[1] {
			t.Errorf("%v: %d %d %v", c, off, n, err)
		}
	}
	for _, in := range []string{"", "-", "1", "1-", "-1", "2-0", "bytes 0-1/2", "a-b", "0-9223372036854775807", "0-1-2", " 0-1"} {
		if off, n, err := ParseChunkRange(in); !errors.Is(err, errs.ErrUploadInvalid) {
			t.Errorf("%q: %d %d %v", in, off, n, err)
		}
	}
}

func TestUploadRange(t *testing.T) {
	for _, n := range []int64{0, 1, 2, 1 << 40} {
		got, exact, err := ParseUploadRange(FormatUploadRange(n))
		if err != nil || exact != (n > 1) || exact && got != n || !exact && got != 0 {
			t.Errorf("%d: %d %v %v", n, got, exact, err)
		}
	}
	if got, exact, err := ParseUploadRange("bytes=0-99"); got != 100 || !exact || err != nil {
		t.Error("with a unit:", got, exact, err)
	}
	if got, exact, err := ParseUploadRange(""); got != 0 || !exact || err != nil {
		t.Error("without a header:", got, exact, err)
	}
	for _, in := range []string{"1-2", "0", "0-", "-1", "0--1", "x", "0-9223372036854775807"} {
		if got, _, err := ParseUploadRange(in); !errors.Is(err, errs.ErrRangeInvalid) {
			t.Errorf("%q: %d %v", in, got, err)
		}
	}
}

// No header, however hostile, makes a parser panic or loop, or breaks what it promises.
func FuzzHeaders(f *testing.F) {
	for _, s := range []string{`299 - "x" "d"`, `</n>; rel="next", <x>`, `Bearer realm="a",b=c, Basic x==`, "bytes=0-1", "bytes 0-1/2", "0-1", "12"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		Warnings([]string{s})
		List([]string{s})
		RetryAfter(s, time.Time{})
		if _, _, err := Next([]string{s}, &url.URL{}); err != nil && !strings.Contains(s, "<") {
			t.Error(err)
		}
		for _, c := range ParseChallenges([]string{s}) {
			if back := ParseChallenges([]string{c.String()}); len(back) != 1 || back[0].Scheme != c.Scheme || len(back[0].Params) != len(c.Params) {
				t.Errorf("%v is read back as %v", c, back)
			}
		}
		if r, ok, err := ParseRange(s); ok {
			if off, n, err := r.Resolve(100); err == nil && (off < 0 || n <= 0 || off+n > 100) {
				t.Errorf("%d+%d is outside of 100 bytes", off, n)
			}
		} else if err != nil && !errors.Is(err, errs.ErrRangeInvalid) {
			t.Error(err)
		}
		if c, err := ParseContentRange(s); err == nil {
			if again, err := ParseContentRange(c.String()); err != nil || again != c {
				t.Error(c, again, err)
			}
		}
		if off, n, err := ParseChunkRange(s); err == nil && (off < 0 || n < 0) {
			t.Error(off, n)
		}
		if n, _, err := ParseUploadRange(s); err == nil && n < 0 {
			t.Error(n)
		}
	})
}
