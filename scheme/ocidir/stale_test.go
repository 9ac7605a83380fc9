package ocidir

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/ref"
)

// A tag moves from A to B to C; all three indexes have one length, and the file system's times are too coarse to tell
// them apart. Who has read B sees C all the same, at once, whoever wrote it, and in whatever way.
func TestNoStaleIndexOnCoarseTimes(t *testing.T) {
	var items []*schemetest.Item
	for i := range 3 {
		items = append(items, schemetest.Opaque(fmt.Sprint(i)))
	}
	for _, cut := range []time.Duration{0, 4 * time.Millisecond, time.Second, 2 * time.Second} {
		for name, write := range map[string]func(t *testing.T, us *OCIDir, r ref.Ref, it *schemetest.Item){
			"in place": func(t *testing.T, _ *OCIDir, r ref.Ref, it *schemetest.Item) {
				strange{t, r}.write([]byte(indexJSON(itemJSON(it, named("v1"), ""))))
			},
			"by rename": func(t *testing.T, _ *OCIDir, r ref.Ref, it *schemetest.Item) {
				strange{t, r}.replace([]byte(indexJSON(itemJSON(it, named("v1"), ""))))
			},
			"by us": func(t *testing.T, us *OCIDir, r ref.Ref, it *schemetest.Item) {
				push(t, us, r.WithTag("v1"), it)
			},
		} {
			t.Run(fmt.Sprint(name, " ", cut), func(t *testing.T) {
				coarse.Store(int64(cut))
				t.Cleanup(func() { coarse.Store(0) })
				us, reader := open(t), open(t)
				r := handmade(t, []string{itemJSON(items[0], named("v1"), "")}, items...)
				for i := range 30 {
					want := items[i%len(items)]
					write(t, us, r, want)
					for range 2 {
						d, err := reader.ManifestHead(t.Context(), r.WithTag("v1"))
						if err != nil || d.Digest != want.Manifest.Digest() {
							t.Fatalf("move %d: a reader sees %s, want %s (%v)", i, d.Digest, want.Manifest.Digest(), err)
						}
					}
				}
			})
		}
	}
}

// What we write is read once: its times say at once whether somebody else wrote into it.
func TestOurIndexIsReadOnce(t *testing.T) {
	for _, cut := range []time.Duration{0, 4 * time.Millisecond, time.Second, 2 * time.Second} {
		coarse.Store(int64(cut))
		t.Cleanup(func() { coarse.Store(0) })
		a := schemetest.Opaque("a")
		o, reader, r := open(t), open(t), handmade(t, []string{itemJSON(a, named("v1"), "")}, a)
		before := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(r.Root, indexName), before, before); err != nil {
			t.Fatal(err)
		}
		push(t, o, r.WithTag("v2"), a)
		for who, api := range map[string]*OCIDir{"who wrote it": o, "another": reader} {
			l := openedLayout(t, api, r)
			first, err := l.current(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if next, err := l.current(t.Context()); err != nil || next != first || !first.sure {
				t.Errorf("times cut to %s: %s reads it again, %v", cut, who, err)
			}
		}
	}
}
