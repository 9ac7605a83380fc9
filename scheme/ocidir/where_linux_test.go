package ocidir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// diskEnv makes the tests of this package run on the disk, in TMPDIR, as .ci/run does in a step of its own.
const diskEnv = "OCISYNC_DISK"

// shm is where Linux has a directory in memory, and room what it must have free: the tests use a tenth.
const (
	shm  = "/dev/shm"
	room = 1 << 30
)

// moveToMemory lets t.TempDir be in memory, where that can be had and nobody asked for the disk: three quarters of the
// time on a disk go by with waiting for fsync, of which the tests in memory see just as well that it is called. It
// returns what removes the directory.
func moveToMemory() (remove func() error) {
	keep := func() error { return nil }
	var st unix.Statfs_t
	if os.Getenv(diskEnv) != "" || os.Getenv("OCISYNC_FAULTS") != "" || unix.Statfs(shm, &st) != nil || uint64(st.Bavail)*uint64(st.Bsize) < room {
		return keep
	}
	dir, err := os.MkdirTemp(shm, "ocidir-test-")
	if err != nil {
		return keep
	}
	remove = func() error { return os.RemoveAll(dir) }
	// As what it stands for: some tests become another user.
	if err := errors.Join(os.Chmod(dir, 0o777|os.ModeSticky), os.Setenv("TMPDIR", dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return remove
	}
	fmt.Printf("ocidir's tests run in memory, at %s; %s=1 runs them on the disk\n", shm, diskEnv)
	return remove
}
