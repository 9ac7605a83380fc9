package ocidir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// tortureEnv makes the test binary one of the processes that push to a layout while others collect its garbage.
const tortureEnv = "OCIDIR_TEST_TORTURE"

// tortureCount is how many pushes there are; without it few, so that the test is short.
const tortureCount = "OCISYNC_TORTURE"

// torturer pushes images that have much in common, moves tags and deletes them. It relies on what it is told: what is
// found or mounted is not put. Nothing that it finds is reachable for long but by its leases, as it moves all tags.
type torturer struct {
	Name     string
	Target   string
	Source   string // a layout that has everything, to mount from
	Seed     uint64
	Pushes   int
	Collects bool // it does not push, but collects until it is killed, and prints a line for every run

	o    *OCIDir
	rand *rand.Rand
}

const (
	tortureImages = 20
	tortureTags   = 2
)

func tortureImage(k int, opts ...func(*schemetest.Doc)) *schemetest.Item {
	return schemetest.Image(fmt.Sprint("torture ", k), opts...)
}

func (w *torturer) run(ctx context.Context) error {
	w.rand = rand.New(rand.NewPCG(w.Seed, 0))
	for i := 0; i < w.Pushes; {
		w.o = New(WithDurability(None))
		for range 1 + w.rand.IntN(4) { // a short life: what it leased is garbage soon
			if err := w.step(ctx, i); err != nil {
				return errors.Join(fmt.Errorf("%s, seed %d, step %d: %w", w.Name, w.Seed, i, err), w.o.Close())
			}
			i++
		}
		if err := w.o.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (w *torturer) target() ref.Ref { return place(w.Target) }

func (w *torturer) step(ctx context.Context, i int) error {
	r := w.target().WithTag(fmt.Sprintf("%s-%d", w.Name, w.rand.IntN(tortureTags)))
	seq := schemetest.Annotation("seq", fmt.Sprintf("%s-%d", w.Name, i))
	it := tortureImage(w.rand.IntN(tortureImages), seq)
	switch w.rand.IntN(8) {
	case 0:
		err := w.o.TagDelete(ctx, r)
		if errors.Is(err, errs.ErrNotFound) {
			err = nil
		}
		return err
	case 1, 2, 3:
		a := w.rand.IntN(tortureImages - 1)
		it = schemetest.Index([]*schemetest.Item{tortureImage(a), tortureImage(a + 1)}, seq)
	case 4:
		it = tortureImage(w.rand.IntN(tortureImages), seq, schemetest.Subject(tortureImage(0).Descriptor()))
	}
	if err := w.content(ctx, it); err != nil {
		return err
	}
	if _, err := w.o.ManifestPut(ctx, r, it.Manifest); err != nil {
		return fmt.Errorf("what was there is not: %w", err)
	}
	return nil
}

// content brings everything that it needs, in the ways that a client has.
func (w *torturer) content(ctx context.Context, it *schemetest.Item) error {
	for _, c := range it.Children {
		if err := w.child(ctx, c); err != nil {
			return err
		}
	}
	for _, data := range it.Blobs {
		if err := w.blob(ctx, data); err != nil {
			return err
		}
	}
	return nil
}

func (w *torturer) child(ctx context.Context, c *schemetest.Item) error {
	r := w.target().WithDigest(c.Manifest.Digest())
	_, err := w.o.ManifestHead(ctx, r)
	if err == nil {
		return nil // it is there, and all that it needs
	}
	if !errors.Is(err, errs.ErrNotFound) {
		return err
	}
	if err := w.content(ctx, c); err != nil {
		return err
	}
	var opts []scheme.ManifestPutOption
	if w.rand.IntN(2) == 0 {
		opts = append(opts, scheme.WithChild())
	}
	if _, err := w.o.ManifestPut(ctx, r, c.Manifest, opts...); err != nil {
		return fmt.Errorf("what was there is not: %w", err)
	}
	return nil
}

func (w *torturer) blob(ctx context.Context, data []byte) error {
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	switch w.rand.IntN(3) {
	case 0:
		_, err := w.o.BlobHead(ctx, w.target(), d)
		if err == nil || !errors.Is(err, errs.ErrNotFound) {
			return err
		}
	case 1:
		return w.o.BlobMount(ctx, place(w.Source), w.target(), d)
	}
	_, err := w.o.BlobPut(ctx, w.target(), d, bytes.NewReader(data))
	return err
}

func tortureMain(plan string) int {
	var w torturer
	err := json.Unmarshal([]byte(plan), &w)
	switch {
	case err == nil && w.Collects:
		err = w.collect(context.Background())
	case err == nil:
		err = w.run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// collect goes on until the process is killed.
func (w *torturer) collect(ctx context.Context) error {
	for {
		o := New(WithDurability(None))
		rep, err := o.Collect(ctx, w.target(), scheme.WithGrace(0), scheme.WithUntagged())
		if err = errors.Join(err, o.Close()); err != nil {
			return err
		}
		fmt.Println(len(rep.Removed))
	}
}

func (w *torturer) command(t *testing.T) *exec.Cmd {
	t.Helper()
	plan, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), tortureEnv+"="+string(plan))
	cmd.Stderr = os.Stderr
	return cmd
}

// tortureLayouts makes one layout with a tag, and one with everything that may be pushed.
func tortureLayouts(t *testing.T, target, source ref.Ref) {
	t.Helper()
	alone(t, func(o *OCIDir) error {
		for k := range tortureImages {
			if err := tortureImage(k).Push(t.Context(), o, source.WithTag("all")); err != nil {
				return err
			}
		}
		return schemetest.Opaque("first").Push(t.Context(), o, target.WithTag("first"))
	})
}

// tortureSize is how many pushes a wave has.
func tortureSize(t *testing.T) int {
	t.Helper()
	n := 150
	if s := os.Getenv(tortureCount); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// wave has processes and goroutines push at once, and returns when they are done.
func wave(t *testing.T, n int, target, source ref.Ref, seed uint64, pushes int) {
	t.Helper()
	const processes, goroutines = 2, 3
	var writers sync.WaitGroup
	defer writers.Wait()
	for i := range processes + goroutines {
		w := &torturer{
			Name: fmt.Sprintf("w%d.%d", i, n), Target: target.Root, Source: source.Root,
			Seed: seed + uint64(n*100+i), Pushes: pushes / (processes + goroutines),
		}
		if i >= processes {
			writers.Go(func() {
				if err := w.run(t.Context()); err != nil {
					t.Error(err)
				}
			})
			continue
		}
		cmd := w.command(t)
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		writers.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Error("a process: ", err)
			}
		})
	}
}

// Garbage is collected as fast as it goes, without a grace period, while processes and goroutines push.
func TestCollectWhileOthersPush(t *testing.T) {
	pushes, seed, dir := tortureSize(t), rand.Uint64(), t.TempDir()
	target, source := place(dir+"/target"), place(dir+"/source")
	tortureLayouts(t, target, source)
	t.Log("seed", seed)
	var done atomic.Bool
	var removed, untagged, runs atomic.Int64
	var others sync.WaitGroup
	others.Go(func() {
		for !done.Load() {
			o := New(WithDurability(None))
			rep, err := o.Collect(t.Context(), target, scheme.WithGrace(0), scheme.WithUntagged())
			if err = errors.Join(err, o.Close()); err != nil {
				t.Error("collect: ", err)
				return
			}
			removed.Add(int64(len(rep.Removed)))
			untagged.Add(int64(len(rep.Untagged)))
			runs.Add(1)
		}
	})
	others.Go(func() {
		o := New()
		defer o.Close()
		for !done.Load() {
			if err := readAll(t.Context(), o, target); err != nil {
				t.Error("a reader: ", err)
				return
			}
		}
	})
	waves := 0
	for ; waves < 20 && !t.Failed() && (removed.Load() == 0 || untagged.Load() == 0); waves++ { // one, but on a machine that is busy
		wave(t, waves, target, source, seed, pushes)
	}
	done.Store(true)
	others.Wait()
	t.Logf("%d runs removed %d blobs and %d entries during %d pushes", runs.Load(), removed.Load(), untagged.Load(), waves*pushes)
	if removed.Load() == 0 || untagged.Load() == 0 {
		t.Error("no garbage was made: this shows nothing")
	}
	valid(t, target)
	if err := readAll(t.Context(), open(t), target); err != nil {
		t.Error(err)
	}
}

// readAll reads everything that tags reach. What is missing while its tag still points there is an error.
func readAll(ctx context.Context, o *OCIDir, r ref.Ref) error {
	l, err := o.TagList(ctx, r)
	if err != nil {
		return err
	}
	for _, tag := range l.Tags {
		m, err := o.ManifestGet(ctx, r.WithTag(tag))
		if err == nil {
			err = readTree(ctx, o, r, m)
		}
		if err == nil {
			continue
		}
		// Contents are never tagged twice: while the tag is the same nothing of it may be missing.
		now, herr := o.ManifestGet(ctx, r.WithTag(tag))
		if m == nil && !errors.Is(err, errs.ErrNotFound) || m != nil && herr == nil && now.Digest() == m.Digest() {
			return fmt.Errorf("%s: %w", tag, err)
		}
	}
	return nil
}

func readTree(ctx context.Context, o *OCIDir, r ref.Ref, m *manifest.Manifest) error {
	v, err := m.View()
	if err != nil {
		return err
	}
	for _, d := range v.Manifests {
		c, err := o.ManifestGet(ctx, r.WithDigest(d.Digest))
		if err != nil {
			return err
		}
		if err := readTree(ctx, o, r, c); err != nil {
			return err
		}
	}
	for _, d := range v.Children() {
		if types.IsManifest(d.MediaType) {
			continue
		}
		rdr, err := o.BlobGet(ctx, r, d)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, rdr)
		if err = errors.Join(err, rdr.Close()); err != nil {
			return err
		}
	}
	return nil
}
