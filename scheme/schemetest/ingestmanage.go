package schemetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var ingestManageCases = []testCase{
	{
		name: "stat",
		rule: "IngestStat says what Status does, of ingests that are open and that were left, by every API; of others ErrUploadUnknown",
		has:  []Capability{Ingester, IngestManager},
		run: func(e *env) {
			u := e.ingest(e.r, "seen", scheme.WithIngestOwner("alice"), scheme.WithExpectedBlob(describe("", Blob("seen", 100))), scheme.WithIngestLabels(map[string]string{"a": "1"}))
			all := e.twice()
			check := func() {
				for name, o := range all {
					in, err := o.manager().IngestStat(e.ctx, e.r, "seen")
					e.must("IngestStat by "+name, err)
					e.sameIngest("IngestStat by "+name, in, u.Status())
					for _, r := range []ref.Ref{e.r, e.other} {
						_, err = o.manager().IngestStat(e.ctx, r, "unseen")
						e.refused("IngestStat of what is not there", err, errs.ErrUploadUnknown)
					}
					_, err = o.manager().IngestStat(e.ctx, e.other, "seen")
					e.refused("IngestStat in another repository", err, errs.ErrUploadUnknown)
				}
			}
			check()
			e.write(u, Blob("seen", 60))
			check()
			e.same("Active", u.Status().Active, true)
			e.must("Close", u.Close())
			check()
			e.same("Active after Close", u.Status().Active, false)
			in, err := e.manager().IngestStat(e.ctx, e.r, "seen")
			e.must("IngestStat", err)
			e.same("Offset", in.Offset, int64(60))
		},
	}, {
		name: "list",
		rule: "IngestList names every ingest of the repository, and no other's, once, in byte order of the keys, as IngestStat describes it; where there is none it is empty",
		has:  []Capability{Ingester, IngestManager},
		run: func(e *env) {
			e.same("ingests of nothing", e.ingests(e.r), []string{})
			keys := []string{"b", "a", "B", "a/b", "ab", "a\x00", "é", "\xff", strings.Repeat("x", 300), "sha256:" + strings.Repeat("a", 64)}
			for i, key := range keys {
				u := e.ingest(e.r, key)
				e.write(u, Blob("listed", i))
				if i%2 == 0 {
					e.must("Close", u.Close())
				}
			}
			e.must("Close", e.ingest(e.other, "other").Close())
			slices.Sort(keys)
			for name, o := range e.twice() {
				e.same("ingests listed by "+name, o.ingests(e.r), keys)
				err := o.manager().IngestList(e.ctx, e.r, func(in blob.Ingest) error {
					one, err := o.manager().IngestStat(e.ctx, e.r, in.Key)
					if err == nil {
						e.sameIngest("IngestList", in, one)
					}
					return err
				})
				e.must("IngestList", err)
			}
			e.begin()
			e.same("ingests once the repository exists", e.ingests(e.r), keys)
		},
	}, {
		name: "list ends",
		rule: "IngestList ends with the first error of the callback, and returns it; the callback may use the API",
		has:  []Capability{Ingester, IngestManager},
		run: func(e *env) {
			for i := range 5 {
				e.must("Close", e.ingest(e.r, fmt.Sprint(i)).Close())
			}
			calls := 0
			err := e.manager().IngestList(e.ctx, e.r, func(blob.Ingest) error {
				if calls++; calls == 2 {
					return errStop
				}
				return nil
			})
			e.is("IngestList", err, errStop)
			e.same("callbacks", calls, 2)
			err = e.manager().IngestList(e.ctx, e.r, func(in blob.Ingest) error { return e.manager().IngestAbort(e.ctx, e.r, in.Key) })
			e.must("IngestList whose callback aborts", err)
			e.same("ingests afterwards", e.ingests(e.r), []string{})
			ended, cancel := context.WithCancel(e.ctx)
			cancel()
			e.is("IngestList", e.manager().IngestList(ended, e.r, func(blob.Ingest) error { return nil }), context.Canceled)
		},
	}, {
		name: "abort",
		rule: "Abort and IngestAbort remove the ingest with what was written; IngestAbort is ErrLocked while it is open, and ErrUploadUnknown when it is not there",
		has:  []Capability{Ingester, IngestManager},
		run: func(e *env) {
			for name, o := range e.twice() {
				u := e.ingest(e.r, "aborted")
				e.write(u, Blob("aborted", 100))
				e.refused("IngestAbort by "+name, o.manager().IngestAbort(e.ctx, e.r, "aborted"), errs.ErrLocked)
				e.write(u, Blob("aborted", 100))
				e.must("Close", u.Close())
				e.same("Offset", e.left(e.r, "aborted").Offset, int64(200))
				e.refused("IngestAbort in another repository", o.manager().IngestAbort(e.ctx, e.other, "aborted"), errs.ErrUploadUnknown)
				e.must("IngestAbort by "+name, o.manager().IngestAbort(e.ctx, e.r, "aborted"))
				e.refused("IngestAbort again", o.manager().IngestAbort(e.ctx, e.r, "aborted"), errs.ErrUploadUnknown)
				e.gone(e.r, "aborted")

				u = e.ingest(e.r, "aborted")
				e.write(u, Blob("aborted", 100))
				e.must("Abort", u.Abort(e.ctx))
				o.gone(e.r, "aborted")
			}
			e.untouched()
		},
	}, {
		name: "expire",
		rule: "IngestExpire removes and returns the ingests that nobody has open and nobody has written to for that long; 0 is all that nobody has open",
		has:  []Capability{Ingester, IngestManager},
		run: func(e *env) {
			for name, o := range e.twice() {
				open := e.ingest(e.r, "open")
				e.write(open, Blob("open", 10))
				for i, key := range []string{"left", "and", "empty"} {
					u := e.ingest(e.r, key)
					e.write(u, Blob("left", i*10))
					e.must("Close", u.Close())
				}
				e.must("Close", e.ingest(e.other, "other").Close())
				gone, err := o.manager().IngestExpire(e.ctx, e.r, time.Hour)
				e.must("IngestExpire of the old by "+name, err)
				e.same("expired after an hour", keysOf(gone), []string{})
				e.same("ingests", e.ingests(e.r), []string{"and", "empty", "left", "open"})
				gone, err = o.manager().IngestExpire(e.ctx, e.r, 0)
				e.must("IngestExpire by "+name, err)
				e.same("expired", keysOf(gone), []string{"and", "empty", "left"})
				for _, in := range gone {
					e.same("Offset of "+in.Key, in.Offset, map[string]int64{"left": 0, "and": 10, "empty": 20}[in.Key])
				}
				e.same("ingests afterwards", e.ingests(e.r), []string{"open"})
				e.same("ingests of another repository", e.ingests(e.other), []string{"other"})
				e.gone(e.r, "left")
				data := slices.Concat(Blob("open", 10), []byte(name))
				e.write(open, data[10:])
				_, err = open.Commit(e.ctx, describe("", data), nil)
				e.must("Commit of what was open", err)
				e.holds(e.r, describe("", data).Digest, data)
			}
		},
	},
}

func (e *env) manager() scheme.IngestManager { return find[scheme.IngestManager](e, e.r) }

// ingests lists the keys.
func (e *env) ingests(r ref.Ref) []string {
	e.t.Helper()
	keys := []string{}
	e.must("IngestList", e.manager().IngestList(e.ctx, r, func(in blob.Ingest) error {
		keys = append(keys, in.Key)
		return nil
	}))
	return keys
}

// keysOf returns the keys, sorted.
func keysOf(all []blob.Ingest) []string {
	keys := []string{}
	for _, in := range all {
		keys = append(keys, in.Key)
	}
	slices.Sort(keys)
	return keys
}
