package ocidir

import (
	"io/fs"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// os.Root opens every directory on the way to a file, one after the other: six calls to look at a blob, eleven to open it.
// Linux can be told to stay below a directory while it resolves a path (openat2, since 5.6): three calls and four. What
// that cannot do, or may not in a sandbox, and all that looks unusual is left to os.Root: it is errUnknown here.

// noBeneath is set once the system turns out to have no openat2.
var noBeneath atomic.Bool

// at returns the descriptor of the volume's directory, -1 when there is none to be had.
func (v *volume) at() int {
	if d := v.dir.Load(); d != nil {
		return d.fd
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if d := v.dir.Load(); d != nil {
		return d.fd
	}
	f, err := v.root.Open(".")
	if err != nil {
		return -1
	}
	d := &openDir{f: f, fd: int(f.Fd())}
	v.dir.Store(d)
	return d.fd
}

// confirm reports whether a name still has the file id, with a single call. It follows links on the way wherever they
// lead: the file that was found by a safe way is the same one by any.
func (v *volume) confirm(name string, id fileID) bool {
	now, ok := v.lstat(name)
	return ok && now == id
}

// lstat identifies the regular file that a name leads to, inside or outside of the volume: it is only good for telling
// that a file is one that is known.
func (v *volume) lstat(name string) (fileID, bool) {
	var st unix.Stat_t
	dir := v.at()
	if dir < 0 || unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return fileID{}, false
	}
	return idOfStat(&st)
}

// idOfStat identifies a regular file. Anything else it does not know.
func idOfStat(st *unix.Stat_t) (fileID, bool) {
	return fileID{
		dev: uint64(st.Dev), ino: st.Ino, size: st.Size, //nolint:unconvert // Dev differs by architecture
		mtime: cutTime(st.Mtim.Nano()), ctime: cutTime(st.Ctim.Nano()),
	}, st.Mode&unix.S_IFMT == unix.S_IFREG
}

// glance is stat for a regular file, or for none.
func (v *volume) glance(name string) (fileID, error) {
	if !strings.Contains(name, "/") {
		id, ok := v.lstat(name)
		return id, unknownUnless(ok)
	}
	fd, err := v.beneath(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fileID{}, err
	}
	defer unix.Close(fd)
	id, ok := fstatID(fd)
	return id, unknownUnless(ok)
}

func unknownUnless(ok bool) error {
	if ok {
		return nil
	}
	return errUnknown
}

func fstatID(fd int) (fileID, bool) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return fileID{}, false
	}
	return idOfStat(&st)
}

// openQuick is openFile for a regular file, or for none. O_NONBLOCK keeps a FIFO from blocking the open.
func (v *volume) openQuick(name string) (*os.File, fileID, error) {
	fd, err := v.beneath(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileID{}, err
	}
	id, ok := fstatID(fd)
	if ok {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0) // as os.Root opens it
	}
	if !ok || err != nil {
		unix.Close(fd)
		return nil, fileID{}, errUnknown
	}
	return os.NewFile(uintptr(fd), v.root.Name()+"/"+name), id, nil
}

// open is os.Root's OpenFile.
func (v *volume) open(name string, flag int, perm fs.FileMode) (*os.File, error) {
	var mode uint64
	if flag&os.O_CREATE != 0 {
		mode = uint64(perm.Perm())
	}
	fd, err := v.beneath(name, flag, mode)
	switch {
	case err == errUnknown:
		return v.root.OpenFile(name, flag, perm)
	case err != nil:
		return nil, err
	}
	return os.NewFile(uintptr(fd), v.root.Name()+"/"+name), nil
}

// beneath opens a path that does not leave the volume.
func (v *volume) beneath(name string, flags int, mode uint64) (int, error) {
	dir := v.at()
	if dir < 0 || noBeneath.Load() {
		return -1, errUnknown
	}
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_LARGEFILE // where it is not 0
	}
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: mode, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
	switch err {
	case nil:
		return fd, nil
	case unix.ENOENT:
		return -1, &fs.PathError{Op: "openat2", Path: name, Err: err}
	case unix.ENOSYS, unix.EPERM: // EPERM is what some sandboxes say
		noBeneath.Store(true)
	}
	return -1, errUnknown
}
