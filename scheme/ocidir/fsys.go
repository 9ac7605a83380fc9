package ocidir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

// volume is the directory of one layout. Everything that changes the disk goes through its methods, so that a test can
// stop a put at any step, or make any step fail. Paths are relative, use slashes, and cannot leave the directory.
type volume struct {
	root  *os.Root
	hook  hook
	eager bool // large files will be synced
	dir   atomic.Pointer[openDir]

	mu      sync.Mutex
	watch   *os.File // open since before the first write: the system tells it of failures since then
	refused bool     // a sync failed: from then on files are synced one by one, which tells whose data was lost

	// together is held while the whole file system is synced: the system tells one caller only of a failure.
	together sync.Mutex
}

// openDir is the volume's directory, open, where calls relative to it are made that os.Root does not know.
type openDir struct {
	f  *os.File
	fd int
}

func (v *volume) close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.root.Close()
	if d := v.dir.Swap(nil); d != nil {
		err = errors.Join(err, d.f.Close())
	}
	if v.watch != nil {
		err = errors.Join(err, v.watch.Close())
	}
	return err
}

// hook is asked before each step that changes the disk; an error takes the step's place. It is nil outside of tests.
type hook func(step, name string) error

// The steps that a hook sees.
const (
	stepMkdir    = "mkdir"
	stepCreate   = "create"
	stepWrite    = "write"
	stepSync     = "sync"
	stepSyncDir  = "syncdir"
	stepSyncFS   = "syncfs"
	stepTimes    = "times"
	stepRename   = "rename"
	stepRemove   = "remove"
	stepLink     = "link"
	stepClone    = "clone"
	stepSweep    = "sweep" // a collector is about to ask for the lock, to remove from what is named
	stepTruncate = "truncate"
)

// errPretend is what a test's hook returns for a sync that claims success and does nothing: it shows that the tests
// of power losses would notice.
var errPretend = errors.New("only pretended")

func pretended(err error) error {
	if errors.Is(err, errPretend) {
		return nil
	}
	return err
}

func (v *volume) step(step, name string) error {
	if v.hook == nil {
		return nil
	}
	if err := v.hook(step, name); err != nil {
		return &fs.PathError{Op: step, Path: name, Err: err}
	}
	return nil
}

// mkdir makes one directory; it is no error when it is there.
func (v *volume) mkdir(name string) error {
	if _, err := v.root.Stat(name); err == nil {
		return nil
	}
	if err := v.step(stepMkdir, name); err != nil {
		return err
	}
	if err := v.root.Mkdir(name, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// create makes a new file, with the user's umask as its permissions.
func (v *volume) create(name string) (*os.File, error) {
	if err := v.step(stepCreate, name); err != nil {
		return nil, err
	}
	return v.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
}

// write appends p to f. A hook's error leaves half of p, as a crash or a full disk does.
func (v *volume) write(f *os.File, name string, p []byte) (int, error) {
	if err := v.step(stepWrite, name); err != nil {
		n, werr := f.Write(p[:len(p)/2])
		return n, errors.Join(err, werr)
	}
	return f.Write(p)
}

// writeAt is write at a place of its own, whatever was written before.
func (v *volume) writeAt(f *os.File, name string, p []byte, off int64) (int, error) {
	if err := v.step(stepWrite, name); err != nil {
		n, werr := f.WriteAt(p[:len(p)/2], off)
		return n, errors.Join(err, werr)
	}
	return f.WriteAt(p, off)
}

func (v *volume) sync(f *os.File, name string) error {
	if err := v.step(stepSync, name); err != nil {
		return pretended(err)
	}
	return f.Sync()
}

// syncName makes the content of a file durable that was written by somebody else.
func (v *volume) syncName(name string) error {
	f, err := v.open(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return v.sync(f, name)
}

// syncDir makes durable which names a directory has.
func (v *volume) syncDir(name string) error {
	if err := v.step(stepSyncDir, name); err != nil {
		return pretended(err)
	}
	f, err := v.open(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return syncDirFile(f)
}

// watchWrites has failures noticed that the system meets when it writes by itself what was written from now on.
func (v *volume) watchWrites() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.watch != nil || !canSyncFS {
		return nil
	}
	f, err := v.root.Open(".")
	v.watch = f
	return err
}

// syncAll makes everything on the file system durable at once. It is errors.ErrUnsupported where there is no such call,
// and once a sync has failed: files are to be synced one by one then.
func (v *volume) syncAll() error {
	if err := v.watchWrites(); err != nil {
		return err
	}
	v.together.Lock()
	defer v.together.Unlock()
	v.mu.Lock()
	refused, watch := v.refused || !canSyncFS, v.watch
	v.mu.Unlock()
	if refused {
		return errors.ErrUnsupported
	}
	err := v.step(stepSyncFS, ".")
	if errors.Is(err, errPretend) {
		return nil
	}
	if err == nil {
		err = syncFS(watch)
	}
	if err != nil {
		v.distrust()
	}
	return err
}

// distrust ends the use of syncAll: after a failure it may report success for data that is lost.
func (v *volume) distrust() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refused = true
}

func (v *volume) rename(from, to string) error {
	if err := v.step(stepRename, to); err != nil {
		return err
	}
	return v.root.Rename(from, to)
}

// renameNew gives a file a name that must not exist: else it is fs.ErrExist. Where the file system knows no such rename,
// another file may take the name between the look and the rename, and is replaced.
func (v *volume) renameNew(from, to string) error {
	if err := v.step(stepRename, to); err != nil {
		return err
	}
	err := renameNoReplace(v.root, from, to)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if _, err := v.root.Lstat(to); err == nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	}
	return v.root.Rename(from, to)
}

// setTime sets when a file was changed last. Times of the kernel's own may lie before the call that they are of.
func (v *volume) setTime(name string, to time.Time) error {
	if err := v.step(stepTimes, name); err != nil {
		return err
	}
	return v.root.Chtimes(name, time.Time{}, to)
}

// exchange gives each of two files the name of the other. Where that cannot be done it is errors.ErrUnsupported. A hook
// sees the rename to the second name.
func (v *volume) exchange(a, b string) error {
	if err := v.step(stepRename, b); err != nil {
		return err
	}
	return exchangeFiles(v.root, a, b)
}

// allocate gives f size bytes on the disk, so that writing them finds room.
func (v *volume) allocate(f *os.File, name string, size int64) error {
	if err := v.step(stepWrite, name); err != nil {
		return err
	}
	err := allocateFile(f, size)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	zeros := buffers.Get().(*[]byte)
	defer buffers.Put(zeros)
	clear(*zeros)
	for size > 0 {
		n, werr := f.Write((*zeros)[:min(size, int64(len(*zeros)))])
		if size -= int64(n); werr != nil {
			return werr
		}
	}
	return nil
}

// truncate cuts a file to size bytes.
func (v *volume) truncate(f *os.File, name string, size int64) error {
	if err := v.step(stepTruncate, name); err != nil {
		return err
	}
	return f.Truncate(size)
}

// remove removes a file; it is no error when it is gone.
func (v *volume) remove(name string) error {
	if err := v.step(stepRemove, name); err != nil {
		return err
	}
	if err := v.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// link gives a file of src a second name in v, which must not exist.
func (v *volume) link(src *volume, from, to string) error {
	if err := v.step(stepLink, to); err != nil {
		return err
	}
	return linkAcross(src.root, from, v.root, to)
}

// clone makes dst, which is empty, share the blocks of src. Where that cannot be done it is errors.ErrUnsupported, or
// what the system says.
func (v *volume) clone(dst, src *os.File, name string) error {
	if err := v.step(stepClone, name); err != nil {
		return err
	}
	return cloneFile(dst, src)
}

// fileID tells one state of one file from every other: a change of its bytes, a rename and a new link change it. What
// is known of a file (that it is durable, that it has its digest) is remembered under it.
type fileID struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
}

// coarse is what file systems cut times to, in nanoseconds; tests set it to see what does not show in them.
var coarse atomic.Int64

func cutTime(t int64) int64 {
	if c := coarse.Load(); c > 0 {
		t -= t % c
	}
	return t
}

// stat identifies a regular file. Anything else under that name is errs.ErrCorrupt.
func (v *volume) stat(name string) (fileID, error) {
	if id, err := v.glance(name); err != errUnknown {
		return id, err
	}
	return statID(v.root, name)
}

// errUnknown: the quick way to look at a file has no answer, which os.Root may have.
var errUnknown = errors.New("not known")

// isLink reports whether a symbolic link has the name, wherever it leads.
func (v *volume) isLink(name string) bool {
	fi, err := v.root.Lstat(name)
	return err == nil && fi.Mode()&fs.ModeSymlink != 0
}

// openFile opens a regular file for reading, and identifies it. Asking first keeps a FIFO from blocking the open.
func (v *volume) openFile(name string) (*os.File, fileID, error) {
	if f, id, err := v.openQuick(name); err != errUnknown {
		return f, id, err
	}
	if _, err := v.stat(name); err != nil {
		return nil, fileID{}, err
	}
	f, err := v.root.Open(name)
	if err != nil {
		return nil, fileID{}, err
	}
	id, err := identify(f)
	if err != nil {
		f.Close()
		return nil, fileID{}, err
	}
	return f, id, nil
}

func notRegular(name string, mode fs.FileMode) error {
	return fmt.Errorf("%w: %s is not a regular file (%s)", errs.ErrCorrupt, name, mode.Type())
}

// full explains an error of a write of size bytes if the disk is full; any other error it returns as it is.
func (v *volume) full(err error, size int64) error {
	if !isFull(err) {
		return err
	}
	free, ferr := freeSpace(v.root)
	if ferr != nil {
		return fmt.Errorf("%w: %d bytes were to be written: %w", errs.ErrNoSpace, size, err)
	}
	return fmt.Errorf("%w: %d bytes were to be written, %d are free: %w", errs.ErrNoSpace, size, free, err)
}

// absent reports that a path names nothing, also because something on its way is no directory.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// join is path.Join for names within a layout.
func join(elem ...string) string { return path.Join(elem...) }
