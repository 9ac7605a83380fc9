package schemetest

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

var contextCases = []testCase{
	{
		name: "ended before",
		rule: "a context that has ended is every method's error, and nothing is written",
		run: func(e *env) {
			cancelled, cancel := context.WithCancel(e.ctx)
			cancel()
			late, cancel := context.WithDeadline(e.ctx, time.Unix(1, 0))
			defer cancel()
			it := Image("never")
			e.must("content", Image("present").Push(e.ctx, e.api, e.r.WithTag("v1")))
			for _, c := range allCalls(it) {
				r := e.r.WithTag("v1")
				if c.name == "ManifestDelete" {
					r = e.r.WithDigest(it.Manifest.Digest())
				}
				if c.needs != "" && !e.h.can(c.needs) {
					continue
				}
				e.is(c.name+" of a cancelled context", c.do(cancelled, e.api, r), context.Canceled)
				e.is(c.name+" after the deadline", c.do(late, e.api, r), context.DeadlineExceeded)
			}
			e.lacks(e.r, digest.FromBytes(it.Blobs[1]))
			e.absent(e.r.WithDigest(it.Manifest.Digest()))
			e.shows(e.r.WithTag("v1"), Image("present"))
			e.tags(e.r, "v1")
		},
	}, {
		name: "ended while reading",
		rule: "the context of BlobGet stays in force for the stream: once it has ended, reading gives its error and never io.EOF",
		run: func(e *env) {
			data := Blob("interrupted", e.h.BlobSize)
			d := e.put(e.r, data)
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			rdr, err := e.api.BlobGet(ctx, e.r, d)
			e.must("BlobGet", err)
			defer rdr.Close()
			_, err = io.CopyN(io.Discard, rdr, 1000)
			e.must("reading the beginning", err)
			cancel()
			n, err := io.Copy(io.Discard, rdr)
			e.is("reading on", err, context.Canceled)
			if n >= int64(len(data))-1000 {
				e.errorf("all %d bytes were read after the context had ended", len(data))
			}
			e.holds(e.r, d.Digest, data)
		},
	}, {
		name: "ended while listing",
		rule: "the context ends a list between two callbacks",
		has:  []Capability{BlobLister},
		run: func(e *env) {
			e.push(e.r.WithTag("v1"), Image("listed"))
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			calls := 0
			err := find[scheme.BlobLister](e, e.r).BlobList(ctx, e.r, func(blob.Info) error {
				calls++
				cancel()
				return nil
			})
			e.is("BlobList", err, context.Canceled)
			e.same("callbacks", calls, 1)
		},
	}, {
		name: "of one call only",
		rule: "a cancelled call does not disturb another one that is under way",
		run: func(e *env) {
			data := Blob("undisturbed", e.h.BlobSize)
			d := e.put(e.r, data)
			rdr, err := e.api.BlobGet(e.ctx, e.r, d)
			e.must("BlobGet", err)
			defer rdr.Close()
			_, err = io.CopyN(io.Discard, rdr, 1000)
			e.must("reading the beginning", err)
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			it := Blob("disturbing", e.h.BlobSize)
			_, err = e.api.BlobPut(ctx, e.r, describe("", it), &tripwire{data: it, at: len(it) / 2, trip: cancel})
			e.is("BlobPut", err, context.Canceled)
			n, err := io.Copy(io.Discard, rdr)
			e.must("reading on", err)
			e.same("bytes", n, int64(len(data))-1000)
			e.push(e.r.WithTag("v1"), Image("after"))
			_, err = e.api.BlobHead(e.ctx, e.r, describe("", it))
			e.refused("BlobHead", err, errs.ErrNotFound)
		},
	},
}
