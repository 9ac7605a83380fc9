package schemetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
)

var collectCases = []testCase{
	{
		name: "garbage",
		rule: "Collect removes exactly the blobs that the index does not reach, by way of manifests, subjects and referrers, and says what they were",
		has:  []Capability{Collector, BlobLister},
		run: func(e *env) {
			var kept []*Item
			garbage := map[digest.Digest]int64{}
			e.abandoned(func(o *env) { kept, garbage = o.litter() })
			before := e.contents()
			report := e.collect("Collect", scheme.WithGrace(0))
			e.removed(report, garbage)
			e.same("Kept", report.Kept, len(before)-len(garbage))
			e.same("Untagged", len(report.Untagged), 0)
			e.same("Freed", report.Freed, sum(garbage))
			e.remains(before, garbage)
			e.abandoned(func(o *env) { o.intact(kept) })
			report = e.collect("Collect again", scheme.WithGrace(0))
			e.removed(report, nil)
			e.abandoned(func(o *env) { o.push(e.r.WithTag("after"), Image("after")) })
			e.removed(e.collect("Collect of a repository that was written to", scheme.WithGrace(0)), nil)
		},
	}, {
		name: "dry run",
		rule: "with WithDryRun the report is what Collect would do, and nothing changes",
		has:  []Capability{Collector, BlobLister},
		run: func(e *env) {
			for _, opts := range [][]scheme.CollectOption{{scheme.WithGrace(0)}, {scheme.WithGrace(0), scheme.WithUntagged()}} {
				var kept []*Item
				e.abandoned(func(o *env) { kept, _ = o.litter() })
				before := e.contents()
				dry := e.collect("dry run", append(opts, scheme.WithDryRun())...)
				e.same("contents after a dry run", e.contents(), before)
				e.abandoned(func(o *env) { o.intact(kept) })
				if len(dry.Removed) == 0 {
					e.errorf("the dry run reports no garbage")
				}
				real := e.collect("Collect", opts...)
				e.same("report of the dry run", ordered(dry), ordered(real))
			}
		},
	}, {
		name: "young",
		rule: "what is younger than the grace period, which is DefaultGrace unless WithGrace says otherwise, is counted and kept, also with WithUntagged",
		has:  []Capability{Collector, BlobLister},
		run: func(e *env) {
			garbage := map[digest.Digest]int64{}
			e.abandoned(func(o *env) { _, garbage = o.litter() })
			before := e.contents()
			for what, opts := range map[string][]scheme.CollectOption{
				"by default": nil, "with a grace period": {scheme.WithGrace(10 * time.Minute)}, "with untagged ones": {scheme.WithUntagged()},
			} {
				report := e.collect("Collect "+what, opts...)
				e.removed(report, nil)
				e.same("Young "+what, report.Young, len(garbage))
				e.same("Untagged "+what, len(report.Untagged), 0)
				e.same("contents", e.contents(), before)
			}
		},
	}, {
		name: "untagged",
		rule: "WithUntagged also removes what a tag does not reach; kept are manifests that an index with a tag lists, referrers of what is kept, directly or by way of others, and those whose subject is not in the repository",
		has:  []Capability{Collector, BlobLister},
		run:  collectUntagged,
	}, {
		name:  "gaps",
		rule:  "content that is missing is no reason to remove what else its manifest needs, nor an error, where it decides nothing",
		has:   []Capability{Collector, BlobLister},
		needs: []Feature{BlobDelete},
		run: func(e *env) {
			it := Image("gap")
			garbage := Blob("garbage", 100)
			e.abandoned(func(o *env) {
				o.push(e.r.WithTag("v1"), it)
				o.put(e.r, garbage)
				e.must("BlobDelete", o.api.BlobDelete(e.ctx, e.r, describe("", it.Blobs[1])))
			})
			e.removed(e.collect("Collect", scheme.WithGrace(0)), map[digest.Digest]int64{digest.FromBytes(garbage): 100})
			e.shows(e.r.WithTag("v1"), it)
			e.holds(e.r, digest.FromBytes(it.Blobs[0]), it.Blobs[0])
			e.holds(e.r, digest.FromBytes(it.Blobs[2]), it.Blobs[2])
		},
	}, {
		name: "another repository",
		rule: "Collect takes nothing from another repository, and counts what others share as Shared and not as freed",
		has:  []Capability{Collector, BlobLister},
		run: func(e *env) {
			data, own := Blob("shared", 5000), Blob("own", 300)
			d := describe("", data)
			e.abandoned(func(o *env) {
				o.push(e.r.WithTag("v1"), Image("kept"))
				o.put(e.r, data)
				o.put(e.r, own)
				if e.h.can(Mount) {
					e.must("BlobMount", o.api.BlobMount(e.ctx, e.r, e.other, d))
				} else {
					o.put(e.other, data)
				}
				o.push(e.other.WithTag("v1"), Image("needs it", Layer(describe("application/x", data))))
			})
			report := e.collect("Collect", scheme.WithGrace(0))
			e.removed(report, map[digest.Digest]int64{d.Digest: 5000, digest.FromBytes(own): 300})
			freed := int64(0)
			for _, g := range report.Removed {
				if !g.Shared {
					freed += g.Size
				}
			}
			e.same("Freed", report.Freed, freed)
			e.holds(e.other, d.Digest, data)
		},
	}, {
		name: "nothing there",
		rule: "Collect of what is no repository is ErrNotFound, of a context that has ended its error; of a repository without anything it is nothing",
		has:  []Capability{Collector},
		run: func(e *env) {
			c := find[scheme.Collector](e, e.r)
			_, err := c.Collect(e.ctx, e.r, scheme.WithGrace(0))
			e.refused("Collect", err, errs.ErrNotFound)
			_, err = c.Collect(e.ctx, e.r, scheme.WithDryRun())
			e.refused("Collect, dry run", err, errs.ErrNotFound)
			e.untouched()
			e.abandoned(func(o *env) { o.begin() })
			ended, cancel := context.WithCancel(e.ctx)
			cancel()
			_, err = c.Collect(ended, e.r, scheme.WithGrace(0))
			e.is("Collect", err, context.Canceled)
			report := e.collect("Collect", scheme.WithGrace(0))
			e.removed(report, map[digest.Digest]int64{digest.FromBytes(Blob("begin", 10)): 10})
			e.tags(e.r)
			e.removed(e.collect("Collect of nothing", scheme.WithGrace(0)), nil)
		},
	}, {
		name: "ingests",
		rule: "Collect leaves ingests alone that somebody has open",
		has:  []Capability{Collector, Ingester},
		run: func(e *env) {
			e.reopenable()
			e.begin()
			data := Blob("open", 1000)
			u := e.ingest(e.r, "open")
			e.write(u, data[:500])
			e.collect("Collect", scheme.WithGrace(0))
			e.write(u, data[500:])
			_, err := u.Commit(e.ctx, describe("", data), nil)
			e.must("Commit", err)
			e.holds(e.r, digest.FromBytes(data), data)
		},
	}, {
		name: "labels",
		rule: "the labels of a blob that was collected are gone when it is put again",
		has:  []Capability{Collector, Labeler, BlobStater},
		run: func(e *env) {
			data := Blob("labelled", 100)
			e.abandoned(func(o *env) {
				o.begin()
				o.labels(e.r, o.put(e.r, data).Digest, map[string]string{"a": "1"})
			})
			e.collect("Collect", scheme.WithGrace(0))
			e.lacks(e.r, digest.FromBytes(data))
			e.sameLabels("labels", e.stat(e.r, e.put(e.r, data).Digest).Labels, nil)
		},
	}, {
		name: "others write meanwhile",
		rule: "while Collect runs again and again, what others put, find and mount stays, and what they tag is complete",
		has:  []Capability{Collector, BlobLister},
		run:  collectMeanwhile,
	},
}

func collectUntagged(e *env) {
	old, child, now := Image("old"), Image("child"), Image("now")
	ix := Index([]*Item{child, Image("another child")})
	plainIndex, signed := Index([]*Item{Image("child of what is not tagged")}), Image("signed")
	sig := Image("signature of a child", Subject(child.Descriptor()))
	sigOfSig := Image("signature of a signature", Subject(sig.Descriptor()))
	lost := Image("signature of what is not there", Subject(Image("absent").Descriptor()))
	gone := Image("signature of what is not tagged", Subject(old.Descriptor()))
	tagged := Image("tagged signature", Subject(signed.Descriptor()))
	e.abandoned(func(o *env) {
		o.push(e.r.WithTag("v1"), old)
		o.push(e.r.WithTag("v1"), now)
		o.push(e.r.WithTag("ix"), ix)
		for _, it := range []*Item{plainIndex, signed, sig, sigOfSig, lost, gone} {
			o.push(e.r.WithDigest(it.Manifest.Digest()), it)
		}
		o.push(e.r.WithTag("sig"), tagged)
	})
	before := e.contents()
	e.removed(e.collect("Collect without WithUntagged", scheme.WithGrace(0)), nil)
	garbage, entries := map[digest.Digest]int64{}, map[digest.Digest]bool{}
	for _, it := range []*Item{old, plainIndex, plainIndex.Children[0], gone} {
		entries[it.Manifest.Digest()] = true
		it.each(func(d digest.Digest, size int64) { garbage[d] = size })
	}
	report := e.collect("Collect", scheme.WithGrace(0), scheme.WithUntagged())
	e.removed(report, garbage)
	for _, d := range report.Untagged {
		if !entries[d.Digest] {
			e.errorf("Untagged names %s, whose entry is needed or was not there", d.Digest)
		}
		delete(entries, d.Digest)
	}
	delete(entries, plainIndex.Children[0].Manifest.Digest()) // a place need not have an entry of its own for it
	e.same("entries that Untagged does not name", len(entries), 0)
	e.remains(before, garbage)
	e.abandoned(func(o *env) {
		o.intact([]*Item{now, ix, signed, sig, sigOfSig, lost, tagged})
		o.tags(e.r, "ix", "sig", "v1")
		for _, it := range []*Item{old, plainIndex, gone} {
			o.absent(e.r.WithDigest(it.Manifest.Digest()))
		}
	})
}

func collectMeanwhile(e *env) {
	e.reopenable()
	e.begin()
	done := make(chan struct{})
	var collecting, writing errgroup.Group
	collector := *e
	collector.another()
	c := find[scheme.Collector](&collector, e.r)
	collecting.Go(func() error {
		for {
			if _, err := c.Collect(e.ctx, e.r, scheme.WithGrace(0)); err != nil {
				return fmt.Errorf("collecting: %w", err)
			}
			select {
			case <-done:
				return nil
			default:
			}
		}
	})
	for i := range e.h.Writers {
		writer := *e
		if i%2 == 1 {
			writer.another()
		}
		writing.Go(func() error {
			for j := range 4 {
				tag := fmt.Sprintf("v%d-%d", i, j)
				it := Image("meanwhile "+tag, Layer(describe("application/x", Blob("meanwhile, in all", 100))))
				it.Blobs = append(it.Blobs, Blob("meanwhile, in all", 100))
				if err := it.Push(e.ctx, writer.api, e.r.WithTag(tag)); err != nil {
					return err
				}
				if d, err := writer.api.BlobHead(e.ctx, e.r, describe("", it.Blobs[2])); err != nil || d.Size == 0 {
					return errors.Join(errors.New("what was tagged is not complete"), err)
				}
			}
			return nil
		})
	}
	err := writing.Wait()
	close(done)
	e.must("Collect", collecting.Wait())
	e.must("a writer", err)
	for i := range e.h.Writers {
		for j := range 4 {
			tag := fmt.Sprintf("v%d-%d", i, j)
			it := Image("meanwhile "+tag, Layer(describe("application/x", Blob("meanwhile, in all", 100))))
			it.Blobs = append(it.Blobs, Blob("meanwhile, in all", 100))
			e.shows(e.r.WithTag(tag), it)
			for _, b := range it.Blobs {
				e.holds(e.r, digest.FromBytes(b), b)
			}
		}
	}
}
