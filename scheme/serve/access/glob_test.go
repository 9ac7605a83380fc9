package access

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func TestPatternsFitWholeNames(t *testing.T) {
	for _, c := range []struct {
		pattern, subject string
		fit, not         string // names, with spaces between them
	}{
		{"a", "", "a", "b a/b b/a aa"},
		{"a/b", "", "a/b", "a b a/b/c a/bc x/a/b"},
		{"*", "", "a a-b", "a/b"},
		{"**", "", "a a/b a/b/c", ""},
		{"a/*", "", "a/b a/c", "a b a/b/c aa/b"},
		{"a/**", "", "a/b a/b/c", "a b/a aa/b"},
		{"**/a", "", "b/a b/c/a", "a b/aa"},
		{"a/**/b", "", "a/x/b a/x/y/b", "a/b a/x/bc"},
		{"a/*/b", "", "a/x/b", "a/b a/x/y/b"},
		{"team-*/**", "", "team-a/x team-b/x/y", "team-a teams/x team/x"},
		{"*-dev/*", "", "a-dev/x", "a-dev dev/x a-dev/x/y"},
		{"a*b*c", "", "abc axbxc abcbc", "ab abcd a/b/c ac"},
		{"a**c", "", "ac a/b/c abc", "a/b"},
		{"**a*b/**", "", "xaxb/y x/ab/y/z", "a/b/c"},
		{"aa*aa", "", "aaaa aaxaa", "aaa aa"}, // prefix and suffix do not share characters
		{"{user}", "bob", "bob", "alice bob/x bobby"},
		{"{user}/**", "bob", "bob/x bob/x/y", "bob alice/x bobby/x x/bob/y"},
		{"users/{user}/*", "bob", "users/bob/x", "users/bob users/bob/x/y users/alice/x users/x/bob"},
		{"*/{user}", "bob", "x/bob", "bob x/y/bob x/alice"},
		{"{user}/**", "", "", "a/b bob/x"},
		{"{user}/**", "bob/x", "", "bob/x bob/x/y"}, // a subject that is no component owns nothing
		{"{user}/**", "Bob", "", "bob/x"},
		{"{user}/**", "*", "", "bob/x"},
		{"{user}/**", "..", "", "a/b"},
		{"{user}/**", "{user}", "", "a/b user/x"},
	} {
		g, err := newGlob(c.pattern)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		for _, name := range strings.Fields(c.fit) {
			if !g.match(name, c.subject) {
				t.Errorf("%q of %q does not fit %s", c.pattern, c.subject, name)
			}
		}
		for _, name := range strings.Fields(c.not) {
			if g.match(name, c.subject) {
				t.Errorf("%q of %q fits %s", c.pattern, c.subject, name)
			}
		}
	}
}

func TestPatternsThatMeanNothingAreRefused(t *testing.T) {
	for _, pattern := range []string{
		"", "/", "/a", "a/", "a//b", "A", "a/B/**", "a b", "a?", "[a]", "a:b", "..", "a/../b", "***", "a/****", "é", "a\n", "a\x00",
		"{user}x", "x{user}", "{group}", "{user}/{user}", "**/{user}", "a**/{user}", "a_", ".a/b", strings.Repeat("a", 256),
	} {
		if _, err := newGlob(pattern); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

// FuzzGlob holds the matcher to the same pattern as a regular expression.
func FuzzGlob(f *testing.F) {
	for _, s := range [][3]string{
		{"**", "a/b", ""}, {"a*b**c*/**", "axb/c/d", "bob"}, {"users/{user}/*", "users/bob/x", "bob"}, {"*a*a*a*a/**", "aaaaaaaaaaaaaaa/b", ""},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, pattern, name, subject string) {
		g, err := newGlob(pattern)
		if err != nil || ref.ValidRepo(name) != nil {
			return
		}
		var re strings.Builder
		for i, part := range strings.Split(pattern, "/") {
			if i > 0 {
				re.WriteByte('/')
			}
			part = regexp.QuoteMeta(part)
			part = strings.ReplaceAll(part, `\*\*`, "(?s:.*)")
			part = strings.ReplaceAll(part, `\*`, "[^/]*")
			re.WriteString(part)
		}
		own := regexp.QuoteMeta(subject)
		if ref.ValidRepo(subject) != nil || strings.Contains(subject, "/") {
			own = `[^\s\S]` // nothing
		}
		want := regexp.MustCompile(`\A` + strings.ReplaceAll(re.String(), `\{user\}`, own) + `\z`).MatchString(name)
		if got := g.match(name, subject); got != want {
			t.Errorf("%q of %q and %q: %v, want %v", pattern, subject, name, got, want)
		}
	})
}

// The longest name and the worst pattern take as many steps as they have characters multiplied, whatever they are.
func BenchmarkGlob(b *testing.B) {
	name := strings.Repeat("a", 125) + "/" + strings.Repeat("a", 125)
	for _, pattern := range []string{"team/**", strings.Repeat("*a", 100) + "*b", strings.Repeat("**a", 80) + "**b*"} {
		g, err := newGlob(pattern)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(pattern[:4], func(b *testing.B) {
			for b.Loop() {
				if g.match(name, "") {
					b.Fatal("fits")
				}
			}
		})
	}
}
