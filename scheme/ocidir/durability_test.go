package ocidir

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/scheme/schemetest"
)

// syncs returns the steps seen that make something durable, without the random names of new files.
func (s *steps) syncs() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, step := range s.seen {
		if strings.HasPrefix(step, stepSync) {
			before, _, _ := strings.Cut(step, ingestDir+"/")
			all = append(all, before)
		}
	}
	return all
}

// What each level syncs of a blob, of a blob that is there, of a mounted blob, of its removal, and of an image.
func TestDurabilityLevels(t *testing.T) {
	for name, c := range map[string]struct {
		level          Durability
		blobs, commits bool
	}{
		"full":   {Full, true, true},
		"commit": {Commit, false, true},
		"none":   {None, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &steps{}
			o, r := open(t, withHook(s.hook), WithDurability(c.level)), place(t.TempDir())
			src := place(t.TempDir())
			putBlob(t, o, r, []byte("first"))
			mounted := putBlob(t, open(t, WithDurability(None)), src, []byte("mounted"))
			there := putBlob(t, open(t, WithDurability(None)), r, []byte("there"))
			expect := func(what string, want bool, do func() error) {
				t.Helper()
				s.set(nil)
				if err := do(); err != nil {
					t.Fatal(err)
				}
				if got := s.syncs(); (len(got) > 0) != want {
					t.Errorf("%s: the syncs are %q, want some: %v", what, got, want)
				}
			}
			small := []byte("small")
			expect("a blob", c.blobs, func() error { putBlob(t, o, r, small); return nil })
			expect("a blob that is there", c.blobs, func() error { putBlob(t, o, r, []byte("there")); return nil })
			expect("a mounted blob", c.blobs, func() error { return o.BlobMount(t.Context(), src, r, mounted) })
			expect("a removal", c.blobs, func() error { return o.BlobDelete(t.Context(), r, there) })
			it := schemetest.Image("image")
			if err := it.PushContent(t.Context(), o, r); err != nil {
				t.Fatal(err)
			}
			expect("a tag", c.commits, func() error {
				_, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest)
				return err
			})
			expect("a tag's removal", c.commits, func() error { return o.TagDelete(t.Context(), r.WithTag("v1")) })
		})
	}
}

// With level Commit nothing is synced before it is needed, and everything is by then.
func TestCommitLevelSyncsWhatAnIndexReachesBeforeIt(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook), WithDurability(Commit)), place(t.TempDir())
	putBlob(t, o, r, []byte("first"))
	it := schemetest.Image("image")
	s.set(nil)
	if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	v, err := it.Manifest.View()
	if err != nil {
		t.Fatal(err)
	}
	index := slices.Index(s.seen, stepRename+" "+indexName)
	for _, d := range append(v.Children(), it.Descriptor()) {
		path, err := blobPath(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if at := slices.Index(s.seen, stepSync+" "+path); at < 0 || at > index {
			t.Errorf("%s was not synced before the index named it: %q", path, s.seen)
		}
	}
	if at := slices.Index(s.seen, stepSyncDir+" "+blobsDir+"/sha256"); at < 0 || at > index {
		t.Errorf("the names of the blobs were not synced before the index: %q", s.seen)
	}
}

// A large blob is synced by itself also where it need not be: else all of it would come with somebody's commit.
func TestLargeBlobIsSyncedByItself(t *testing.T) {
	for level, want := range map[Durability]bool{Full: true, Commit: true, None: false} {
		s := &steps{}
		o, r := open(t, withHook(s.hook), WithDurability(level)), place(t.TempDir())
		putBlob(t, o, r, []byte("first"))
		s.set(nil)
		putBlob(t, o, r, bytes.Repeat([]byte("large"), largeFile/5+1))
		if got := s.has(stepSync + " " + ingestDir); got != want {
			t.Errorf("level %d: synced: %v, want %v", level, got, want)
		}
	}
}
