package umoci_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/interop/umoci"
	"github.com/ocisync/ocisync/scheme"
)

func TestCleanLeavesTheLivingAlone(t *testing.T) {
	e, dir := create(t)
	live := &stalled{started: make(chan struct{}), goOn: make(chan struct{})}
	done := make(chan error)
	go func() {
		_, _, err := e.PutBlob(t.Context(), live)
		done <- err
	}()
	<-live.started
	kept := put(t, e, "text/plain", []byte("kept"))
	dead := filepath.Join(dir, ".ocisync", "ingest", "dead.tmp")
	overwrite(t, "left by a process that died", dead)
	overwrite(t, "", dir, "other-dir", "file")

	if err := open(t, dir).Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead writer's file: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "other-dir", "file")); err != nil {
		t.Error(err)
	}
	close(live.goOn)
	if err := <-done; err != nil {
		t.Errorf("the live writer: %v", err)
	}
	if got := read(t, e, kept.Digest) + read(t, e, digest.FromString("slow")); got != "keptslow" {
		t.Errorf("the blobs read as %q", got)
	}
}

// stalled is a reader that waits between its bytes.
type stalled struct {
	started, goOn chan struct{}
	n             int
}

func (s *stalled) Read(p []byte) (int, error) {
	switch s.n++; s.n {
	case 1:
		return copy(p, "slow"), nil
	case 2:
		close(s.started)
		<-s.goOn
	}
	return 0, io.EOF
}

func TestCleanLeavesIngestsAlone(t *testing.T) {
	e, dir := create(t)
	api := newAPI(t)
	var ingester scheme.Ingester
	var manager scheme.IngestManager
	if !scheme.As(api, dirRef(dir), &ingester) || !scheme.As(api, dirRef(dir), &manager) {
		t.Fatal("a directory has no ingests")
	}
	up, err := ingester.Ingest(t.Context(), dirRef(dir), "key")
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := manager.IngestStat(t.Context(), dirRef(dir), "key"); err != nil {
		t.Errorf("an ingest that somebody began a moment ago: %v", err)
	}
	if err := open(t, dir, umoci.WithIngestAge(0)).Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := manager.IngestStat(t.Context(), dirRef(dir), "key"); err == nil {
		t.Error("it was not removed")
	}
}
