package ocidir

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

// change is what one caller wants of the index. apply changes the draft, under the file lock; an error of its refuses
// this change and leaves the others, so it must check before it changes anything. It returns the files that must be
// durable before the index says so. after runs once the new index is in place, still under the lock. alone takes the
// place of both: it changes no index, and runs when what was asked for before it is done.
type change struct {
	apply func(ctx context.Context, d *draft) ([]namedFile, error)
	after func() error
	alone func(lock *fileLock, now *cached) error
	frees bool // it makes room: on a full disk it may use what was set aside
}

// underLock runs fn while nobody else, of this process or another one, commits: now is the index, and stays it but for
// tools that take no lock. fn must be short, as all writers wait; must not commit, nor call anything that does; and must
// ask lock.valid before it does what two could not do at once. Once fn runs ctx does not end it. The layout must exist.
func (l *layout) underLock(ctx context.Context, fn func(lock *fileLock, now *cached) error) error {
	return l.commits.do(ctx, &change{alone: fn})
}

// runCommits is one group commit: all changes that wait by the time the lock is there become one new file, or a few if
// there are deletes among them.
func (l *layout) runCommits(take func() []*call[*change]) {
	var calls []*call[*change]
	var err error
	for range 10 {
		var lock *fileLock
		if lock, err = l.vol.lock(); err != nil {
			break
		}
		calls = append(calls, take()...)
		var done []*call[*change]
		if len(calls) > 0 {
			if err = l.repairSwap(); err == nil {
				done, calls, err = l.commit(lock, calls)
			}
		}
		lock.unlock()
		for _, c := range done { // who is told that it is done finds nothing of it open any more
			c.finish(c.err)
		}
		if !errors.Is(err, errLockLost) {
			break
		}
	}
	if err != nil {
		calls = append(calls, take()...)
	}
	for _, c := range calls {
		if c.err == nil {
			c.err = err
		}
		c.finish(c.err)
	}
	time.Sleep(fairness)
}

// errLockLost: the lock file was deleted while it was locked, so that another process may have the lock, too.
var errLockLost = errors.New("the lock file was deleted while it was locked")

// errChanged: somebody who takes no lock replaced the index while we were making the next one.
var errChanged = errors.New("index.json was changed by a program that takes no lock")

// commit applies calls to the index as it is now, and writes it. A change with an after ends its batch: those behind it
// must see what after did, or a put would count on the file that a delete is about to remove. It returns the calls that
// are done, each with its outcome, and the rest with the error that is theirs.
func (l *layout) commit(lock *fileLock, calls []*call[*change]) (done, rest []*call[*change], err error) {
	if slices.ContainsFunc(calls, func(c *call[*change]) bool { return c.arg.alone == nil }) {
		if err := l.establish(); err != nil {
			return nil, calls, err
		}
	}
	for n := 0; n < len(calls); {
		batch := calls[n : n+batchSize(calls[n:])]
		err := l.commitBatch(lock, batch)
		if errors.Is(err, errLockLost) {
			return calls[:n], calls[n:], err
		}
		for _, c := range batch {
			switch {
			case c.err != nil:
			case err != nil:
				c.err = err
			case c.arg.after != nil:
				c.err = c.arg.after()
			}
		}
		n += len(batch)
	}
	return calls, nil, nil
}

// batchSize is how many of calls, which are not empty, are committed at once.
func batchSize(calls []*call[*change]) int {
	for i, c := range calls {
		switch {
		case c.arg.alone != nil:
			return max(i, 1)
		case c.arg.after != nil:
			return i + 1
		}
	}
	return len(calls)
}

// commitBatch makes one new file of calls. A change that is refused has its error in its call; an error that is returned
// is everybody's.
func (l *layout) commitBatch(lock *fileLock, calls []*call[*change]) error {
	ctx := context.Background() // from here on it takes as long as the disk does
	if alone := calls[0].arg.alone; alone != nil {
		now, err := l.current(ctx)
		if err == nil {
			err = alone(lock, now)
		}
		return err
	}
	l.hasty, l.spending = false, false
	for range 10 {
		for _, c := range calls {
			c.err = nil
		}
		err := l.try(ctx, lock, calls)
		if errors.Is(err, errChanged) {
			l.hasty = errors.Is(err, errWritten) && !l.awaitWriter()
			continue
		}
		if absent(err) { // .ocisync was deleted, and with it the file that was being written
			if ours, verr := lock.valid(); !ours {
				return errors.Join(errLockLost, verr, err)
			}
		}
		if some := freeing(calls, err); len(some) > 0 && !l.spending {
			calls, l.spending = some, true
			continue
		}
		return err
	}
	return &errs.Error{Op: "commit", Ref: l.file(indexName), Err: errs.ErrUnavailable, Message: errChanged.Error()}
}

// try makes one attempt.
func (l *layout) try(ctx context.Context, lock *fileLock, calls []*call[*change]) error {
	base, err := l.current(ctx)
	if err != nil {
		return err
	}
	if err := l.notice(base); err != nil && !l.noRoom(err) {
		return err
	}
	d := &draft{base: base.ix}
	var needed []namedFile
	for _, c := range calls {
		if c.arg.apply == nil {
			continue
		}
		files, err := c.arg.apply(ctx, d)
		if err != nil {
			c.err = err
			continue
		}
		needed = append(needed, files...)
	}
	if d.next != nil {
		err = l.install(lock, base, d, needed)
	} else if err = l.syncNamed(needed, nil); err == nil {
		err = l.syncIndex(base)
	}
	if err != nil {
		return err
	}
	if err := l.resolveVanished(d.now(), d.deleted); !l.noRoom(err) {
		return err
	}
	return nil // what was deleted stays on the list: there is no room for a new one
}

// syncIndex makes an index durable that says already what was asked for: another tool may have written it.
func (l *layout) syncIndex(base *cached) error {
	if !l.o.durability.commits() || base.f == nil || l.mem.isDurable(base.id) {
		return nil
	}
	if err := l.vol.syncName(indexName); err != nil {
		return err
	}
	if err := l.vol.syncDir("."); err != nil {
		return err
	}
	l.mem.setDurable(base.id)
	return nil
}

// install puts the next index in the place of base, once needed is durable. When it fails base is what everybody still
// sees. It waits for the disk twice: for everything that the new index is and needs, and for its name.
func (l *layout) install(lock *fileLock, base *cached, d *draft, needed []namedFile) error {
	next := d.encode()
	t, err := l.makeNext(base, next.raw, needed)
	if err != nil {
		return err
	}
	if err := l.place(lock, base, d, t); err != nil {
		t.discard()
		return err
	}
	id, err := identify(t.f)
	if err != nil {
		return errors.Join(err, t.f.Close())
	}
	if l.o.durability.commits() {
		l.mem.setDurable(id)
	}
	return l.setCache(&cached{ix: next, f: t.f, id: id, sure: id.distinct(time.Now())})
}

// makeNext makes a file of the next index, durable together with what it needs.
func (l *layout) makeNext(base *cached, raw []byte, needed []namedFile) (*temp, error) {
	if !l.spending {
		if err := l.keepReserve(int64(len(raw))); err != nil {
			return nil, err
		}
	}
	t, err := l.writeIndex(raw)
	if err != nil {
		return nil, err
	}
	if err = l.predate(t, base); err == nil {
		err = l.vol.full(l.syncNamed(needed, t), int64(len(raw)))
	}
	if err != nil {
		t.discard()
		return nil, err
	}
	return t, nil
}

// place makes t index.json, if we still have the lock and index.json still is base, and notes what that changes.
func (l *layout) place(lock *fileLock, base *cached, d *draft, t *temp) error {
	if ours, err := lock.valid(); err != nil || !ours {
		return errors.Join(err, errLockLost)
	}
	if id, err := l.vol.stat(indexName); err != nil || id != base.id {
		return errors.Join(err, errChanged)
	}
	next, err := identify(t.f)
	if err != nil {
		return err
	}
	undo, err := l.record(base, d, next.mark())
	if l.noRoom(err) { // better to forget than not to delete
		l.journal = journal{}
		undo, err = func() error { return nil }, l.vol.remove(rootsName)
	}
	if err != nil {
		return err
	}
	err = l.swap(base, t)
	if errors.Is(err, errors.ErrUnsupported) {
		err = l.overwrite(base, t)
	}
	if err != nil {
		if uerr := undo(); uerr != nil {
			err = fmt.Errorf("%w; and %w", err, uerr)
		}
	}
	return err
}

// overwrite is swap where files cannot be exchanged. What a program that takes no lock writes in the microseconds since
// index.json was last looked at is lost.
func (l *layout) overwrite(base *cached, t *temp) error {
	if err := t.rename(indexName); err != nil || !l.o.durability.commits() {
		return err
	}
	if err := l.vol.syncDir("."); err != nil {
		return l.rollBack(base, err)
	}
	return nil
}

// writeIndex makes a file of raw. It is not durable yet.
func (l *layout) writeIndex(raw []byte) (*temp, error) {
	t, err := l.vol.newTemp()
	if err == nil {
		if _, err = t.Write(raw); err != nil {
			t.discard()
		}
	}
	if l.noRoom(err) {
		if spent, serr := l.writeReserve(raw); serr == nil {
			return spent, nil
		}
	}
	if err != nil {
		return nil, l.vol.full(err, int64(len(raw)))
	}
	return t, nil
}

// rollBack brings the former index back after the disk refused to make the new one durable: what failed must not be
// seen. If that fails, too, the error says that it is.
func (l *layout) rollBack(base *cached, cause error) error {
	t, err := l.writeIndex(base.ix.raw)
	if err == nil {
		defer t.discard()
		err = l.vol.sync(t.f, t.name)
	}
	if err == nil {
		err = t.rename(indexName)
	}
	if err != nil {
		return fmt.Errorf("%w; the change is visible all the same, and may not outlive a power loss: %w", cause, err)
	}
	return cause
}
