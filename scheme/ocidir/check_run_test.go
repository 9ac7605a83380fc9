package ocidir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func TestCheckOfOneTag(t *testing.T) {
	r := place(t.TempDir())
	m := pushMulti(t, r)
	damage(t, blobFileOf(r, digest.FromBytes(m.other.Blobs[0])), damages["emptied"])
	for at, want := range map[ref.Ref]int{r: 1, r.WithTag("all"): 1, r.WithTag("one"): 0, r.WithDigest(m.other.Manifest.Digest()): 1, r.WithDigest(digest.FromString("none")): -1, r.WithDigest(m.index.Manifest.Digest()): 1} {
		n := 0
		_, err := open(t).Check(t.Context(), at, func(scheme.Problem) error { n++; return nil })
		if want < 0 {
			if !errors.Is(err, errs.ErrManifestUnknown) {
				t.Errorf("%s: %v", at, err)
			}
			continue
		}
		if err != nil || n != want {
			t.Errorf("%s: %d problems, %v, want %d", at, n, err, want)
		}
	}
	if _, err := open(t).Check(t.Context(), r.WithTag("none"), nil); !errors.Is(err, errs.ErrManifestUnknown) {
		t.Errorf("a tag that is not there: %v", err)
	}
}

func TestCheckEndsWithItsCaller(t *testing.T) {
	r := place(t.TempDir())
	m := pushMulti(t, r)
	for _, b := range m.shared.Blobs {
		must(t, os.Remove(blobFileOf(r, digest.FromBytes(b))))
	}
	boom, n := errors.New("boom"), 0
	rep, err := open(t).Check(t.Context(), r, func(scheme.Problem) error { n++; return boom })
	if err != boom || n != 1 || rep.Problems != 1 {
		t.Errorf("got %v after %d calls, %+v", err, n, rep)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = open(t).Check(ctx, r, nil, scheme.WithDeep(), scheme.WithCheckProgress(func(blob.Info) { cancel() }))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after the context ended: %v", err)
	}
}

// What is deleted while Check runs is not missing.
func TestCheckWhileOthersDelete(t *testing.T) {
	r := place(t.TempDir())
	m := pushMulti(t, r)
	other, once := open(t), false
	all := []scheme.Problem{}
	_, err := open(t).Check(t.Context(), r, func(p scheme.Problem) error { all = append(all, p); return nil },
		scheme.WithCheckProgress(func(blob.Info) {
			if once {
				return
			}
			once = true
			for _, it := range []*schemetest.Item{m.index, m.other} {
				if err := other.ManifestDelete(context.Background(), r.WithDigest(it.Manifest.Digest())); err != nil {
					t.Error(err)
				}
			}
			for _, b := range m.other.Blobs {
				if err := other.BlobDelete(context.Background(), r, types.Descriptor{Digest: digest.FromBytes(b)}); err != nil {
					t.Error(err)
				}
			}
		}))
	if err != nil || len(all) > 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// However a graph is made, each manifest is read once.
func TestCheckOfHostileGraphs(t *testing.T) {
	leaf := schemetest.Image("leaf")
	level := []*schemetest.Item{leaf}
	items := []*schemetest.Item{leaf}
	for i := range 200 { // each index lists the next one many times
		var kids []*schemetest.Item
		for range 50 {
			kids = append(kids, level...)
		}
		next := schemetest.Index(kids, schemetest.Annotation("level", fmt.Sprint(i)))
		next.Children = nil
		level = []*schemetest.Item{next}
		items = append(items, next)
	}
	r := handmade(t, []string{itemJSON(level[0], named("deep"), "")}, items...)
	must(t, os.Remove(blobFileOf(r, digest.FromBytes(leaf.Blobs[1]))))
	all, rep := check(t, open(t), r)
	if rep.Manifests != 201 || len(all) != 1 || !slices.Equal(all[0].Tags, []string{"deep"}) || len(all[0].Needed) != 1 {
		t.Errorf("%+v, %v", rep, all)
	}

	doc := map[string]any{"schemaVersion": 2, "mediaType": types.MediaTypeImageIndex}
	var kids []types.Descriptor
	for i := range 10_000 {
		kids = append(kids, types.Descriptor{MediaType: types.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Size: 1})
	}
	doc["manifests"] = kids
	raw, err := json.Marshal(doc)
	must(t, err)
	r = place(t.TempDir())
	writeFile(t, r.Root, markerName, []byte(markerText))
	writeFile(t, r.Root, "blobs/sha256/"+digest.FromBytes(raw).Encoded(), raw)
	writeFile(t, r.Root, indexName, []byte(indexJSON(fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, types.MediaTypeImageIndex, digest.FromBytes(raw), len(raw)))))
	if all, rep := check(t, open(t), r); len(all) > 0 || rep.Sparse != 10_000 {
		t.Errorf("%+v, %v", rep, all)
	}
}

func BenchmarkDeepCheck(b *testing.B) {
	o, r := open(b, WithDurability(None)), place(b.TempDir())
	var total int64
	for i := range 16 {
		data := schemetest.Blob(fmt.Sprint(i), 16<<20)
		if _, err := o.BlobPut(b.Context(), r, types.Descriptor{}, bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		total += int64(len(data))
	}
	b.SetBytes(total)
	for b.Loop() {
		rep, err := o.Check(b.Context(), r, nil, scheme.WithDeep())
		if err != nil || rep.Bytes != total {
			b.Fatal(rep, err)
		}
	}
}

// Check may run at any time: what others put, move, delete and collect meanwhile is no problem.
func TestCheckWhileOthersWrite(t *testing.T) {
	r := place(t.TempDir())
	pushMulti(t, r)
	var writers, others sync.WaitGroup
	done := make(chan struct{})
	for w := range 3 {
		writers.Go(func() {
			o := open(t)
			for i := range 8 {
				a, b := schemetest.Image(fmt.Sprint(w, i)), schemetest.Image(fmt.Sprint(w, i, "b"))
				index := schemetest.Index([]*schemetest.Item{a, b})
				if err := index.Push(context.Background(), o, r.WithTag(fmt.Sprint("moves", w))); err != nil {
					t.Error(err)
				}
				var err error
				switch i % 3 {
				case 0:
					err = o.TagDelete(context.Background(), r.WithTag(fmt.Sprint("moves", w)))
				case 1:
					err = o.ManifestDelete(context.Background(), r.WithDigest(index.Manifest.Digest()))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	others.Go(func() {
		o := open(t)
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := o.Collect(context.Background(), r, scheme.WithGrace(0), scheme.WithUntagged()); err != nil {
				t.Error(err)
			}
		}
	})
	for _, opts := range [][]scheme.CheckOption{nil, {scheme.WithDeep()}} {
		others.Go(func() {
			for {
				_, err := open(t).Check(context.Background(), r, func(p scheme.Problem) error {
					if p.Kind.Bad() {
						t.Errorf("%s %s, named by %v, for %v: %v", p.Kind, p.Digest, p.Needed, p.Tags, p.Err)
					}
					return nil
				}, opts...)
				if err != nil {
					t.Error(err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	close(done)
	others.Wait()
}
