package ocidir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func TestIngestKilledAtEveryStep(t *testing.T) {
	first, second := schemetest.Blob("first part", 5000), schemetest.Blob("second part", 3000)
	whole := append(bytes.Clone(first), second...)
	for name, tc := range map[string]struct {
		run   func(o *OCIDir, r ref.Ref) (acked string, err error)
		legal map[string]bool // what may be there: none, first, whole, blob
	}{
		"begin and close": {func(o *OCIDir, r ref.Ref) (string, error) {
			u, err := o.Ingest(context.Background(), r, "new")
			if err != nil {
				return "", err
			}
			defer u.Close()
			if _, err := u.Write(first); err != nil {
				return "", err
			}
			return "first", u.Close()
		}, map[string]bool{"none": true, "empty": true, "first": true}},
		"go on and commit": {func(o *OCIDir, r ref.Ref) (string, error) {
			u, err := o.Ingest(context.Background(), r, "left")
			if err != nil {
				return "", err
			}
			defer u.Close()
			if _, err := u.Write(second); err != nil {
				return "", err
			}
			_, err = u.Commit(context.Background(), types.Descriptor{Digest: digest.FromBytes(whole)}, map[string]string{"a": "b"})
			return "blob", err
		}, map[string]bool{"first": true, "part": true, "whole": true, "blob": true}},
		"abort": {func(o *OCIDir, r ref.Ref) (string, error) {
			u, err := o.Ingest(context.Background(), r, "left")
			if err != nil {
				return "", err
			}
			return "none", u.Abort(context.Background())
		}, map[string]bool{"first": true, "none": true}},
		"start over": {func(o *OCIDir, r ref.Ref) (string, error) {
			u, err := o.Ingest(context.Background(), r, "left", scheme.WithExpectedBlob(types.Descriptor{Size: 3000}))
			if err != nil {
				return "", err
			}
			defer u.Close()
			if _, err := u.Write(second); err != nil {
				return "", err
			}
			return "second", u.Close()
		}, map[string]bool{"first": true, "empty": true, "second": true, "half": true}},
	} {
		t.Run(name, func(t *testing.T) {
			for n := int64(0); ; n++ {
				r := place(filepath.Join(t.TempDir(), "layout"))
				leave(t, open(t, WithDurability(None)), r, "left", first, scheme.WithExpectedBlob(types.Descriptor{Size: 8000}))
				h, taken := crash(n)
				o := New(withHook(h))
				acked, err := tc.run(o, r)
				o.Close()
				key := "left"
				if name == "begin and close" {
					key = "new"
				}
				state := stateOfIngest(t, r, key, first, second, whole)
				switch {
				case err == nil && state != acked:
					t.Fatalf("killed at step %d: acknowledged, and there is %s", n, state)
				case err != nil && !tc.legal[state] && state != "half":
					t.Fatalf("killed at step %d: there is %s", n, state)
				}
				after := open(t)
				leave(t, after, r, key, nil) // whoever comes next goes on
				if _, err := after.IngestExpire(t.Context(), r, 0); err != nil {
					t.Fatal(err)
				}
				if left := leftovers(t, r.Root); len(left) > 0 {
					t.Fatalf("killed at step %d: %q are left after all", n, left)
				}
				if taken.Load() <= n {
					if err != nil || n < 6 {
						t.Fatalf("%d steps, %v", n, err)
					}
					return
				}
			}
		})
	}
}

// stateOfIngest says what is there: an ingest and what it has, or the blob. Whatever it is must be right.
func stateOfIngest(t *testing.T, r ref.Ref, key string, first, second, whole []byte) string {
	t.Helper()
	o := open(t)
	d := types.Descriptor{Digest: digest.FromBytes(whole), Size: int64(len(whole))}
	if ra, err := o.BlobOpen(t.Context(), r, d); err == nil { // verified
		ra.Close()
		if _, err := o.IngestStat(t.Context(), r, key); !errors.Is(err, errs.ErrUploadUnknown) {
			t.Fatalf("there are the blob and the ingest: %v", err)
		}
		return "blob"
	} else if !errors.Is(err, errs.ErrNotFound) {
		t.Fatal(err)
	}
	in, err := o.IngestStat(t.Context(), r, key)
	if errors.Is(err, errs.ErrUploadUnknown) {
		return "none"
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(ingestFile(r, key, ingestData))
	if err != nil || int64(len(got)) != in.Offset || in.Active || in.Key != key || in.Started.IsZero() {
		t.Fatalf("%+v, %d bytes, %v", in, len(got), err)
	}
	switch {
	case len(got) == 0:
		return "empty"
	case bytes.Equal(got, first):
		return "first"
	case bytes.Equal(got, whole):
		return "whole"
	case bytes.Equal(got, second) && in.Expected.Size == 3000:
		return "second"
	case bytes.HasPrefix(whole, got) && in.Expected.Size == 8000:
		return "part"
	case bytes.HasPrefix(first, got) && key == "new", bytes.HasPrefix(second, got) && in.Expected.Size == 3000:
		return "half"
	}
	return fmt.Sprintf("%d bytes that are wrong", len(got))
}

func TestStepsOfAnIngestAreDurable(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir()+"/new")
	u := begin(t, o, r, "key")
	writeTo(t, u, []byte("x"))
	s.set(nil)
	closed(t, u)
	dir := join(ingestDir, nameOfKey("key"))
	at := -1
	for _, want := range []string{stepSync + " " + dir + "/data", stepRename + " " + dir + "/meta", stepSyncDir + " " + dir, stepSyncDir + " " + ingestDir, stepSyncDir + " " + stateDir, stepSyncDir + " ."} {
		found := -1
		for i, step := range s.seen {
			if step == want {
				found = i
			}
		}
		if found <= at {
			t.Errorf("%s: step %d, after step %d\n%s", want, found, at, strings.Join(s.seen, "\n"))
		}
		at = found
	}
	u = begin(t, o, r, "key")
	s.set(nil)
	if _, err := u.Commit(t.Context(), types.Descriptor{}, nil); err != nil {
		t.Fatal(err)
	}
	name, err := blobPath(digest.FromString("x"))
	if err != nil {
		t.Fatal(err)
	}
	var synced, named, durable bool
	for _, step := range s.seen {
		switch step {
		case stepSync + " " + dir + "/data":
			synced = !named
		case stepRename + " " + name:
			named = true
		case stepSyncDir + " " + blobsDir + "/sha256":
			durable = named
		}
	}
	if !synced || !named || !durable {
		t.Errorf("synced %v, named %v, durable %v:\n%s", synced, named, durable, strings.Join(s.seen, "\n"))
	}
}

// After a failed sync the system may report the next one of the same file as good, although the data is lost.
func TestIngestWhoseSyncFailedIsWrittenAnew(t *testing.T) {
	for round, when := range []string{"close", "commit", "close", "commit"} {
		again := []string{"close", "commit"}[round/2]
		s := &steps{}
		o, r := open(t, withHook(s.hook)), place(t.TempDir())
		data := schemetest.Blob("sync", 5<<20)
		u := begin(t, o, r, "key")
		writeTo(t, u, data)
		s.set(func(step, _ string) error {
			if step == stepSync {
				return syscall.EIO
			}
			return nil
		})
		var err error
		if when == "close" {
			err = u.Close()
		} else {
			_, err = u.Commit(t.Context(), types.Descriptor{}, nil)
		}
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: got %v, want the disk's error", when, err)
		}
		before, err := os.Stat(ingestFile(r, "key", ingestData))
		if err != nil {
			t.Fatal(err)
		}
		s.set(nil)
		if again == "close" {
			closed(t, begin(t, open(t), r, "key")) // whoever it is
		}
		u = begin(t, o, r, "key")
		d, err := u.Commit(t.Context(), types.Descriptor{Digest: digest.FromBytes(data)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(filepath.Join(r.Root, blobsDir, "sha256", d.Digest.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		if os.SameFile(before, after) {
			t.Errorf("%s: the blob is the file whose sync failed", when)
		}
		if left := leftovers(t, r.Root); len(left) > 0 {
			t.Errorf("%q are left", left)
		}
	}
}

// After a power loss what was written since the last Close may be zeros, which nobody wrote.
func TestBytesOfBeforeARestartCountIfTheyWereClosed(t *testing.T) {
	in := func(boot string) Option {
		return withClock(clock{wall: systemClock.wall, boot: func() (string, time.Duration) { return boot, 0 }})
	}
	data := schemetest.Blob("restart", 10_000)
	for name, c := range map[string]struct {
		first, then string // starts of the system
		cut         int64  // before the rest is written
		want        int64
	}{
		"none":                         {"a", "a", -1, 10_000},
		"a restart":                    {"a", "b", -1, 6000},
		"a restart, after a Truncate":  {"a", "b", 2000, 2000},
		"a restart that is not known":  {"a", "", -1, 10_000},
		"a restart of a system before": {"", "b", -1, 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			r := place(t.TempDir())
			o := open(t, in(c.first))
			leave(t, o, r, "key", data[:6000])
			u := begin(t, o, r, "key")
			if c.cut >= 0 {
				if err := u.Truncate(t.Context(), c.cut); err != nil {
					t.Fatal(err)
				}
			}
			writeTo(t, u, data[u.in.size:])
			u.in.letGo() // as the end of the process does
			u.end()
			u.in = nil
			o = open(t, in(c.then))
			u = begin(t, o, r, "key")
			if got := u.Status().Offset; got != c.want || u.Digest() != digest.FromBytes(data[:c.want]) {
				t.Errorf("%d bytes are left, want %d", got, c.want)
			}
			writeTo(t, u, data[c.want:])
			u.in.letGo()
			u.end()
			u.in = nil
			if u = begin(t, o, r, "key"); u.Status().Offset != 10_000 {
				t.Errorf("after the restart %d bytes are left", u.Status().Offset)
			}
		})
	}
}

func TestIngestOnAFullDisk(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	data := schemetest.Blob("full", 10_000)
	u := begin(t, o, r, "key")
	writeTo(t, u, data[:4000])
	s.set(func(step, _ string) error {
		if step == stepWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	n, err := u.Write(data[4000:])
	if !errors.Is(err, errs.ErrNoSpace) || n != 3000 { // the hook lets half of it through
		t.Errorf("wrote %d, %v", n, err)
	}
	if got := u.Status().Offset; got != 7000 {
		t.Errorf("the ingest has %d bytes", got)
	}
	if _, err := o.Ingest(t.Context(), r, "another"); !errors.Is(err, errs.ErrNoSpace) {
		t.Errorf("another one: %v", err)
	}
	if err := u.Close(); !errors.Is(err, errs.ErrNoSpace) {
		t.Errorf("close: %v", err)
	}
	s.set(nil)
	if names := leftovers(t, r.Root); len(names) != 1 {
		t.Errorf("in ingest are %q", names)
	}
	u = begin(t, o, r, "key")
	if got := u.Status().Offset; got != 7000 || u.Digest() != digest.FromBytes(data[:7000]) {
		t.Errorf("opened again it has %d bytes", got)
	}
	writeTo(t, u, data[7000:])
	if _, err := u.Commit(t.Context(), types.Descriptor{Digest: digest.FromBytes(data)}, nil); err != nil {
		t.Error(err)
	}
}
