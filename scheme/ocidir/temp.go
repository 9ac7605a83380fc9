package ocidir

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/ocisync/ocisync/types/errs"
)

// tempSuffix marks the files that one writer makes and renames, as opposed to what else may come to lie in ingest.
const tempSuffix = ".tmp"

// temp is a file that is being written. Its writer holds its lock, so that no one takes it for a leftover.
type temp struct {
	vol  *volume
	f    *os.File
	name string
	done bool // it has its final name

	unproven bool // its digest was not made of the bytes that are in it (see ingest)
	waiting  int  // bytes written that the disk was not told of
}

func tempName() string { return join(ingestDir, rand.Text()+tempSuffix) }

// newTemp makes an empty file in ingest.
func (v *volume) newTemp() (*temp, error) {
	for range 100 {
		name := tempName()
		f, err := v.create(name)
		if errors.Is(err, fs.ErrNotExist) { // .ocisync was deleted, or is not there yet
			if err = v.mkdir(stateDir); err == nil {
				err = v.mkdir(ingestDir)
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		t := &temp{vol: v, f: f, name: name}
		err = lockFile(f, false)
		if err == nil {
			// Whoever cleans up may have locked and removed the file before we locked it.
			var ours bool
			if ours, err = sameFile(v, f, name); ours {
				return t, nil
			}
		}
		if t.discard(); err != nil && !errors.Is(err, errLocked) {
			return nil, err
		}
	}
	return nil, &fs.PathError{Op: "create", Path: ingestDir, Err: errors.New("new files disappear again and again")}
}

// Write has the disk begin early with what is much: the sync at the end then finds little left to do.
func (t *temp) Write(p []byte) (int, error) {
	n, err := t.vol.write(t.f, t.name, p)
	if t.waiting += n; t.vol.eager && t.waiting >= writeback {
		startWriting(t.f)
		t.waiting = 0
	}
	return n, err
}

// rename gives the file its final name. It replaces what has that name; an open reader of that keeps it. The lock goes
// last: before the rename it would make the file look like a leftover.
func (t *temp) rename(to string) error {
	if err := t.vol.rename(t.name, to); err != nil {
		return err
	}
	t.done = true
	return unlockFile(t.f)
}

// renameNew is rename to a name that must not exist: else it is fs.ErrExist.
func (t *temp) renameNew(to string) error {
	if err := t.vol.renameNew(t.name, to); err != nil {
		return err
	}
	t.done = true
	return unlockFile(t.f)
}

// move gives the file another name for the time being, under which only who has the lock of the layout will look. From
// now on it is open for reading only, so that it can be told whether others write to it.
func (t *temp) move(to string) error {
	if err := t.vol.rename(t.name, to); err != nil {
		return err
	}
	t.name = to
	f, err := t.vol.root.Open(to)
	if err != nil {
		return err
	}
	old := t.f
	t.f = f
	return old.Close()
}

// discard closes the file, and removes it unless it was renamed. What cannot be removed the next writer removes.
func (t *temp) discard() {
	if !t.done {
		_ = t.vol.remove(t.name)
	}
	t.f.Close()
}

// sweep removes what dead writers left, and says how many files and bytes that was. A file whose lock can be had has no
// writer. Those of another user, in a layout that several share, are left to him.
func (v *volume) sweep() (files int, bytes int64, err error) {
	names, err := v.names(ingestDir)
	if err != nil {
		return 0, 0, err
	}
	for _, n := range names {
		if !strings.HasSuffix(n, tempSuffix) {
			continue
		}
		size, err := v.sweepFile(join(ingestDir, n))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errLocked) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errs.ErrCorrupt) {
			continue // gone, in use, another user's, or no file
		}
		if err != nil {
			return files, bytes, err
		}
		files++
		bytes += size
	}
	return files, bytes, nil
}

func (v *volume) sweepFile(name string) (size int64, err error) {
	if fi, err := v.root.Lstat(name); err != nil {
		return 0, err
	} else if !fi.Mode().IsRegular() {
		return 0, notRegular(name, fi.Mode())
	}
	f, err := v.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := lockFile(f, false); err != nil {
		return 0, err
	}
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), v.remove(name)
}
