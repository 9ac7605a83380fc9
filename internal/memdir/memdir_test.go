package memdir

import (
	"os"
	"strings"
	"testing"
)

func TestUse(t *testing.T) {
	t.Setenv("TMPDIR", "") // and back at the end
	t.Setenv(Env, "1")
	if remove := Use(); os.Getenv("TMPDIR") != "" || remove() != nil {
		t.Error("the disk was asked for")
	}
	t.Setenv(Env, "")
	if !room() {
		t.Skip("NOT TESTED: there is no room in memory")
	}
	remove := Use()
	dir := os.Getenv("TMPDIR")
	if !strings.HasPrefix(dir, shm+"/") || os.TempDir() != dir {
		t.Fatalf("temporary files are in %q", dir)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("%v, %v: not everybody may write there", info, err)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it is left behind: %v", err)
	}
}
