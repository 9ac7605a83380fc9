// Package mem keeps images in memory: for tests, for demonstrations, and as the plain statement of what scheme.API
// means. A reference names a repository as mem://ANY/NAME; it comes into being with the first write.
//
// The other implementations are compared with this one, so it is written to be read: one lock guards some maps, and
// nothing is read, hashed or called back while it is held. Equal content is kept once, whichever repositories have
// it. Content that was deleted stays readable for those who are reading it.
package mem

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ping"
	"github.com/ocisync/ocisync/types/ref"
)

// Scheme is the name under which references name places in memory.
const Scheme = "mem"

// Mem implements scheme.API and the capabilities listed below. It is one user of a memory, which New makes and Share
// gives to others: what it has open is its own, what is stored is everybody's. Make one with New.
type Mem struct {
	scheme.Unimplemented
	*memory
}

// memory is what all users of it see.
type memory struct {
	limit int64 // bytes of blobs, manifests and ingests at most; 0 is no limit

	mu      sync.RWMutex // guards all that follows, and is never held while something is read or hashed
	used    int64        // bytes in blobs, manifests and ingests, and those of puts under way
	blobs   map[digest.Digest]*content
	repos   map[ref.Ref]*repo              // by key
	ingests map[ref.Ref]map[string]*ingest // by key of the repository, which need not exist, and by their own
	leases  leases
}

var (
	_ scheme.API           = (*Mem)(nil)
	_ scheme.BlobOpener    = (*Mem)(nil)
	_ scheme.BlobLister    = (*Mem)(nil)
	_ scheme.BlobStater    = (*Mem)(nil)
	_ scheme.BlobFinder    = (*Mem)(nil)
	_ scheme.RepoLister    = (*Mem)(nil)
	_ scheme.Labeler       = (*Mem)(nil)
	_ scheme.Ingester      = (*Mem)(nil)
	_ scheme.IngestManager = (*Mem)(nil)
	_ scheme.IngestFinder  = (*Mem)(nil)
	_ scheme.Leaser        = (*Mem)(nil)
	_ scheme.Collector     = (*Mem)(nil)
	_ scheme.Closer        = (*Mem)(nil)
)

// content is the bytes of a blob, which are never written to, and in how many repositories they are.
type content struct {
	data  []byte
	repos int
}

// repo is what one repository has. Its maps are guarded by Mem.mu.
type repo struct {
	blobs     map[digest.Digest]blob.Info
	manifests map[digest.Digest]stored
	tags      map[string]digest.Digest
	referrers map[digest.Digest]map[digest.Digest]types.Descriptor // by subject, then by their own digest
}

// stored is a manifest, the digest of what it refers to, and what else is known about it.
type stored struct {
	*manifest.Manifest
	subject digest.Digest
	child   bool // it was put with scheme.WithChild only: an index says whether it is needed
	created time.Time
	updated time.Time
	labels  map[string]string
}

// Option is a setting of New.
type Option func(*Mem)

// WithLimit bounds the bytes of all blobs, manifests and ingests together, those included that are just being put. A put that
// would exceed it fails with errs.ErrNoSpace. 0 is no limit.
func WithLimit(bytes int64) Option { return func(m *Mem) { m.limit = max(bytes, 0) } }

// New returns a Mem that holds nothing.
func New(opts ...Option) *Mem {
	m := &Mem{memory: &memory{
		blobs:   map[digest.Digest]*content{},
		repos:   map[ref.Ref]*repo{},
		ingests: map[ref.Ref]map[string]*ingest{},
		leases:  leases{by: map[held]map[holder]bool{}},
	}}
	for _, o := range opts {
		o(m)
	}
	return m
}

// Share returns another user of m's memory, as another process is of a directory.
func (m *Mem) Share() *Mem { return &Mem{memory: m.memory} }

// Close ends m's use of the memory: the ingests that it has open are closed, and keep what was written; its leases
// end. What is stored stays, for those who share it.
func (m *Mem) Close() error {
	m.leases.releaseAll(m)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, all := range m.ingests {
		for _, in := range all {
			if in.by != nil && in.by.m == m {
				in.by.closed, in.by = true, nil
			}
		}
	}
	return nil
}

// RepoList calls fn for every repository below r's root that comes after last, in byte order; see scheme.RepoLister.
// A root that is a repository itself, with none below it, is listed as "".
func (m *Mem) RepoList(ctx context.Context, r ref.Ref, last string, fn func(repo string) error) error {
	const op = "repository list"
	if err := begin(ctx, op, r.Base(), ""); err != nil {
		return err
	}
	names := m.repoNames(r)
	if len(names) == 0 {
		return fail(op, r.Base(), "", errs.ErrNotFound)
	}
	for _, name := range names {
		if last != "" && name <= last {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fail(op, r.Base(), "", err)
		}
		if err := fn(name); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// BlobFind calls fn for every repository below r's root that holds blob d; see scheme.BlobFinder.
func (m *Mem) BlobFind(ctx context.Context, r ref.Ref, d digest.Digest, fn func(repo string) error) error {
	if err := beginBlob(ctx, "blob find", r.Base(), d); err != nil {
		return err
	}
	for _, name := range m.repoNames(r) {
		if !m.holds(r.WithRepo(name), d) {
			continue
		}
		if err := fn(name); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// holds reports whether r's repository has the blob d.
func (m *Mem) holds(r ref.Ref, d digest.Digest) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	p := m.find(r)
	if p == nil {
		return false
	}
	_, ok := p.blobs[d]
	return ok
}

// repoNames returns the names of the repositories below r's root, sorted.
func (m *Mem) repoNames(r ref.Ref) []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	base := r.WithRepo("x").Path()
	base = base[:len(base)-1] // with one slash at the end
	var names []string
	for k := range m.repos {
		if k.Scheme == r.Scheme && len(k.Root) > len(base) && k.Root[:len(base)] == base && ref.ValidRepo(k.Root[len(base):]) == nil {
			names = append(names, k.Root[len(base):])
		}
	}
	if len(names) == 0 && m.repos[key(r.Base())] != nil {
		return []string{""}
	}
	slices.Sort(names)
	return names
}

// Ping reports that memory is there: a place exists once something was put into it.
func (m *Mem) Ping(ctx context.Context, r ref.Ref, _ ...scheme.PingOption) (ping.Result, error) {
	if err := begin(ctx, "ping", r, ""); err != nil {
		return ping.Result{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return ping.Result{Exists: m.repos[key(r)] != nil, Writable: true}, nil
}

// key names a repository, however its path is divided into root and repository.
func key(r ref.Ref) ref.Ref { return ref.Ref{Scheme: r.Scheme, Root: r.Path()} }

// find returns r's repository, or nil. The caller holds mu.
func (m *Mem) find(r ref.Ref) *repo { return m.repos[key(r)] }

// make returns r's repository, which it makes if need be. The caller holds mu for writing.
func (m *Mem) make(r ref.Ref) *repo {
	p := m.repos[key(r)]
	if p == nil {
		p = &repo{
			blobs:     map[digest.Digest]blob.Info{},
			manifests: map[digest.Digest]stored{},
			tags:      map[string]digest.Digest{},
			referrers: map[digest.Digest]map[digest.Digest]types.Descriptor{},
		}
		m.repos[key(r)] = p
	}
	return p
}

// reserve counts n more bytes as used, or says that there is no room for them. The caller must not hold mu.
func (m *Mem) reserve(n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limit > 0 && n > m.limit-m.used {
		return fmt.Errorf("%w: the limit is %d bytes", errs.ErrNoSpace, m.limit)
	}
	m.used += n
	return nil
}

// release takes n bytes back. The caller must not hold mu.
func (m *Mem) release(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= n
}

// begin checks what every method is given: a live context, a sound reference, and, where there is one, a sound digest.
func begin(ctx context.Context, op string, r ref.Ref, d digest.Digest) error {
	err := ctx.Err()
	if err == nil {
		err = r.Validate()
	}
	if err == nil && d != "" {
		err = types.ValidDigest(d)
	}
	if err != nil {
		return fail(op, r, d, err)
	}
	return nil
}

// beginBlob is begin for methods that need a blob's digest.
func beginBlob(ctx context.Context, op string, r ref.Ref, d digest.Digest) error {
	if d == "" {
		return fail(op, r, d, fmt.Errorf("%w: it is empty", errs.ErrDigestInvalid))
	}
	return begin(ctx, op, r, d)
}

// fail wraps err with its circumstances.
func fail(op string, r ref.Ref, d digest.Digest, err error) error {
	return &errs.Error{Op: op, Ref: r.String(), Digest: d, Err: err}
}
