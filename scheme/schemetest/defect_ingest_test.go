package schemetest_test

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var ingestDefects = []defect{
	{name: "no lock", group: "IngestLock", rule: "ErrLocked for everybody else", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		u, err := o.open(key, opts)
		if errors.Is(err, errs.ErrLocked) {
			return o.open(key+" of another", opts)
		}
		return u, err
	})},
	{name: "lock of this process only", group: "IngestLock", rule: "ErrLocked for everybody else", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		u, err := o.open(key, opts)
		if errors.Is(err, errs.ErrLocked) && o.current(key) == nil {
			return o.open(key+" of another", opts)
		}
		return u, err
	})},
	{name: "a stale Commit unlocks", group: "IngestLock", rule: "neither frees", make: uploads(func(u *upload) {
		u.commit = func(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
			d, err := u.Upload.Commit(ctx, want, labels)
			if errors.Is(err, fs.ErrClosed) {
				u.newer().Close()
			}
			return d, err
		}
	})},
	{name: "a mismatch keeps the lock", group: "IngestLock", rule: "free the key at once", make: uploads(func(u *upload) {
		u.commit = func(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
			d, err := u.Upload.Commit(ctx, want, labels)
			if errors.Is(err, errs.ErrDigestMismatch) {
				_, again := u.o.open(u.key, nil)
				err = errors.Join(err, again)
			}
			return d, err
		}
	})},
	{name: "a mismatch loses what was written", group: "Ingest", rule: "keeps what was written", make: uploads(func(u *upload) {
		u.commit = func(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
			d, err := u.Upload.Commit(ctx, want, labels)
			if errors.Is(err, errs.ErrDigestMismatch) {
				u.o.IngestAbort(ctx, u.o.r, u.key)
			}
			return d, err
		}
	})},
	{name: "no start over", group: "IngestResume", rule: "starts over", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		if _, err := o.IngestStat(context.Background(), o.r, key); err == nil {
			opts = append(opts, scheme.WithExpectedBlob(types.Descriptor{}))
		}
		return o.open(key, opts)
	})},
	{name: "a start over that does not truncate", group: "IngestResume", rule: "nothing of what was written before", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		was, statErr := o.IngestStat(context.Background(), o.r, key)
		u, err := o.open(key, opts)
		if err == nil && statErr == nil && was.Offset > u.Status().Offset {
			up := &upload{Upload: u, o: o, key: key}
			up.commit = func(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
				if rest := was.Offset - u.Status().Offset; rest > 0 { // the old end is still in the file
					if _, err := u.Write([]byte("12345")[5-rest:]); err != nil {
						return types.Descriptor{}, err
					}
				}
				return u.Commit(ctx, want, labels)
			}
			return up, nil
		}
		return u, err
	})},
	{name: "commit ignores the size", group: "Ingest", rule: "a Commit that fails stores nothing", make: uploads(func(u *upload) {
		u.commit = func(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
			want.Size = 0
			return u.Upload.Commit(ctx, want, labels)
		}
	})},
	{name: "commit ignores the digest", group: "Ingest", rule: "a Commit that fails stores nothing", make: uploads(func(u *upload) {
		u.commit = func(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
			want.Digest = ""
			return u.Upload.Commit(ctx, want, labels)
		}
	})},
	{name: "commit of what is there is silent", group: "Ingest", rule: "answers ErrExists", make: uploads(func(u *upload) {
		u.commit = func(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
			d, err := u.Upload.Commit(ctx, want, labels)
			if errors.Is(err, errs.ErrExists) {
				err = nil
			}
			return d, err
		}
	})},
	{name: "commit of what is there changes labels", group: "Ingest", rule: "leaves it and its labels as they are", make: uploads(func(u *upload) {
		u.commit = func(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
			d, err := u.Upload.Commit(ctx, want, labels)
			if errors.Is(err, errs.ErrExists) {
				u.o.BlobLabel(ctx, u.o.r, blob.Info{Digest: d.Digest, Labels: labels})
			}
			return d, err
		}
	})},
	{name: "commit drops its labels", group: "Ingest", rule: "the blob has the labels", make: uploads(func(u *upload) {
		u.commit = func(ctx context.Context, want types.Descriptor, _ map[string]string) (types.Descriptor, error) {
			return u.Upload.Commit(ctx, want, nil)
		}
	})},
	{name: "labels of the ingest dropped", group: "Ingest", rule: "the blob has the labels", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		return o.open(key, append(opts, scheme.WithIngestLabels(nil)))
	})},
	{name: "never exists at the beginning", group: "Ingest", rule: "locks no key", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		u, err := o.open(key, opts)
		if errors.Is(err, errs.ErrExists) {
			return o.open(key, append(opts, scheme.WithExpectedBlob(types.Descriptor{})))
		}
		return u, err
	})},
	{name: "an ingest makes the repository", group: "Ingest", rule: "creates no repository", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		if _, err := o.BlobPut(context.Background(), o.r, types.Descriptor{}, strings.NewReader("made")); err != nil {
			return nil, err
		}
		return o.open(key, opts)
	})},
	{name: "keys that are paths", group: "Ingest", rule: "each of an ingest of its own", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		if len(key) > 0 && len(key) <= scheme.MaxKey {
			key = path.Clean("/" + key)
		}
		return o.open(key, opts)
	})},
	{name: "more than was expected is taken", group: "Ingest", rule: "more than the expected size", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		return o.open(key, append(opts, func(i *scheme.IngestOptions) { i.Expected.Size = 0 }))
	})},
	{name: "offset is one less", group: "IngestResume", rule: "Status says how much", make: statuses(func(in *blob.Ingest) { in.Offset = max(in.Offset-1, 0) })},
	{name: "began when it was opened", group: "IngestResume", rule: "opening it again changes none of that", make: statuses(func(in *blob.Ingest) { in.Started = time.Now().Round(0) })},
	{name: "no time of the last write", group: "IngestResume", rule: "Status says how much", make: statuses(func(in *blob.Ingest) { in.Updated = in.Started })},
	{name: "owner is who opened it last", group: "IngestResume", rule: "who began it", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		u, err := o.open(key, opts)
		if owner := scheme.Collect(opts).Owner; err == nil && owner != "" {
			up := &upload{Upload: u, o: o, key: key}
			up.status = func(in *blob.Ingest) { in.Owner = owner }
			return up, nil
		}
		return u, err
	})},
	{name: "the beginning is not hashed again", group: "IngestResume", rule: "goes on at its end", make: uploads(func(u *upload) {
		h := digest.SHA256.Hash()
		u.write = func(p []byte) (int, error) {
			h.Write(p)
			return u.Upload.Write(p)
		}
		u.digest = func() digest.Digest { return digest.NewDigest(digest.SHA256, h) }
	})},
	{name: "truncates to nothing only", group: "IngestResume", rule: "cuts the ingest anywhere", make: uploads(func(u *upload) {
		u.truncate = func(ctx context.Context, size int64) error {
			if size > 0 {
				return errs.ErrUnsupported
			}
			return u.Upload.(scheme.Truncater).Truncate(ctx, size)
		}
	})},
	{name: "truncates beyond the end", group: "IngestResume", rule: "more than there is", make: uploads(func(u *upload) {
		u.truncate = func(ctx context.Context, size int64) error {
			err := u.Upload.(scheme.Truncater).Truncate(ctx, size)
			if errors.Is(err, errs.ErrRangeInvalid) {
				return nil
			}
			return err
		}
	})},
	{name: "writes after the context", group: "IngestResume", rule: "stays in force for Write", make: func(m *mem.Mem) scheme.API { return deafIngest{m} }},
	{name: "any token will do", group: "IngestResume", rule: "one that the place does not know", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		return o.open(key, append(opts, scheme.WithIngestToken("")))
	})},
	{name: "algorithm ignored", group: "IngestOffer", rule: "WithIngestAlgorithm decides", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		return o.open(key, append(opts, scheme.WithIngestAlgorithm("")))
	})},
	{name: "algorithm forgotten", group: "IngestOffer", rule: "opening without it changes nothing", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		if scheme.Collect(opts).Algorithm == "" {
			opts = append(opts, scheme.WithIngestAlgorithm(digest.SHA256))
		}
		return o.open(key, opts)
	})},
	{name: "reads from the beginning", group: "IngestOffer", rule: "at any offset", make: opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		u, err := o.open(key, opts)
		if err != nil {
			return nil, err
		}
		return rereads{u}, nil
	})},
	{name: "finds repositories only", group: "IngestOffer", rule: "none yet included", make: func(m *mem.Mem) scheme.API { return findsRepos{m} }},
	{name: "Abort only closes", group: "IngestManage", rule: "remove the ingest with what was written", make: uploads(func(u *upload) {
		u.abort = func(context.Context) error { return u.Upload.Close() }
	})},

	{name: "list omits what is open", group: "IngestManage", rule: "names every ingest", make: manages(func(m *manager) {
		m.list = func(all []blob.Ingest) []blob.Ingest {
			return slices.DeleteFunc(all, func(in blob.Ingest) bool { return in.Active })
		}
	})},
	{name: "list in another order", group: "IngestManage", rule: "byte order", make: manages(func(m *manager) {
		m.list = func(all []blob.Ingest) []blob.Ingest { slices.Reverse(all); return all }
	})},
	{name: "list fails", group: "IngestManage", rule: "names every ingest", make: manages(func(m *manager) { m.listErr = errBroken })},
	{name: "stat fails", group: "IngestManage", rule: "IngestStat says", make: manages(func(m *manager) { m.statErr = errBroken })},
	{name: "abort does nothing", group: "IngestManage", rule: "remove the ingest", make: manages(func(m *manager) {
		m.abort = func(context.Context, ref.Ref, string) error { return nil }
	})},
	{name: "abort fails", group: "IngestManage", rule: "remove the ingest", make: manages(func(m *manager) {
		m.abort = func(context.Context, ref.Ref, string) error { return errBroken }
	})},
	{name: "abort of nothing is silent", group: "IngestManage", rule: "ErrUploadUnknown when it is not there", make: manages(func(m *manager) {
		m.abort = func(ctx context.Context, r ref.Ref, key string) error {
			if err := m.Mem.IngestAbort(ctx, r, key); !errors.Is(err, errs.ErrNotFound) {
				return err
			}
			return nil
		}
	})},
	{name: "expire removes active ones", group: "IngestManage", rule: "IngestExpire removes", make: func(m *mem.Mem) scheme.API { return &harshExpire{Mem: m, open: map[string]scheme.Upload{}} }},
	{name: "expire looks at no age", group: "IngestManage", rule: "IngestExpire removes", make: manages(func(m *manager) {
		m.expire = func(ctx context.Context, r ref.Ref, _ time.Duration) ([]blob.Ingest, error) {
			return m.Mem.IngestExpire(ctx, r, 0)
		}
	})},
	{name: "expire removes nothing", group: "IngestManage", rule: "IngestExpire removes", make: manages(func(m *manager) {
		m.expire = func(context.Context, ref.Ref, time.Duration) ([]blob.Ingest, error) { return nil, nil }
	})},
}

// rereads does not look at the offset.
type rereads struct{ scheme.Upload }

func (u rereads) ReadAt(p []byte, off int64) (int, error) {
	return u.Upload.(scheme.Rereader).ReadAt(p, off/2)
}

func (u rereads) Truncate(ctx context.Context, size int64) error {
	return u.Upload.(scheme.Truncater).Truncate(ctx, size)
}

// findsRepos finds ingests in repositories that exist.
type findsRepos struct{ *mem.Mem }

func (m findsRepos) IngestFind(ctx context.Context, r ref.Ref, fn func(string) error) error {
	err := m.RepoList(ctx, r, "", fn)
	if errors.Is(err, errs.ErrNotFound) {
		return nil
	}
	return err
}
