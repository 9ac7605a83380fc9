package schemetest

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var swapCases = []testCase{
	{
		name:  "only if it is there",
		rule:  "ManifestPut WithTagAt puts if the tag points to that manifest, and else answers ErrConflict and moves no tag",
		needs: []Feature{TagAt},
		run: func(e *env) {
			a, b := e.variants("a", 0), e.variants("a", 1)
			r := e.r.WithTag("v")
			e.refused("put at something where nothing is", e.swap(r, a, b.Manifest.Digest()), errs.ErrConflict)
			e.absent(r)
			e.must("put where nothing is", e.swap(r, a, ""))
			e.shows(r, a)
			e.refused("put where nothing is, once more", e.swap(r, b, ""), errs.ErrConflict)
			e.refused("the same content", e.swap(r, a, ""), errs.ErrConflict)
			e.refused("put at something else", e.swap(r, b, b.Manifest.Digest()), errs.ErrConflict)
			e.tags(e.r, "v")
			e.shows(r, a)
			e.must("put at what is there", e.swap(r, b, a.Manifest.Digest()))
			e.shows(r, b)
			e.shows(e.r.WithDigest(a.Manifest.Digest()), a)
			e.must("the same content at itself", e.swap(r, b, b.Manifest.Digest()))
		},
	}, {
		name:  "all tags or none",
		rule:  "a put WithTagAt that is refused sets none of WithTags either; the precondition is on the reference's tag alone",
		needs: []Feature{TagAt},
		run: func(e *env) {
			a, b := e.variants("a", 0), e.variants("a", 1)
			e.must("put", e.swap(e.r.WithTag("v"), a, "", "w"))
			e.refused("refused put", e.swap(e.r.WithTag("v"), b, b.Manifest.Digest(), "w", "x"), errs.ErrConflict)
			e.tags(e.r, "v", "w")
			e.shows(e.r.WithTag("w"), a)
			e.must("put", e.swap(e.r.WithTag("v"), b, a.Manifest.Digest(), "w"))
			e.shows(e.r.WithTag("w"), b)
		},
	}, {
		name:  "delete if it is there",
		rule:  "TagDelete WithTagDeleteAt removes the tag if it points to that manifest, and else answers ErrConflict and changes nothing",
		needs: []Feature{TagAt, TagDelete},
		run: func(e *env) {
			a := e.variants("a", 0)
			e.push(e.r.WithTag("v"), a)
			other := scheme.WithTagDeleteAt(digest.FromString("other"))
			e.refused("TagDelete at something else", e.api.TagDelete(e.ctx, e.r.WithTag("v"), other), errs.ErrConflict)
			e.shows(e.r.WithTag("v"), a)
			e.refused("TagDelete of no tag", e.api.TagDelete(e.ctx, e.r.WithTag("none"), other), errs.ErrNotFound)
			e.must("TagDelete", e.api.TagDelete(e.ctx, e.r.WithTag("v"), scheme.WithTagDeleteAt(a.Manifest.Digest())))
			e.absent(e.r.WithTag("v"))
		},
	}, {
		name:  "nonsense",
		rule:  "a precondition needs a tag and a digest that can be compared: ErrInvalid",
		needs: []Feature{TagAt},
		run: func(e *env) {
			a := e.variants("a", 0)
			e.refused("put by digest", e.swap(e.r.WithDigest(a.Manifest.Digest()), a, ""), errs.ErrInvalid)
			e.refused("put at no digest", e.swap(e.r.WithTag("v"), a, "sha256:../x"), errs.ErrInvalid)
			e.absent(e.r.WithTag("v"))
			e.absent(e.r.WithDigest(a.Manifest.Digest()))
		},
	}, {
		name:  "one wins",
		rule:  "of several puts WithTagAt the same manifest at once exactly one succeeds, and the others answer ErrConflict",
		needs: []Feature{TagAt},
		run: func(e *env) {
			apis := []scheme.API{e.api}
			if e.h.Reopen != nil {
				e.begin()
				apis = append(apis, e.h.Reopen(e.t, e.api, e.r))
			}
			r, at := e.r.WithTag("v"), digest.Digest("")
			for round := range 5 {
				at = e.swapAtOnce(apis, r, at, round)
			}
		},
	},
}

// variants makes the n-th of several images with the same content, which is put.
func (e *env) variants(name string, n int) *Item {
	e.t.Helper()
	it := Image(name, Annotation("variant", fmt.Sprint(n)))
	e.must("content", it.PushContent(e.ctx, e.api, e.r))
	return it
}

func (e *env) swap(r ref.Ref, it *Item, at digest.Digest, tags ...string) error {
	_, err := e.api.ManifestPut(e.ctx, r, it.Manifest, scheme.WithTagAt(at), scheme.WithTags(tags...))
	return err
}

// swapAtOnce lets many writers replace what r's tag points to, and returns what it points to then.
func (e *env) swapAtOnce(apis []scheme.API, r ref.Ref, at digest.Digest, round int) digest.Digest {
	won := make([]bool, e.h.Writers)
	all := make([]*Item, e.h.Writers)
	for i := range all {
		all[i] = e.variants("race", round*e.h.Writers+i)
	}
	var writers errgroup.Group
	for i, it := range all {
		writers.Go(func() error {
			_, err := apis[i%len(apis)].ManifestPut(e.ctx, r, it.Manifest, scheme.WithTagAt(at))
			won[i] = err == nil
			if errors.Is(err, errs.ErrConflict) {
				return nil
			}
			return err
		})
	}
	e.must("a writer", writers.Wait())
	d, err := e.api.ManifestHead(e.ctx, r)
	e.must("ManifestHead", err)
	winners := 0
	for i, it := range all {
		if won[i] {
			winners++
			e.same("what the tag points to", d.Digest, it.Manifest.Digest())
		}
	}
	e.same("how many succeeded", winners, 1)
	return d.Digest
}
