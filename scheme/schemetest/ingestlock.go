package schemetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// Cases of Ingester: one writer per key at a time.

var ingestLockCases = []testCase{
	{
		name: "one writer",
		rule: "an ingest that is open is ErrLocked for everybody else, here and through another API; other keys and repositories are not",
		has:  []Capability{Ingester},
		run: func(e *env) {
			for name, o := range e.twice() {
				u := e.ingest(e.r, "locked")
				o.locked(name, "locked")
				e.must("Close of another key", o.ingest(e.r, "another").Close())
				e.must("Close in another repository", o.ingest(e.other, "locked").Close())
				e.write(u, []byte("12345"))
				o.locked(name, "locked")
				e.must("Close", u.Close())
				e.same("Offset after "+name+" was refused", o.left(e.r, "locked").Offset, int64(5))
				e.must("Abort", o.ingest(e.r, "locked").Abort(e.ctx))
			}
		},
	}, {
		name: "the end frees the key",
		rule: "Close, Abort, and Commit whether or not it succeeds free the key at once, for everybody",
		has:  []Capability{Ingester},
		run: func(e *env) {
			for name, o := range e.twice() {
				for end, do := range ends(name) {
					u := e.ingest(e.r, "freed")
					e.write(u, Blob(end+name, 100))
					do(e, u)
					e.must("Abort by "+name+" after "+end, o.ingest(e.r, "freed").Abort(e.ctx))
				}
			}
		},
	}, {
		name: "what is closed stays closed",
		rule: "after Close, Commit and Abort an Upload does nothing any more, whatever they returned: fs.ErrClosed, and Close again is legal",
		has:  []Capability{Ingester},
		run: func(e *env) {
			for end, do := range ends("closed") {
				u := e.ingest(e.r, "closed")
				data := Blob(end+"closed", 100)
				e.write(u, data)
				do(e, u)
				e.closed(u)
				want := int64(0)
				if end == "Close" || end == "a Commit that fails" {
					want = 100
				}
				e.same("Offset after "+end, e.left(e.r, "closed").Offset, want)
				e.must("Abort", e.ingest(e.r, "closed").Abort(e.ctx))
			}
		},
	}, {
		name: "a closed upload touches nothing",
		rule: "an Upload that is closed neither frees, removes nor changes the ingest that somebody else has open since",
		has:  []Capability{Ingester},
		run: func(e *env) {
			for name, o := range e.twice() {
				for end, do := range ends("stale " + name) {
					stale := e.ingest(e.r, "stale")
					e.write(stale, Blob(end+"stale "+name, 100))
					do(e, stale)
					newer := o.ingest(e.r, "stale")
					data := Blob("newer than "+end+name, 50)
					offset := newer.Status().Offset
					e.write(newer, data)
					e.closed(stale)
					e.locked(name, "stale")
					o.locked(name, "stale")
					e.same("Offset of the newer writer", newer.Status().Offset, offset+50)
					_, err := newer.Commit(e.ctx, types.Descriptor{Size: offset + 50}, nil)
					e.must("Commit of the newer writer", err)
				}
			}
		},
	}, {
		name: "one of many",
		rule: "of several who open one key at once exactly one gets it, and the others ErrLocked; Status may be asked meanwhile",
		has:  []Capability{Ingester},
		run: func(e *env) {
			for round := range 8 {
				winner := e.race("contested")
				data := Blob(fmt.Sprint("contested ", round), 10_000)
				var asking errgroup.Group
				for range 2 {
					asking.Go(func() error {
						for last := int64(0); last < 10_000; {
							now := winner.Status().Offset
							if now < last || now > 10_000 {
								return fmt.Errorf("status says %d bytes after %d", now, last)
							}
							last = now
						}
						return nil
					})
				}
				for i := range 100 {
					e.write(winner, data[i*100:][:100])
				}
				e.must("Status", asking.Wait())
				_, err := winner.Commit(e.ctx, describe("", data), nil)
				e.must("Commit", err)
				e.holds(e.r, digest.FromBytes(data), data)
			}
		},
	}, {
		name: "many at once",
		rule: "ingests of different keys do not disturb each other, also when they become the same blob: one Commit succeeds, and the others find it there",
		has:  []Capability{Ingester},
		run: func(e *env) {
			shared := Blob("at once, the same", 50_000)
			var mu sync.Mutex
			made := 0
			var writers errgroup.Group
			for i := range e.h.Writers {
				o := e
				if i%2 == 1 {
					other := *e
					other.another()
					o = &other
				}
				for key, data := range map[string][]byte{"own": Blob(fmt.Sprint("at once ", i), 50_000), "shared": shared} {
					ing := find[scheme.Ingester](o, e.r)
					writers.Go(func() error {
						err := inPieces(e, ing, fmt.Sprint(key, i), data)
						if key == "shared" && (err == nil || errors.Is(err, errs.ErrExists)) {
							mu.Lock()
							defer mu.Unlock()
							if err == nil {
								made++
							}
							return nil
						}
						return err
					})
				}
			}
			e.must("a writer", writers.Wait())
			e.same("how many made the blob that all wrote", made, 1)
			e.holds(e.r, digest.FromBytes(shared), shared)
			for i := range e.h.Writers {
				data := Blob(fmt.Sprint("at once ", i), 50_000)
				e.holds(e.r, digest.FromBytes(data), data)
			}
		},
	},
}

// ends are the ways to end an upload. Content is theirs alone for another name.
func ends(name string) map[string]func(e *env, u scheme.Upload) {
	return map[string]func(e *env, u scheme.Upload){
		"Close": func(e *env, u scheme.Upload) { e.must("Close", u.Close()) },
		"Abort": func(e *env, u scheme.Upload) { e.must("Abort", u.Abort(e.ctx)) },
		"Commit": func(e *env, u scheme.Upload) {
			_, err := u.Commit(e.ctx, types.Descriptor{}, nil)
			e.must("Commit", err)
		},
		"a Commit that fails": func(e *env, u scheme.Upload) {
			_, err := u.Commit(e.ctx, types.Descriptor{Size: 1 << 40}, nil)
			e.refused("Commit", err, errs.ErrSizeMismatch)
		},
		"a Commit of what is there": func(e *env, u scheme.Upload) {
			e.put(e.r, Blob("a Commit of what is there"+name, 100))
			_, err := u.Commit(e.ctx, types.Descriptor{}, nil)
			e.refused("Commit", err, errs.ErrExists)
		},
	}
}

// locked expects that somebody has the ingest open.
func (e *env) locked(who, key string) {
	e.t.Helper()
	u, err := find[scheme.Ingester](e, e.r).Ingest(e.ctx, e.r, key)
	e.refused("Ingest by "+who+" of what is open", err, errs.ErrLocked)
	if err == nil {
		e.must("Close", u.Close())
	}
}

// race opens one ingest from many goroutines and returns the one that got it.
func (e *env) race(key string) scheme.Upload {
	e.t.Helper()
	other := *e
	other.another()
	here, there := find[scheme.Ingester](e, e.r), find[scheme.Ingester](&other, e.r)
	results := make(chan scheme.Upload, e.h.Writers)
	var openers errgroup.Group
	for i := range e.h.Writers {
		openers.Go(func() error {
			ing := here
			if i%2 == 1 {
				ing = there
			}
			u, err := ing.Ingest(e.ctx, e.r, key)
			if err == nil {
				results <- u
			} else if !errors.Is(err, errs.ErrLocked) {
				return err
			}
			return nil
		})
	}
	e.must("an opener", openers.Wait())
	close(results)
	var winner scheme.Upload
	for u := range results {
		if winner != nil {
			e.must("Close", u.Close())
			e.errorf("several have the ingest open at once")
		} else {
			winner = u
		}
	}
	if winner == nil {
		e.fatalf("nobody got the ingest")
	}
	e.t.Cleanup(func() { winner.Close() })
	return winner
}

// inPieces writes data to an ingest, closing and opening it again between two pieces, and commits it.
func inPieces(e *env, ing scheme.Ingester, key string, data []byte) error {
	for _, part := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
		u, err := ing.Ingest(e.ctx, e.r, key)
		if err != nil {
			return err
		}
		if _, err := u.Write(part); err != nil {
			return errors.Join(err, u.Close())
		}
		if err := u.Close(); err != nil {
			return err
		}
	}
	u, err := ing.Ingest(e.ctx, e.r, key)
	if err != nil {
		return err
	}
	_, err = u.Commit(e.ctx, describe("", data), nil)
	return err
}
