package ocidir

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// faultStride is how many steps lie between two that a test tries: all of them with OCISYNC_FAULTS=all.
func faultStride(t testing.TB, otherwise int64) int64 {
	t.Helper()
	switch v := os.Getenv("OCISYNC_FAULTS"); v {
	case "", "1":
		return otherwise
	case "all":
		return 1
	default:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 1 {
			t.Fatalf("OCISYNC_FAULTS=%s: it is 1, all, or how many steps lie between two that are tried", v)
		}
		return n
	}
}

// TestProcessKilledAtEveryStep ends a process with SIGKILL at a step of the workload, and looks what is there.
func TestProcessKilledAtEveryStep(t *testing.T) {
	for name, parallel := range map[string]bool{"one after another": false, "at the same time": true} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "whole")
			total := runFault(t, faultPlan{Dir: dir, Parallel: parallel}).steps
			if total < 300 {
				t.Fatalf("the workload has only %d steps: they do not go through the volume", total)
			}
			t.Logf("the workload has %d steps", total)
			for n := int64(1); n <= total; n += faultStride(t, 41) {
				dir := filepath.Join(t.TempDir(), "tree")
				got := runFault(t, faultPlan{Dir: dir, Parallel: parallel, At: n, How: "kill"})
				for _, w := range inspect(t.Context(), dir, got.acked, disaster{}) {
					t.Errorf("killed at step %d: %s", n, w)
				}
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// TestWorkload: without a fault everything is there, and the examination finds nothing.
func TestWorkload(t *testing.T) {
	dir := t.TempDir()
	s := newStage(dir)
	acked := map[string]int{}
	for _, sc := range workload() {
		for i, op := range sc.ops {
			if err := op.do(t.Context(), s); err != nil {
				t.Fatalf("%s: %s: %v", sc.name, op.name, err)
			}
			acked[sc.name] = i + 1
			for _, w := range inspect(t.Context(), dir, acked, disaster{}) {
				t.Errorf("after %s, %s: %s", sc.name, op.name, w)
			}
		}
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}
