package schemetest

import (
	"bytes"
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
)

var cleanCases = []testCase{
	{
		name: "sync",
		rule: "Sync takes what was put with less than full durability, and changes nothing of it; a context that has ended is its error",
		has:  []Capability{Syncer},
		run: func(e *env) {
			syncer := find[scheme.Syncer](e, e.r)
			data := Blob("deferred", 5000)
			d, err := e.api.BlobPut(e.ctx, e.r, describe("", data), bytes.NewReader(data), scheme.WithDeferredSync())
			e.must("BlobPut", err)
			it := e.push(e.r.WithTag("v1"), Image("synced"))
			ended, cancel := context.WithCancel(e.ctx)
			cancel()
			e.is("Sync", syncer.Sync(ended, e.r), context.Canceled)
			for range 2 {
				e.must("Sync", syncer.Sync(e.ctx, e.r))
			}
			e.another()
			e.holds(e.r, d.Digest, data)
			e.shows(e.r.WithTag("v1"), it)
		},
	}, {
		name: "clean",
		rule: "Clean removes the ingests that nobody has open and nobody has written to for that long, says which, and touches neither blobs nor what is open",
		has:  []Capability{Cleaner, Ingester},
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("kept"))
			e.put(e.r, Blob("garbage, but whole", 100))
			open := e.ingest(e.r, "open")
			data := Blob("open", 1000)
			e.write(open, data[:500])
			left := e.ingest(e.r, "left")
			e.write(left, Blob("left", 300))
			e.must("Close", left.Close())
			for name, o := range e.twice() {
				report, err := find[scheme.Cleaner](o, e.r).Clean(e.ctx, e.r, time.Hour)
				e.must("Clean of the old by "+name, err)
				e.same("ingests removed after an hour", keysOf(report.Ingests), []string{})
			}
			e.same("Offset of what was left", e.left(e.r, "left").Offset, int64(300))
			report, err := find[scheme.Cleaner](e, e.r).Clean(e.ctx, e.r, 0)
			e.must("Clean", err)
			e.same("ingests removed", keysOf(report.Ingests), []string{"left"})
			if report.Bytes < 300 {
				e.errorf("Bytes is %d: the ingest that was removed had 300", report.Bytes)
			}
			e.gone(e.r, "left")
			e.write(open, data[500:])
			_, err = open.Commit(e.ctx, describe("", data), nil)
			e.must("Commit of what was open", err)
			e.holds(e.r, digest.FromBytes(data), data)
			e.holds(e.r, digest.FromBytes(Blob("garbage, but whole", 100)), Blob("garbage, but whole", 100))
			e.intact([]*Item{it})
		},
	}, {
		name: "nothing there",
		rule: "Clean of what is no repository is ErrNotFound, and creates none; of a context that has ended its error",
		has:  []Capability{Cleaner},
		run: func(e *env) {
			cleaner := find[scheme.Cleaner](e, e.r)
			_, err := cleaner.Clean(e.ctx, e.r, 0)
			e.refused("Clean", err, errs.ErrNotFound)
			e.untouched()
			e.begin()
			report, err := cleaner.Clean(e.ctx, e.r, 0)
			e.must("Clean", err)
			e.same("ingests removed", len(report.Ingests), 0)
			e.holds(e.r, digest.FromBytes(Blob("begin", 10)), Blob("begin", 10))
			ended, cancel := context.WithCancel(e.ctx)
			cancel()
			_, err = cleaner.Clean(ended, e.r, 0)
			e.is("Clean", err, context.Canceled)
		},
	},
}
