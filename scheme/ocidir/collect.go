package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// collector is one run of Collect.
//
//	trash back, index, leases --> mark --> [untagged entries go] --> list --> sweep, a few files under the lock each time
//
// Only the first and the last steps take the lock; what others list or lease meanwhile is learned in every step.
type collector struct {
	l       *layout
	opt     scheme.CollectOptions
	rep     *scheme.CollectReport
	now     time.Time // by the clock of the file system
	leases  *leased
	mark    *marker
	state   fs.FileInfo // of .ocisync when the run began: who deletes it takes everybody's leases away
	garbage map[digest.Digest]*garbage
}

// Collect implements scheme.Collector. Needed is what an entry of index.json reaches: manifests and what they list,
// configs and layers, subjects, and of documents that are not understood everything that they mention. Manifests whose
// entries another tool dropped count as entries, until WithVanished gives them up. What is leased or younger than the
// grace period keeps, if it is a manifest, what it names. Blobs are in the layout's directories for sha256, sha384 and
// sha512; what else is there is left alone. The memory it takes is about 100 bytes for a blob.
//
// Ingests are expired that nobody wrote to for a week, as a copy may go on with them.
func (o *OCIDir) Collect(ctx context.Context, r ref.Ref, opts ...scheme.CollectOption) (scheme.CollectReport, error) {
	const op = "collect"
	var rep scheme.CollectReport
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return rep, err
	}
	defer end()
	c := &collector{l: l, opt: scheme.NewCollectOptions(opts...), rep: &rep, mark: newMarker(l), garbage: map[digest.Digest]*garbage{}}
	if c.opt.DryRun {
		if err := c.run(ctx); err != nil {
			return rep, failRead(op, r, "", err)
		}
		return rep, nil
	}
	if err := c.run(ctx); err != nil {
		return rep, failWrite(op, r, "", err)
	}
	if rep.Clean, err = l.clean(ctx, ingestAge, c.opt.Grace); err != nil {
		return rep, failWrite(op, r, "", err)
	}
	return rep, nil
}

func (c *collector) run(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	if err := c.markAll(ctx); err != nil {
		return err
	}
	if err := c.list(ctx); err != nil {
		return err
	}
	defer c.finish()
	if err := c.leases.refresh(ctx); err != nil {
		return err
	}
	c.spare()
	if !c.opt.DryRun && c.opt.Vanished {
		if err := c.giveUp(ctx); err != nil {
			return err
		}
	}
	if !c.opt.DryRun {
		return c.sweep(ctx)
	}
	for _, g := range c.order() {
		shared, err := c.l.isShared(g.d)
		if err != nil {
			return err
		}
		c.removed(g, shared)
	}
	return nil
}

// begin finds out what time it is, and takes back what a collector left that died.
func (c *collector) begin(ctx context.Context) error {
	moved := false
	if c.opt.DryRun {
		c.now = c.l.o.clock.wall(time.Now())
		var err error
		if moved, err = c.l.clockMoved(c.now, c.opt.Grace); err != nil {
			return err
		}
	} else {
		var err error
		if c.now, err = c.l.probe(); err != nil {
			return err
		}
		if moved, err = c.l.noteClock(c.now, c.opt.Grace); err != nil {
			return err
		}
		if err := c.l.underLock(ctx, func(*fileLock, *cached) error { return c.l.emptyTrash() }); err != nil {
			return err
		}
		if c.state, err = c.l.vol.root.Stat(stateDir); err != nil {
			return err
		}
	}
	c.rep.ClockMoved = moved && c.opt.Grace > 0
	c.leases = newLeased(c.l.vol, c.now, c.opt.Grace)
	c.leases.timeless = moved
	return nil
}

// markAll marks what is needed now. The leases are read after the index: whoever saw an entry that was removed
// since had leased it before.
func (c *collector) markAll(ctx context.Context) error {
	now, err := c.l.current(ctx)
	if err != nil {
		return err
	}
	for _, t := range c.l.graph.orphanTargets() {
		if err := c.mark.walk(ctx, t); err != nil {
			return err
		}
	}
	vanished := func(*cached) ([]vanishedRoot, error) { return c.l.vanished(ctx) }
	if err := c.markVanished(ctx, vanished, now); err != nil {
		return err
	}
	if !c.opt.Untagged {
		return c.mark.entries(ctx, now.ix, nil)
	}
	return c.untag(ctx, now)
}

// markVanished keeps what another tool dropped, unless it is to be given up.
func (c *collector) markVanished(ctx context.Context, list func(*cached) ([]vanishedRoot, error), now *cached) error {
	if c.opt.Vanished {
		return nil
	}
	all, err := list(now)
	if err != nil {
		return err
	}
	for _, v := range all {
		if err := c.mark.walk(ctx, target{digest: v.desc.Digest, mediaType: v.desc.MediaType}); err != nil {
			return onlyVanished(v, err)
		}
		same := func(d types.Descriptor) bool { return d.Digest == v.desc.Digest }
		if c.mark.lost[v.desc.Digest] == nil && !slices.ContainsFunc(c.rep.Vanished, same) {
			c.rep.Vanished = append(c.rep.Vanished, v.desc)
		}
	}
	return nil
}

// undisturbed reports whether .ocisync still is the directory that it was when the run began, and the lock the one that
// others take.
func (c *collector) undisturbed(lock *fileLock) error {
	ours, err := lock.valid()
	if err != nil {
		return err
	}
	now, err := c.l.vol.root.Stat(stateDir)
	if err != nil && !absent(err) {
		return err
	}
	if err != nil || !ours || !os.SameFile(now, c.state) {
		return &errs.Error{
			Op: "collect", Ref: c.l.file(stateDir), Err: errs.ErrConflict, Message: "it was deleted meanwhile, and with it what others leased",
			Hint: "run it again when no push is under way",
		}
	}
	return nil
}

// onlyVanished explains damage of what no index lists any more: nobody may want it. After a power loss it may even be
// of a commit that nobody was told of, as roots is not synced.
func onlyVanished(v vanishedRoot, err error) error {
	if !errors.Is(err, errs.ErrCorrupt) && !errors.Is(err, errs.ErrDigestMismatch) {
		return err
	}
	was := "an entry without a tag"
	if v.tag != "" {
		was = "the tag " + v.tag
	}
	return &errs.Error{
		Err:  fmt.Errorf("%w: index.json does not list it any more: another tool, or a power loss, dropped %s", err, was),
		Hint: "if nobody needs it, ocisync gc --vanished gives it up; else repair it with ocisync verify DIRECTORY --repair-from SOURCE",
	}
}

// giveUp forgets what another tool dropped.
func (c *collector) giveUp(ctx context.Context) error {
	if _, err := c.l.readVanished(); errors.Is(err, errs.ErrCorrupt) { // what it said is lost anyway
		if err := c.l.underLock(ctx, func(*fileLock, *cached) error { return c.l.dropVanished() }); err != nil {
			return err
		}
	}
	all, err := c.l.vanished(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	var gone []digest.Digest
	for _, v := range all {
		gone = append(gone, v.desc.Digest)
	}
	return c.l.underLock(ctx, func(*fileLock, *cached) error { return c.l.forgetVanished(gone...) })
}

// young reports whether a file was written, renamed, linked or mounted within the grace period. A link keeps the time
// of the bytes, and a program may set it, but nobody sets the time of the change.
func (c *collector) young(id fileID) bool {
	if c.opt.Grace <= 0 {
		return false
	}
	return c.rep.ClockMoved || c.now.Sub(time.Unix(0, max(id.mtime, id.ctime))) < c.opt.Grace
}

// finish completes the report.
func (c *collector) finish() {
	c.tally()
	slices.SortFunc(c.rep.Removed, func(a, b scheme.Garbage) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
}

// isShared reports whether a blob's file has other names.
func (l *layout) isShared(d digest.Digest) (bool, error) {
	name, err := blobPath(d)
	if err != nil {
		return false, err
	}
	f, err := l.vol.root.Open(name)
	if err != nil {
		return false, ignoreGone(err)
	}
	defer f.Close()
	return links(f) > 1, nil
}
