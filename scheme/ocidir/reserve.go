package ocidir

import (
	"errors"
	"slices"

	"github.com/ocisync/ocisync/types/errs"
)

// reserveName is a file whose only meaning is the room that it takes: the index is replaced by a copy, so that on a full
// disk nothing could be deleted without it. A delete that finds no room writes the new index into this file, and the file
// that was index.json takes its place.
const reserveName = stateDir + "/reserve"

// reserveFor is how much is set aside for an index of size bytes: enough for one that grows by half before the next time.
func reserveFor(size int64) int64 {
	const block = 16 << 10
	return (size+size/2+block)/block*block + block
}

// keepReserve sets aside what a delete needs, if the index has outgrown what there is. A commit that finds no room for it
// is refused: nothing is put that could not be deleted again. It runs under the lock.
func (l *layout) keepReserve(size int64) error {
	if l.vol.hasReserve(size) {
		return nil
	}
	return l.vol.full(l.makeReserve(reserveFor(size)), size)
}

// hasReserve reports whether there is a file of that size that may be written into: one that has no other name. Who copies a
// layout by hard links (cp -al, rsync --link-dest) gives this file, or the index.json that becomes it, to another one.
func (v *volume) hasReserve(size int64) bool {
	f, id, err := v.openFile(reserveName)
	if err != nil {
		return false
	}
	defer f.Close()
	return id.size >= size && links(f) == 1 && !v.isLink(reserveName)
}

func (l *layout) makeReserve(size int64) error {
	t, err := l.vol.newTemp()
	if err != nil {
		return err
	}
	defer t.discard()
	if err := l.vol.allocate(t.f, t.name, size); err != nil {
		return err
	}
	return t.rename(reserveName)
}

// spendReserve makes the file that was set aside one that is being written: what is written fits. One that is another
// layout's as well is not written into, and gives no room.
func (v *volume) spendReserve() (*temp, error) {
	f, err := v.openOwn(reserveName, false)
	if err != nil {
		return nil, err
	}
	t := &temp{vol: v, f: f, name: reserveName}
	if err = lockFile(f, false); err == nil {
		name := tempName()
		if err = v.rename(reserveName, name); err == nil {
			t.name = name
			return t, nil
		}
	}
	return nil, errors.Join(err, f.Close())
}

// freeing returns those of calls that make room when they are done, if err is that there is none for all of them, and
// gives the others that error.
func freeing(calls []*call[*change], err error) (some []*call[*change]) {
	if !isFull(err) && !errors.Is(err, errs.ErrNoSpace) {
		return nil
	}
	if !slices.ContainsFunc(calls, func(c *call[*change]) bool { return c.arg.frees }) {
		return nil
	}
	for _, c := range calls {
		if c.arg.frees {
			some = append(some, c)
		} else if c.err == nil {
			c.err = err
		}
	}
	return some
}

// noRoom reports that a step found no room, and that what was set aside may be used.
func (l *layout) noRoom(err error) bool {
	return l.spending && (isFull(err) || errors.Is(err, errs.ErrNoSpace))
}

// writeReserve is writeIndex for when there is no room but what was set aside.
func (l *layout) writeReserve(raw []byte) (*temp, error) {
	t, err := l.vol.spendReserve()
	if err != nil {
		return nil, err
	}
	if _, err = t.Write(raw); err == nil {
		err = l.vol.truncate(t.f, t.name, int64(len(raw)))
	}
	if err != nil {
		t.discard()
		return nil, err
	}
	return t, nil
}
