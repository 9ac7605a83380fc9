package ocidir

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
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

// faultStart is the first step that is tried with a stride. With OCISYNC_FAULTS it is another one in every run, so that
// in time all are.
func faultStart(t testing.TB, stride int64) int64 {
	t.Helper()
	if os.Getenv("OCISYNC_FAULTS") == "" || stride == 1 {
		return 1
	}
	seed := rand.Uint64()
	if v := os.Getenv("OCISYNC_FAULTS_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("OCISYNC_FAULTS_SEED=%d", seed)
	return 1 + rand.New(rand.NewPCG(seed, 0)).Int64N(stride)
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
			stride := faultStride(t, 307)
			for n := faultStart(t, stride); n <= total; n += stride {
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

// TestWorkloadFailsAtEveryStep ends the workload at a step in this process: a write then leaves half of its bytes, and
// nothing after it is done, or cleaned up.
func TestWorkloadFailsAtEveryStep(t *testing.T) {
	stride := faultStride(t, 311)
	for n := faultStart(t, stride); ; n += stride {
		dir := t.TempDir()
		h, taken := crash(n)
		s := newStage(dir, withHook(h))
		acked := map[string]int{}
		for _, sc := range workload() {
			for i, op := range sc.ops {
				if err := op.do(t.Context(), s); err != nil {
					break
				}
				if taken.Load() > n && len(op.facts) > 0 && op.name != "damage" {
					break // it had nothing to do any more, or was told of nothing
				}
				acked[sc.name] = i + 1
			}
			if taken.Load() > n {
				break
			}
		}
		ended := taken.Load() <= n
		if err := s.close(); err != nil && ended {
			t.Error(err)
		}
		for _, w := range inspect(t.Context(), dir, acked, disaster{}) {
			t.Errorf("killed at step %d: %s", n, w)
		}
		if ended || t.Failed() {
			return
		}
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
		}
		for _, w := range inspect(t.Context(), dir, acked, disaster{}) {
			t.Errorf("after %s: %s", sc.name, w)
		}
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

// TestInspectionSees: the examination of the other tests finds what is wrong.
func TestInspectionSees(t *testing.T) {
	const repo = "a"
	for name, c := range map[string]struct {
		spoil func(t *testing.T, layout string)
		want  string
	}{
		"a blob is gone": {func(t *testing.T, layout string) {
			remove(t, layout, blobs().ops[0])
		}, "is gone, must be there"},
		"a blob is damaged": {func(t *testing.T, layout string) {
			remove(t, layout, blobs().ops[0])
			writeFile(t, layout, blobOf(t, blobs().ops[0]), []byte("x"))
		}, "there is a partial blob"},
		"an index of before": {func(t *testing.T, layout string) {
			writeFile(t, layout, indexName, []byte(emptyIndex))
		}, "tag blobs-many in a is gone"},
		"no index": {func(t *testing.T, layout string) {
			if err := os.Remove(filepath.Join(layout, indexName)); err != nil {
				t.Fatal(err)
			}
		}, indexName},
		"an empty oci-layout": {func(t *testing.T, layout string) { writeFile(t, layout, markerName, nil) }, markerName},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := newStage(dir)
			defer s.close()
			sc := blobs()
			if err := perform(s, sc, io.Discard); err != nil {
				t.Fatal(err)
			}
			c.spoil(t, filepath.Join(dir, repo))
			wrong := inspect(t.Context(), dir, map[string]int{sc.name: len(sc.ops)}, disaster{})
			if !strings.Contains(strings.Join(wrong, "\n"), c.want) {
				t.Errorf("found %q, want something with %q", wrong, c.want)
			}
		})
	}
}

// blobOf is the file of the blob that an operation puts.
func blobOf(t *testing.T, o op) string {
	t.Helper()
	for f := range o.facts {
		name, err := blobPath(digest.Digest(f.name))
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	t.Fatalf("%s puts no blob", o.name)
	return ""
}

func remove(t *testing.T, layout string, o op) {
	t.Helper()
	if err := os.Remove(filepath.Join(layout, blobOf(t, o))); err != nil {
		t.Fatal(err)
	}
}
