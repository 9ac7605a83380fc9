package ocidir

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// litterScene is a layout with garbage of all kinds, and somebody who relies on some of it.
type litterScene struct {
	r      ref.Ref
	kept   *schemetest.Item
	leased *schemetest.Item
	holder *OCIDir
}

func newLitterScene(t *testing.T) *litterScene {
	t.Helper()
	s := &litterScene{r: place(t.TempDir()), kept: schemetest.Image("kept"), leased: schemetest.Image("leased"), holder: New()}
	old := schemetest.Index([]*schemetest.Item{schemetest.Image("old a"), schemetest.Image("old b")})
	alone(t, func(o *OCIDir) error {
		return errors.Join(s.kept.Push(t.Context(), o, s.r.WithTag("v1")),
			pushWithChildren(t, o, s.r.WithTag("v2"), old), s.leased.PushContent(t.Context(), o, s.r))
	})
	alone(t, func(o *OCIDir) error { return o.TagDelete(t.Context(), s.r.WithTag("v2")) })
	litter(t, s.r, "garbage", `{"schemaVersion":2,"config":`+asJSON(writeBlob(t, s.r, digest.SHA256, "below garbage"))+`,"layers":[]}`)
	for _, b := range s.leased.Blobs {
		if _, err := s.holder.BlobHead(t.Context(), s.r, types.Descriptor{Digest: digest.FromBytes(b)}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// check expects everything that anybody may rely on, and that the next collector finishes the work.
func (s *litterScene) check(t *testing.T, when string) {
	t.Helper()
	if tags := valid(t, s.r); len(tags) != 1 {
		t.Errorf("%s: the tags are %q", when, tags)
	}
	s.unbroken(t, when)
	if _, err := s.holder.ManifestPut(t.Context(), s.r.WithTag("v3"), s.leased.Manifest); err != nil {
		t.Errorf("%s: what was found is missing: %v", when, err)
	}
	if err := s.holder.Close(); err != nil {
		t.Error(err)
	}
	if _, err := collect(t, s.r, scheme.WithUntagged()); err != nil {
		t.Errorf("%s: the next collector: %v", when, err)
	}
	if n := len(blobNames(t, s.r)); n != 8 {
		t.Errorf("%s: %d blobs are left, want two images", when, n)
	}
	if tags := valid(t, s.r); len(tags) != 2 {
		t.Errorf("%s: the tags are %q", when, tags)
	}
}

// unbroken expects that no manifest lacks what it names, listed or not: who puts it again would not notice.
func (s *litterScene) unbroken(t *testing.T, when string) {
	t.Helper()
	o := New()
	defer o.Close()
	l := openedLayout(t, o, s.r)
	if err := l.emptyTrash(); err != nil { // as the next collector does
		t.Fatal(err)
	}
	names, err := l.vol.names(blobsDir + "/sha256")
	if err != nil {
		t.Fatal(err)
	}
	there := map[digest.Digest]bool{}
	for _, n := range names {
		there[digest.NewDigestFromEncoded(digest.SHA256, n)] = true
	}
	for d := range there {
		id, err := l.vol.stat(blobsDir + "/sha256/" + d.Encoded())
		if err != nil {
			t.Fatal(err)
		}
		refs, err := l.sniff(d, id)
		if err != nil {
			t.Fatal(err)
		}
		for _, below := range refs {
			if !there[below] {
				t.Errorf("%s: %s is there without %s", when, d, below)
			}
		}
	}
}

func TestCollectorKilledAtEveryStep(t *testing.T) {
	for n := int64(0); !t.Failed(); n++ {
		s := newLitterScene(t)
		h, taken := crash(n)
		o := New(withHook(h))
		_, err := o.Collect(t.Context(), s.r, scheme.WithGrace(0), scheme.WithUntagged())
		_ = o.Close() // it cannot remove anything any more
		if taken.Load() > n && err == nil {
			t.Errorf("killed at step %d, and no error", n)
		}
		s.check(t, fmt.Sprint("killed at step ", n))
		if taken.Load() <= n {
			if err != nil || n < 30 {
				t.Errorf("a run has %d steps, %v", n, err)
			}
			return
		}
	}
}

func TestKilledCollectorsLoseNothing(t *testing.T) {
	dir := t.TempDir()
	target, source := place(dir+"/target"), place(dir+"/source")
	tortureLayouts(t, target, source)
	seed := rand.Uint64()
	t.Log("seed", seed)
	done := make(chan error, 1)
	go func() {
		w := &torturer{Name: "w", Target: target.Root, Source: source.Root, Seed: seed, Pushes: 150}
		done <- w.run(t.Context())
	}()
	lives := 0
	for running := true; running; lives++ {
		cmd := (&torturer{Target: target.Root, Collects: true}).command(t)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + rand.IntN(4) {
			lines.Scan() // a run is complete, and the next one is under way
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("the collector was not killed: %v", err)
		}
		select {
		case err := <-done:
			running = false
			if err != nil {
				t.Error(err)
			}
		default:
		}
	}
	t.Logf("%d collectors were killed", lives)
	valid(t, target)
	if err := readAll(t.Context(), open(t), target); err != nil {
		t.Error(err)
	}
	if _, err := collect(t, target); err != nil {
		t.Error(err)
	}
	blobNames(t, target)
}

// An index that another program wrote and did not sync may be the former one after a power loss.
func TestIndexIsDurableBeforeAnythingIsRemoved(t *testing.T) {
	r := place(t.TempDir())
	foreignIndex(t, r, as(writeBlob(t, r, digest.SHA256, "raw"), "application/x", "v1"))
	writeBlob(t, r, digest.SHA256, "garbage")
	s := &steps{}
	if rep, err := collectWith(t, r, []Option{withHook(s.hook)}); err != nil || len(rep.Removed) != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	at := func(step string) int {
		return slices.IndexFunc(s.seen, func(x string) bool { return strings.HasPrefix(x, step) })
	}
	file, dir, removed := at(stepSync+" "+indexName), at(stepSyncDir+" ."), at(stepRename+" "+trashDir)
	if file < 0 || dir < file || removed < dir {
		t.Errorf("the steps were %q", s.seen)
	}
}
