package ocidir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/ref"
)

// BenchmarkFloorOfAGroup commits 16 new manifests with 16 new tags as one group, and in turn does nothing but what cannot
// be avoided: it writes files with the same bytes to temporary names, renames them, syncs the file system, renames an
// index of the same size, and syncs its directory. x-floor is the one's time by the other's, the median of all turns.
func BenchmarkFloorOfAGroup(b *testing.B) {
	const group = 16
	for _, tags := range sizes {
		b.Run(fmt.Sprintf("tags=%d", tags), func(b *testing.B) {
			r := filled(b, tags)
			o := open(b)
			l := openedLayout(b, o, r)
			if err := l.settle(b.Context()); err != nil {
				b.Fatal(err)
			}
			floor := newFloor(b)
			var ours, least, ratio []float64
			for n := range b.N {
				items := make([]*schemetest.Item, group)
				for i := range items {
					items[i] = schemetest.Opaque(fmt.Sprint(b.Name(), n, " ", i))
				}
				index, err := os.ReadFile(filepath.Join(r.Root, indexName))
				if err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				if err := l.putGroup(b, r, items, n); err != nil {
					b.Fatal(err)
				}
				mid := time.Now()
				if err := floor.write(items, index, n); err != nil {
					b.Fatal(err)
				}
				end := time.Now()
				ours = append(ours, mid.Sub(start).Seconds()*1000)
				least = append(least, end.Sub(mid).Seconds()*1000)
				ratio = append(ratio, ours[n]/least[n])
			}
			b.ReportMetric(median(ours), "ms/group")
			b.ReportMetric(median(least), "ms/floor")
			b.ReportMetric(median(ratio), "x-floor")
		})
	}
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// putGroup is what ManifestPut does for each item, but for the order: all are one group.
func (l *layout) putGroup(b *testing.B, r ref.Ref, items []*schemetest.Item, n int) error {
	var calls []*call[*change]
	for i, it := range items {
		p, err := newPut(r.WithTag(fmt.Sprintf("group-%d-%d", n, i)), it.Manifest, scheme.ManifestPutOptions{})
		if err != nil {
			return err
		}
		p.l = l
		if _, err := l.putBytes(b.Context(), it.Manifest.Descriptor(), it.Manifest.Raw()); err != nil {
			return err
		}
		calls = append(calls, &call[*change]{arg: &change{apply: p.apply}, done: make(chan struct{})})
	}
	lock, err := l.vol.lock()
	if err != nil {
		return err
	}
	defer lock.unlock()
	if err := l.repairSwap(); err != nil {
		return err
	}
	done, _, err := l.commit(lock, calls)
	for _, c := range done {
		err = errors.Join(err, c.err)
	}
	return err
}

// floor is a plain program that writes the same.
type floor struct {
	dir  string
	root *os.File
}

func newFloor(b *testing.B) *floor {
	f := &floor{dir: b.TempDir()}
	root, err := os.Open(f.dir)
	if err != nil {
		b.Fatal(err)
	}
	f.root = root
	b.Cleanup(func() { root.Close() })
	return f
}

func (f *floor) write(items []*schemetest.Item, index []byte, n int) error {
	for i, it := range items {
		name := filepath.Join(f.dir, fmt.Sprint(n, "-", i))
		if err := os.WriteFile(name+".tmp", it.Manifest.Raw(), 0o666); err != nil {
			return err
		}
		if err := os.Rename(name+".tmp", name); err != nil {
			return err
		}
	}
	name := filepath.Join(f.dir, indexName)
	if err := os.WriteFile(name+".tmp", index, 0o666); err != nil {
		return err
	}
	if err := unix.Syncfs(int(f.root.Fd())); err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return err
	}
	return f.root.Sync()
}
