package yamlfile

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ocisync/ocisync/types/errs"
)

type sample struct {
	Name   string            `yaml:"name"`
	On     bool              `yaml:"on"`
	Count  int64             `yaml:"count"`
	Rate   float64           `yaml:"rate"`
	Wait   time.Duration     `yaml:"wait"`
	Nets   []netip.Prefix    `yaml:"nets"`
	Inner  inner             `yaml:"inner"`
	Maybe  *inner            `yaml:"maybe"`
	Parts  []inner           `yaml:"parts"`
	Labels map[string]string `yaml:"labels"`
	Short  short             `yaml:"short"`
	//lint:ignore U1000 it is no key of a file
	private string
}

type inner struct {
	Path  string   `yaml:"path"`
	Users []string `yaml:"user-names"`
}

func (i inner) Validate() error {
	if i.Path == "bad" {
		return At("path", errors.New("no path is bad"), "good")
	}
	if n := slices.Index(i.Users, "bad"); n >= 0 {
		return AtElement("user-names", n, errors.New("no user is bad"), "")
	}
	if len(i.Users) > 2 {
		return errors.New("too many users")
	}
	return nil
}

// short has two forms: a text, or its key.
type short struct {
	Text string `yaml:"text"`
}

func (s *short) UnmarshalText(text []byte) error {
	s.Text = "short " + string(text)
	return nil
}

func (s *short) Validate() error {
	if s.Text == "short bad" {
		return At("text", errors.New("no text is bad"), "")
	}
	return nil
}

func TestAStructWithAShortForm(t *testing.T) {
	for raw, want := range map[string]string{"short: x\n": "short x", "short: 12\n": "short 12", "short: {text: x}\n": "x", "short:\n  text: y\n": "y"} {
		var got sample
		if err := Decode("f", []byte(raw), &got); err != nil || got.Short.Text != want {
			t.Errorf("%q: %q, %v", raw, got.Short.Text, err)
		}
	}
	for _, raw := range []string{"short: bad\n", "short: []\n", "short: {txt: x}\n"} {
		var got sample
		if err := Decode("f", []byte(raw), &got); err == nil {
			t.Errorf("%q is taken as %q", raw, got.Short.Text)
		}
	}
}

func TestEverythingIsRead(t *testing.T) {
	file := "# a comment\nname: \"a: b\" # why\non: true\ncount: 0x10\nrate: 2.5\nwait: 1m30s\nnets: [10.0.0.0/8, \"fd00::/8\"]\n" +
		"inner:\n  path: /x\n  user-names:\n  - a\n  - b\nmaybe: {path: y}\nparts:\n- path: p1\n- path: p2\n  user-names: []\nlabels:\n  k: v\n  \"1\": |\n    two\n    lines\n"
	want := sample{
		Name: "a: b", On: true, Count: 16, Rate: 2.5, Wait: 90 * time.Second,
		Nets:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
		Inner: inner{"/x", []string{"a", "b"}}, Maybe: &inner{Path: "y"}, Parts: []inner{{Path: "p1"}, {"p2", []string{}}},
		Labels: map[string]string{"k": "v", "1": "two\nlines\n"},
	}
	for name, raw := range map[string]string{"lines": file, "of Windows": strings.ReplaceAll(file, "\n", "\r\n"), "a document": "---\n" + file + "...\n"} {
		var got sample
		if err := Decode("f", []byte(raw), &got); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(sample{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestMarkOfAnEditor: a byte order mark is no part of the first key.
func TestMarkOfAnEditor(t *testing.T) {
	var got sample
	if err := Decode("f", []byte("\ufeffname: x\r\n"), &got); err != nil || got.Name != "x" {
		t.Errorf("got %q, %v", got.Name, err)
	}
}

func TestWhatAFileDoesNotHaveStays(t *testing.T) {
	for _, raw := range []string{"", "# nothing\n", "---\n", "inner:\n", "inner:\n  # path: x\nparts:\nlabels:\n", "{}", "inner: {}"} {
		got := sample{Name: "before", Inner: inner{Path: "p"}, Wait: time.Second}
		if err := Decode("f", []byte(raw), &got); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
		if got.Name != "before" || got.Inner.Path != "p" || got.Wait != time.Second {
			t.Errorf("%q changed what was there: %+v", raw, got)
		}
	}
}

// TestErrorsShowThePlace: each file has one mistake. The caret must be below it.
func TestErrorsShowThePlace(t *testing.T) {
	for name, c := range map[string]struct{ file, at, says, hint string }{
		"unknown key":             {"name: x\nnam: y\n", "nam", `"nam" is no key of the file`, "name"},
		"key of another style":    {"inner:\n  User_Names: [a]\n", "User_Names", `"User_Names" is no key of "inner"`, "user-names"},
		"nothing alike":           {"inner: {zzzzzz: 1}\n", "zzzzzz", "no key of", "one of path, user-names"},
		"in a list":               {"parts:\n- path: a\n- pth: b\n", "pth", `no key of element 2 of "parts"`, "path"},
		"text for bool":           {"on: yes\n", "yes", `"on": want true or false, and this is a text`, ""},
		"bool for text":           {"name: true\n", "true", `"name": want a text, and this is none`, `in quotes: "true"`},
		"number for text":         {"name: 0123\n", "0123", "want a text", `in quotes: "0123"`},
		"text for number":         {"count: many\n", "many", "want a whole number, and this is a text", ""},
		"fraction":                {"count: 1.5\n", "1.5", "want a whole number, and this is a number", ""},
		"too large":               {"count: 18446744073709551615\n", "18446744073709551615", "too large", ""},
		"list for text":           {"name: [a]\n", "[", "want a text, and this is a list", ""},
		"text for list":           {"parts: a\n", "a", "want a list", ""},
		"mapping for list":        {"inner:\n  user-names:\n    a: b\n", "a", "want a list, each element on a line that begins with a dash, and this is keys", ""},
		"list for mapping":        {"inner:\n- path\n", "-", `"inner": want keys and their values, and this is a list`, ""},
		"file is a list":          {"- a\n", "-", "the file: want keys", ""},
		"file is a text":          {"hello\n", "hello", "the file: want keys", ""},
		"no unit":                 {"wait: 30\n", "30", `"wait" is no time: "30"`, "a number and a unit, as in 90s, 15m or 48h"},
		"no prefix":               {"nets:\n  - 10.0.0.0/8\n  - 10.0.0.0\n", "10.0.0.0", `element 2 of "nets": netip.ParsePrefix`, ""},
		"no value":                {"count:\n", "", `"count" has no value`, ""},
		"twice":                   {"name: a\non: true\nname: b\n", "name", `the key "name" is there twice`, ""},
		"invalid at a key":        {"parts:\n  - user-names: []\n    path: bad\n", "bad", "no path is bad", "good"},
		"invalid at an element":   {"inner:\n  user-names:\n  - ok\n  - bad\n", "bad", "no user is bad", ""},
		"invalid as a whole":      {"on: true\ninner:\n  user-names: [a, b, c]\n", "user-names", "too many users", ""},
		"invalid, written inline": {"maybe: {path: x, user-names: [a, b, c]}\n", "{", "too many users", ""},
		"anchor":                  {"inner: &a\n  path: x\n", "&", "anchors, aliases", "write it out; a text that begins with & or * needs quotes"},
		"alias":                   {"name: *a\n", "*", "anchors, aliases", "write it out; a text that begins with & or * needs quotes"},
		"merge key":               {"inner:\n  <<: {path: x}\n", "<<", "anchors, aliases", "write it out; a text that begins with & or * needs quotes"},
		"tag":                     {"name: !!str x\n", "!!str", "tags and directives", "leave it out; a text that begins with ! or % needs quotes"},
		"directive":               {"%YAML 1.2\n---\nname: x\n", "%", "tags and directives", "leave it out; a text that begins with ! or % needs quotes"},
		"two documents":           {"name: a\n---\nname: b\n", "name", "a second document", ""},
		"tab":                     {"inner:\n\tpath: x\n", "", "the line begins with a tab", "spaces, of which YAML's indentation is made"},
		"open quote":              {"name: \"x\n", "", "", ""},
		"open bracket":            {"nets: [a\n", "", "", ""},
		"wrong indent":            {"inner:\n    path: x\n  user-names: []\n", "", "", ""},
		"number as key":           {"labels:\n  1: a\n", "1", `a key of "labels" is no text`, "put it in quotes"},
	} {
		t.Run(name, func(t *testing.T) {
			var got sample
			err := Decode("dir/f.yaml", []byte(c.file), &got)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, errs.ErrInvalid) {
				t.Fatalf("got %v, want an Error that is invalid", err)
			}
			if !strings.Contains(e.Error(), c.says) || e.Hint != c.hint || !strings.HasPrefix(e.Error(), fmt.Sprintf("dir/f.yaml:%d:%d: ", e.Line, e.Column)) {
				t.Errorf("says %q, and advises %q", e, e.Hint)
			}
			line, caret, _ := strings.Cut(e.Excerpt(), "\n")
			at := strings.Index(caret, "^")
			if at < 0 || !strings.Contains(c.file, line) || !strings.HasPrefix(line[min(at, len(line)):], c.at) {
				t.Errorf("the caret is not below %q:\n%s", c.at, e.Excerpt())
			}
		})
	}
}

// TestHostileFiles: what would take memory or the stack is refused, and so is what is no text.
func TestHostileFiles(t *testing.T) {
	for name, raw := range map[string]string{
		"too long":           "name: " + strings.Repeat("x", MaxSize),
		"brackets":           "nets: " + strings.Repeat("[", 100_000),
		"braces":             "inner: " + strings.Repeat("{a: ", 50_000),
		"dashes":             strings.Repeat("- ", 100_000),
		"question marks":     strings.Repeat("? ", 100_000),
		"bangs":              strings.Repeat("!a ", 50_000),
		"ampersands":         strings.Repeat("&a ", 50_000),
		"colons":             "a" + strings.Repeat(": a", 50_000),
		"indented":           indented(600),
		"billion laughs":     "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n",
		"nul":                "name: \"a\x00b\"\n",
		"escape":             "name: \x1b[31mred\n",
		"an old mac's":       "name: x\rname: y\r",
		"not utf-8":          "name: \xff\n",
		"a document in vain": "name: a\n---\n- b\n",
	} {
		var got sample
		err := Decode("f", []byte(raw), &got)
		if !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func indented(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
	}
	return b.String()
}

func TestReadFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yaml")
	var got sample
	if err := ReadFile(file, &got); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(file, []byte("name: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ReadFile(file, &got); err != nil || got.Name != "x" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(file, []byte(strings.Repeat("#", MaxSize+2)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ReadFile(file, &got); err == nil || !strings.Contains(err.Error(), "more than 262144 bytes") {
		t.Errorf("a file that is too long: %v", err)
	}
}

// FuzzDecode: no file does harm, and every error has its place inside the file.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"name: x\n", "parts:\n- path: a\n- {path: b}\n", "labels: {a: |-\n  x\n}", "? a\n: b\n", "a: 'b", "- - -", "a:\n  - b\n - c", "\"a\\x\": 1", "name: >+\n\n\n x", "\t- :", "nets: [a, , b]", "a: b: c", "---\n---\n", "name: .inf\ncount: -0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := bounded(t, s)
		var e *Error
		if err == nil {
			return
		}
		if !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		if lines := strings.Count(s, "\n") + 1; e.Line < 0 || e.Line > lines+1 || e.Column < 0 {
			t.Fatalf("line %d, column %d of %d lines", e.Line, e.Column, lines)
		}
		if strings.Count(e.Excerpt(), "\n") > 1 {
			t.Fatalf("the excerpt is more than two lines: %q", e.Excerpt())
		}
	})
}

// bounded is Decode, and fails when that does not end.
func bounded(t *testing.T, s string) error {
	done := make(chan error, 1)
	go func() {
		var got sample
		done <- Decode("f", []byte(s), &got)
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("Decode of %q does not end", s)
		return nil
	}
}
