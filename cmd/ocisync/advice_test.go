package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func TestAFolderThatMayNotBeReadIsNotPassedOverInSilence(t *testing.T) {
	top := t.TempDir()
	for _, dir := range []string{"open/blobs/closed", "closed"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"open/blobs/closed", "closed"} {
		if err := os.Chmod(filepath.Join(top, dir), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(filepath.Join(top, dir), 0o755) })
	}
	if _, err := os.ReadDir(filepath.Join(top, "closed")); err == nil {
		t.Skip("this user may read everything")
	}
	r := ref.Ref{Scheme: ref.SchemeOCIDir, Root: top}
	dirs := unreadable(t.Context(), r)
	if want := []string{filepath.Join(top, "closed")}; !slices.Equal(dirs, want) {
		t.Fatalf("got %q, want %q", dirs, want)
	}
	err := notVerified(dirs)
	if !errors.Is(err, errs.ErrDenied) || !strings.Contains(err.Error(), "closed") || errs.Hint(err) == "" {
		t.Errorf("got %v", err)
	}
}
