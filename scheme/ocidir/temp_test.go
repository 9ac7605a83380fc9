package ocidir

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Two users share a layout. What one of them left behind is in nobody else's way.
func TestFilesOfAnotherUserAreLeftToHim(t *testing.T) {
	dir := t.TempDir()
	putBlob(t, open(t), place(dir), []byte("theirs"))
	theirs := filepath.Join(dir, ingestDir, "theirs"+tempSuffix)
	if err := os.WriteFile(theirs, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := &steps{}
	s.set(func(step, name string) error {
		if step == stepRemove && strings.HasSuffix(name, "theirs"+tempSuffix) {
			return syscall.EACCES
		}
		return nil
	})
	putBlob(t, open(t, withHook(s.hook)), place(dir), []byte("ours"))
	if !s.has(stepRemove) {
		t.Error("nothing was swept")
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
}
