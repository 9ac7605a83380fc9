package serve

import (
	"fmt"
	"os"
)

// moveToMemory lets t.TempDir be in memory where Linux has a directory for that, as the tests of ocidir do, unless
// OCISYNC_DISK asks for the disk: its waits are none of the server's. It returns what removes the directory.
func moveToMemory() (remove func() error) {
	keep := func() error { return nil }
	if os.Getenv("OCISYNC_DISK") != "" {
		return keep
	}
	dir, err := os.MkdirTemp("/dev/shm", "serve-test-")
	if err != nil {
		return keep
	}
	if err := os.Setenv("TMPDIR", dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return func() error { return os.RemoveAll(dir) }
}
