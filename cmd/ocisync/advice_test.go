package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	var said bytes.Buffer
	a := &app{console: &console{w: &said}}
	a.passedOver(t.Context(), ref.Ref{Scheme: ref.SchemeOCIDir, Root: top})
	want := "note: " + displayPath(filepath.Join(top, "closed")) + " cannot be read by this user, and was passed over\n"
	if strings.Count(said.String(), "\n") != 1 || said.String() != want {
		t.Errorf("got %q, want %q", said.String(), want)
	}
}
