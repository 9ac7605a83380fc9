// Package ocidir is scheme.API over directories in OCI image layout.
//
// A layout is the directory Root joined with Repo: ocidir:///srv with the repository library/alpine is the directory
// /srv/library/alpine. Any tool that knows image layouts reads what is written here, and what other tools wrote is read
// and kept. docs/layout.md describes the format, and what is promised when processes meet or die.
//
// # How it is built
//
// From the disk up: volume is a directory through which all steps go that change anything (fsys.go, fs_*.go); temp a
// file being written, fileLock the lock between processes (temp.go, lock.go). index is one immutable state of
// index.json (scan.go, entry.go, index.go, reparse.go), which shares its maps and the order of its tags with the one before it
// (lookup.go, order.go), draft the next one (draft.go). layout joins them: reading the index (read.go), committing to it
// (commit.go), beside programs that take no lock (exchange.go) and on a full disk (reserve.go), knowing what such programs
// dropped (roots.go, vanished.go), making files durable (sync.go), knowing which manifests there are (graph.go).
// The methods of scheme.API are in blob.go, mount.go, manifest.go, put.go, tag.go, referrer.go, repo.go and ping.go.
//
// What is about what was stored: blobs in pieces (ingest*.go), labels (label*.go), damage (damage.go, quarantine.go,
// check*.go), leases and garbage (lease*.go, collect.go, mark.go, sweep.go, trash.go).
//
// What makes reading fast: looking at files with few calls (glance_*.go), contents in memory (recall.go), and hashes that
// outlive who asked for them (proof.go).
//
// Reading creates no layout, and nothing where no writer of ours was. A layout comes into being with the first write that succeeds.
package ocidir

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/ref"
)

// OCIDir is scheme.API over layouts, and BlobOpener, BlobLister, BlobStater, Labeler, Ingester, IngestManager, IndexStore,
// Leaser, Syncer, Cleaner, Collector, Checker, RepoLister, BlobFinder and Closer. Several of them, in one process or in
// many, can write one layout at once.
type OCIDir struct {
	scheme.Unimplemented
	durability Durability
	hook       hook
	clock      clock
	mem        *memory
	proofs     *proofs
	trusted    time.Duration // see trusted; tests change it

	mu      sync.Mutex
	layouts map[string]*layout  // by absolute path
	idle    *list.List          // of *layout, nobody using them, the one used last in front
	waiting map[string]*graph   // by absolute path: what only this process knows of layouts that are closed
	parked  map[string][]string // by absolute path: files of the leases of layouts that are closed
	holds   map[*hold]struct{}  // leases that were asked for
	closed  bool
}

var (
	_ scheme.API        = (*OCIDir)(nil)
	_ scheme.BlobOpener = (*OCIDir)(nil)
	_ scheme.BlobLister = (*OCIDir)(nil)
	_ scheme.BlobStater = (*OCIDir)(nil)
	_ scheme.Labeler    = (*OCIDir)(nil)
	_ scheme.RepoLister = (*OCIDir)(nil)
	_ scheme.Leaser     = (*OCIDir)(nil)
	_ scheme.Cleaner    = (*OCIDir)(nil)
	_ scheme.Collector  = (*OCIDir)(nil)
	_ scheme.Closer     = (*OCIDir)(nil)
)

// Option changes what New makes.
type Option func(*OCIDir)

// withHook lets tests see, fail or stop every step that changes the disk.
func withHook(h hook) Option { return func(o *OCIDir) { o.hook = h } }

// New returns the places of the scheme "ocidir". It opens nothing yet.
func New(opts ...Option) *OCIDir {
	o := &OCIDir{clock: systemClock, mem: newMemory(), proofs: newProofs(), trusted: trusted, layouts: map[string]*layout{}, idle: list.New(), waiting: map[string]*graph{}, parked: map[string][]string{}, holds: map[*hold]struct{}{}}
	for _, opt := range opts {
		opt(o)
	}
	return o
}

const (
	// maxIdle is how many layouts are kept open that nobody uses: a tree may have more than there are file descriptors.
	maxIdle = 64
	// maxWaiting bounds the memory for layouts that are closed and wait for an index. What is forgotten is a child that
	// cannot be read before its index is put.
	maxWaiting = 1 << 14
)

var errClosed = errors.New("the API is closed")

// Close closes what is held open, and takes all leases back. Operations that are under way are waited for by who called
// them.
func (o *OCIDir) Close() error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.proofs.close()
	o.endHolds()
	o.mu.Lock()
	var all []*layout
	for path, l := range o.layouts {
		if l.users == 0 {
			all = append(all, l)
			delete(o.layouts, path)
		}
	}
	o.idle.Init()
	clear(o.waiting)
	parked := o.parked
	o.parked = nil
	o.mu.Unlock()
	errs := []error{dropParked(parked, o.hook)}
	for _, l := range all {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// use returns the layout at path, which must exist, for as long as the caller does not release it. If r names
// a repository it is below r's tree: see openBelow.
func (o *OCIDir) use(r ref.Ref, path string) (*layout, error) {
	fi, err := statDir(path)
	if err != nil {
		return nil, err
	}
	if l, err := o.cached(path, nil, fi); l != nil || err != nil {
		return l, err
	}
	fresh, err := openLayout(o, r, path)
	if err != nil {
		return nil, err
	}
	return o.cached(path, fresh, fresh.dir)
}

// cached takes the layout of path into use if it is open and still the directory dir; else it opens it to others as
// fresh, unless that is nil. A directory that was deleted and made again is another one.
func (o *OCIDir) cached(path string, fresh *layout, dir dirInfo) (*layout, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		if fresh != nil {
			return nil, errors.Join(errClosed, fresh.close())
		}
		return nil, errClosed
	}
	l := o.layouts[path]
	if l != nil && !l.dir.same(dir) {
		o.forget(l)
		l = nil
	}
	switch {
	case l == nil && fresh == nil:
		return nil, nil
	case l == nil:
		l = fresh
		o.layouts[path] = l
		if g := o.waiting[path]; g != nil {
			l.graph = g // of another directory it is harmless: what is not in this one is not found
			delete(o.waiting, path)
		}
		l.leases.parked = o.parked[path]
		delete(o.parked, path)
	case fresh != nil: // somebody was faster
		if err := fresh.close(); err != nil {
			return nil, err
		}
	}
	o.take(l)
	return l, nil
}

// take counts one more use of l. The caller holds mu.
func (o *OCIDir) take(l *layout) {
	if l.users++; l.idle != nil {
		o.idle.Remove(l.idle)
		l.idle = nil
	}
}

// forget takes l out of the cache, and closes it if nobody uses it. The caller holds mu.
func (o *OCIDir) forget(l *layout) {
	if o.layouts[l.path] == l {
		delete(o.layouts, l.path)
	}
	if l.idle != nil {
		o.idle.Remove(l.idle)
		l.idle = nil
	}
	if l.users == 0 {
		_ = l.close() // it was read from only; there is nothing to lose
	}
}

// release ends one use. Too many idle layouts, or one that is not in the cache any more, are closed.
func (o *OCIDir) release(l *layout) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.users--; l.users > 0 {
		return
	}
	if o.closed || o.layouts[l.path] != l {
		o.forget(l)
		return
	}
	l.idle = o.idle.PushFront(l)
	for o.idle.Len() > maxIdle {
		old := o.idle.Back().Value.(*layout)
		if old.graph.hasOrphans() { // children whose index is still to come are known to this process only
			o.keep(old)
		}
		o.park(old)
		o.forget(old)
	}
}

// keep remembers the graph of a layout that is about to be closed. The caller holds mu.
func (o *OCIDir) keep(l *layout) {
	if len(o.waiting) >= maxWaiting {
		clear(o.waiting)
	}
	l.graph.done(nil, true, true) // the index itself need not stay in memory
	o.waiting[l.path] = l.graph
}

// begin checks what every method checks first, and takes r's layout into use for reading. end must be called.
func (o *OCIDir) begin(ctx context.Context, op string, r ref.Ref) (l *layout, end func(), err error) {
	path, err := o.locate(ctx, op, r)
	if err != nil {
		return nil, nil, err
	}
	if l, err = o.use(r, path); err != nil {
		return nil, nil, missing(op, r, err)
	}
	if err := l.check(ctx); err != nil {
		o.release(l)
		return nil, nil, missing(op, r, err)
	}
	return l, func() { o.release(l) }, nil
}
