package ocidir

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// canSyncFS: sync(2) of macOS does not wait. Sync of a file is F_FULLFSYNC.
const canSyncFS = false

func syncFS(*os.File) error { return errors.ErrUnsupported }

// exchangeFiles: index.json is replaced by a plain rename here, after a last look.
func exchangeFiles(*os.Root, string, string) error { return errors.ErrUnsupported }

// allocateFile: zeros are written.
func allocateFile(*os.File, int64) error { return errors.ErrUnsupported }

// hasWriter: it is not known here.
func hasWriter(*os.File) bool { return false }

// cloneFile: clonefile(2) makes a new file, and does not fill one that is locked already; a copy does.
func cloneFile(_, _ *os.File) error { return errors.ErrUnsupported }

func renameNoReplace(*os.Root, string, string) error { return errors.ErrUnsupported }

// startWriting: there is no such hint.
func startWriting(*os.File) {}

func changeTime(st *syscall.Stat_t) int64 { return st.Ctimespec.Nano() }

// bootTime: nothing is known of when the clock was set.
func bootTime() (id string, since time.Duration) { return "", 0 }
