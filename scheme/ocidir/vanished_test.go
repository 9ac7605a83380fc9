package ocidir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ocisync/ocisync/scheme"
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

// vanishedTags returns the tags of the roots that are missed, or the digests of those without.
func vanishedTags(t *testing.T, o *OCIDir, r ref.Ref) (tags []string) {
	t.Helper()
	l, end, err := o.begin(t.Context(), "test", r)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	all, err := l.vanished(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		tags = append(tags, cmpOr(v.tag, string(v.desc.Digest)))
	}
	slices.Sort(tags)
	return tags
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// oras-go reads the index once, and saves what it read long after we committed.
func TestStaleIndexOfAnotherTool(t *testing.T) {
	a, b, c := schemetest.Opaque("a"), schemetest.Opaque("b"), schemetest.Opaque("c")
	for name, save := range map[string]func(strange, []byte){"by rename": strange.replace, "in place": strange.write} {
		t.Run(name, func(t *testing.T) {
			o, r := open(t), place(t.TempDir())
			push(t, o, r.WithTag("v1"), a)
			them := strange{t, r}
			stale := them.with("theirs", a)
			push(t, o, r.WithTag("b"), b)
			push(t, open(t), r.WithTag("c"), c)
			push(t, open(t), r.WithTag("a-too"), a)
			if got := vanishedTags(t, o, r); len(got) > 0 {
				t.Errorf("before: %q are missed", got)
			}
			save(them, stale)
			want := []string{"a-too", "b", "c"}
			check := func(when string) {
				t.Helper()
				for who, api := range map[string]*OCIDir{"who wrote": o, "another": open(t)} {
					if diff := cmp.Diff(want, vanishedTags(t, api, r)); diff != "" {
						t.Errorf("%s: %s misses (-want +got):\n%s", when, who, diff)
					}
				}
			}
			check("saved")
			push(t, o, r.WithTag("next"), a)
			check("after our next commit")
			if diff := cmp.Diff([]string{"next", "theirs", "v1"}, tagsOf(t, o, r)); diff != "" {
				t.Errorf("what they dropped must not come back by itself (-want +got):\n%s", diff)
			}
			push(t, o, r.WithTag("c"), c)
			want = []string{"a-too", "b"}
			check("c was put again")
			if err := o.TagDelete(t.Context(), r.WithTag("c")); err != nil {
				t.Fatal(err)
			}
			check("and deleted by us")
			if err := o.ManifestDelete(t.Context(), r.WithDigest(b.Manifest.Digest())); err != nil {
				t.Fatal(err)
			}
			want = []string{"a-too"}
			check("b was deleted by us")
			l := openedLayout(t, o, r)
			err := l.underLock(t.Context(), func(*fileLock, *cached) error { return l.forgetVanished(a.Manifest.Digest()) })
			if err != nil {
				t.Fatal(err)
			}
			want = nil
			check("given up")
		})
	}
}

// A list that makes no sense is given up by who asks for that, and by nobody else.
func TestGivingUpADamagedList(t *testing.T) {
	r := place(t.TempDir())
	alone(t, func(o *OCIDir) error { return schemetest.Opaque("a").Push(t.Context(), o, r.WithTag("v1")) })
	writeFile(t, r.Root, vanishedName, []byte("{"))
	if _, err := collect(t, r); !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(errs.Hint(err), "--vanished") {
		t.Errorf("got %v, want ErrCorrupt and advice", err)
	}
	for range 2 {
		if _, err := collect(t, r, scheme.WithVanished()); err != nil {
			t.Error(err)
		}
	}
	if _, err := collect(t, r); err != nil {
		t.Errorf("after it was given up: %v", err)
	}
}

// Who gives up what was dropped is not told of it again, also before the next commit.
func TestForgottenBeforeTheNextCommit(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	push(t, o, r.WithTag("v1"), schemetest.Opaque("a"))
	them := strange{t, r}
	stale := them.with("theirs", schemetest.Opaque("a"))
	b, c := schemetest.Opaque("b"), schemetest.Opaque("c")
	push(t, o, r.WithTag("b"), b)
	push(t, o, r.WithTag("c"), c)
	them.write(stale)
	l := openedLayout(t, o, r)
	err := l.underLock(t.Context(), func(_ *fileLock, now *cached) error {
		all, err := l.vanishedLocked(now)
		if len(all) != 2 {
			t.Errorf("%d are missed, want 2", len(all))
		}
		return errors.Join(err, l.forgetVanished(b.Manifest.Digest()))
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, api := range []*OCIDir{o, open(t)} {
		if diff := cmp.Diff([]string{"c"}, vanishedTags(t, api, r)); diff != "" {
			t.Errorf("missed (-want +got):\n%s", diff)
		}
	}
}

// What we remove ourselves is not missed, whoever of us asks.
func TestWhatWeRemoveIsNotMissed(t *testing.T) {
	a, b := schemetest.Opaque("a"), schemetest.Opaque("b")
	o, p, r := open(t), open(t), place(t.TempDir())
	for i, do := range []func() error{
		func() error { return a.Push(t.Context(), o, r.WithTag("v1")) },
		func() error { return b.Push(t.Context(), p, r.WithTag("v1")) }, // moves
		func() error { return a.Push(t.Context(), p, r.WithTag("v2")) },
		func() error { return p.TagDelete(t.Context(), r.WithTag("v2")) },
		func() error { return o.ManifestDelete(t.Context(), r.WithDigest(a.Manifest.Digest())) },
		func() error { return p.ManifestDelete(t.Context(), r.WithDigest(b.Manifest.Digest())) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		for _, api := range []*OCIDir{o, p, open(t)} {
			if got := vanishedTags(t, api, r); len(got) > 0 {
				t.Errorf("step %d: %q are missed", i, got)
			}
		}
	}
}

// The file of our last commit's entries may be damaged or deleted: then nothing is missed, and the next commit knows
// again.
func TestDamagedRoots(t *testing.T) {
	a, b := schemetest.Opaque("a"), schemetest.Opaque("b")
	r := place(t.TempDir())
	push(t, open(t), r.WithTag("v1"), a)
	push(t, open(t), r.WithTag("v2"), a)
	path := filepath.Join(r.Root, rootsName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damages := [][]byte{nil, []byte("{"), []byte("{}\n"), []byte(`{"snapshot":-5}` + "\n"), []byte(`{"snapshot":99999999999}` + "\n"), append(slices.Clone(whole), "{torn"...)}
	for n := 1; n < len(whole); n += 37 {
		damages = append(damages, whole[:n])
	}
	for i, raw := range damages {
		writeFile(t, r.Root, rootsName, raw)
		o := open(t)
		vanishedTags(t, o, r)
		tag := fmt.Sprint("n", i)
		push(t, o, r.WithTag(tag), b)
		them := strange{t, r}
		them.write([]byte(indexJSON(itemJSON(a, named("v1"), ""))))
		if got := vanishedTags(t, open(t), r); !slices.Contains(got, tag) {
			t.Fatalf("damage %d: then %s was put and dropped; missed are %q", i, tag, got)
		}
		if err := os.RemoveAll(filepath.Join(r.Root, stateDir)); err != nil {
			t.Fatal(err)
		}
	}
}

// Two processes, some of whose commits fail or die, and nobody else: nothing is ever missed, and what each knows of the
// file is what it says.
func TestJournalOfTwo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		r := place(dir)
		s := &steps{}
		all := []*OCIDir{New(withHook(s.hook), WithDurability(None)), New(withHook(s.hook), WithDurability(None))}
		defer func() {
			for _, o := range all {
				o.Close()
			}
		}()
		for range rapid.IntRange(2, 12).Draw(rt, "commits") {
			i := rapid.IntRange(0, 1).Draw(rt, "who")
			n := rapid.IntRange(0, 40).Draw(rt, "dies at")
			for step := 0; n < 20; n = 99 {
				s.set(func(string, string) error {
					if step++; step > n {
						return errKilled
					}
					return nil
				})
			}
			tag := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "tag")
			var got error
			if rapid.Bool().Draw(rt, "put") {
				content := rapid.StringOfN(rapid.RuneFrom([]rune("xy")), 1, 3, -1).Draw(rt, "content")
				got = schemetest.Opaque(content).Push(t.Context(), all[i], r.WithTag(tag))
			} else {
				got = all[i].TagDelete(t.Context(), r.WithTag(tag))
			}
			s.set(nil)
			if errors.Is(got, errKilled) && rapid.Bool().Draw(rt, "dead") {
				all[i].Close()
				all[i] = New(withHook(s.hook), WithDurability(None))
			}
			if _, err := os.Stat(filepath.Join(dir, markerName)); err != nil {
				continue
			}
			for _, o := range append(all, open(t)) {
				if gone := vanishedTags(t, o, r); len(gone) > 0 && len(leftovers(t, dir)) == 0 {
					rt.Fatalf("%q are missed", gone)
				}
			}
		}
		push(t, all[0], r.WithTag("last"), schemetest.Opaque("last"))
		for _, o := range all {
			if gone := vanishedTags(t, o, r); len(gone) > 0 {
				rt.Fatalf("in the end %q are missed", gone)
			}
			l := openedLayout(t, o, r)
			known, err := l.readJournal()
			l.journal = journal{}
			fresh, ferr := l.readJournal()
			if err != nil || ferr != nil || known != fresh {
				rt.Fatalf("known is %+v, the file says %+v (%v, %v)", known, fresh, err, ferr)
			}
		}
	})
}

// A file of ours may have been made huge, by damage or on purpose: it is made anew, and not read into memory.
func TestHugeRootsSayNothing(t *testing.T) {
	r := place(t.TempDir())
	push(t, open(t), r.WithTag("a"), schemetest.Opaque("a"))
	roots := filepath.Join(r.Root, rootsName)
	if err := os.Truncate(roots, 1<<40); err != nil {
		t.Skip(err)
	}
	o := open(t)
	if gone := vanishedTags(t, o, r); len(gone) > 0 {
		t.Errorf("%q are said to be gone", gone)
	}
	push(t, o, r.WithTag("b"), schemetest.Opaque("b"))
	if size := stat(t, roots).Size(); size > 1<<20 {
		t.Errorf("it has %d bytes", size)
	}
}

// Two layouts that were one, and share files by hard links (cp -al), tell nothing of each other's commits.
func TestALinkedCopyMissesNothing(t *testing.T) {
	r, copied := place(t.TempDir()), place(t.TempDir())
	o := open(t)
	for _, tag := range []string{"a", "b"} {
		push(t, o, r.WithTag(tag), schemetest.Opaque("a"))
	}
	err := filepath.WalkDir(r.Root, func(path string, e os.DirEntry, err error) error {
		to := filepath.Join(copied.Root, strings.TrimPrefix(path, r.Root))
		if err == nil && e.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		return errors.Join(err, os.Link(path, to))
	})
	if err != nil {
		t.Skip(err)
	}
	for _, tag := range []string{"c", "d"} {
		push(t, o, r.WithTag(tag), schemetest.Opaque("c"))
	}
	theirs := open(t)
	if gone := vanishedTags(t, theirs, copied); len(gone) > 0 {
		t.Errorf("%q are missed in the copy", gone)
	}
	push(t, theirs, copied.WithTag("e"), schemetest.Opaque("e"))
	for _, at := range []ref.Ref{r, copied} {
		if gone := vanishedTags(t, open(t), at); len(gone) > 0 {
			t.Errorf("%q are missed in %s", gone, at)
		}
	}
}
