package schemetest

import (
	"fmt"
	"slices"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
)

// someTags are in byte order, which is no other order.
var someTags = []string{"0", "1", "1.0", "1.0-rc", "1.0.0", "10", "9", "A", "Z", "_", "a", "a-b", "a.b", "a_b", "ab", "latest", "z"}

var tagCases = []testCase{
	{
		name: "order",
		rule: "TagList lists all tags in byte order, however they were put",
		run: func(e *env) {
			e.tagAll()
			e.tags(e.r, someTags...)
		},
	}, {
		name: "pages",
		rule: "pages of any size, each beginning after the last tag of the one before, give every tag once; More says whether there is another",
		run: func(e *env) {
			e.tagAll()
			for size := 1; size <= len(someTags)+1; size++ {
				var all []string
				last, more := "", true
				for more && len(all) <= len(someTags) {
					l, err := e.api.TagList(e.ctx, e.r, scheme.WithTagLimit(size), scheme.WithTagLast(last))
					e.must("TagList", err)
					if len(l.Tags) == 0 || len(l.Tags) > size {
						e.fatalf("a page of %d after %q has %d tags", size, last, len(l.Tags))
					}
					all = append(all, l.Tags...)
					last, more = l.Tags[len(l.Tags)-1], l.More
				}
				e.same(fmt.Sprintf("pages of %d", size), all, someTags)
			}
		},
	}, {
		name: "last",
		rule: "TagList gives the tags after last in byte order; last itself need not exist",
		run: func(e *env) {
			e.tagAll()
			for _, last := range append(slices.Clone(someTags), "-", "5", "1.0.00", "B", "aa", "zz", "zzzzzzzz") {
				l, err := e.api.TagList(e.ctx, e.r, scheme.WithTagLast(last))
				e.must("TagList after "+last, err)
				want := []string{}
				for _, t := range someTags {
					if t > last {
						want = append(want, t)
					}
				}
				e.same("tags after "+last, append([]string{}, l.Tags...), want)
				if l.More {
					e.errorf("tags after %s, all of them: More is true", last)
				}
			}
		},
	}, {
		name: "limit 0",
		rule: "a limit of 0 gives no tags",
		run: func(e *env) {
			e.tagAll()
			l, err := e.api.TagList(e.ctx, e.r, scheme.WithTagLimit(0))
			e.must("TagList", err)
			e.same("tags", len(l.Tags), 0)
		},
	}, {
		name: "no tags",
		rule: "a repository without tags gives an empty list",
		run: func(e *env) {
			e.begin()
			e.tags(e.r)
			it := Image("untagged")
			e.push(e.r.WithDigest(it.Manifest.Digest()), it)
			e.tags(e.r)
		},
	}, {
		name: "no repository",
		rule: "a repository that does not exist is ErrNotFound, and never an empty list",
		run: func(e *env) {
			_, err := e.api.TagList(e.ctx, e.r)
			e.refused("TagList", err, errs.ErrNotFound)
			_, err = e.api.TagList(e.ctx, e.r, scheme.WithTagLimit(3), scheme.WithTagLast("x"))
			e.refused("TagList of a page", err, errs.ErrNotFound)
		},
	}, {
		name: "longest",
		rule: "a tag of 128 characters is a tag like any other",
		run: func(e *env) {
			long := string(slices.Repeat([]byte("x"), 128))
			it := e.push(e.r.WithTag(long), Image("long"))
			e.shows(e.r.WithTag(long), it)
			e.tags(e.r, long)
		},
	},
}

// tagAll gives someTags to one image, in another order.
func (e *env) tagAll() {
	e.t.Helper()
	it := Image("tagged")
	e.must("content", it.PushContent(e.ctx, e.api, e.r))
	for i := range someTags {
		t := someTags[i*7%len(someTags)]
		_, err := e.api.ManifestPut(e.ctx, e.r.WithTag(t), it.Manifest)
		e.must("ManifestPut "+t, err)
	}
}
