package memdir

import "syscall"

const shm = "/dev/shm"

func room() bool {
	var st syscall.Statfs_t
	return syscall.Statfs(shm, &st) == nil && st.Bavail*uint64(st.Bsize) >= 1<<30
}
