package ocidir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/ref"
)

func TestTwoProcessesKeepAllTags(t *testing.T) {
	const each = 500
	o, r := open(t), place(t.TempDir())
	push(t, o, r.WithTag("first"), schemetest.Opaque("first"))
	startCrowd(t, r.Root, 2, 8, each).run()
	expectCrowd(t, r, 2, each)
}

func TestTwoAPIsOfOneProcessKeepAllTags(t *testing.T) {
	const each = 500
	r := place(t.TempDir())
	var g errgroup.Group
	for p := range 2 {
		o := open(t)
		for w := range 8 {
			g.Go(func() error {
				for i := w + 1; i <= each; i += 8 {
					tag := fmt.Sprintf("p%d-%d-%d", p, each, i)
					if err := schemetest.Opaque(tag).Push(t.Context(), o, r.WithTag(tag)); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	expectCrowd(t, r, 2, each)
}

// expectCrowd expects the tags of processes that wrote count each, and nothing to be missed.
func expectCrowd(t *testing.T, r ref.Ref, processes, count int) {
	t.Helper()
	there := map[string]bool{}
	for _, tag := range valid(t, r) {
		there[tag] = true
	}
	for p := range processes {
		for i := range count {
			if tag := fmt.Sprintf("p%d-%d-%d", p, count, i+1); !there[tag] {
				t.Errorf("%s was acknowledged and is lost", tag)
			}
		}
	}
	if gone := vanishedTags(t, open(t), r); len(gone) > 0 {
		t.Errorf("%q are said to be dropped by somebody else", gone)
	}
	if left := leftovers(t, r.Root); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

func TestReferrersOfManyWritersAreAllListed(t *testing.T) {
	const writers = 64
	r := place(t.TempDir())
	base := schemetest.Image("base")
	apis := []*OCIDir{open(t), open(t)}
	push(t, apis[0], r.WithTag("v1"), base)
	want := map[digest.Digest]bool{}
	var g errgroup.Group
	for i := range writers {
		it := schemetest.Image(fmt.Sprint("sig ", i), schemetest.Subject(base.Descriptor()), schemetest.ArtifactType("application/x-sig"))
		want[it.Manifest.Digest()] = true
		g.Go(func() error {
			return it.Push(context.WithoutCancel(t.Context()), apis[i%2], r.WithDigest(it.Manifest.Digest()))
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for who, o := range map[string]*OCIDir{"a writer": apis[0], "another": apis[1], "a reader": open(t)} {
		l, err := o.ReferrerList(t.Context(), r.WithTag("v1"))
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, d := range l.Descriptors {
			if want[d.Digest] {
				found++
			}
		}
		if found != writers || len(l.Descriptors) != writers {
			t.Errorf("%s sees %d of %d referrers, and %d others", who, found, writers, len(l.Descriptors)-found)
		}
	}
}

// A process whose lock file was deleted while it had the lock does not write the index once another one has the lock.
func TestTwoHoldersOfTheLockAreImpossible(t *testing.T) {
	s := &steps{}
	o, other, r := open(t, withHook(s.hook)), open(t), place(t.TempDir())
	a := schemetest.Opaque("a")
	push(t, o, r.WithTag("v1"), a)
	deleted := false
	s.set(func(step, name string) error {
		// The new index is written: the lock was checked when it was taken, and is checked again before the exchange.
		if step != stepWrite || !strings.HasPrefix(name, ingestDir) || deleted {
			return nil
		}
		deleted = true
		if err := os.RemoveAll(filepath.Join(r.Root, stateDir)); err != nil {
			return err
		}
		return a.Push(t.Context(), other, r.WithTag("theirs"))
	})
	if _, err := o.ManifestPut(t.Context(), r.WithTag("ours"), a.Manifest); err != nil {
		t.Fatal(err)
	}
	s.set(nil)
	if tags := strings.Join(tagsOf(t, open(t), r), " "); tags != "ours theirs v1" || !deleted {
		t.Errorf("the tags are %s", tags)
	}
	if left := leftovers(t, r.Root); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

// A process that commits all the time does not keep another one from its turn: the other one gets the lock while the first
// is still at it.
func TestBusyProcessLeavesOthersTheirTurn(t *testing.T) {
	r := place(t.TempDir())
	busy, other := open(t), open(t)
	a := schemetest.Opaque("a")
	push(t, busy, r.WithTag("v1"), a)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var g errgroup.Group
	for w := range 8 {
		g.Go(func() error {
			for i := 0; ctx.Err() == nil; i++ {
				_, err := busy.ManifestPut(t.Context(), r.WithTag(fmt.Sprint("busy-", w, "-", i%3)), schemetest.Opaque(fmt.Sprint(w, i)).Manifest)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range 20 {
		if err := a.Push(ctx, other, r.WithTag(fmt.Sprint("other-", i))); err != nil {
			t.Errorf("put %d beside a busy process: %v", i, err)
			break
		}
	}
	stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
