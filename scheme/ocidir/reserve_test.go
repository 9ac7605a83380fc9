package ocidir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
)

// A disk on which no file can be made: deletes work, and what waits with them is told that there is no room.
func TestDeletesUseTheReserve(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	a, b := schemetest.Opaque("a"), schemetest.Opaque("b")
	var tags []string
	for i := range 20 {
		tags = append(tags, fmt.Sprint("v", i))
		push(t, o, r.WithTag(tags[i]), a)
	}
	push(t, o, r.WithTag("b"), b)
	full := func(step, _ string) error {
		if step == stepCreate {
			return syscall.ENOSPC
		}
		return nil
	}
	s.set(full)
	put := func() error {
		_, err := o.ManifestPut(t.Context(), r.WithTag("b-too"), b.Manifest)
		return err
	}
	remove := func(tag string) func() error { return func() error { return o.TagDelete(t.Context(), r.WithTag(tag)) } }
	got := queue(t, o, r, put, remove("v0"), put, remove("v1"))
	for i, want := range []error{errs.ErrNoSpace, nil, errs.ErrNoSpace, nil} {
		if !errors.Is(got[i], want) {
			t.Errorf("%d of a group: got %v, want %v", i, got[i], want)
		}
	}
	for _, tag := range tags[2:] {
		if err := remove(tag)(); err != nil {
			t.Fatalf("%s: %v", tag, err)
		}
	}
	if got := valid(t, r); !slices.Equal(got, []string{"b"}) {
		t.Errorf("the tags are %q", got)
	}
	for _, it := range []*schemetest.Item{a, b} {
		if err := o.ManifestDelete(t.Context(), r.WithDigest(it.Manifest.Digest())); err != nil {
			t.Error(err)
		}
	}
	if err := put(); !errors.Is(err, errs.ErrNoSpace) {
		t.Errorf("a put on a full disk: got %v", err)
	}
	s.set(nil)
	if gone := vanishedTags(t, open(t), r); len(gone) > 0 {
		t.Errorf("%q are said to be dropped by somebody else", gone)
	}
	push(t, o, r.WithTag("after"), a)
	if got := valid(t, r); !slices.Equal(got, []string{"after"}) {
		t.Errorf("after there was room again the tags are %q", got)
	}
	if left := leftovers(t, r.Root); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

// The reserve is made by the first commit and when the index outgrows it, and not by every commit.
func TestReserveGrowsWithTheIndex(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	made, commits := 0, 0
	s.set(func(step, name string) error {
		if step == stepRename && name == reserveName {
			made++
		}
		return nil
	})
	size := func(name string) int64 {
		fi, err := os.Stat(filepath.Join(r.Root, name))
		if err != nil {
			t.Fatal(err)
		}
		return fi.Size()
	}
	for size := 1; size < 1000; size *= 2 {
		for i := range size {
			if i >= 10 && size < 500 || i >= 300 {
				break
			}
			push(t, o, r.WithTag(fmt.Sprint("v", size, "-", i)), schemetest.Opaque("a"))
			commits++
		}
	}
	if index, reserve := size(indexName), size(reserveName); reserve < index || reserve > 3*index+64<<10 {
		t.Errorf("%d bytes are set aside for an index of %d", reserve, index)
	}
	if made < 2 || made > commits/10 {
		t.Errorf("the reserve was made %d times in %d commits", made, commits)
	}
}

// Who copies a layout by hard links gives its files to the copy as well: what makes room here must not change there.
func TestTheReserveIsNotWrittenIntoWhereItHasOtherNames(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	for i := range 5 {
		push(t, o, r.WithTag(fmt.Sprint("v", i)), schemetest.Opaque("a"))
	}
	backup := filepath.Join(t.TempDir(), indexName)
	if err := os.Link(filepath.Join(r.Root, indexName), backup); err != nil {
		t.Skip(err)
	}
	before, err := os.ReadFile(backup)
	must(t, err)
	s.set(func(step, _ string) error {
		if step == stepCreate {
			return syscall.ENOSPC
		}
		return nil
	})
	for i := range 3 { // the first makes the file of the backup the reserve, which the second finds
		err := o.TagDelete(t.Context(), r.WithTag(fmt.Sprint("v", i)))
		if i == 0 && err != nil || i > 0 && !errors.Is(err, errs.ErrNoSpace) {
			t.Errorf("delete %d: got %v", i, err)
		}
	}
	if after, err := os.ReadFile(backup); err != nil || string(after) != string(before) {
		t.Errorf("the backup was changed: %s, %v", after, err)
	}
	s.set(nil)
	push(t, o, r.WithTag("after"), schemetest.Opaque("a"))
	reserve := filepath.Join(r.Root, reserveName)
	must(t, os.Link(reserve, backup+"2"))
	push(t, o, r.WithTag("again"), schemetest.Opaque("a"))
	if os.SameFile(stat(t, reserve), stat(t, backup+"2")) {
		t.Error("what a backup shares still counts as set aside")
	}
}
