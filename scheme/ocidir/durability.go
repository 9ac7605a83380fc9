package ocidir

import (
	"context"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/ref"
)

var _ scheme.Syncer = (*OCIDir)(nil)

// Durability says what an acknowledged change survives. Every level survives the end of the process.
type Durability int

const (
	// Full: what any method acknowledges survives a power loss: a blob that was put or mounted, an ingest that was
	// closed, a label, a tag, a removal. WithDeferredSync makes single puts an exception. It is the default.
	Full Durability = iota
	// Commit: the index survives a power loss, and so does whatever it reaches, before it names it: what ManifestPut,
	// TagDelete, ManifestDelete and IndexPut acknowledge. Blobs, ingests and labels alone do not until Sync is called
	// or a manifest that reaches them is committed: after a power loss they may be absent, or damaged, which is
	// found when they are read, and healed by the next put. A blob that was deleted may be back.
	Commit
	// None: the operating system decides when something reaches the disk. After a power loss a layout may hold
	// damaged content, and its index may be damaged, too. For scratch copies and tests.
	None
)

// WithDurability chooses what an acknowledged change survives.
func WithDurability(d Durability) Option { return func(o *OCIDir) { o.durability = d } }

// commits reports whether the index, and what it reaches, is durable when a method returns.
func (d Durability) commits() bool { return d != None }

// puts reports whether everything is.
func (d Durability) puts() bool { return d == Full }

// Sync implements scheme.Syncer, for what other processes wrote to the layout as well.
func (o *OCIDir) Sync(ctx context.Context, r ref.Ref) error {
	const op = "sync"
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return err
	}
	defer end()
	if err := l.flush(ctx); err != nil {
		return failWrite(op, r, "", err)
	}
	return nil
}
