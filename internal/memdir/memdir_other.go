//go:build !linux

package memdir

const shm = ""

func room() bool { return false }
