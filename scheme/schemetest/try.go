package schemetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/blob"
)

// try finds a capability of api for the repository and uses it in the simplest way, on the blob of begin.
func (e *env) try(api scheme.API, c Capability) (found bool, err error) {
	begin := describe("", Blob("begin", 10))
	switch c {
	case BlobOpener:
		return use(e, api, func(o scheme.BlobOpener) error {
			ra, err := o.BlobOpen(e.ctx, e.r, begin)
			if err != nil {
				return err
			}
			return ra.Close()
		})
	case BlobLister:
		return use(e, api, func(l scheme.BlobLister) error {
			return l.BlobList(e.ctx, e.r, func(blob.Info) error { return nil })
		})
	case RepoLister:
		return use(e, api, func(l scheme.RepoLister) error {
			return l.RepoList(e.ctx, e.r, "", func(string) error { return nil })
		})
	case BlobFinder:
		return use(e, api, func(f scheme.BlobFinder) error {
			return f.BlobFind(e.ctx, e.r, begin.Digest, func(string) error { return nil })
		})
	case BlobStater:
		return use(e, api, func(s scheme.BlobStater) error {
			_, err := s.BlobStat(e.ctx, e.r, begin.Digest)
			return err
		})
	case Labeler:
		return use(e, api, func(l scheme.Labeler) error {
			_, err := l.BlobLabel(e.ctx, e.r, blob.Info{Digest: begin.Digest}, "labels.none")
			return err
		})
	case Ingester:
		return use(e, api, func(i scheme.Ingester) error { return e.tryIngest(i, func(scheme.Upload) error { return nil }) })
	case IngestManager:
		return use(e, api, func(m scheme.IngestManager) error {
			return m.IngestList(e.ctx, e.r, func(blob.Ingest) error { return nil })
		})
	case Truncater:
		able := false
		found, err := use(e, api, func(i scheme.Ingester) error {
			return e.tryIngest(i, func(u scheme.Upload) error {
				t, ok := u.(scheme.Truncater)
				if able = ok; !ok {
					return nil
				}
				return t.Truncate(e.ctx, 0)
			})
		})
		return found && able, err
	}
	return e.tryUpkeep(api, c)
}

// tryUpkeep is try for the capabilities that look after a repository as a whole.
func (e *env) tryUpkeep(api scheme.API, c Capability) (found bool, err error) {
	switch c {
	case IndexStore:
		return use(e, api, func(s scheme.IndexStore) error {
			_, err := s.IndexGet(e.ctx, e.r)
			return err
		})
	case Leaser:
		return use(e, api, func(l scheme.Leaser) error {
			release, err := l.Lease(e.ctx, e.r, describe("", Blob("begin", 10)).Digest)
			if err == nil {
				release()
			}
			return err
		})
	case Syncer:
		return use(e, api, func(s scheme.Syncer) error { return s.Sync(e.ctx, e.r) })
	case Cleaner:
		return use(e, api, func(c scheme.Cleaner) error {
			_, err := c.Clean(e.ctx, e.r, time.Hour)
			return err
		})
	case Collector:
		return use(e, api, func(c scheme.Collector) error {
			_, err := c.Collect(e.ctx, e.r, scheme.WithDryRun())
			return err
		})
	case Checker:
		return use(e, api, func(c scheme.Checker) error {
			_, err := c.Check(e.ctx, e.r, func(scheme.Problem) error { return nil })
			return err
		})
	}
	return false, fmt.Errorf("no such capability: %s", c)
}

// use finds the capability T and does something with it.
func use[T any](e *env, api scheme.API, do func(T) error) (found bool, err error) {
	var c T
	if !scheme.As(api, e.r, &c) {
		return false, nil
	}
	return true, do(c)
}

// tryIngest begins an ingest, and removes it.
func (e *env) tryIngest(i scheme.Ingester, do func(scheme.Upload) error) error {
	u, err := i.Ingest(e.ctx, e.r, "tried "+string(digest.FromString(e.rule)))
	if err != nil {
		return err
	}
	return errors.Join(do(u), u.Abort(e.ctx))
}
