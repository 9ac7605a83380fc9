package ocidir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// However a file is looked at, a path does not lead out of the layout, and what is no file does not block.
func TestLookingStaysInTheLayout(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write := func(path, words string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(words), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "sub", "file"), "inside")
	write(filepath.Join(outside, "file"), "outside")
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link(outside, "away")
	link(filepath.Join(outside, "file"), "out")
	link("sub", "in")
	link("sub/file", "alias")
	if err := os.Mkdir(filepath.Join(dir, "sub", "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "sub", "pipe"), 0o644); err != nil {
		t.Skip(err)
	}
	defer noBeneath.Store(noBeneath.Load())
	for _, quick := range []bool{true, false} {
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		v := &volume{root: root}
		noBeneath.Store(!quick)
		for _, name := range []string{"sub/file", "in/file", "alias"} {
			id, err := v.stat(name)
			f, fid, ferr := v.openFile(name)
			if err != nil || ferr != nil || id != fid || id.size != 6 {
				t.Fatalf("quick %v: %s: %v, %v", quick, name, err, ferr)
			}
			if raw := make([]byte, 6); !readsAs(f, raw, "inside") {
				t.Errorf("quick %v: %s: %q", quick, name, raw)
			}
			f.Close()
		}
		for _, name := range []string{"away/new", "away/file", "out"} {
			if f, err := v.open(name, os.O_RDWR|os.O_CREATE, 0o666); err == nil {
				t.Errorf("quick %v: %s is opened to be written to: %s", quick, name, f.Name())
			}
		}
		for _, name := range []string{"away/file", "out", "sub/dir", "sub/pipe"} {
			if _, err := v.stat(name); err == nil || absent(err) {
				t.Errorf("quick %v: stat of %s: %v", quick, name, err)
			}
			if f, _, err := v.openFile(name); err == nil || absent(err) {
				t.Errorf("quick %v: open of %s: %v, %v", quick, name, f, err)
			}
		}
		for _, name := range []string{"nothing", "sub/nothing", "no/thing", "sub/file/nothing"} {
			_, err := v.stat(name)
			if _, _, ferr := v.openFile(name); !absent(err) || !absent(ferr) {
				t.Errorf("quick %v: %s: %v, %v", quick, name, err, ferr)
			}
		}
		if err := v.close(); err != nil {
			t.Error(err)
		}
		if _, err := v.stat("sub/file"); err == nil {
			t.Errorf("quick %v: a closed directory is looked at", quick)
		}
	}
}

func readsAs(f *os.File, raw []byte, want string) bool {
	_, err := f.ReadAt(raw, 0)
	return err == nil && string(raw) == want
}
