package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

// The files of an ingest. It is one as long as it has data: creating makes that last, and removing removes it first.
const (
	ingestLock = "lock"
	ingestData = "data"
	ingestInfo = "meta"
)

// claim is the right to do anything in the directory of one ingest. Only one open file has it, of all processes.
type claim struct {
	vol *volume
	dir string
	f   *os.File
}

const (
	// claimTries is how often a claim is tried that is refused for a moment only.
	claimTries = 100
	// claimPause is between two of those tries.
	claimPause = time.Millisecond
)

// claim makes the directory, and locks it. It waits for nobody who writes: that is errs.ErrLocked, with who it is.
func (v *volume) claim(ctx context.Context, dir string) (*claim, error) {
	var err error
	for range claimTries {
		var c *claim
		if c, err = v.tryClaim(dir); c != nil {
			return c, nil
		}
		switch {
		case errors.Is(err, errAgain):
		case errors.Is(err, errLocked) && !v.isWriting(dir):
			select {
			case <-time.After(claimPause):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case errors.Is(err, errLocked):
			return nil, &errs.Error{Err: errs.ErrLocked, Message: v.holder(dir)}
		default:
			return nil, err
		}
	}
	if errors.Is(err, errLocked) {
		return nil, &errs.Error{Err: errs.ErrLocked, Message: "somebody looks at it, or removes it, again and again"}
	}
	return nil, &fs.PathError{Op: "lock", Path: dir, Err: errors.New("it is deleted again and again")}
}

// errAgain: the name stands for another file than a moment ago.
var errAgain = errors.New("the file was replaced")

// tryClaim tries once.
func (v *volume) tryClaim(dir string) (*claim, error) {
	name := join(dir, ingestLock)
	f, err := v.openOwn(name, true)
	if errors.Is(err, fs.ErrNotExist) {
		for _, d := range []string{stateDir, ingestDir, dir} {
			if err := v.mkdir(d); err != nil && !errors.Is(err, fs.ErrNotExist) { // or .ocisync was deleted just now
				return nil, err
			}
		}
		return nil, errAgain
	}
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, false); err != nil {
		f.Close()
		return nil, err
	}
	c := &claim{vol: v, dir: dir, f: f}
	valid, err := c.valid()
	if valid {
		return c, nil
	}
	c.release()
	if err != nil {
		return nil, err
	}
	return nil, errAgain // who had it before removed the ingest
}

// valid reports whether the claim still is the one that others meet. It is not, when somebody deleted the files.
func (c *claim) valid() (bool, error) { return sameFile(c.vol, c.f, join(c.dir, ingestLock)) }

// release gives the claim back. The lock goes before the file is closed: a process that is being started may have a copy
// of the open file for a moment.
func (c *claim) release() {
	_ = unlockFile(c.f) // closing does it, too
	c.f.Close()
}

// sign writes into the lock who holds it, for others to read. It is for people; an empty lock excludes as well.
func (c *claim) sign() {
	name := join(c.dir, ingestLock)
	if c.vol.truncate(c.f, name, 0) == nil {
		_, _ = c.vol.write(c.f, name, []byte(whoami()))
	}
}

// remove removes the ingest, data first: without it there is none. What is left when the process dies in the middle, or
// when something else cannot be removed, is of no ingest, and sweepIngests takes it.
func (c *claim) remove() error {
	if err := c.vol.remove(join(c.dir, ingestData)); err != nil {
		return err
	}
	c.clear()
	return nil
}

// clear removes what an ingest without data has left. Whoever comes for the lock that is removed here finds, when it
// has it, that it is not the one which has the name.
func (c *claim) clear() {
	for _, name := range []string{ingestInfo, ingestLock} {
		if c.vol.remove(join(c.dir, name)) != nil {
			return // the lock must go last, and the next writer tries again
		}
	}
	_ = c.vol.remove(c.dir) // somebody may have begun the next one in it
}

// whoami names this process.
func whoami() string {
	name := filepath.Base(os.Args[0]) + "[" + strconv.Itoa(os.Getpid()) + "]"
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return strings.ToValidUTF8(name[:min(len(name), 256)], "")
}

// holder says who holds the claim, as far as can be read.
func (v *volume) holder(dir string) string {
	f, _, err := v.openFile(join(dir, ingestLock))
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil || len(text) == 0 {
		return ""
	}
	return fmt.Sprintf("by %s", strings.Trim(strconv.Quote(string(text)), `"`))
}

// isHeld reports whether somebody has the ingest open. To find out it takes a lock that excludes writers only, and only
// for a moment; who opens an ingest in that moment tries again (see isWriting).
func (v *volume) isHeld(dir string) (bool, error) {
	f, _, err := v.openFile(join(dir, ingestLock))
	if absent(err) || errors.Is(err, errs.ErrCorrupt) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = tryShared(f)
	if err == nil {
		return false, unlockFile(f)
	}
	if errors.Is(err, errLocked) {
		return true, nil
	}
	return false, err
}

// isWriting reports whether the claim that cannot be had is a writer's. It is not, when it was that of somebody who only
// looked, as isHeld does; nor when there is no data, so that the holder is removing the ingest or about to make it.
func (v *volume) isWriting(dir string) bool {
	if held, err := v.isHeld(dir); err == nil && !held {
		return false
	}
	_, err := v.root.Lstat(join(dir, ingestData))
	return !errors.Is(err, fs.ErrNotExist)
}

// openOwn opens a file of ours, to be written to. What has its name and is no file, or has other names, too, may lead to
// a blob: it is never written into, and its name is removed.
func (v *volume) openOwn(name string, create bool) (*os.File, error) {
	for range claimTries {
		fi, err := v.root.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !create:
			return nil, err
		case errors.Is(err, fs.ErrNotExist):
			if err := v.step(stepCreate, name); err != nil {
				return nil, err
			}
		case err != nil:
			return nil, err
		case !fi.Mode().IsRegular():
			if err := v.remove(name); err != nil {
				return nil, fmt.Errorf("%w; remove %s by hand: %w", notRegular(name, fi.Mode()), filepath.Join(v.root.Name(), name), err)
			}
			continue
		}
		f, err := v.tryOwn(name, create)
		if f != nil || err != nil && !errors.Is(err, errAgain) {
			return f, err
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("it is replaced again and again")}
}

// tryOwn opens the file that was looked at, or that is to be made.
func (v *volume) tryOwn(name string, create bool) (*os.File, error) {
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE
	}
	f, err := v.open(name, flag, 0o666)
	if err != nil {
		return nil, err
	}
	named, err := v.root.Lstat(name)
	if err == nil {
		var open fs.FileInfo
		if open, err = f.Stat(); err == nil && !os.SameFile(open, named) {
			err = errAgain
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errAgain
	}
	if err == nil && links(f) > 1 {
		if err = v.remove(name); err == nil {
			err = errAgain
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
