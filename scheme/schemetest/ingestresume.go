package schemetest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// Cases of Ingester: going on with what was left, starting over, taking back.

var ingestResumeCases = []testCase{
	{
		name: "goes on at any offset",
		rule: "an ingest that was left goes on at its end, by the same API and by another one, with its beginning, its digest and its owner",
		has:  []Capability{Ingester},
		run: func(e *env) {
			for name, o := range e.twice() {
				for _, size := range []int{16, 1000, 100_000, e.h.BlobSize} {
					for _, percent := range []int{0, 10, 50, 90, 100} {
						data := Blob(fmt.Sprint("resumed by ", name, size, percent), size)
						cut := size * percent / 100
						u := e.ingest(e.r, "resumed", scheme.WithIngestOwner("alice"), scheme.WithExpectedBlob(describe("", data)))
						e.write(u, data[:cut])
						first := u.Status()
						e.must("Close", u.Close())
						u = o.ingest(e.r, "resumed")
						now := u.Status()
						e.sameIngest("Status of what was left", now, first)
						e.same("Offset", now.Offset, int64(cut))
						e.same("Digest of what was left", u.Digest(), digest.FromBytes(data[:cut]))
						e.write(u, data[cut:])
						e.same("Digest of all", u.Digest(), digest.FromBytes(data))
						_, err := u.Commit(e.ctx, describe("", data), nil)
						e.must("Commit", err)
						e.holds(e.r, digest.FromBytes(data), data)
					}
				}
			}
		},
	}, {
		name: "goes on with what is expected",
		rule: "an ingest goes on when the same digest and size are expected again, or none",
		has:  []Capability{Ingester},
		run: func(e *env) {
			for name, o := range e.twice() {
				data := Blob("expected by "+name, 1000)
				d := describe("", data)
				for i, expected := range []types.Descriptor{{Digest: d.Digest, Size: d.Size}, {Digest: d.Digest}, {Size: d.Size}} {
					key := fmt.Sprint("expected ", i)
					opt := scheme.WithExpectedBlob(expected)
					u := e.ingest(e.r, key, opt)
					e.same("Status: digest expected", u.Status().Expected.Digest, expected.Digest)
					e.same("Status: size expected", u.Status().Expected.Size, expected.Size)
					e.write(u, data[:600])
					e.must("Close", u.Close())
					for _, opts := range [][]scheme.IngestOption{{opt}, nil, {opt}} {
						u = o.ingest(e.r, key, opts...)
						e.same("Offset", u.Status().Offset, int64(600))
						e.same("Status: digest expected", u.Status().Expected.Digest, expected.Digest)
						e.same("Status: size expected", u.Status().Expected.Size, expected.Size)
						e.must("Close", u.Close())
					}
					e.must("Abort", o.ingest(e.r, key).Abort(e.ctx))
				}
			}
		},
	}, {
		name: "starts over",
		rule: "an ingest whose expected digest or size is another one now starts over, empty: nothing of what was written before can get into the blob",
		has:  []Capability{Ingester},
		run: func(e *env) {
			for name, o := range e.twice() {
				for _, size := range []int{3, 5, 6} {
					data := Blob(fmt.Sprint("short ", name, size), size)
					d := describe("", data)
					for j, c := range []struct{ was, now types.Descriptor }{
						{types.Descriptor{Size: 1000}, types.Descriptor{Size: d.Size}},
						{types.Descriptor{Digest: digest.FromString("another")}, types.Descriptor{Digest: d.Digest}},
						{types.Descriptor{Digest: digest.FromString("another"), Size: 1000}, d},
						{types.Descriptor{Digest: d.Digest, Size: 1000}, d},
					} {
						e.must("Abort", e.ingest(e.r, "over").Abort(e.ctx))
						u := e.ingest(e.r, "over", scheme.WithExpectedBlob(c.was))
						e.write(u, []byte("12345"))
						e.must("Close", u.Close())
						u = o.ingest(e.r, "over", scheme.WithExpectedBlob(c.now))
						e.same("Offset after starting over", u.Status().Offset, int64(0))
						e.same("Status: size expected", u.Status().Expected.Size, c.now.Size)
						e.same("Digest of nothing", u.Digest(), digest.FromString(""))
						e.write(u, data)
						if j < 3 { // once it is there it cannot be expected any more
							e.same("Digest", u.Digest(), d.Digest)
							e.must("Close", u.Close())
							e.same("Offset", o.left(e.r, "over").Offset, d.Size)
							continue
						}
						got, err := u.Commit(e.ctx, types.Descriptor{}, nil)
						e.must("Commit", err)
						e.same("Commit: digest", got.Digest, d.Digest)
						e.holds(e.r, d.Digest, data)
					}
				}
			}
		},
	}, {
		name: "status",
		rule: "Status says how much was written, when the ingest was begun and last written to, and who began it; opening it again changes none of that",
		has:  []Capability{Ingester},
		run: func(e *env) {
			data := Blob("status", 300)
			before := wall()
			u := e.ingest(e.r, "status", scheme.WithIngestOwner("alice"), scheme.WithExpectedBlob(describe("", data)), scheme.WithIngestLabels(map[string]string{"a": "1"}))
			begun := wall()
			for i := range 3 {
				early := wall()
				e.write(u, data[i*100:][:100])
				in := u.Status()
				e.same("Key", in.Key, "status")
				e.same("Offset", in.Offset, int64(i*100+100))
				e.same("Expected", in.Expected.Digest, digest.FromBytes(data))
				e.same("Labels", in.Labels, map[string]string{"a": "1"})
				e.same("Owner", in.Owner, "alice")
				e.same("Active", in.Active, true)
				e.same("Digest", u.Digest(), digest.FromBytes(data[:i*100+100]))
				e.between("Started", in.Started, before, begun)
				e.between("Updated", in.Updated, early, wall())
			}
			started := u.Status().Started
			e.must("Close", u.Close())
			e.same("Active after Close", u.Status().Active, false)
			written := wall()
			for name, o := range e.twice() {
				u = o.ingest(e.r, "status", scheme.WithIngestOwner("bob"))
				in := u.Status()
				if !in.Started.Equal(started) {
					e.errorf("Started, opened again by %s: got %s, want %s", name, in.Started, started)
				}
				e.between("Updated of what was left", in.Updated, begun, written)
				e.same("Owner", in.Owner, "alice")
				e.must("Close", u.Close())
			}
			if owner := e.left(e.r, "nobody's").Owner; owner == "" {
				e.errorf("the ingest of nobody in particular has no owner: the place must say what it knows")
			}
		},
	}, {
		name: "truncate",
		rule: "Truncate cuts the ingest anywhere, and writing goes on there; with more than there is or less than nothing it is ErrRangeInvalid and changes nothing",
		has:  []Capability{Ingester, Truncater},
		run: func(e *env) {
			data, tail := Blob("truncated", 5000), Blob("another end", 1000)
			for name, o := range e.twice() {
				for i, size := range []int{0, 1, 2500, 4999, 5000} {
					want := slices.Concat(data[:size], tail, []byte(name))
					u := e.ingest(e.r, "truncated")
					e.write(u, data)
					for _, wrong := range []int64{-1, 5001, 1 << 60} {
						e.refused(fmt.Sprint("Truncate to ", wrong), e.truncate(u, wrong), errs.ErrRangeInvalid)
					}
					e.same("Digest after a Truncate that failed", u.Digest(), digest.FromBytes(data))
					if i%2 == 0 {
						e.must("Close", u.Close())
						u = o.ingest(e.r, "truncated")
					}
					e.must("Truncate", e.truncate(u, int64(size)))
					e.same("Offset", u.Status().Offset, int64(size))
					e.same("Digest after Truncate", u.Digest(), digest.FromBytes(data[:size]))
					e.write(u, want[size:])
					if i%2 == 1 {
						e.must("Close", u.Close())
						u = o.ingest(e.r, "truncated")
					}
					e.same("Digest", u.Digest(), digest.FromBytes(want))
					_, err := u.Commit(e.ctx, describe("", want), nil)
					e.must("Commit", err)
					e.holds(e.r, digest.FromBytes(want), want)
				}
			}
		},
	}, {
		name: "truncate and close",
		rule: "what Truncate took away stays away when the ingest is left",
		has:  []Capability{Ingester, Truncater},
		run: func(e *env) {
			for name, o := range e.twice() {
				u := e.ingest(e.r, "cut")
				e.write(u, Blob("cut", 5000))
				e.must("Truncate", e.truncate(u, 10))
				e.must("Close", u.Close())
				e.same("Offset, seen by "+name, o.left(e.r, "cut").Offset, int64(10))
				o.finish(e.r, "cut", Blob("cut", 5000)[:10], nil)
				e.must("BlobDelete", e.deleteIfAble(digest.FromBytes(Blob("cut", 5000)[:10])))
			}
		},
	}, {
		name: "context",
		rule: "a context that has ended is the error of Ingest and Commit; that of Ingest stays in force for Write; what was written is kept",
		has:  []Capability{Ingester},
		run: func(e *env) {
			data := Blob("context", 1000)
			ended, cancel := context.WithCancel(e.ctx)
			cancel()
			ing := find[scheme.Ingester](e, e.r)
			_, err := ing.Ingest(ended, e.r, "context")
			e.is("Ingest", err, context.Canceled)
			e.gone(e.r, "context")
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			u, err := ing.Ingest(ctx, e.r, "context")
			e.must("Ingest", err)
			e.write(u, data[:500])
			cancel()
			n, err := u.Write(data[500:])
			e.is("Write", err, context.Canceled)
			e.same("bytes written after the context had ended", n, 0)
			e.must("Close", u.Close())
			u = e.ingest(e.r, "context")
			e.write(u, data[500:])
			_, err = u.Commit(ended, describe("", data), nil)
			e.is("Commit", err, context.Canceled)
			e.lacks(e.r, digest.FromBytes(data))
			e.finish(e.r, "context", data, nil)
		},
	}, {
		name: "token",
		rule: "with the token of an Upload another process goes on; one that the place does not know is ErrUploadUnknown and makes nothing",
		has:  []Capability{Ingester},
		run: func(e *env) {
			data := Blob("token", 1000)
			for _, o := range e.twice() {
				u := e.ingest(e.r, "token")
				e.write(u, data[:400])
				token := u.Token()
				e.must("Close", u.Close())
				u = o.ingest(e.r, "token", scheme.WithIngestToken(token))
				e.same("Offset", u.Status().Offset, int64(400))
				e.same("Digest", u.Digest(), digest.FromBytes(data[:400]))
				e.must("Abort", u.Abort(e.ctx))
				_, err := find[scheme.Ingester](o, e.r).Ingest(e.ctx, e.r, "foreign", scheme.WithIngestToken("what nobody gave"))
				e.refused("Ingest with a foreign token", err, errs.ErrUploadUnknown)
				o.gone(e.r, "foreign")
			}
		},
	},
}

// wall is the time as it can be stored.
func wall() time.Time { return time.Now().Round(0) }

// between expects a time that some act took place at.
func (e *env) between(what string, t, first, last time.Time) {
	e.t.Helper()
	if t.Before(first) || t.After(last) {
		const form = "15:04:05.000000000"
		e.errorf("%s is %s, want a time between %s and %s", what, t.Format(form), first.Format(form), last.Format(form))
	}
}

// truncate is Truncate of an upload that must be able to.
func (e *env) truncate(u scheme.Upload, size int64) error {
	e.t.Helper()
	t, ok := u.(scheme.Truncater)
	if !ok {
		e.fatalf("%T is no Truncater", u)
	}
	return t.Truncate(e.ctx, size)
}

// deleteIfAble deletes a blob where that is possible.
func (e *env) deleteIfAble(d digest.Digest) error {
	if !e.h.can(BlobDelete) {
		return nil
	}
	return e.api.BlobDelete(e.ctx, e.r, types.Descriptor{Digest: d})
}
