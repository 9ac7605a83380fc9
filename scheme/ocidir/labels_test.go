package ocidir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// labelsOf returns the labels of a blob as BlobStat and BlobList agree on them.
func labelsOf(t *testing.T, o *OCIDir, r ref.Ref, d digest.Digest) map[string]string {
	t.Helper()
	info, err := o.BlobStat(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	err = o.BlobList(t.Context(), r, func(b blob.Info) error {
		if diff := cmp.Diff(info, b); b.Digest == d && diff != "" {
			t.Errorf("BlobStat and BlobList differ: %s", diff)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return info.Labels
}

func relabel(t *testing.T, o *OCIDir, r ref.Ref, d digest.Digest, labels map[string]string, fields ...string) blob.Info {
	t.Helper()
	info, err := o.BlobLabel(t.Context(), r, blob.Info{Digest: d, Labels: labels}, fields...)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func hasLabels(t *testing.T, o *OCIDir, r ref.Ref, d digest.Digest, want map[string]string) {
	t.Helper()
	if got := labelsOf(t, o, r, d); !maps.Equal(got, want) {
		t.Errorf("the labels are %q, want %q", got, want)
	}
}

func labelFileOf(r ref.Ref, d digest.Digest) string {
	return filepath.Join(r.Root, filepath.FromSlash(labelsPath(d)))
}

func TestLabelsByFieldPath(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	d := putBlob(t, o, r, []byte("labelled")).Digest
	hasLabels(t, o, r, d, nil)
	for _, c := range []struct {
		fields       []string
		labels, want map[string]string
	}{
		{nil, map[string]string{"a": "1", "b": "2"}, map[string]string{"a": "1", "b": "2"}},
		{[]string{"labels.c"}, map[string]string{"c": "3", "a": "not asked for"}, map[string]string{"a": "1", "b": "2", "c": "3"}},
		{[]string{"labels.a", "labels.b"}, map[string]string{"a": ""}, map[string]string{"c": "3"}},
		{[]string{"labels.with.dots/and=more"}, map[string]string{"with.dots/and=more": "ä"}, map[string]string{"c": "3", "with.dots/and=more": "ä"}},
		{[]string{"labels"}, map[string]string{"z": "9"}, map[string]string{"z": "9"}},
		{nil, nil, nil},
	} {
		info := relabel(t, o, r, d, c.labels, c.fields...)
		if !maps.Equal(info.Labels, c.want) {
			t.Errorf("%q: BlobLabel returned %q, want %q", c.fields, info.Labels, c.want)
		}
		hasLabels(t, o, r, d, c.want)
		hasLabels(t, open(t), r, d, c.want)
	}
	for name, c := range map[string]struct {
		info  blob.Info
		field string
		want  error
	}{
		"another field":  {blob.Info{Digest: d}, "size", errs.ErrInvalid},
		"too long":       {blob.Info{Digest: d, Labels: map[string]string{"k": strings.Repeat("v", scheme.MaxLabel)}}, "labels", errs.ErrInvalid},
		"no text":        {blob.Info{Digest: d, Labels: map[string]string{"k": "\xff"}}, "labels", errs.ErrInvalid},
		"no such blob":   {blob.Info{Digest: digest.FromString("absent")}, "labels", errs.ErrBlobUnknown},
		"no digest":      {blob.Info{Digest: "sha256:../../../etc/passwd"}, "labels", errs.ErrDigestInvalid},
		"all too much":   {blob.Info{Digest: d, Labels: many(maxLabels / 1000)}, "labels", errs.ErrInvalid},
		"exactly enough": {blob.Info{Digest: d, Labels: map[string]string{"k": strings.Repeat("v", scheme.MaxLabel-1)}}, "labels", nil},
	} {
		if _, err := o.BlobLabel(t.Context(), r, c.info, c.field); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if _, err := os.Stat(labelFileOf(r, digest.FromString("absent"))); err == nil {
		t.Error("a blob that is not there has labels")
	}
}

// many makes n labels of more than 1000 bytes each.
func many(n int) map[string]string {
	all := map[string]string{}
	for i := range n {
		all[fmt.Sprint(i)] = strings.Repeat("v", 1000)
	}
	return all
}

// The times lie between two looks at the clock, in nanoseconds, around what they are of.
func TestBlobTimes(t *testing.T) {
	o, r, src := open(t), place(t.TempDir()), place(t.TempDir())
	within := func(what string, d digest.Digest, do func(), times func(blob.Info) time.Time) blob.Info {
		t.Helper()
		before := time.Now()
		do()
		after := time.Now()
		info, err := o.BlobStat(t.Context(), r, d)
		if err != nil {
			t.Fatal(err)
		}
		if got := times(info); got.Before(before) || got.After(after) {
			t.Errorf("%s: the time is %v, not between %v and %v", what, got, before, after)
		}
		return info
	}
	created := func(i blob.Info) time.Time { return i.Created }
	updated := func(i blob.Info) time.Time { return i.Updated }
	for i := range 20 {
		data := fmt.Append(nil, "blob", i)
		d := digest.FromBytes(data)
		was := within("put", d, func() { putBlob(t, o, r, data) }, created)
		if !was.Updated.Equal(was.Created) {
			t.Errorf("updated %v, created %v", was.Updated, was.Created)
		}
		now := within("label", d, func() { relabel(t, o, r, d, map[string]string{"k": fmt.Sprint(i)}) }, updated)
		if !now.Created.Equal(was.Created) {
			t.Errorf("a label moved the creation from %v to %v", was.Created, now.Created)
		}
		again, err := open(t).BlobStat(t.Context(), r, d)
		if diff := cmp.Diff(now, again); err != nil || diff != "" {
			t.Errorf("after a restart: %v %s", err, diff)
		}
	}
	copied := putBlob(t, o, src, []byte("copied"))
	s := &steps{fail: func(step, _ string) error {
		if step == stepLink {
			return syscall.EXDEV
		}
		return nil
	}}
	within("mount by copy", copied.Digest, func() {
		if err := open(t, withHook(s.hook)).BlobMount(t.Context(), src, r, copied); err != nil {
			t.Error(err)
		}
	}, created)
}

func TestLabelsGoWithTheBlob(t *testing.T) {
	o, r, src := open(t), place(t.TempDir()), place(t.TempDir())
	data := []byte("labelled")
	d := putBlob(t, o, src, data)
	putBlob(t, o, r, []byte("first"))
	it := schemetest.Image("image")
	labels := map[string]string{"k": "v"}
	for name, remove := range map[string]func() error{
		"deleted as a blob":                         func() error { return o.BlobDelete(t.Context(), r, d) },
		"deleted by a program that knows no labels": func() error { return os.Remove(blobFileOf(r, d.Digest)) },
	} {
		for how, put := range map[string]func() error{
			"put":      func() error { putBlob(t, o, r, data); return nil },
			"mounted":  func() error { return o.BlobMount(t.Context(), src, r, d) },
			"put here": func() error { return os.WriteFile(blobFileOf(r, d.Digest), data, 0o666) },
		} {
			if err := put(); err != nil {
				t.Fatal(err)
			}
			relabel(t, o, r, d.Digest, labels)
			if err := remove(); err != nil {
				t.Fatal(err)
			}
			if _, err := o.BlobStat(t.Context(), r, d.Digest); !errors.Is(err, errs.ErrBlobUnknown) {
				t.Errorf("%s: stat of the blob: %v", name, err)
			}
			if err := put(); err != nil {
				t.Fatal(err)
			}
			if got := labelsOf(t, o, r, d.Digest); len(got) > 0 {
				t.Errorf("%s, then %s: it has the labels %q of the former blob", name, how, got)
			}
			if err := o.BlobDelete(t.Context(), r, d); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(labelFileOf(r, d.Digest)); err == nil {
				t.Errorf("%s: the file of the labels is still there", name)
			}
		}
	}
	if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	relabel(t, o, r, it.Manifest.Digest(), labels)
	if err := o.ManifestDelete(t.Context(), r.WithDigest(it.Manifest.Digest())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(labelFileOf(r, it.Manifest.Digest())); err == nil {
		t.Error("the manifest was deleted, and its labels are there")
	}
}

// A blob that is damaged is put again, not deleted: it is the same blob, and so are its labels and its age.
func TestHealedBlobKeepsItsLabels(t *testing.T) {
	for name, age := range map[string]time.Duration{"damaged": 0, "set aside": time.Hour} {
		t.Run(name, func(t *testing.T) {
			r := place(t.TempDir())
			data := []byte("damaged")
			d := putBlob(t, open(t), r, data)
			file := blobFileOf(r, d.Digest)
			stored := stat(t, file).ModTime().Add(-age)
			if err := os.Chtimes(file, time.Time{}, stored); err != nil {
				t.Fatal(err)
			}
			was := relabel(t, open(t), r, d.Digest, map[string]string{"k": "v"})
			if err := os.WriteFile(file, []byte("DAMAGED"), 0o666); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(file, time.Time{}, stored); err != nil { // as a disk damages it
				t.Fatal(err)
			}
			o := open(t)
			if _, err := o.BlobOpen(t.Context(), r, d); !errors.Is(err, errs.ErrDigestMismatch) {
				t.Fatal(err)
			}
			if _, err := os.Stat(file); (err == nil) != (age == 0) {
				t.Fatalf("the damaged file: %v", err)
			}
			putBlob(t, o, r, data)
			if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("it was not healed: %q, %v", got, err)
			}
			now, err := o.BlobStat(t.Context(), r, d.Digest)
			if diff := cmp.Diff(was, now); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

// gate is a stream that waits before its first byte.
type gate struct {
	began, open chan struct{}
	rest        io.Reader
}

func (g *gate) Read(p []byte) (int, error) {
	if g.began != nil {
		close(g.began)
		<-g.open
		g.began = nil
	}
	return g.rest.Read(p)
}

// Two puts of one blob at once: the one that ends later leaves the file, and so the labels, of the other.
func TestLaterPutLeavesTheBlobAsItIs(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	data := []byte("twice")
	g := &gate{began: make(chan struct{}), open: make(chan struct{}), rest: bytes.NewReader(data)}
	began := g.began
	done := make(chan error)
	go func() {
		_, err := open(t).BlobPut(t.Context(), r, types.Descriptor{Digest: digest.FromBytes(data)}, g)
		done <- err
	}()
	<-began
	d := putBlob(t, o, r, data)
	was := relabel(t, o, r, d.Digest, map[string]string{"k": "v"})
	file := stat(t, blobFileOf(r, d.Digest))
	close(g.open)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(file, stat(t, blobFileOf(r, d.Digest))) {
		t.Error("a whole blob was replaced")
	}
	now, err := o.BlobStat(t.Context(), r, d.Digest)
	if diff := cmp.Diff(was, now); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// childLabels sets n labels of one blob, one by one: args are directory, digest, name and n.
func childLabels(args []string) error {
	o := New()
	defer o.Close()
	var n int
	if _, err := fmt.Sscan(args[3], &n); err != nil {
		return err
	}
	for i := range n {
		key := fmt.Sprintf("%s-%d", args[2], i)
		info := blob.Info{Digest: digest.Digest(args[1]), Labels: map[string]string{key: "set"}}
		if _, err := o.BlobLabel(context.Background(), place(args[0]), info, "labels."+key); err != nil {
			return err
		}
	}
	return nil
}

func TestLabelsOfSeveralWritersAllTakeEffect(t *testing.T) {
	r := place(t.TempDir())
	d := putBlob(t, open(t), r, []byte("shared")).Digest
	const each = 25
	var wg sync.WaitGroup
	for p := range 2 {
		wg.Go(func() {
			if err := startAs(t, "label", r.Root, d.String(), fmt.Sprint("process", p), fmt.Sprint(each)).Run(); err != nil {
				t.Error(err)
			}
		})
	}
	for v := range 2 {
		o := open(t)
		for g := range 4 {
			wg.Go(func() {
				for i := range each {
					key := fmt.Sprintf("value%d-%d-%d", v, g, i)
					if _, err := o.BlobLabel(t.Context(), r, blob.Info{Digest: d, Labels: map[string]string{key: "set"}}, "labels."+key); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if got := len(labelsOf(t, open(t), r, d)); got != (2+2*4)*each {
		t.Errorf("%d labels of %d are there", got, (2+2*4)*each)
	}
	if left := leftovers(t, r.Root); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// What lies in the directory of labels may be anybody's.
func TestHostileLabelFilesSayNothing(t *testing.T) {
	r := place(t.TempDir())
	d := putBlob(t, open(t), r, []byte("labelled")).Digest
	outside := filepath.Join(t.TempDir(), "outside")
	relabel(t, open(t), r, d, map[string]string{"k": "v"})
	good, err := os.ReadFile(labelFileOf(r, d))
	if err != nil {
		t.Fatal(err)
	}
	file := labelFileOf(r, d)
	write := func(data string) func() error {
		return func() error { return os.WriteFile(file, []byte(data), 0o666) }
	}
	for name, place := range map[string]func() error{
		"empty":             write(""),
		"torn":              write(string(good[:len(good)-5])),
		"no JSON":           write("\x00\xff"),
		"another type":      write(`[1,2]`),
		"labels of numbers": write(strings.Replace(string(good), `"v"`, `7`, 1)),
		"a label too long":  write(strings.Replace(string(good), `"v"`, `"`+strings.Repeat("v", scheme.MaxLabel)+`"`, 1)),
		"too large":         write(string(good) + strings.Repeat(" ", maxLabels)),
		"a directory":       func() error { return os.Mkdir(file, 0o777) },
		"a FIFO":            func() error { return exec.Command("mkfifo", file).Run() },
		"a link to outside": func() error { return errors.Join(os.WriteFile(outside, good, 0o666), os.Symlink(outside, file)) },
	} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := place(); err != nil {
			t.Fatal(err)
		}
		if info, err := open(t).BlobStat(t.Context(), r, d); name == "a link to outside" && err != nil {
			continue // refused is as good
		} else if err != nil || len(info.Labels) > 0 {
			t.Errorf("%s: got %q and %v", name, info.Labels, err)
		}
		if name == "a directory" {
			continue // it is not replaced
		}
		relabel(t, open(t), r, d, map[string]string{"k": "v"})
		hasLabels(t, open(t), r, d, map[string]string{"k": "v"})
	}
}

func TestLabelKilledAtEveryStep(t *testing.T) {
	for n := int64(0); ; n++ {
		r := place(t.TempDir())
		d := putBlob(t, open(t), r, []byte("labelled")).Digest
		relabel(t, open(t), r, d, map[string]string{"state": "old"})
		h, taken := crash(n)
		o := New(withHook(h))
		_, err := o.BlobLabel(t.Context(), r, blob.Info{Digest: d, Labels: map[string]string{"state": "new"}})
		o.Close()
		if taken.Load() <= n {
			if err != nil || n < 5 {
				t.Fatalf("after %d steps: %v", n, err)
			}
			return
		}
		if err == nil {
			t.Fatalf("killed at step %d, acknowledged all the same", n)
		}
		if got := labelsOf(t, open(t), r, d)["state"]; got != "old" && got != "new" {
			t.Errorf("killed at step %d: the label is %q", n, got)
		}
		relabel(t, open(t), r, d, map[string]string{"state": "newer"})
		hasLabels(t, open(t), r, d, map[string]string{"state": "newer"})
		if left := leftovers(t, r.Root); len(left) > 0 {
			t.Errorf("killed at step %d; the next label left %q", n, left)
		}
	}
}

func TestFailedLabelChangesNothing(t *testing.T) {
	for _, first := range []bool{true, false} {
		for _, step := range []string{stepCreate, stepWrite, stepSync, stepRename, stepSyncDir} {
			s := &steps{}
			o, r := open(t, withHook(s.hook)), place(t.TempDir())
			d := putBlob(t, o, r, []byte("labelled")).Digest
			want := map[string]string{}
			if !first {
				want = map[string]string{"k": "old"}
				relabel(t, o, r, d, want)
			}
			s.set(func(st, name string) error {
				if st == step && name != labelsLock {
					return syscall.EIO
				}
				return nil
			})
			if _, err := o.BlobLabel(t.Context(), r, blob.Info{Digest: d, Labels: map[string]string{"k": "new"}}); !errors.Is(err, syscall.EIO) {
				t.Errorf("failed at %s: got %v", step, err)
			}
			s.set(nil)
			hasLabels(t, o, r, d, want)
			relabel(t, o, r, d, map[string]string{"k": "newer"})
			if left := leftovers(t, r.Root); len(left) > 0 {
				t.Errorf("failed at %s: %q are left behind", step, left)
			}
		}
	}
}

// A writer that waits for another process ends with its context.
func TestLabelWaitsWithItsContext(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	d := putBlob(t, o, r, []byte("labelled")).Digest
	relabel(t, o, r, d, map[string]string{"k": "old"})
	l, end, err := o.begin(t.Context(), "test", r)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	lock, err := l.vol.lockAs(labelsLock)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := open(t).BlobLabel(ctx, r, blob.Info{Digest: d, Labels: map[string]string{"k": "new"}})
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	lock.unlock()
	hasLabels(t, o, r, d, map[string]string{"k": "old"})
}

func FuzzLabels(f *testing.F) {
	f.Add([]byte(`{"created":1,"updated":2,"labels":{"a":"b"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if rec, ok := parseLabels(raw); ok {
			if err := validLabels(rec.Labels); err != nil {
				t.Error(err)
			}
		}
	})
}

func BenchmarkBlobList(b *testing.B) {
	o, r := open(b, WithDurability(None)), place(b.TempDir())
	for i := range 10_000 {
		if _, err := o.BlobPut(b.Context(), r, types.Descriptor{}, strings.NewReader(fmt.Sprint(i))); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		n := 0
		if err := o.BlobList(b.Context(), r, func(blob.Info) error { n++; return nil }); err != nil || n != 10_000 {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkBlobLabel(b *testing.B) {
	for _, level := range []Durability{Full, None} {
		b.Run(fmt.Sprint("durability=", int(level)), func(b *testing.B) {
			o, r := open(b, WithDurability(level)), place(b.TempDir())
			d, err := o.BlobPut(b.Context(), r, types.Descriptor{}, strings.NewReader("labelled"))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := o.BlobLabel(b.Context(), r, blob.Info{Digest: d.Digest, Labels: map[string]string{"k": "v"}}, "labels.k"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
