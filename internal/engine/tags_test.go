package engine_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

type refT = ref.Ref

func TestPatterns(t *testing.T) {
	w := newWorld(t)
	w.atSource().image([]string{"layer"}, "latest", "v1", "v1.2", "v1.2-rc1", "v2", "edge")
	for _, c := range []struct {
		patterns []string
		want     string
	}{
		{nil, "edge latest v1 v1.2 v1.2-rc1 v2"},
		{[]string{"*"}, "edge latest v1 v1.2 v1.2-rc1 v2"},
		{[]string{"v1"}, "v1"},
		{[]string{"v?"}, "v1 v2"},
		{[]string{"v[12]"}, "v1 v2"},
		{[]string{"v1*", "latest"}, "latest v1 v1.2 v1.2-rc1"},
		{[]string{"v1*", "!*-rc*"}, "v1 v1.2"},
		{[]string{"!*-rc*", "v1*"}, "v1 v1.2"},
		{[]string{"!v*"}, "edge latest"},
		{[]string{"regex:v[0-9.]+"}, "v1 v1.2 v2"},
		{[]string{"regex:v1|edge"}, "edge v1"},
		{[]string{"*", "!regex:v.*"}, "edge latest"},
		{[]string{"none"}, ""},
	} {
		w := w.again(t)
		rep := w.copy(engine.Options{AllTags: true, NoReferrers: true, Tags: c.patterns})
		var got []string
		for _, im := range rep.Images {
			got = append(got, im.Source[strings.LastIndex(im.Source, ":")+1:])
		}
		if list, err := w.dst.base.TagList(context.Background(), w.to); c.want != "" && (err != nil || !slices.Equal(list.Tags, got)) {
			t.Errorf("%q: target has %v (%v), reported %v", c.patterns, list.Tags, err, got)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: got %v, want %s", c.patterns, got, c.want)
		}
	}
}

func TestWhatMakesNoSenseIsRefusedBeforeAnyCall(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name     string
		src, dst ref.Ref
		tags     []string
	}{
		{"a tag with all tags", w.from.WithTag("x"), w.to, nil},
		{"a target tag with all tags", w.from, w.to.WithTag("x"), nil},
		{"a bad glob", w.from, w.to, []string{"v[1"}},
		{"a bad glob that excludes", w.from, w.to, []string{"!v[1"}},
		{"a bad expression", w.from, w.to, []string{"regex:("}},
		{"an expression that leaves its brackets", w.from, w.to, []string{"regex:a)|(b"}},
		{"an empty pattern", w.from, w.to, []string{""}},
		{"nothing but an exclamation mark", w.from, w.to, []string{"!"}},
		{"no source", ref.Ref{}, w.to, nil},
	} {
		rep, err := w.engine.Copy(context.Background(), c.src, c.dst, engine.Options{AllTags: true, Tags: c.tags})
		if !errors.Is(err, errs.ErrInvalid) || rep == nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if n := len(w.src.seen()) + len(w.dst.seen()); n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestATagOnBothSidesIsComparedAndOthersAreNotAskedFor(t *testing.T) {
	w := newWorld(t)
	same := w.atSource().image([]string{"same"}, "same")
	w.atTarget().image([]string{"same"}, "same")
	w.atSource().image([]string{"new of moved"}, "moved")
	w.atTarget().image([]string{"old of moved"}, "moved", "extra")
	w.atSource().image([]string{"added"}, "added")
	rep := w.copy(plainAll)
	if rep.Copied != 2 || rep.Unchanged != 1 || w.tag("same") != same.Digest || w.tag("extra") == "" {
		t.Errorf("%+v", rep)
	}
	if w.dst.count("ManifestHead same") != 1 || w.dst.count("ManifestHead moved") != 1 || w.dst.count("ManifestHead added") != 0 || w.src.count("ManifestHead added") != 0 || w.src.count("ManifestGet added") != 1 {
		t.Errorf("%v %v", w.src.seen(), w.dst.seen())
	}
}

func TestCosignsTagsAreNoImagesOfTheirOwn(t *testing.T) {
	amd := []types.Platform{{OS: "linux", Architecture: "amd64"}}
	for _, c := range []struct {
		name         string
		o            engine.Options
		index, child bool // whose signature is copied
	}{
		{"all", engine.Options{AllTags: true}, true, true},
		{"without referrers", engine.Options{AllTags: true, NoReferrers: true}, false, false},
		{"without referrers, by a pattern", engine.Options{AllTags: true, NoReferrers: true, Tags: []string{"latest", "sha256-*"}}, false, false},
		{"platforms", engine.Options{AllTags: true, Platforms: amd}, true, true},
		{"a rewritten index", engine.Options{AllTags: true, Platforms: amd, Rewrite: true}, false, true},
		{"nothing to rewrite", engine.Options{AllTags: true, Rewrite: true}, true, true},
	} {
		w := newWorld(t)
		b := w.atSource()
		child := b.image([]string{"amd64"})
		index := b.index([]types.Descriptor{on(child, "linux/amd64"), on(b.image([]string{"arm64"}), "linux/arm64")}, "latest")
		sig := func(d types.Descriptor) string { return "sha256-" + d.Digest.Encoded() + ".sig" }
		b.image([]string{"signature of the index"}, sig(index))
		b.image([]string{"signature of the child"}, sig(child))
		w.copy(c.o)
		if got := w.tag(sig(index)) != ""; got != c.index {
			t.Errorf("%s: the index's signature is copied: %v", c.name, got)
		}
		if got := w.tag(sig(child)) != ""; got != c.child {
			t.Errorf("%s: the image's signature is copied: %v", c.name, got)
		}
		if w.tag("latest") == "" {
			t.Errorf("%s: the image is not", c.name)
		}
	}
}

func TestAnIndexWithGapsAtTheSourceSaysWhatToDo(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	here, gone := b.image([]string{"amd64"}), b.image([]string{"arm64"})
	b.index([]types.Descriptor{on(here, "linux/amd64"), on(gone, "linux/arm64")}, "latest")
	if err := w.src.base.ManifestDelete(context.Background(), w.from.Place().WithDigest(gone.Digest)); err != nil {
		t.Fatal(err)
	}
	_, err := w.engine.Copy(context.Background(), w.from, w.to, engine.Options{})
	if !errors.Is(err, errs.ErrNotFound) || !strings.Contains(errs.Hint(err), "--platform") || strings.Count(err.Error(), string(gone.Digest)) != 1 {
		t.Errorf("got %v, hint %q", err, errs.Hint(err))
	}
	w.copy(engine.Options{Platforms: []types.Platform{{OS: "linux", Architecture: "amd64"}}, Rewrite: true})
}
