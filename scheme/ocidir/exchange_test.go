package ocidir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/ref"
)

// strange is a program that takes no lock: it writes an index of its own making.
type strange struct {
	t *testing.T
	r ref.Ref
}

func (s strange) index() string { return filepath.Join(s.r.Root, indexName) }

// with returns the index as it is now, with one more tag.
func (s strange) with(tag string, it *schemetest.Item) []byte {
	s.t.Helper()
	raw, err := os.ReadFile(s.index())
	if err != nil {
		s.t.Fatal(err)
	}
	d := &draft{base: mustIndex(s.t, string(raw))}
	if err := d.setTag(tag, it.Descriptor()); err != nil {
		s.t.Fatal(err)
	}
	return d.next.encode().raw
}

// replace puts a new file in the place of index.json, as regctl does.
func (s strange) replace(raw []byte) {
	s.t.Helper()
	writeFile(s.t, s.r.Root, "index.strange", raw)
	if err := os.Rename(s.index()[:len(s.index())-len("json")]+"strange", s.index()); err != nil {
		s.t.Fatal(err)
	}
}

// write writes into the file, as oras-go and go-containerregistry do.
func (s strange) write(raw []byte) {
	s.t.Helper()
	writeFile(s.t, s.r.Root, indexName, raw)
}

// atExchange calls fn before the nth exchange of index.json, counted from 1.
func atExchange(s *steps, fns ...func() error) {
	n := 0
	s.set(func(step, name string) error {
		if step != stepRename || name != indexName {
			return nil
		}
		if n++; n <= len(fns) && fns[n-1] != nil {
			return fns[n-1]()
		}
		return nil
	})
}

func needExchange(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, "a", nil)
	writeFile(t, dir, "b", nil)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := exchangeFiles(root, "a", "b"); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("files cannot be exchanged here:", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// What a program that takes no lock writes at the last moment is neither lost nor does it lose what we write.
func TestStrangerAtTheLastMoment(t *testing.T) {
	needExchange(t)
	a := schemetest.Opaque("a")
	for name, write := range map[string]func(strange, []byte){"by rename": strange.replace, "in place": strange.write} {
		for times := 1; times <= 3; times++ {
			s := &steps{}
			o, r := open(t, withHook(s.hook)), place(t.TempDir())
			push(t, o, r.WithTag("v1"), a)
			them := strange{t, r}
			want := []string{"ours", "v1"}
			var fns []func() error
			for i := range times {
				tag := "theirs-" + string(rune('a'+i))
				want = append(want, tag)
				fns = append(fns, func() error { write(them, them.with(tag, a)); return nil }, nil) // nil: ours taken back
			}
			atExchange(s, fns...)
			push(t, o, r.WithTag("ours"), a)
			s.set(nil)
			slices.Sort(want)
			for who, api := range map[string]*OCIDir{"who wrote": o, "another": open(t)} {
				if diff := cmp.Diff(want, tagsOf(t, api, r)); diff != "" {
					t.Errorf("%s %d times: %s sees (-want +got):\n%s", name, times, who, diff)
				}
			}
			if gone := vanishedTags(t, o, r); len(gone) > 0 || len(leftovers(t, r.Root)) > 0 {
				t.Errorf("%s %d times: %q are said to be dropped; %q is left", name, times, gone, leftovers(t, r.Root))
			}
		}
	}
}

// A program has opened index.json to write into it, and does so once the file has another name.
func TestStrangerWhoWritesIntoTheFileThatWasReplaced(t *testing.T) {
	needExchange(t)
	s, a := &steps{}, schemetest.Opaque("a")
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	push(t, o, r.WithTag("v1"), a)
	them := strange{t, r}
	var f *os.File
	var raw []byte
	atExchange(s,
		func() (err error) {
			raw = them.with("theirs", a)
			f, err = os.OpenFile(them.index(), os.O_WRONLY, 0)
			return err
		},
		func() error { // ours is taken back
			_, err := f.Write(raw)
			return errors.Join(err, f.Close())
		})
	push(t, o, r.WithTag("ours"), a)
	if f == nil {
		t.Fatal("index.json was not exchanged")
	}
	if diff := cmp.Diff([]string{"ours", "theirs", "v1"}, tagsOf(t, open(t), r)); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
}

// One program was faster than our commit, and while that is taken back another one replaces the index, which has not
// seen what the first one wrote.
func TestStrangersWhoDoNotSeeEachOther(t *testing.T) {
	needExchange(t)
	s, a, b := &steps{}, schemetest.Opaque("a"), schemetest.Opaque("b")
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	push(t, o, r.WithTag("v1"), a)
	them := strange{t, r}
	atExchange(s,
		func() error { them.replace(them.with("first", b)); return nil },
		func() error { them.replace(them.with("second", a)); return nil })
	push(t, o, r.WithTag("ours"), a)
	if diff := cmp.Diff([]string{"ours", "second", "v1"}, tagsOf(t, open(t), r)); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"first"}, vanishedTags(t, o, r)); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
	}
	if left := leftovers(t, r.Root); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

// We die between replacing the index of a program that takes no lock and looking at it: the next one who commits, or
// looks what was dropped, brings it back.
func TestDeathBetweenExchangeAndLook(t *testing.T) {
	needExchange(t)
	a, b := schemetest.Opaque("a"), schemetest.Opaque("b")
	for name, c := range map[string]struct {
		write   func(strange, []byte)
		younger bool // another one replaces the index afterwards
		tags    []string
		gone    []string
	}{
		"replaced":            {write: strange.replace, tags: []string{"next", "theirs", "v1"}},
		"replaced twice":      {write: strange.replace, younger: true, tags: []string{"dead", "next", "v1", "younger"}, gone: []string{"theirs"}},
		"written in place":    {write: strange.write, tags: []string{"dead", "next", "v1"}, gone: []string{"theirs"}},
		"left as it had been": {write: func(strange, []byte) {}, tags: []string{"dead", "next", "v1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &steps{}
			dead, r := New(withHook(s.hook)), place(t.TempDir())
			push(t, dead, r.WithTag("v1"), a)
			them := strange{t, r}
			killed := false
			s.set(func(step, name string) error {
				if step == stepRename && name == indexName && !killed {
					c.write(them, them.with("theirs", b))
					killed = true
					return nil
				}
				if killed {
					return errKilled
				}
				return nil
			})
			if err := schemetest.Opaque("dead").Push(t.Context(), dead, r.WithTag("dead")); !errors.Is(err, errKilled) {
				t.Fatalf("got %v, want it to be killed", err)
			}
			dead.Close()
			if c.younger {
				them.replace(them.with("younger", a))
			}
			next := open(t)
			push(t, next, r.WithTag("next"), a)
			if diff := cmp.Diff(c.tags, tagsOf(t, next, r)); diff != "" {
				t.Errorf("tags (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.gone, vanishedTags(t, next, r)); diff != "" {
				t.Errorf("reported (-want +got):\n%s", diff)
			}
			if left := leftovers(t, r.Root); len(left) > 0 && !strings.HasSuffix(left[0], tempSuffix) {
				t.Errorf("%q is left", left)
			}
		})
	}
}

// Where files cannot be exchanged, a change of others is still noticed up to the last look.
func TestWithoutExchange(t *testing.T) {
	s, a, b := &steps{}, schemetest.Opaque("a"), schemetest.Opaque("b")
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	push(t, o, r.WithTag("v1"), a)
	l := openedLayout(t, o, r)
	l.noSwap.Store(true)
	them := strange{t, r}
	done := false
	s.set(func(step, name string) error {
		if step == stepWrite && name != rootsName && !done {
			done = true
			them.replace(them.with("theirs", b))
		}
		return nil
	})
	push(t, o, r.WithTag("ours"), a)
	if diff := cmp.Diff([]string{"ours", "theirs", "v1"}, tagsOf(t, open(t), r)); diff != "" || !done {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	s.set(func(step, name string) error {
		if step == stepSyncDir && name == "." {
			return syscall.EIO
		}
		return nil
	})
	if err := a.Push(t.Context(), o, r.WithTag("v2")); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v, want the disk's error", err)
	}
	s.set(nil)
	if gone := vanishedTags(t, open(t), r); len(gone) > 0 {
		t.Errorf("%q are said to be dropped", gone)
	}
	if diff := cmp.Diff([]string{"ours", "theirs", "v1"}, tagsOf(t, open(t), r)); diff != "" {
		t.Errorf("after a commit that failed, tags (-want +got):\n%s", diff)
	}
}

func TestNamesOfExchanges(t *testing.T) {
	base := mark{Ino: 7, Size: 8, Mtime: -9}
	if ino, got, ok := parseSwap(swapName(mark{Ino: 1 << 63}, base)); !ok || ino != 1<<63 || got != base {
		t.Errorf("got %d, %v, %v", ino, got, ok)
	}
	for _, name := range []string{swapPrefix, swapPrefix + "1-2-3", swapPrefix + "1-2-3-4x", swapPrefix + "+1-2-3-4", swapPrefix + "01-2-3-4", "swap-1-2-3-4"} {
		if _, _, ok := parseSwap(name); ok {
			t.Errorf("%q is taken for ours", name)
		}
	}
}

// The index of another program was replaced, and cannot be brought back as the disk fails: it is not removed, and who
// commits next brings it back.
func TestWhatCannotBeBroughtBackIsKept(t *testing.T) {
	needExchange(t)
	s, a := &steps{}, schemetest.Opaque("a")
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	push(t, o, r.WithTag("v1"), a)
	them := strange{t, r}
	atExchange(s,
		func() error { them.replace(them.with("theirs", a)); return nil },
		func() error { return syscall.EIO })
	if err := a.Push(t.Context(), o, r.WithTag("ours")); !errors.Is(err, syscall.EIO) || errors.Is(err, errChanged) {
		t.Errorf("got %v, want the disk's error", err)
	}
	s.set(nil)
	push(t, open(t), r.WithTag("next"), a)
	if tags := strings.Join(tagsOf(t, o, r), " "); tags != "next theirs v1" {
		t.Errorf("the tags are %s", tags)
	}
	if left := leftovers(t, r.Root); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

// Neither commits nor those that fail, at whatever step, keep a file open.
func TestCommitsLeaveNoFileOpen(t *testing.T) {
	needExchange(t)
	s, a := &steps{}, schemetest.Opaque("a")
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	push(t, o, r.WithTag("v1"), a)
	push(t, o, r.WithTag("v2"), a)
	them := strange{t, r}
	gc := debug.SetGCPercent(-1) // which would close what was left open
	t.Cleanup(func() { debug.SetGCPercent(gc) })
	before := openFiles(t)
	for n := range 40 {
		switch n % 4 {
		case 0:
			s.set(nil)
		case 1:
			atExchange(s, func() error { them.replace(them.with(fmt.Sprint("theirs-", n), a)); return nil })
		case 2:
			atExchange(s, func() error { return syscall.EIO })
		default:
			step := 0
			s.set(func(string, string) error {
				if step++; step == n {
					return syscall.ENOSPC
				}
				return nil
			})
		}
		err := a.Push(t.Context(), o, r.WithTag(fmt.Sprint("new-", n)))
		if err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		s.set(nil)
		tagsOf(t, o, r)
	}
	if now := openFilesAbove(t, before); now > before {
		t.Errorf("%d files are open, and %d were before", now, before)
	}
}
