package ocidir

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// canSyncFS: one call for a whole file system is cheaper than many for its files, and since Linux 5.8 reports errors.
const canSyncFS = true

func syncFS(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := c.Control(func(fd uintptr) { serr = unix.Syncfs(int(fd)) }); err != nil {
		return err
	}
	if serr != nil {
		return &fs.PathError{Op: "syncfs", Path: f.Name(), Err: serr}
	}
	return nil
}

func cloneFile(dst, src *os.File) error {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}

// bootTime names this start of the system, and says how long ago it was, times of sleep included.
func bootTime() (id string, since time.Duration) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", 0
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return "", 0
	}
	return strings.TrimSpace(string(raw)), time.Duration(ts.Nano())
}

// startWriting has the system begin to write what of f is in memory only, without waiting for it. It is a hint: what
// fails is told by the sync that follows.
func startWriting(f *os.File) {
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = unix.SyncFileRange(int(fd), 0, 0, unix.SYNC_FILE_RANGE_WRITE) })
	}
}

func changeTime(st *syscall.Stat_t) int64 { return st.Ctim.Nano() }

// allocateFile gives an empty file size bytes. Where the file system cannot do that it is errors.ErrUnsupported.
func allocateFile(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		return errors.ErrUnsupported
	}
	return err
}

// renameNoReplace renames to a name that does not exist.
func renameNoReplace(root *os.Root, from, to string) error {
	return renameWith(root, from, to, unix.RENAME_NOREPLACE)
}

// exchangeFiles gives each of two files the name of the other, at once.
func exchangeFiles(root *os.Root, a, b string) error {
	return renameWith(root, a, b, unix.RENAME_EXCHANGE)
}

// renameWith renames within open directories, so that neither path can lead out of root. A file system or a kernel that
// knows no such flag is errors.ErrUnsupported.
func renameWith(root *os.Root, from, to string, flag uint) error {
	fd, err := root.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer fd.Close()
	td, err := root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer td.Close()
	err = unix.Renameat2(int(fd.Fd()), path.Base(from), int(td.Fd()), path.Base(to), flag)
	switch {
	case err == nil:
		return nil
	// EPERM is what some sandboxes say to calls that they do not know; where it is meant a plain rename gets it, too.
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM):
		err = errors.ErrUnsupported
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}

// hasWriter reports whether anybody has f's file open for writing; f itself must be open for reading only. It asks for a
// lease, which is granted only if nobody has. Who gets none for another reason (a file system without leases, a file of
// another user) does not know, and takes it that nobody has.
func hasWriter(f *os.File) bool {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return errors.Is(err, unix.EAGAIN)
}
