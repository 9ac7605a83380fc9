package ocidir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// openedLayout returns r's layout for the length of a test.
func openedLayout(t testing.TB, o *OCIDir, r ref.Ref) *layout {
	t.Helper()
	l, end, err := o.begin(t.Context(), "test", r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	return l
}

// Two processes are two OCIDirs here. What runs under the lock sees what was committed before it, and nothing of what
// comes behind it.
func TestUnderLock(t *testing.T) {
	a, b, r := open(t), open(t), place(t.TempDir())
	push(t, a, r.WithTag("v1"), schemetest.Opaque("v1"))
	la := openedLayout(t, a, r)
	var inside, clash atomic.Int32
	put := func(o *OCIDir, tag string) func() error {
		return func() error { return schemetest.Opaque(tag).Push(t.Context(), o, r.WithTag(tag)) }
	}
	saw := map[string]bool{}
	locked := func() error {
		return la.underLock(t.Context(), func(lock *fileLock, now *cached) error {
			if inside.Add(1) > 1 {
				clash.Add(1)
			}
			defer inside.Add(-1)
			for _, tag := range []string{"before", "behind"} {
				saw[tag] = now.ix.lookup(tag) != nil
			}
			f, err := os.Open(filepath.Join(r.Root, lockName))
			if err != nil {
				return err
			}
			defer f.Close()
			if err := lockFile(f, false); !errors.Is(err, errLocked) {
				t.Errorf("another process can have the lock: %v", err)
			}
			ours, err := lock.valid()
			if !ours {
				t.Error("the lock is not ours")
			}
			return err
		})
	}
	for i, err := range queue(t, a, r, put(a, "before"), locked, put(a, "behind"), locked) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := put(b, "other")(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]bool{"before": true, "behind": true}, saw); diff != "" || clash.Load() > 0 {
		t.Errorf("%d ran at once; the last one saw (-want +got):\n%s", clash.Load(), diff)
	}
	failed := errors.New("failed")
	if err := la.underLock(t.Context(), func(*fileLock, *cached) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v, want the error of what ran", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := la.underLock(ctx, func(*fileLock, *cached) error { t.Error("it ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestVanishedList(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	push(t, o, r.WithTag("v1"), schemetest.Opaque("v1"))
	l := openedLayout(t, o, r)
	when := time.Unix(1e9, 0).UTC()
	there := schemetest.Opaque("v1").Descriptor()
	want := sortVanished([]vanishedRoot{
		{desc("gone"), "v2", when}, {desc("gone"), "", when}, {desc("other"), "", when}, {there, "moved", when},
	})
	if err := l.writeVanished(append(want, vanishedRoot{there, "v1", when}, vanishedRoot{there, "", when})); err != nil {
		t.Fatal(err)
	}
	same := cmp.AllowUnexported(vanishedRoot{})
	got, err := l.vanished(t.Context())
	if diff := cmp.Diff(want, got, same); err != nil || diff != "" {
		t.Errorf("%v; what is listed again is not vanished (-want +got):\n%s", err, diff)
	}
	if err := l.forgetVanished(desc("gone").Digest, there.Digest); err != nil {
		t.Fatal(err)
	}
	got, err = l.vanished(t.Context())
	if diff := cmp.Diff([]vanishedRoot{{desc("other"), "", when}}, got, same); err != nil || diff != "" {
		t.Errorf("after some were given up: %v (-want +got):\n%s", err, diff)
	}
	if err := l.forgetVanished(desc("other").Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(r.Root, vanishedName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing is missed any more, and the list is there: %v", err)
	}
	writeFile(t, r.Root, vanishedName, []byte(`{"vanished":[{"digest":"../../x","size":1},{"digest":"`+string(desc("a").Digest)+`","size":1,"tag":"../x"}]}`))
	if got, err = l.vanished(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("what cannot be a root: got %v, %v", got, err)
	}
	writeFile(t, r.Root, vanishedName, []byte("{"))
	if _, err = l.vanished(t.Context()); !errors.Is(err, errs.ErrCorrupt) || errs.Hint(err) == "" {
		t.Errorf("a torn list: got %v, want ErrCorrupt with a hint", err)
	}
}
