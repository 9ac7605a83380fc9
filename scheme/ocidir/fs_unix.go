//go:build unix

package ocidir

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockFile takes the exclusive lock of f's file, which belongs to the open file and goes with it. Without wait it is
// errLocked when another has it.
func lockFile(f *os.File, wait bool) error {
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		switch err := unix.Flock(int(f.Fd()), how); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return errLocked
		default:
			return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}

// tryShared takes the lock that excludes exclusive ones only. It is errLocked when another has an exclusive one.
func tryShared(f *os.File) error {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return errLocked
		default:
			return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}

func unlockFile(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// syncDirFile: some network and FUSE file systems know no sync of a directory, which is not a failure of one.
func syncDirFile(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

func identify(f *os.File) (fileID, error) {
	fi, err := f.Stat()
	if err != nil {
		return fileID{}, err
	}
	return idOf(fi)
}

func statID(root *os.Root, name string) (fileID, error) {
	fi, err := root.Stat(name)
	if err != nil {
		return fileID{}, err
	}
	return idOf(fi)
}

func idOf(fi fs.FileInfo) (fileID, error) {
	if !fi.Mode().IsRegular() {
		return fileID{}, notRegular(fi.Name(), fi.Mode())
	}
	st := fi.Sys().(*syscall.Stat_t)
	return fileID{
		dev: uint64(st.Dev), ino: st.Ino, size: fi.Size(), //nolint:unconvert // Dev differs by system
		mtime: cutTime(fi.ModTime().UnixNano()), ctime: cutTime(changeTime(st)),
	}, nil
}

// links is how many names a file has, 1 when that is not known.
func links(f *os.File) int {
	fi, err := f.Stat()
	if err != nil {
		return 1
	}
	return int(fi.Sys().(*syscall.Stat_t).Nlink)
}

// linkAcross links by open directories, so that neither path can lead out of its layout.
func linkAcross(src *os.Root, from string, dst *os.Root, to string) error {
	sd, err := src.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer sd.Close()
	dd, err := dst.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer dd.Close()
	if err := unix.Linkat(int(sd.Fd()), path.Base(from), int(dd.Fd()), path.Base(to), 0); err != nil {
		return &os.LinkError{Op: "link", Old: from, New: to, Err: err}
	}
	return nil
}

// noLink reports that a file can be had in another way, though not as a link.
func noLink(err error) bool {
	for _, e := range []error{unix.EXDEV, unix.EMLINK, unix.EPERM, unix.EACCES, unix.ENOTSUP, unix.ENOSYS, errors.ErrUnsupported} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// noFiles reports that the process, or the system, has too many files open.
func noFiles(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

func isReadOnly(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission)
}

func freeSpace(root *os.Root) (uint64, error) {
	f, err := root.Open(".")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// writable reports whether files may be made in a directory.
func writable(dir string) bool { return unix.Access(dir, unix.W_OK|unix.X_OK) == nil }
