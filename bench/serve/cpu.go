//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// tick is the unit of times in /proc, the same on all systems that Go knows.
const tick = 10 * time.Millisecond

// spent returns how much processor time the server has used, its children's included. It is 0 where there is no /proc.
func (s *server) spent() time.Duration {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	var total time.Duration
	pid := strconv.Itoa(s.cmd.Process.Pid)
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		own, rest, ok := bytes.Cut(raw, []byte(" "))
		at := bytes.LastIndexByte(rest, ')') // the name may have anything in it
		if !ok || at < 0 {
			continue
		}
		f := bytes.Fields(rest[at+1:]) // state ppid … utime stime, which are 14 and 15 of all
		if len(f) < 13 || string(own) != pid && string(f[1]) != pid {
			continue
		}
		for _, v := range f[11:13] {
			n, err := strconv.ParseInt(string(v), 10, 64)
			if err != nil {
				return 0
			}
			total += time.Duration(n) * tick
		}
	}
	return total
}

// spentHere is how much this program has used: the clients.
func spentHere() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
