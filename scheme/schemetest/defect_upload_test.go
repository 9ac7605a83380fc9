package schemetest_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var errBroken = &errs.Error{Op: "broken", Ref: "mem://test/repo", Err: errors.New("it is broken")}

type options = []scheme.IngestOption

// opener opens ingests in a way of its own.
type opener struct {
	*mem.Mem
	how func(o *opener, key string, opts options) (scheme.Upload, error)

	mu  *sync.Mutex
	all map[string]scheme.Upload // the last one of each key
	ctx context.Context
	r   ref.Ref
}

func opens(how func(o *opener, key string, opts options) (scheme.Upload, error)) func(*mem.Mem) scheme.API {
	return func(m *mem.Mem) scheme.API {
		return &opener{Mem: m, how: how, mu: new(sync.Mutex), all: map[string]scheme.Upload{}}
	}
}

func (o *opener) Ingest(ctx context.Context, r ref.Ref, key string, opts ...scheme.IngestOption) (scheme.Upload, error) {
	once := &opener{Mem: o.Mem, mu: o.mu, all: o.all, ctx: ctx, r: r}
	return o.how(once, key, slices.Clone(opts))
}

// open is Ingest as it should be.
func (o *opener) open(key string, opts options) (scheme.Upload, error) {
	u, err := o.Mem.Ingest(o.ctx, o.r, key, opts...)
	if err == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.all[o.r.Place().String()+" "+key] = u
	}
	return u, err
}

// current returns the last upload of key that this opener opened.
func (o *opener) current(key string) scheme.Upload {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[o.r.Place().String()+" "+key]
}

// upload differs from what it stands for in the methods that are set.
type upload struct {
	scheme.Upload
	o        *opener
	key      string
	write    func(p []byte) (int, error)
	status   func(in *blob.Ingest)
	digest   func() digest.Digest
	commit   func(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error)
	abort    func(ctx context.Context) error
	truncate func(ctx context.Context, size int64) error
}

func uploads(change func(u *upload)) func(*mem.Mem) scheme.API {
	return opens(func(o *opener, key string, opts options) (scheme.Upload, error) {
		real, err := o.open(key, opts)
		if err != nil {
			return nil, err
		}
		u := &upload{Upload: real, o: o, key: key}
		change(u)
		return u, nil
	})
}

func statuses(change func(in *blob.Ingest)) func(*mem.Mem) scheme.API {
	return uploads(func(u *upload) { u.status = change })
}

// newer is the upload of the same key that was opened last.
func (u *upload) newer() scheme.Upload { return u.o.current(u.key) }

func (u *upload) Write(p []byte) (int, error) {
	if u.write != nil {
		return u.write(p)
	}
	return u.Upload.Write(p)
}

func (u *upload) Status() blob.Ingest {
	in := u.Upload.Status()
	in.Labels = maps.Clone(in.Labels)
	if u.status != nil {
		u.status(&in)
	}
	return in
}

func (u *upload) Digest() digest.Digest {
	if u.digest != nil {
		return u.digest()
	}
	return u.Upload.Digest()
}

func (u *upload) Commit(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
	if u.commit != nil {
		return u.commit(ctx, want, labels)
	}
	return u.Upload.Commit(ctx, want, labels)
}

func (u *upload) Abort(ctx context.Context) error {
	if u.abort != nil {
		return u.abort(ctx)
	}
	return u.Upload.Abort(ctx)
}

func (u *upload) Truncate(ctx context.Context, size int64) error {
	if u.truncate != nil {
		return u.truncate(ctx, size)
	}
	return u.Upload.(scheme.Truncater).Truncate(ctx, size)
}

type deafIngest struct{ *mem.Mem }

func (m deafIngest) Ingest(ctx context.Context, r ref.Ref, key string, opts ...scheme.IngestOption) (scheme.Upload, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return m.Mem.Ingest(context.WithoutCancel(ctx), r, key, opts...)
}

// manager looks after ingests with the methods that are set.
type manager struct {
	*mem.Mem
	list             func(all []blob.Ingest) []blob.Ingest
	listErr, statErr error
	abort            func(ctx context.Context, r ref.Ref, key string) error
	expire           func(ctx context.Context, r ref.Ref, age time.Duration) ([]blob.Ingest, error)
}

func manages(change func(m *manager)) func(*mem.Mem) scheme.API {
	return func(base *mem.Mem) scheme.API {
		m := &manager{Mem: base}
		change(m)
		return m
	}
}

func (m *manager) IngestStat(ctx context.Context, r ref.Ref, key string) (blob.Ingest, error) {
	if m.statErr != nil {
		return blob.Ingest{}, m.statErr
	}
	return m.Mem.IngestStat(ctx, r, key)
}

func (m *manager) IngestList(ctx context.Context, r ref.Ref, fn func(blob.Ingest) error) error {
	if m.listErr != nil {
		return m.listErr
	}
	var all []blob.Ingest
	err := m.Mem.IngestList(ctx, r, func(in blob.Ingest) error { all = append(all, in); return nil })
	if err != nil {
		return err
	}
	if m.list != nil {
		all = m.list(all)
	}
	for _, in := range all {
		if err := fn(in); err != nil {
			return err
		}
	}
	return nil
}

func (m *manager) IngestAbort(ctx context.Context, r ref.Ref, key string) error {
	if m.abort != nil {
		return m.abort(ctx, r, key)
	}
	return m.Mem.IngestAbort(ctx, r, key)
}

func (m *manager) IngestExpire(ctx context.Context, r ref.Ref, age time.Duration) ([]blob.Ingest, error) {
	if m.expire != nil {
		return m.expire(ctx, r, age)
	}
	return m.Mem.IngestExpire(ctx, r, age)
}

// harshExpire closes what is open before it expires.
type harshExpire struct {
	*mem.Mem
	open map[string]scheme.Upload
}

func (m *harshExpire) Ingest(ctx context.Context, r ref.Ref, key string, opts ...scheme.IngestOption) (scheme.Upload, error) {
	u, err := m.Mem.Ingest(ctx, r, key, opts...)
	if err == nil {
		m.open[key] = u
	}
	return u, err
}

func (m *harshExpire) IngestExpire(ctx context.Context, r ref.Ref, age time.Duration) ([]blob.Ingest, error) {
	for _, u := range m.open {
		u.Close()
	}
	return m.Mem.IngestExpire(ctx, r, age)
}
