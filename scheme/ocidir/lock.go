package ocidir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

const (
	stateDir  = ".ocisync"
	lockName  = stateDir + "/lock"
	ingestDir = stateDir + "/ingest"
)

// errLocked: another open file has the lock.
var errLocked = errors.New("locked")

// fairness is how long a process leaves the lock alone after it had it. Without it a busy process takes the lock again
// before another one, that waits for it, has woken up.
const fairness = 200 * time.Microsecond

// fileLock is the right to change index.json. Only one open file has it; a process that dies gives it back.
type fileLock struct {
	vol  *volume
	f    *os.File
	name string
}

// lock waits for the layout's lock, for as long as it takes. It is called by one goroutine of a layout at a time.
func (v *volume) lock() (*fileLock, error) { return v.lockAs(lockName) }

// lockUntil is lock for who waits no longer than ctx lasts. A lock that comes after that is given back at once.
func (v *volume) lockUntil(ctx context.Context) (*fileLock, error) {
	type outcome struct {
		lock *fileLock
		err  error
	}
	came := make(chan outcome, 1)
	go func() {
		lock, err := v.lock()
		came <- outcome{lock, err}
	}()
	select {
	case got := <-came:
		return got.lock, got.err
	case <-ctx.Done():
	}
	go func() {
		if got := <-came; got.err == nil {
			got.lock.unlock()
		}
	}()
	return nil, ctx.Err()
}

// lockAs is lock for any lock file.
func (v *volume) lockAs(name string) (*fileLock, error) {
	for range 100 {
		f, err := v.openLock(name)
		if err != nil {
			return nil, err
		}
		if err := lockFile(f, true); err != nil {
			f.Close()
			return nil, &errs.Error{Op: "lock", Ref: f.Name(), Err: err, Hint: "put the layout on a file system that supports file locks"}
		}
		l := &fileLock{vol: v, f: f, name: name}
		valid, err := l.valid()
		if valid {
			return l, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, &fs.PathError{Op: "lock", Path: name, Err: errors.New("it is deleted again and again")}
}

func (v *volume) openLock(name string) (*os.File, error) {
	f, err := v.open(name, os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := v.mkdir(stateDir); err != nil {
		return nil, err
	}
	if err := v.step(stepCreate, name); err != nil {
		return nil, err
	}
	return v.open(name, os.O_RDWR|os.O_CREATE, 0o666)
}

// valid reports whether the file that is locked is still the one that others find: .ocisync may be deleted at any time,
// and then two processes would have a lock each.
func (l *fileLock) valid() (bool, error) {
	return sameFile(l.vol, l.f, l.name)
}

func (l *fileLock) unlock() { l.f.Close() }

// sameFile reports whether name still names the open file f.
func sameFile(v *volume, f *os.File, name string) (bool, error) {
	open, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := v.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(open, named), err
}
