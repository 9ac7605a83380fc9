package ocidir

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ocisync/ocisync/scheme/schemetest"
)

// syncPoints returns the steps that wait for the disk, sorted where several run at once: what comes before the exchange of
// index.json, and what comes behind it.
func (s *steps) syncPoints() (before, behind []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	where := &before
	for _, step := range s.seen {
		switch {
		case step == stepRename+" "+indexName:
			where = &behind
		case strings.HasPrefix(step, stepSync):
			kind, name, _ := strings.Cut(step, " ")
			switch {
			case strings.HasPrefix(name, ingestDir):
				name = "new index"
			case strings.HasPrefix(name, blobsDir+"/sha256/"):
				name = "blob"
			}
			*where = append(*where, kind+" "+name)
		}
	}
	slices.Sort(before)
	return before, behind
}

// However many puts are folded into one commit, it waits for the disk twice.
func TestGroupOfCommitsHasTwoSyncPoints(t *testing.T) {
	one := []string{"sync blob", "sync new index", "syncdir blobs/sha256"}
	several := []string{"syncfs ."}
	if !canSyncFS {
		several = append([]string{}, one...)
		for range 15 {
			several = append(several, "sync blob")
		}
		slices.Sort(several)
	}
	for n, want := range map[int][]string{1: one, 16: several} {
		s := &steps{}
		o, r := open(t, withHook(s.hook)), place(t.TempDir())
		push(t, o, r.WithTag("first"), schemetest.Opaque("first"))
		s.set(nil)
		var puts []func() error
		for i := range n {
			it := schemetest.Opaque(fmt.Sprint("put ", i))
			puts = append(puts, func() error {
				_, err := o.ManifestPut(t.Context(), r.WithTag(fmt.Sprint("v", i)), it.Manifest)
				return err
			})
		}
		for _, err := range queue(t, o, r, puts...) {
			if err != nil {
				t.Error(err)
			}
		}
		before, behind := s.syncPoints()
		if diff := cmp.Diff(want, before); diff != "" {
			t.Errorf("%d puts: before the index is in place (-want +got):\n%s", n, diff)
		}
		if diff := cmp.Diff([]string{"syncdir ."}, behind); diff != "" {
			t.Errorf("%d puts: after that (-want +got):\n%s", n, diff)
		}
		if got := len(valid(t, r)); got != n+1 {
			t.Errorf("%d puts: %d tags are there", n, got)
		}
	}
}
