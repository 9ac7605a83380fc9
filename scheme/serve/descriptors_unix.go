//go:build unix

package serve

import "syscall"

// maxDescriptors is how many files this process may have open, 0 if that is not known. Go has raised the soft limit to
// the hard one.
func maxDescriptors() uint64 {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return 0
	}
	return uint64(r.Cur)
}
