package ocidir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// queue has all of fns wait for the lock in that order, so that they are one group, and returns their errors.
func queue(t *testing.T, o *OCIDir, r ref.Ref, fns ...func() error) []error {
	t.Helper()
	l, err := o.use(r, r.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer o.release(l)
	held := holdLock(t, r.Root)
	defer held.Close()
	results := make([]error, len(fns))
	var wg sync.WaitGroup
	for i, fn := range fns {
		wg.Go(func() { results[i] = fn() })
		for waits := 0; waits <= i; time.Sleep(time.Millisecond) {
			l.commits.mu.Lock()
			waits = len(l.commits.waiting)
			l.commits.mu.Unlock()
		}
	}
	held.Close()
	wg.Wait()
	return results
}

func TestPutBehindADeleteOfTheSameManifestIsNotLost(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	it, other := schemetest.Image("a"), schemetest.Image("other")
	push(t, o, r.WithTag("v1"), it)
	push(t, o, r.WithTag("other"), other)
	put := func(tag string, it *schemetest.Item) func() error {
		return func() error {
			_, err := o.ManifestPut(t.Context(), r.WithTag(tag), it.Manifest)
			return err
		}
	}
	remove := func() error { return o.ManifestDelete(t.Context(), r.WithDigest(it.Manifest.Digest())) }
	got := queue(t, o, r, put("before", other), remove, put("v2", it), put("v3", it), remove, put("v4", it), put("v5", it))
	for i, err := range got {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	for _, api := range []*OCIDir{o, open(t)} {
		for _, tag := range []string{"v4", "v5", "before"} {
			if _, err := api.ManifestGet(t.Context(), r.WithTag(tag)); err != nil {
				t.Errorf("%s was acknowledged: %v", tag, err)
			}
		}
	}
	if tags := strings.Join(valid(t, r), " "); tags != "before other v4 v5" {
		t.Errorf("the tags are %s", tags)
	}
}

func TestSecondDeleteInAGroupFindsNothing(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	it := schemetest.Image("a")
	push(t, o, r.WithTag("v1"), it)
	remove := func() error { return o.ManifestDelete(t.Context(), r.WithDigest(it.Manifest.Digest())) }
	got := queue(t, o, r, remove, remove)
	if got[0] != nil || !errors.Is(got[1], errs.ErrManifestUnknown) {
		t.Errorf("got %v", got)
	}
}

// What a group committed before its lock was lost is not committed, or answered, again.
func TestLockLostBetweenBatches(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	a, b := schemetest.Image("a"), schemetest.Image("b")
	push(t, o, r.WithTag("a"), a)
	push(t, o, r.WithTag("b"), b)
	renames, lost := 0, false
	s.set(func(step, name string) error {
		switch {
		case step == stepRename && name == indexName:
			renames++
		case step == stepRemove && strings.HasPrefix(name, blobsDir) && !lost:
			lost = true
			return os.RemoveAll(filepath.Join(r.Root, stateDir))
		}
		return nil
	})
	got := queue(t, o, r,
		func() error { return o.ManifestDelete(t.Context(), r.WithDigest(a.Manifest.Digest())) },
		func() error {
			_, err := o.ManifestPut(t.Context(), r.WithTag("v2"), b.Manifest)
			return err
		})
	if got[0] != nil || got[1] != nil {
		t.Errorf("got %v", got)
	}
	if !lost || renames != 2 {
		t.Errorf("the lock was lost: %v; the index was written %d times, want 2", lost, renames)
	}
	if tags := strings.Join(valid(t, r), " "); tags != "b v2" {
		t.Errorf("the tags are %s", tags)
	}
}
