//go:build unix

package serve

import (
	"syscall"
	"testing"
)

// descriptors raises the number of files that this process may open as far as it may, and returns it.
func descriptors(t *testing.T) int {
	t.Helper()
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	r.Cur = r.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	return int(min(r.Cur, 1<<20))
}
