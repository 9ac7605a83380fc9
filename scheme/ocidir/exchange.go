package ocidir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// A new index.json gets its name by an exchange: the file that had the name gets the new one's, and can be looked at
// before the change is acknowledged. If it is not the file that the change is based on, a program that takes no lock was
// faster; the two are exchanged again, and the change is made once more, on theirs.
//
//	ingest/X.tmp --rename--> swap-… --exchange--> sync, look --good--> remove swap-…, acknowledge
//	                                                   +------bad--> exchange, remove swap-…
//
// Who dies on the way leaves a file swap-…, whose name says which file was new and which one it was based on. The next
// one that has the lock finishes what was begun (see repairSwap).

// swapPrefix begins the names that index.json is exchanged under. Only who has the lock touches them.
const swapPrefix = stateDir + "/swap-"

// mark tells a state of index.json from others, however it is named: unlike fileID it has nothing that a rename changes.
type mark struct {
	Ino   uint64 `json:"inode"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"` // nanoseconds
}

func (id fileID) mark() mark { return mark{id.ino, id.size, id.mtime} }

func swapName(next, base mark) string {
	return fmt.Sprintf("%s%d-%d-%d-%d", swapPrefix, next.Ino, base.Ino, base.Size, base.Mtime)
}

// parseSwap reads a name that swapName made.
func parseSwap(name string) (next uint64, base mark, ok bool) {
	n, err := fmt.Sscanf(name, swapPrefix+"%d-%d-%d-%d", &next, &base.Ino, &base.Size, &base.Mtime)
	return next, base, err == nil && n == 4 && swapName(mark{Ino: next}, base) == name
}

// swap puts t in the place of index.json, if that still is base: else it is errChanged, and index.json is theirs. Where
// files cannot be exchanged it is errors.ErrUnsupported, and nothing happened.
func (l *layout) swap(base *cached, t *temp) error {
	if l.noSwap.Load() {
		return errors.ErrUnsupported
	}
	id, err := identify(t.f)
	if err != nil {
		return err
	}
	if err := t.move(swapName(id.mark(), base.id.mark())); err != nil {
		return err
	}
	switch err := l.vol.exchange(t.name, indexName); {
	case errors.Is(err, errors.ErrUnsupported):
		l.noSwap.Store(true)
		return err
	case errors.Is(err, fs.ErrNotExist):
		return errors.Join(errChanged, err)
	case err != nil:
		return err
	}
	if l.o.durability.commits() {
		err = l.vol.syncDir(".")
	}
	if err == nil {
		err = l.look(t.name, base)
	}
	switch {
	case err != nil:
	case l.spending: // there may be no room for another reserve
		err = l.vol.rename(t.name, reserveName)
	default:
		err = l.vol.remove(t.name)
	}
	if err == nil {
		t.done = true
		return nil
	}
	if berr := l.swapBack(t.name, id.mark(), base); berr != nil {
		t.done = true // it stays under its name: who has the lock next finds out what it is
		unsure := fmt.Errorf("the change may be visible all the same, and may not outlive a power loss: %w", berr)
		if errors.Is(err, errChanged) { // which must not be tried again now
			return unsure
		}
		return fmt.Errorf("%w; %w", err, unsure)
	}
	return err
}

// look reports whether the file under name, which was index.json, is what base was read from: errChanged if not.
func (l *layout) look(name string, base *cached) error {
	f, id, err := l.vol.openFile(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if id.mark() != base.id.mark() {
		return errChanged
	}
	if !l.hasty && hasWriter(f) {
		return errWritten
	}
	if base.sure {
		return nil
	}
	same, err := sameBytes(f, base.ix.raw)
	if err == nil && !same {
		err = errChanged
	}
	return err
}

// errWritten: somebody is writing into the file that was index.json.
var errWritten = fmt.Errorf("%w, which still has it open", errChanged)

// sameBytes reports whether f has the bytes of raw.
func sameBytes(f *os.File, raw []byte) (bool, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for at := 0; at < len(raw); {
		n, err := f.ReadAt((*buf)[:min(len(*buf), len(raw)-at)], int64(at))
		if n == 0 || !bytes.Equal((*buf)[:n], raw[at:at+n]) {
			if err == io.EOF {
				err = nil
			}
			return false, err
		}
		at += n
	}
	return true, nil
}

// swapBack gives index.json back to the file that has name now, unless a younger one of somebody else has taken it
// meanwhile: that stays, and what had name is reported as lost. What ends under name is to be removed.
func (l *layout) swapBack(name string, ours mark, base *cached) error {
	expected := ours
	in, err := l.vol.stat(name)
	if err != nil {
		return err
	}
	for range 10 {
		if err := l.vol.exchange(name, indexName); err != nil {
			return err
		}
		out, err := l.vol.stat(name)
		if err != nil {
			return err
		}
		if out.mark() == expected || out.ino == ours.Ino && ours.Size == 0 {
			if expected != ours && (base == nil || expected != base.id.mark()) {
				return l.reportLost(name)
			}
			return nil
		}
		expected, in = in.mark(), out // what was taken out is younger than what was put in: back with it
	}
	return errChanged
}

// awaitWriter waits until nobody has index.json open for writing, for tornWait at most, and reports whether that came
// true: who has it open for longer is not taken for one who is writing.
func (l *layout) awaitWriter() bool {
	f, _, err := l.vol.openFile(indexName)
	if err != nil {
		return true // the next attempt says why
	}
	defer f.Close()
	for end := time.Now().Add(tornWait); hasWriter(f); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// repairSwap finishes the exchanges of those who died in the middle of one. None of them was acknowledged. It runs
// under the lock.
func (l *layout) repairSwap() error {
	dir, err := l.vol.root.Open(stateDir)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, n := range names {
		name := join(stateDir, n)
		if !strings.HasPrefix(name, swapPrefix) {
			continue
		}
		if err := l.repairOne(name); err != nil {
			return err
		}
	}
	return nil
}

// repairOne brings back what name holds if it is the index of a program that takes no lock, and was replaced unseen by
// one of ours. If index.json is younger than both, or theirs was written in place and may have been seen, what it had
// is reported.
func (l *layout) repairOne(name string) error {
	ours, base, ok := parseSwap(name)
	if !ok {
		return nil // nobody here made it
	}
	id, err := l.vol.stat(name)
	if err != nil {
		return err
	}
	placed := false
	switch {
	case id.ino == ours: // it never was index.json
	case id.mark() == base:
		placed = true
	default:
		now, err := l.vol.stat(indexName)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if now.ino == ours && id.ino != base.Ino {
			if err := l.swapBack(name, mark{Ino: ours}, nil); err != nil {
				return err
			}
			break
		}
		placed = true
		if err := l.reportLost(name); err != nil {
			return err
		}
	}
	if !placed {
		if err := l.forgetRecord(ours); err != nil {
			return err
		}
	}
	return l.vol.remove(name)
}
