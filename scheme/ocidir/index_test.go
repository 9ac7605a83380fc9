package ocidir

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/tag"
)

func desc(content string) types.Descriptor {
	return types.Descriptor{MediaType: types.MediaTypeImageManifest, Digest: digest.FromString(content), Size: int64(len(content))}
}

// entryJSON is an entry as another tool may write it.
func entryJSON(content, name string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{%q:%q}}`,
		types.MediaTypeImageManifest, digest.FromString(content), len(content), types.AnnotationRefName, name)
}

func indexJSON(entries ...string) string {
	return `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`
}

func mustIndex(t testing.TB, raw string) *index {
	t.Helper()
	ix, err := parseIndex([]byte(raw), nil)
	if err != nil {
		t.Fatalf("parseIndex %s: %v", raw, err)
	}
	return ix
}

// view is what readers see of an index.
func view(ix *index) map[string]any {
	out := map[string]any{"list": ix.sorted()}
	for tag, h := range ix.tags.all() {
		out["tag "+tag] = fmt.Sprint(h.e.digest, h.n)
	}
	for d, h := range ix.digests.all() {
		out["digest "+string(d)] = fmt.Sprint(h.n, h.bare)
	}
	for tag, e := range ix.aliases {
		if e != nil {
			out["alias "+tag] = e.digest
		}
	}
	return out
}

func TestIndexIsRefused(t *testing.T) {
	for name, raw := range map[string]string{
		"empty": "", "blank": " \n", "no JSON": "hello", "torn": `{"schemaVersion":2,"manifests":[{"medi`,
		"a list": `[]`, "no manifests": `{"schemaVersion":2}`, "two lists": `{"manifests":[],"manifests":[]}`,
		"another version": `{"schemaVersion":1,"manifests":[]}`, "more behind it": `{"manifests":[]}{}`, "NUL behind it": "{\"manifests\":[]}\x00",
		"manifests is no list": `{"manifests":{}}`, "an entry is no object": `{"manifests":[1]}`,
		"a size that is no number": `{"manifests":[{"size":"1"}]}`, "a name that is no string": `{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":1}}]}`,
		"a comma too many": `{"manifests":[{},]}`, "zeros": strings.Repeat("\x00", 100), "deep": `{"manifests":[],"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
	} {
		if _, err := parseIndex([]byte(raw), nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestIndexIsAccepted(t *testing.T) {
	for name, raw := range map[string]string{
		"empty list": `{"manifests":[]}`, "null of a Go program": `{"schemaVersion":2,"manifests":null}`, "spaces": " {\n\"manifests\" :\t[ ] , \"x\":{}} \r\n",
		"null annotations":              `{"manifests":[{"digest":"` + string(digest.FromString("a")) + `","annotations":null,"size":1}]}`,
		"a digest that nobody can hash": `{"manifests":[{"digest":"blake3:00","size":1}]}`,
		"keys with escapes":             `{"man\u0069fests":[]}`,
	} {
		ix, err := parseIndex([]byte(raw), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		d := &draft{base: ix}
		if err := d.setTag("v1", desc("new")); err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := json.Unmarshal(d.next.encode().raw, &doc); err != nil {
			t.Errorf("%s: with a tag more it is %s: %v", name, d.next.raw, err)
		}
	}
}

func TestScannerAcceptsWhatEncodingJSONAccepts(t *testing.T) {
	for _, doc := range []string{
		`0`, `-0`, `01`, `1.`, `1.5e+3`, `1e`, `.5`, `-`, `"\u00e9"`, `"\x"`, `"\u12"`, "\"\x01\"", `"`, `"\`, `tru`, `true`, `nulll`, `{"a":1,}`, `{"a"}`, `{a:1}`, `[1 2]`, `[,]`, ` { } `, `{"a":[{"b":null}]}`,
		"\"\xff\"", `"\ud800"`, `[`, `{`, ``, `1e5`, `1E-5`, `--1`,
	} {
		checkScanner(t, doc)
	}
	rapid.Check(t, func(r *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{`{`, `}`, `[`, `]`, `,`, `:`, `"a"`, `"`, `\`, `1`, `-`, `.`, `e`, `null`, `true`, ` `, "\n", `"é"`, "\x00", "0"})).Draw(r, "parts")
		checkScanner(r, strings.Join(parts, ""))
	})
}

func checkScanner(t interface{ Errorf(string, ...any) }, doc string) {
	s := &scanner{b: []byte(doc)}
	_, err := s.skip(0)
	ok := err == nil && s.next() == 0 && s.i >= len(s.b)
	if want := json.Valid([]byte(doc)); ok != want {
		t.Errorf("%q: accepted is %v, encoding/json says %v (%v)", doc, ok, want, err)
	}
}

// Every change leaves maps that are those of the file when it is read anew, and reading only what differs gives the
// same as reading all.
func TestDraftAgreesWithTheFileItWrites(t *testing.T) {
	starts := []string{
		emptyIndex, `{"manifests":null,"x":1}`,
		indexJSON(entryJSON("a", "v1"), entryJSON("b", "v1"), entryJSON("c", "docker.io/library/x:v2"), entryJSON("d", "quay.io/y:v2"), entryJSON("e", "quay.io/z:v3")),
		"{\n  \"manifests\": [\n    " + entryJSON("a", "v1") + ",\n    " + entryJSON("a", "v2") + "\n  ],\n  \"annotations\": {}\n}\n",
		`{"manifests":[{"mediaType":"` + types.MediaTypeImageManifest + `","digest":"` + string(digest.FromString("a")) + `","size":1},{"digest":"odd:1"}]}`,
	}
	rapid.Check(t, func(r *rapid.T) {
		prev := mustIndex(t, rapid.SampledFrom(starts).Draw(r, "start"))
		tags := rapid.SampledFrom([]string{"v1", "v2", "v3", "v4"})
		content := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"})
		for range rapid.IntRange(1, 8).Draw(r, "commits") {
			if rapid.Bool().Draw(r, "sorted before") {
				prev.sorted()
			}
			d := &draft{base: prev}
			for range rapid.IntRange(1, 3).Draw(r, "changes") {
				var err error
				tag, c := tags.Draw(r, "tag"), desc(content.Draw(r, "content"))
				switch rapid.IntRange(0, 3).Draw(r, "kind") {
				case 0:
					err = d.setTag(tag, c)
					if e := d.now().lookup(tag); err == nil && (e == nil || e.digest != c.Digest) {
						r.Fatalf("%s was put and is not there", tag)
					}
				case 1:
					err = d.addUntagged(c)
				case 2:
					_, err = d.removeTag(tag)
					if err == nil && d.now().lookup(tag) != nil {
						r.Fatalf("%s was removed and is there", tag)
					}
				case 3:
					d.removeDigest(c.Digest)
				}
				if err != nil {
					r.Fatal(err)
				}
			}
			next := d.now()
			if d.next != nil {
				next = d.encode()
			}
			whole := mustIndex(t, string(next.raw))
			if diff := cmp.Diff(view(whole), view(next)); diff != "" {
				r.Fatalf("the file (-) is not what the draft says (+):\n%s\n%s", diff, next.raw)
			}
			part, err := parseIndex(slices.Clone(next.raw), prev)
			if err != nil {
				r.Fatal(err)
			}
			if diff := cmp.Diff(view(whole), view(part)); diff != "" || string(part.encode().raw) != string(whole.encode().raw) {
				r.Fatalf("read in part (+) it is not what it is read whole (-):\n%s", diff)
			}
			prev = part
		}
	})
}

// Pages of successive indexes are those of the index when it is read anew, however much of the order they share.
func TestPagesOfSuccessiveIndexes(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var entries []string
		for i := range rapid.IntRange(0, 40).Draw(r, "tags") {
			entries = append(entries, entryJSON(fmt.Sprint("content ", i), fmt.Sprintf("v%02d", i)))
		}
		ix := mustIndex(t, indexJSON(entries...))
		ix.sorted()
		names := rapid.Custom(func(r *rapid.T) string { return fmt.Sprintf("v%02d", rapid.IntRange(0, 99).Draw(r, "n")) })
		for i := range rapid.IntRange(1, 150).Draw(r, "commits") {
			d := &draft{base: ix}
			var err error
			if rapid.IntRange(0, 3).Draw(r, "kind") > 0 {
				err = d.setTag(names.Draw(r, "put"), desc(fmt.Sprint("new ", i)))
			} else {
				_, err = d.removeTag(names.Draw(r, "removed"))
			}
			if err != nil {
				r.Fatal(err)
			}
			if d.next != nil {
				ix = d.encode()
			}
		}
		want := mustIndex(t, string(ix.raw)).list()
		if len(want) == 0 {
			want = []string{}
		}
		if diff := cmp.Diff(want, ix.sorted()); diff != "" {
			r.Fatalf("all (-want +got):\n%s", diff)
		}
		last, limit := names.Draw(r, "last"), rapid.IntRange(0, 20).Draw(r, "limit")
		if diff := cmp.Diff(tag.Page(want, last, limit), ix.page(last, limit), cmpopts.EquateEmpty()); diff != "" {
			r.Fatalf("%d after %s (-want +got):\n%s", limit, last, diff)
		}
	})
}

// What a page costs must not grow with the index, also right after a commit: then nothing is sorted again.
func TestOrderIsSharedByCommits(t *testing.T) {
	ix := mustIndex(t, indexJSON(entryJSON("a", "a"), entryJSON("b", "b")))
	if ix.page("", 1); !ix.order.base.ready.Load() {
		t.Fatal("a page was made without the order")
	}
	for i := range 50 {
		d := &draft{base: ix}
		if err := d.setTag(fmt.Sprint("n", i), desc(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		next := d.encode()
		if next.order.base != ix.order.base {
			t.Fatalf("commit %d: the order is made anew", i)
		}
		if read, err := parseIndex(slices.Clone(next.raw), ix); err != nil || read.order.base != ix.order.base {
			t.Fatalf("commit %d: who reads what another process committed makes the order anew: %v", i, err)
		}
		ix = next
	}
}

func TestOnlyWhatDiffersIsReadAgain(t *testing.T) {
	var all []string
	for i := range 100 {
		all = append(all, entryJSON(fmt.Sprint("content ", i), fmt.Sprint("v", i)))
	}
	prev := mustIndex(t, indexJSON(all...))
	for name, change := range map[string]func([]string) []string{
		"appended":  func(a []string) []string { return append(a, entryJSON("new", "new")) },
		"replaced":  func(a []string) []string { a[50] = entryJSON("new", "v50"); return a },
		"removed":   func(a []string) []string { return slices.Delete(a, 50, 51) },
		"two apart": func(a []string) []string { a[40], a[60] = entryJSON("x", "v40"), entryJSON("y", "v60"); return a },
	} {
		raw := indexJSON(change(slices.Clone(all))...)
		ix := reparse([]byte(raw), prev)
		if ix == nil {
			t.Errorf("%s: everything was read again", name)
			continue
		}
		shared := 0
		for _, e := range ix.entries {
			if slices.Contains(prev.entries, e) {
				shared++
			}
		}
		if shared < 79 {
			t.Errorf("%s: only %d entries are shared", name, shared)
		}
		if diff := cmp.Diff(view(mustIndex(t, raw)), view(ix)); diff != "" {
			t.Errorf("%s (-whole +part):\n%s", name, diff)
		}
	}
}

func TestUnknownFieldsSurvive(t *testing.T) {
	odd := `{"mediaType":"` + types.MediaTypeImageManifest + `","digest":"` + string(digest.FromString("a")) + `","size":1,"platform":{"os":"linux"},"x-tool":{"n":1.50},"annotations":{"org.opencontainers.image.ref.name":"v1","io.containerd.image.name":"docker.io/library/a:v1","note":"<é>"}}`
	raw := "{\n \"schemaVersion\": 2,\n \"x-top\": [1.0, \"<&>\"],\n \"manifests\": [\n  " + odd + "\n ],\n \"annotations\": {\"k\": \"v\"}\n}\n"
	d := &draft{base: mustIndex(t, raw)}
	if err := d.setTag("v2", desc("b")); err != nil {
		t.Fatal(err)
	}
	got := string(d.next.encode().raw)
	for _, part := range []string{odd, "\n \"x-top\": [1.0, \"<&>\"],\n", "\n ],\n \"annotations\": {\"k\": \"v\"}\n}\n"} {
		if !strings.Contains(got, part) {
			t.Errorf("another tag was put, and %q is gone from\n%s", part, got)
		}
	}
	if err := d.setTag("v1", desc("c")); err != nil {
		t.Fatal(err)
	}
	ix := mustIndex(t, string(d.next.encode().raw))
	if e := ix.lookup("v1"); e.digest != digest.FromString("c") || e.image != "docker.io/library/a:v1" {
		t.Errorf("the tag moved: its entry is %s, want the new digest with containerd's name", e.raw)
	}
	kept, _ := ix.digests.get(digest.FromString("a"))
	rest := kept.e
	if rest == nil {
		t.Fatal("the former manifest has no entry any more")
	}
	for _, part := range []string{`"platform":{"os":"linux"}`, `"x-tool":{"n":1.50}`, `"note":"<é>"`} {
		if !strings.Contains(string(rest.raw), part) {
			t.Errorf("the entry that lost its tag lost %s, too: %s", part, rest.raw)
		}
	}
	if rest.name != "" || rest.image != "" {
		t.Errorf("the entry that lost its tag still has a name: %s", rest.raw)
	}
}

func TestNamesOfOtherTools(t *testing.T) {
	ix := mustIndex(t, indexJSON(
		entryJSON("old", "twice"), entryJSON("new", "twice"),
		entryJSON("full", "docker.io/library/alpine:3.18"),
		entryJSON("x", "a.io/x:both"), entryJSON("y", "b.io/y:both"),
		entryJSON("same", "a.io/x:agreed"), entryJSON("same", "b.io/y:agreed"),
		entryJSON("exact", "won"), entryJSON("full", "a.io/x:won"),
		entryJSON("port", "localhost:5000/x"), entryJSON("odd", "no tag at all!"),
	))
	for tag, want := range map[string]string{
		"twice": "new", "3.18": "full", "agreed": "same", "won": "exact", "both": "", "5000/x": "", "x": "",
	} {
		got := ""
		if e := ix.lookup(tag); e != nil {
			got = string(e.digest)
		}
		if want != "" {
			want = string(digest.FromString(want))
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", tag, got, want)
		}
	}
	if diff := cmp.Diff([]string{"3.18", "agreed", "twice", "won"}, ix.sorted()); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	d := &draft{base: ix}
	if err := d.setTag("twice", desc("newest")); err != nil {
		t.Fatal(err)
	}
	if h, _ := d.next.tags.get("twice"); h.n != 1 || h.e.digest != digest.FromString("newest") {
		t.Errorf("a put left %d entries of the tag, the last of %s", h.n, h.e.digest)
	}
	for _, lost := range []string{"old", "new"} {
		if _, there := d.next.digests.get(digest.FromString(lost)); !there {
			t.Errorf("the put lost %q: %v", lost, view(d.next))
		}
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(emptyIndex), []byte(indexJSON(entryJSON("a", "v1"))))
	f.Add([]byte(indexJSON(entryJSON("a", "v1"), entryJSON("b", "v2"))), []byte(indexJSON(entryJSON("a", "v1"), entryJSON("c", "v2"))))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		prev, err := parseIndex(a, nil)
		if err != nil {
			return
		}
		if !json.Valid(a) {
			t.Fatalf("accepted what is no JSON: %q", a)
		}
		whole, werr := parseIndex(b, nil)
		part, perr := parseIndex(b, prev)
		if (werr == nil) != (perr == nil) {
			t.Fatalf("read whole: %v, in part: %v", werr, perr)
		}
		if werr == nil {
			if diff := cmp.Diff(view(whole), view(part)); diff != "" {
				t.Fatalf("(-whole +part):\n%s", diff)
			}
		}
	})
}

// Many tags of one manifest go with it, and are taken out of the maps together (BenchmarkRemoveDigest says at what cost).
func TestManyTagsOfOneManifestAreRemovedAtOnce(t *testing.T) {
	const n = 200
	d := &draft{base: mustIndex(t, manyTags(n))}
	d.removeDigest(desc("one").Digest)
	next := d.encode()
	if again := mustIndex(t, string(next.raw)); len(next.entries) != n || len(d.dropped) != n || !cmp.Equal(view(next), view(again), cmpopts.EquateEmpty()) {
		t.Errorf("%d entries are left, %d were dropped", len(next.entries), len(d.dropped))
	}
}

// manyTags is an index of n tags of one manifest, and of n of others.
func manyTags(n int) string {
	var all []string
	for i := range n {
		all = append(all, entryJSON("one", fmt.Sprint("a", i)))
	}
	for i := range n {
		all = append(all, entryJSON(fmt.Sprint("b", i), fmt.Sprint("b", i)))
	}
	return indexJSON(all...)
}

// BenchmarkRemoveDigest deletes a manifest that 20,000 of 40,000 tags name: 20 ms, and not the square of that.
func BenchmarkRemoveDigest(b *testing.B) {
	ix := mustIndex(b, manyTags(20_000))
	for b.Loop() {
		d := &draft{base: ix}
		if !d.removeDigest(desc("one").Digest) {
			b.Fatal("it was not there")
		}
	}
}
