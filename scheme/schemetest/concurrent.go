package schemetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

var concurrentCases = []testCase{
	{
		name: "different tags",
		rule: "writers of different tags lose nothing of each other, and readers see complete images meanwhile",
		run: func(e *env) {
			e.begin()
			var want []string
			done := make(chan struct{})
			var readers, writers errgroup.Group
			readers.Go(func() error { return e.watch(done) })
			for i := range e.h.Writers {
				t := fmt.Sprintf("v%03d", i)
				want = append(want, t)
				writers.Go(func() error { return Image(t).Push(e.ctx, e.api, e.r.WithTag(t)) })
			}
			e.must("a writer", writers.Wait())
			close(done)
			e.must("the reader", readers.Wait())
			e.tags(e.r, want...)
			for _, t := range want {
				e.shows(e.r.WithTag(t), Image(t))
			}
		},
	}, {
		name: "the same tag",
		rule: "puts of one tag happen one after another: a reader never sees an older one again, and the last one stays",
		run: func(e *env) {
			it := Image("versions")
			e.must("content", it.PushContent(e.ctx, e.api, e.r))
			version := map[digest.Digest]int{}
			var all []*Item
			for i := range 4 * e.h.Writers {
				v := Image("versions", Annotation("version", fmt.Sprint(i)))
				version[v.Manifest.Digest()] = i
				all = append(all, v)
			}
			r := e.r.WithTag("v")
			e.push(r, all[0])
			done := make(chan struct{})
			var readers errgroup.Group
			for range 3 {
				readers.Go(func() error { return e.follow(r, version, done) })
			}
			for _, v := range all[1:] {
				_, err := e.api.ManifestPut(e.ctx, r, v.Manifest)
				e.must("ManifestPut", err)
				d, err := e.api.ManifestHead(e.ctx, r)
				e.must("ManifestHead", err)
				if d.Digest != v.Manifest.Digest() {
					e.errorf("the tag points to version %d after %d was put", version[d.Digest], version[v.Manifest.Digest()])
				}
			}
			close(done)
			e.must("a reader", readers.Wait())
			e.shows(r, all[len(all)-1])
		},
	}, {
		name: "the same tag, many writers",
		rule: "of several puts of one tag at once one is the last, and everything that was put stays readable by digest",
		run: func(e *env) {
			it := Image("rivals")
			e.must("content", it.PushContent(e.ctx, e.api, e.r))
			r := e.r.WithTag("v")
			all := make([]*Item, e.h.Writers)
			var writers errgroup.Group
			for i := range all {
				all[i] = Image("rivals", Annotation("writer", fmt.Sprint(i)))
				writers.Go(func() error {
					_, err := e.api.ManifestPut(e.ctx, r, all[i].Manifest)
					return err
				})
			}
			e.must("a writer", writers.Wait())
			e.tags(e.r, "v")
			d, err := e.api.ManifestHead(e.ctx, r)
			e.must("ManifestHead", err)
			if !slices.ContainsFunc(all, func(it *Item) bool { return it.Manifest.Digest() == d.Digest }) {
				e.errorf("the tag points to %s, which nobody put", d.Digest)
			}
			for _, it := range all {
				e.shows(e.r.WithDigest(it.Manifest.Digest()), it)
			}
		},
	}, {
		name: "the same blob",
		rule: "several puts of one blob at once all succeed, and the blob is whole as soon as the first one returns",
		run: func(e *env) {
			data := Blob("popular", e.h.BlobSize)
			var writers errgroup.Group
			for range e.h.Writers {
				writers.Go(func() error {
					d, err := e.api.BlobPut(e.ctx, e.r, describe("", data), onlyReader{bytes.NewReader(data)})
					if err != nil {
						return err
					}
					got, err := readBlob(e.ctx, e.api, e.r, d)
					if err == nil && !bytes.Equal(got, data) {
						err = fmt.Errorf("it reads as %d other bytes", len(got))
					}
					return err
				})
			}
			e.must("a writer", writers.Wait())
			e.holds(e.r, digest.FromBytes(data), data)
		},
	}, {
		name: "right and wrong content",
		rule: "a put of wrong content that fails does not take away the right content that another one puts at the same time",
		run: func(e *env) {
			data := Blob("contested", 100_000)
			var writers errgroup.Group
			for i := range e.h.Writers {
				writers.Go(func() error {
					if i%2 == 0 {
						_, err := e.api.BlobPut(e.ctx, e.r, describe("", data), bytes.NewReader(data))
						return err
					}
					wrong := bytes.Clone(data)
					wrong[len(wrong)-1]++
					_, err := e.api.BlobPut(e.ctx, e.r, describe("", data), bytes.NewReader(wrong))
					if err != nil && !errors.Is(err, errs.ErrDigestMismatch) { // nil: it was there already, and not read
						return err
					}
					return nil
				})
			}
			e.must("a writer", writers.Wait())
			e.holds(e.r, digest.FromBytes(data), data)
		},
	}, {
		name: "referrers",
		rule: "referrers that are put at the same time are all listed",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("subject"))
			all := make([]*Item, e.h.Writers)
			var writers errgroup.Group
			for i := range all {
				all[i] = Image(fmt.Sprint("signature ", i), Subject(it.Descriptor()))
				writers.Go(func() error { return all[i].Push(e.ctx, e.api, e.r.WithDigest(all[i].Manifest.Digest())) })
			}
			e.must("a writer", writers.Wait())
			e.referrers(e.r.WithTag("v1"), referrer.Filter{}, all...)
		},
	}, {
		name:  "puts and deletes",
		rule:  "a tag that is put and deleted at the same time is there or not there, and all others are untouched",
		needs: []Feature{TagDelete},
		run: func(e *env) {
			it := e.push(e.r.WithTag("kept"), Image("churn"))
			var all errgroup.Group
			for i := range e.h.Writers {
				r := e.r.WithTag(fmt.Sprint("churn", i/2))
				all.Go(func() error {
					for range 3 {
						var err error
						if i%2 == 0 {
							_, err = e.api.ManifestPut(e.ctx, r, it.Manifest)
						} else if err = e.api.TagDelete(e.ctx, r); errors.Is(err, errs.ErrNotFound) {
							err = nil
						}
						if err != nil {
							return err
						}
					}
					return nil
				})
			}
			e.must("put or delete", all.Wait())
			e.shows(e.r.WithTag("kept"), it)
			e.shows(e.r.WithDigest(it.Manifest.Digest()), it)
			l, err := e.api.TagList(e.ctx, e.r)
			e.must("TagList", err)
			for _, t := range l.Tags {
				e.shows(e.r.WithTag(t), it)
			}
		},
	}, {
		name: "new repositories",
		rule: "repositories that come into being at the same time do not disturb each other",
		run: func(e *env) {
			var writers errgroup.Group
			for i := range e.h.Writers {
				r := e.r
				if i%2 == 0 {
					r = e.other
				}
				t := fmt.Sprintf("v%03d", i)
				writers.Go(func() error { return Image(t).Push(e.ctx, e.api, r.WithTag(t)) })
			}
			e.must("a writer", writers.Wait())
			var odd, even []string
			for i := range e.h.Writers {
				if t := fmt.Sprintf("v%03d", i); i%2 == 0 {
					even = append(even, t)
				} else {
					odd = append(odd, t)
				}
			}
			e.tags(e.r, odd...)
			l, err := e.api.TagList(e.ctx, e.other)
			e.must("TagList of the other", err)
			e.same("tags of the other", l.Tags, even)
		},
	},
}

// watch looks at the repository until done is closed, once at least: whatever is listed is complete.
func (e *env) watch(done <-chan struct{}) error {
	for last := false; ; {
		l, err := e.api.TagList(e.ctx, e.r)
		if err != nil {
			return err
		}
		if !slices.IsSorted(l.Tags) {
			return fmt.Errorf("the tags are not sorted: %q", l.Tags)
		}
		for _, t := range l.Tags[max(0, len(l.Tags)-3):] {
			if err := e.complete(e.r.WithTag(t)); err != nil {
				return fmt.Errorf("tag %s is listed and not complete: %w", t, err)
			}
		}
		if last {
			return nil
		}
		select {
		case <-done:
			last = true
		default:
		}
	}
}

// complete reports what r's manifest lacks.
func (e *env) complete(r ref.Ref) error {
	m, err := e.api.ManifestGet(e.ctx, r)
	if err != nil {
		return err
	}
	v, err := m.View()
	if err != nil {
		return err
	}
	for _, d := range v.Children() {
		if _, err := e.api.BlobHead(e.ctx, r, types.Descriptor{Digest: d.Digest}); err != nil {
			return err
		}
	}
	return nil
}

// follow reads r until done is closed and expects its version never to decrease.
func (e *env) follow(r ref.Ref, version map[digest.Digest]int, done <-chan struct{}) error {
	seen := 0
	for {
		m, err := e.api.ManifestGet(e.ctx, r)
		if err != nil {
			return err
		}
		v, known := version[m.Digest()]
		if !known || v < seen {
			return fmt.Errorf("version %d (%s) was read after %d", v, m.Digest(), seen)
		}
		seen = v
		select {
		case <-done:
			return nil
		default:
		}
	}
}
