package ocidir

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// hold is one Lease that was asked for. It keeps its layout open.
type hold struct {
	l    *layout
	keys []leaseKey
	once sync.Once
}

// Lease implements scheme.Leaser. The directory need not be a layout yet, and does not become one.
func (o *OCIDir) Lease(ctx context.Context, r ref.Ref, blobs ...digest.Digest) (release func(), err error) {
	const op = "lease"
	h := &hold{}
	for _, d := range blobs {
		if err := types.ValidDigest(d); err != nil {
			return nil, fail(op, r, "", err)
		}
		h.keys = append(h.keys, keyOf(d))
	}
	l, end, err := o.beginWrite(ctx, op, r)
	if err != nil {
		return nil, err
	}
	if err := l.leases.hold(h.keys); err != nil {
		end()
		return nil, failWrite(op, r, "", err)
	}
	h.l = l
	o.mu.Lock()
	closed := o.closed
	if !closed {
		o.holds[h] = struct{}{}
	}
	o.mu.Unlock()
	if closed {
		o.endHold(h)
		return nil, fail(op, r, "", errClosed)
	}
	return func() { o.endHold(h) }, nil
}

// endHold takes one Lease back, once. When the disk refuses that, it stays until the layout is closed.
func (o *OCIDir) endHold(h *hold) {
	h.once.Do(func() {
		_ = h.l.leases.let(h.keys)
		o.mu.Lock()
		delete(o.holds, h)
		o.mu.Unlock()
		o.release(h.l)
	})
}

// endHolds takes back every Lease.
func (o *OCIDir) endHolds() {
	o.mu.Lock()
	all := make([]*hold, 0, len(o.holds))
	for h := range o.holds {
		all = append(all, h)
	}
	o.mu.Unlock()
	for _, h := range all {
		o.endHold(h)
	}
}

// park keeps the leases of a layout that is about to be closed. The caller holds mu. Leases that the disk refuses to keep
// end: what they kept is found missing by the put that needs it.
func (o *OCIDir) park(l *layout) {
	names, _ := l.leases.park()
	if len(names) == 0 {
		return
	}
	if len(o.parked) >= maxWaiting {
		clear(o.parked) // they expire
	}
	o.parked[l.path] = names
}

// dropParked takes back the leases of layouts that are closed.
func dropParked(parked map[string][]string, h hook) error {
	var all []error
	for path, names := range parked {
		root, err := os.OpenRoot(path)
		if absent(err) {
			continue // the layout was deleted
		}
		if err != nil {
			all = append(all, err)
			continue
		}
		v := &volume{root: root, hook: h}
		for _, name := range names {
			all = append(all, v.remove(name))
		}
		all = append(all, root.Close())
	}
	return errors.Join(all...)
}
