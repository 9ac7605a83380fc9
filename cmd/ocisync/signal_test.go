//go:build !windows

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestASignalsExitCodeIsTheShells: what stopped on a signal says so as a program does that the signal ended.
func TestASignalsExitCodeIsTheShells(t *testing.T) {
	for sig, want := range map[os.Signal]int{os.Interrupt: 130, syscall.SIGTERM: 143} {
		reg, server, err := startTestRegistry(t.Context(), faultHang)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		defer server.CloseClientConnections()
		host := server.Listener.Addr().String()
		cmd, out := command(t, "copy", host+"/demo/hello:1.0", "ocidir://"+filepath.ToSlash(filepath.Join(t.TempDir(), "m")))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := reg.await("/blobs/sha256:"); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%v: exit code %d (%v), want %d\n%s", sig, got, err, want, out)
		}
	}
}
