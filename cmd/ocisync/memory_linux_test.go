package main

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// TestMemory copies one large layer from a registry into a directory and from there into a registry, each in a process
// of its own, and looks at the peak of its resident memory. OCISYNC_BIG is the layer's size in MiB: 192 by default,
// three times the limit; .ci/run asks for 4096.
func TestMemory(t *testing.T) {
	const limit = 64 << 20
	size := int64(192)
	if s := os.Getenv("OCISYNC_BIG"); s != "" {
		var err error
		if size, err = strconv.ParseInt(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if raceEnabled {
		t.Log("the race detector's own memory is larger than the limit: the copy is made, the memory not judged")
	}
	host := bigRegistry(t, bigLayer{size << 20})
	dir := "ocidir://" + filepath.ToSlash(filepath.Join(t.TempDir(), "big")) + ":1"
	for _, c := range []struct{ name, src, dst string }{
		{"registry to directory", host + "/pull/big:1", dir},
		{"directory to registry", dir, host + "/push/big:1"},
	} {
		cmd, out := command(t, "copy", "--no-referrers", "--plain-http", host, c.src, c.dst)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%s", c.name, err, out)
		}
		peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
		t.Logf("%s: %d MiB, peak resident memory %.1f MiB", c.name, size, float64(peak)/(1<<20))
		if peak > limit && !raceEnabled {
			t.Errorf("%s: peak resident memory %.1f MiB is above %d MiB", c.name, float64(peak)/(1<<20), limit>>20)
		}
	}
}
