// Package memdir lets tests have their temporary directories in memory: on a disk most of the time goes by with waiting
// for fsync, and tests in memory see just as well that it is called.
package memdir

import (
	"errors"
	"fmt"
	"os"
)

// Env makes tests run on the disk, in TMPDIR, as .ci/run does in a step of its own.
const Env = "OCISYNC_DISK"

// Use lets t.TempDir be in memory, where the system has a directory there with a gigabyte free and nobody asked for the
// disk. It is called once, before the tests; remove, which is never nil, is called after them.
func Use() (remove func() error) {
	remove = func() error { return nil }
	if os.Getenv(Env) != "" || !room() {
		return remove
	}
	dir, err := os.MkdirTemp(shm, "ocisync-test-")
	if err != nil {
		return remove
	}
	remove = func() error { return os.RemoveAll(dir) }
	// As what it stands for: some tests become another user.
	if err := errors.Join(os.Chmod(dir, 0o777|os.ModeSticky), os.Setenv("TMPDIR", dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return remove
	}
	fmt.Printf("the tests run in memory, at %s; %s=1 runs them on the disk\n", shm, Env)
	return remove
}

// After is what goleak.Cleanup takes: it removes the directory, and ends the program with the tests' exit code.
func After(remove func() error) func(code int) {
	return func(code int) {
		if err := remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}
}
