package mem

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// ingest is a blob that is written in pieces. Its fields are guarded by Mem.mu; what is in data changes only by the
// upload that has it open, which may therefore read it without the lock.
type ingest struct {
	info blob.Ingest // but Offset and Active, which data and by say
	data []byte      // its bytes are reserved
	alg  digest.Algorithm
	by   *upload // who has it open; nil is nobody
}

// status describes the ingest. The caller holds mu.
func (in *ingest) status() blob.Ingest {
	info := in.info
	info.Offset, info.Active, info.Labels = int64(len(in.data)), in.by != nil, maps.Clone(info.Labels)
	return info
}

// Ingest implements scheme.Ingester. Place and key suffice to go on, so that there are no tokens; who has one has it
// of another place.
func (m *Mem) Ingest(ctx context.Context, r ref.Ref, key string, opts ...scheme.IngestOption) (scheme.Upload, error) {
	const op = "ingest"
	r = r.Place()
	o := scheme.Collect(opts)
	if err := begin(ctx, op, r, o.Expected.Digest); err != nil {
		return nil, err
	}
	err := scheme.ValidKey(key)
	if err == nil {
		err = scheme.ValidLabels(o.Labels)
	}
	if err == nil {
		err = scheme.ValidAlgorithm(o.Algorithm)
	}
	if err == nil && o.Token != "" {
		err = errs.ErrUploadUnknown
	}
	if err != nil {
		return nil, fail(op, r, o.Expected.Digest, err)
	}
	u := &upload{ctx: ctx, m: m, r: r, key: key, loose: o.LooseSize}
	if err := m.open(u, o); err != nil {
		return nil, fail(op, r, o.Expected.Digest, err)
	}
	u.rehash()
	return u, nil
}

// open makes u the one who has the ingest open.
func (m *Mem) open(u *upload, o scheme.IngestOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.find(u.r); p != nil {
		if _, ok := p.blobs[o.Expected.Digest]; ok {
			return errs.ErrExists
		}
	}
	in := m.ingestsOf(u.r)[u.key]
	switch {
	case in == nil:
		in = &ingest{info: blob.Ingest{Key: u.key, Expected: o.Expected, Owner: o.Owner, Started: time.Now()}}
		in.info.Updated = in.info.Started
		if in.info.Owner == "" {
			in.info.Owner = "this process"
		}
		if m.ingests[key(u.r)] == nil {
			m.ingests[key(u.r)] = map[string]*ingest{}
		}
		m.ingests[key(u.r)][u.key] = in
	case in.by != nil:
		return fmt.Errorf("%w: somebody has had the ingest open since %s", errs.ErrLocked, in.by.since.Format(time.RFC3339))
	default:
		m.resume(in, o.Expected)
	}
	if o.Labels != nil {
		in.info.Labels = maps.Clone(o.Labels)
	}
	if o.Algorithm != "" {
		in.alg = o.Algorithm
	}
	in.by, u.in, u.since = u, in, time.Now()
	return nil
}

// resume makes an ingest that was left ready for what is expected now: it starts over when that is something else
// than was expected before, or cannot begin with what there is. The caller holds mu for writing.
func (m *Mem) resume(in *ingest, now types.Descriptor) {
	was := &in.info.Expected
	other := now.Digest != "" && was.Digest != "" && now.Digest != was.Digest ||
		types.SizeKnown(now) && (types.SizeKnown(*was) && now.Size != was.Size || int64(len(in.data)) > now.Size)
	if other {
		m.used -= int64(len(in.data))
		in.data, in.info.Started = nil, time.Now()
		in.info.Updated = in.info.Started
		*was = types.Descriptor{}
	}
	if now.Digest != "" {
		was.Digest = now.Digest
	}
	if types.SizeKnown(now) {
		was.Size = now.Size
	}
}

// IngestStat implements scheme.IngestManager.
func (m *Mem) IngestStat(ctx context.Context, r ref.Ref, key string) (blob.Ingest, error) {
	const op = "ingest stat"
	r = r.Place()
	if err := begin(ctx, op, r, ""); err != nil {
		return blob.Ingest{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	in := m.ingestsOf(r)[key]
	if in == nil {
		return blob.Ingest{}, fail(op, r, "", errs.ErrUploadUnknown)
	}
	return in.status(), nil
}

// IngestList implements scheme.IngestManager.
func (m *Mem) IngestList(ctx context.Context, r ref.Ref, fn func(blob.Ingest) error) error {
	const op = "ingest list"
	r = r.Place()
	if err := begin(ctx, op, r, ""); err != nil {
		return err
	}
	for _, info := range m.statuses(r) {
		if err := ctx.Err(); err != nil {
			return fail(op, r, "", err)
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// statuses describes all ingests of r's repository, in byte order of their keys.
func (m *Mem) statuses(r ref.Ref) []blob.Ingest {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var all []blob.Ingest
	for _, in := range m.ingestsOf(r) {
		all = append(all, in.status())
	}
	slices.SortFunc(all, func(a, b blob.Ingest) int { return strings.Compare(a.Key, b.Key) })
	return all
}

// IngestFind implements scheme.IngestFinder.
func (m *Mem) IngestFind(ctx context.Context, r ref.Ref, fn func(repo string) error) error {
	if err := begin(ctx, "ingest find", r.Base(), ""); err != nil {
		return err
	}
	for _, name := range m.ingestRepos(r) {
		if err := fn(name); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// ingestRepos returns the names of the repositories at and below r's root that have ingests.
func (m *Mem) ingestRepos(r ref.Ref) []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	base := strings.TrimSuffix(r.Base().Path(), "/")
	var names []string
	for k := range m.ingests {
		rest, below := strings.CutPrefix(k.Root, base)
		if name, sub := strings.CutPrefix(rest, "/"); k.Scheme == r.Scheme && below && (sub || rest == "") {
			names = append(names, name)
		}
	}
	return names
}

// IngestAbort implements scheme.IngestManager.
func (m *Mem) IngestAbort(ctx context.Context, r ref.Ref, key string) error {
	const op = "ingest abort"
	r = r.Place()
	if err := begin(ctx, op, r, ""); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	in := m.ingestsOf(r)[key]
	if in == nil {
		return fail(op, r, "", errs.ErrUploadUnknown)
	}
	if in.by != nil {
		return fail(op, r, "", fmt.Errorf("%w: the ingest is open", errs.ErrLocked))
	}
	m.drop(r, in)
	return nil
}

// IngestExpire implements scheme.IngestManager.
func (m *Mem) IngestExpire(ctx context.Context, r ref.Ref, age time.Duration) ([]blob.Ingest, error) {
	r = r.Place()
	if err := begin(ctx, "ingest expire", r, ""); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var gone []blob.Ingest
	for _, in := range m.ingestsOf(r) {
		if in.by == nil && time.Since(in.info.Updated) >= age {
			gone = append(gone, in.status())
			m.drop(r, in)
		}
	}
	slices.SortFunc(gone, func(a, b blob.Ingest) int { return strings.Compare(a.Key, b.Key) })
	return gone, nil
}

// drop removes an ingest with what was written. The caller holds mu for writing.
func (m *Mem) drop(r ref.Ref, in *ingest) {
	m.used -= int64(len(in.data))
	m.forget(r, in)
}

// forget removes an ingest whose bytes have become a blob's. The caller holds mu for writing.
func (m *Mem) forget(r ref.Ref, in *ingest) {
	all := m.ingests[key(r)]
	if delete(all, in.info.Key); len(all) == 0 {
		delete(m.ingests, key(r))
	}
}

// ingestsOf returns the ingests of r's repository by their keys, or nil. The caller holds mu.
func (m *Mem) ingestsOf(r ref.Ref) map[string]*ingest { return m.ingests[key(r)] }
