package ocidir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

const contended = "contended"

// childDamage reads or heals the blob of TestProcessesReadAndHealAtOnce.
func childDamage(args []string) error {
	data := schemetest.Blob(contended, 300_000)
	o, r := New(), place(args[0])
	defer o.Close()
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	if args[1] == "heal" {
		_, err := o.BlobPut(context.Background(), r, d, bytes.NewReader(data))
		return err
	}
	got, err := readBlob(o, r, d)
	switch {
	case err == nil && !bytes.Equal(got, data):
		return errors.New("wrong bytes, and no error")
	case err != nil && !errors.Is(err, errs.ErrDigestMismatch) && !errors.Is(err, errs.ErrNotFound):
		return err
	}
	return nil
}

func TestProcessesReadAndHealAtOnce(t *testing.T) {
	r := place(t.TempDir())
	data := schemetest.Blob(contended, 300_000)
	d := putBlob(t, open(t), r, data)
	for round := range 4 {
		rot(t, blobFileOf(r, d.Digest), damages["flipped"])
		var all []func() error
		for i := range 8 {
			role := "read"
			if i%3 == 2 {
				role = "heal"
			}
			cmd := startAs(t, "damage", r.Root, role)
			must(t, cmd.Start())
			all = append(all, cmd.Wait)
		}
		for _, wait := range all {
			if err := wait(); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if got, err := readBlob(open(t), r, d); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("round %d: what was healed is gone: %v", round, err)
		}
	}
}

// A process that dies while it sets a file aside leaves it under the one name or under the other.
func TestKilledWhileSettingAside(t *testing.T) {
	data := schemetest.Blob("killed", 5000)
	for n := int64(0); ; n++ {
		r := place(t.TempDir())
		d := putBlob(t, open(t), r, data)
		path := blobFileOf(r, d.Digest)
		bad := rot(t, path, damages["flipped"])
		h, taken := crash(n)
		o := New(withHook(h))
		if _, err := readBlob(o, r, d); !errors.Is(err, errs.ErrDigestMismatch) {
			t.Fatalf("killed at step %d: %v", n, err)
		}
		must(t, o.Close())
		if taken.Load() <= n {
			if n < 4 {
				t.Errorf("setting a file aside has only %d steps: they do not go through the volume", n)
			}
			return
		}
		found := 0
		for _, at := range append(inQuarantine(t, r), "") {
			at = filepath.Join(r.Root, filepath.FromSlash(quarantineDir), at)
			if filepath.Base(at) == "quarantine" {
				at = path
			}
			if got, err := os.ReadFile(at); err == nil && bytes.Equal(got, bad) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("killed at step %d: the damaged file is there %d times", n, found)
		}
		putBlob(t, open(t), r, data)
		if got, err := readBlob(open(t), r, d); err != nil || !bytes.Equal(got, data) {
			t.Errorf("killed at step %d; after the next put: %v", n, err)
		}
	}
}

// What many layouts share by hard links is the same file under every name.
func TestBadUnderOneNameIsGoodUnderAnother(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	data := schemetest.Blob("right", 5000)
	d := putBlob(t, o, r, data)
	other := types.Descriptor{Digest: digest.FromString("another blob"), Size: d.Size}
	must(t, os.Link(blobFileOf(r, d.Digest), blobFileOf(r, other.Digest)))
	if _, err := readBlob(o, r, other); !errors.Is(err, errs.ErrDigestMismatch) {
		t.Errorf("the wrong name: %v", err)
	}
	if got, err := readBlob(o, r, d); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the right name: %v", err)
	}
}

func TestErrorsNameTheTagsThatNeedAManifest(t *testing.T) {
	r := place(t.TempDir())
	m := pushMulti(t, r)
	o := open(t)
	if _, err := o.ManifestGet(t.Context(), r.WithTag("all")); err != nil {
		t.Fatal(err)
	}
	rot(t, blobFileOf(r, m.shared.Manifest.Digest()), damages["flipped"])
	_, err := o.ManifestGet(t.Context(), r.WithTag("one"))
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("needed by ")) || !bytes.Contains([]byte(err.Error()), []byte("one, two")) {
		t.Errorf("got %v, want the tags one and two in it", err)
	}
}

func BenchmarkFirstRead(b *testing.B) {
	data := schemetest.Blob("first", 16<<20)
	r := place(b.TempDir())
	w := open(b, WithDurability(None))
	d, err := w.BlobPut(b.Context(), r, types.Descriptor{}, bytes.NewReader(data))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(d.Size)
	for b.Loop() {
		o := New()
		if got, err := readBlob(o, r, d); err != nil || len(got) != len(data) {
			b.Fatal(fmt.Sprint(len(got)), err)
		}
		o.Close()
	}
}

// Of many who open a blob for the first time one reads it, and the others trust what it found.
func TestOneReadsForAll(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	d := putBlob(t, open(t), r, schemetest.Blob("ranges", maxRecallBlob+1))
	damage(t, blobFileOf(r, d.Digest), damages["flipped"]) // who reads it himself finds out
	id, err := statOf(t, o, r, d.Digest)
	must(t, err)
	done, err := o.mem.turn(t.Context(), id, d.Digest)
	must(t, err)
	opened := make(chan error, 8)
	for range cap(opened) {
		go func() {
			ra, err := o.BlobOpen(context.Background(), r, d)
			if err == nil {
				err = ra.Close()
			}
			opened <- err
		}()
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.BlobOpen(ended, r, d); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits and is cancelled: %v", err)
	}
	o.mem.setVerified(id, d.Digest)
	done()
	for range cap(opened) {
		if err := <-opened; err != nil {
			t.Errorf("one read the file himself: %v", err)
		}
	}
}
