package ocidir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

const canSyncFS = false

func syncFS(*os.File) error { return errors.ErrUnsupported }

// exchangeFiles: index.json is replaced by a plain rename here, after a last look.
func exchangeFiles(*os.Root, string, string) error { return errors.ErrUnsupported }

// allocateFile: zeros are written.
func allocateFile(*os.File, int64) error { return errors.ErrUnsupported }

// hasWriter: it is not known here.
func hasWriter(*os.File) bool { return false }

func cloneFile(_, _ *os.File) error { return errors.ErrUnsupported }

func renameNoReplace(*os.Root, string, string) error { return errors.ErrUnsupported }

// startWriting: there is no such hint.
func startWriting(*os.File) {}

// syncDirFile: NTFS journals names by itself, and a directory cannot be flushed by who may only read it.
func syncDirFile(*os.File) error { return nil }

// lockRange is far beyond the end of any file: locks of Windows are mandatory, and the file must stay readable.
var lockRange = windows.Overlapped{OffsetHigh: 0x7fffffff}

func lockFile(f *os.File, wait bool) error {
	flags := uint32(windows.LOCKFILE_EXCLUSIVE_LOCK)
	if !wait {
		flags |= windows.LOCKFILE_FAIL_IMMEDIATELY
	}
	return lockAs(f, flags)
}

// tryShared takes the lock that excludes exclusive ones only. It is errLocked when another has an exclusive one.
func tryShared(f *os.File) error { return lockAs(f, windows.LOCKFILE_FAIL_IMMEDIATELY) }

func lockAs(f *os.File, flags uint32) error {
	at := lockRange
	switch err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &at); err {
	case nil:
		return nil
	case windows.ERROR_LOCK_VIOLATION:
		return errLocked
	default:
		return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
}

func unlockFile(f *os.File) error {
	at := lockRange
	return windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, &at)
}

// basicInfo is FILE_BASIC_INFO.
type basicInfo struct {
	created, accessed, written, changed int64
	attributes                          uint32
	_                                   uint32
}

func identify(f *os.File) (fileID, error) {
	fi, err := f.Stat()
	if err != nil {
		return fileID{}, err
	}
	if !fi.Mode().IsRegular() {
		return fileID{}, notRegular(fi.Name(), fi.Mode())
	}
	h := windows.Handle(f.Fd())
	var by windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &by); err != nil {
		return fileID{}, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	var basic basicInfo
	if err := windows.GetFileInformationByHandleEx(h, windows.FileBasicInfo, (*byte)(unsafe.Pointer(&basic)), uint32(unsafe.Sizeof(basic))); err != nil {
		return fileID{}, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return fileID{
		dev: uint64(by.VolumeSerialNumber), ino: uint64(by.FileIndexHigh)<<32 | uint64(by.FileIndexLow),
		size: fi.Size(), mtime: cutTime(fi.ModTime().UnixNano()), ctime: cutTime(basic.changed * 100),
	}, nil
}

func statID(root *os.Root, name string) (fileID, error) {
	fi, err := root.Stat(name)
	if err != nil {
		return fileID{}, err
	}
	if !fi.Mode().IsRegular() {
		return fileID{}, notRegular(name, fi.Mode())
	}
	f, err := root.Open(name)
	if err != nil {
		return fileID{}, err
	}
	defer f.Close()
	return identify(f)
}

// links is how many names a file has, 1 when that is not known.
func links(f *os.File) int {
	var by windows.ByHandleFileInformation
	if windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &by) != nil {
		return 1
	}
	return int(by.NumberOfLinks)
}

// linkAcross has paths only; both are made of a layout's own and a digest that was checked.
func linkAcross(src *os.Root, from string, dst *os.Root, to string) error {
	return os.Link(filepath.Join(src.Name(), filepath.FromSlash(from)), filepath.Join(dst.Name(), filepath.FromSlash(to)))
}

func noLink(err error) bool {
	for _, e := range []error{
		windows.ERROR_NOT_SAME_DEVICE, windows.ERROR_TOO_MANY_LINKS, windows.ERROR_INVALID_FUNCTION,
		windows.ERROR_NOT_SUPPORTED, windows.ERROR_ACCESS_DENIED, errors.ErrUnsupported,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// noFiles reports that the process, or the system, has too many files open.
func noFiles(err error) bool { return errors.Is(err, windows.ERROR_TOO_MANY_OPEN_FILES) }

func isReadOnly(err error) bool {
	return errors.Is(err, windows.ERROR_WRITE_PROTECT) || errors.Is(err, fs.ErrPermission)
}

func freeSpace(root *os.Root) (uint64, error) {
	name, err := windows.UTF16PtrFromString(root.Name())
	if err != nil {
		return 0, err
	}
	var free uint64
	err = windows.GetDiskFreeSpaceEx(name, &free, nil, nil)
	return free, err
}

// writable: whether a directory takes files is known on Windows only by trying.
func writable(dir string) bool {
	fi, err := os.Stat(dir)
	return err == nil && fi.IsDir()
}

// bootTime: nothing is known of when the clock was set.
func bootTime() (id string, since time.Duration) { return "", 0 }
