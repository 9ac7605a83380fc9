package ocidir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// begin opens an ingest.
func begin(t testing.TB, o *OCIDir, r ref.Ref, key string, opts ...scheme.IngestOption) *upload {
	t.Helper()
	u, err := o.Ingest(t.Context(), r, key, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u.(*upload)
}

func writeTo(t testing.TB, u scheme.Upload, data []byte) {
	t.Helper()
	if n, err := u.Write(data); err != nil || n != len(data) {
		t.Fatal(n, err)
	}
}

func closed(t testing.TB, u scheme.Upload) {
	t.Helper()
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
}

// leave makes an ingest that was written to and closed.
func leave(t testing.TB, o *OCIDir, r ref.Ref, key string, data []byte, opts ...scheme.IngestOption) {
	t.Helper()
	u := begin(t, o, r, key, opts...)
	writeTo(t, u, data)
	closed(t, u)
}

// ingestFile is the path of a file of an ingest.
func ingestFile(r ref.Ref, key, name string) string {
	return filepath.Join(r.Root, ingestDir, nameOfKey(key), name)
}

func openFiles(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(all)
}

func TestIdleIngestsHoldNothing(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	first := begin(t, o, r, "first")
	writeTo(t, first, []byte("first"))
	if _, err := first.Commit(t.Context(), types.Descriptor{}, nil); err != nil { // opens what a layout has open
		t.Fatal(err)
	}
	files, routines := openFiles(t), runtime.NumGoroutine()
	for i := range 50 {
		u := begin(t, o, r, fmt.Sprint(i))
		writeTo(t, u, []byte("some bytes"))
		if i == 0 {
			if n := openFiles(t) - files; n != 2 {
				t.Errorf("an open ingest holds %d files", n)
			}
		}
		closed(t, u)
	}
	for _, end := range []func(u *upload) error{
		func(u *upload) error { return u.Abort(t.Context()) },
		func(u *upload) error { _, err := u.Commit(t.Context(), types.Descriptor{}, nil); return err },
		func(u *upload) error {
			_, err := u.Commit(t.Context(), types.Descriptor{Size: 99}, nil)
			if errors.Is(err, errs.ErrSizeMismatch) {
				return nil
			}
			return fmt.Errorf("a wrong size: %w", err)
		},
	} {
		if err := end(begin(t, o, r, "1")); err != nil {
			t.Error(err)
		}
	}
	if _, err := o.Ingest(t.Context(), r, "1", scheme.WithIngestToken("x")); !errors.Is(err, errs.ErrUploadUnknown) {
		t.Error(err)
	}
	held := begin(t, o, r, "held")
	if _, err := o.Ingest(t.Context(), r, "held"); !errors.Is(err, errs.ErrLocked) {
		t.Error(err)
	}
	closed(t, held)
	if n := openFiles(t) - files; n != 0 {
		t.Errorf("%d files are open", n)
	}
	if n := runtime.NumGoroutine() - routines; n > 0 {
		t.Errorf("%d goroutines are left", n)
	}
}

// openRaw opens an ingest as the package sees it.
func openRaw(t *testing.T, o *OCIDir, r ref.Ref, key string, opt scheme.IngestOptions) *ingest {
	t.Helper()
	l, end, err := o.beginWrite(t.Context(), "test", r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	in, err := l.openIngest(t.Context(), key, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !in.over {
			in.letGo()
		}
	})
	return in
}

// A stored hash is taken for the file that it was made of, and for no other.
func TestStoredHashIsOfThisFileOnly(t *testing.T) {
	data := schemetest.Blob("hashed", 100_000)
	rewrite := func(t *testing.T, path string, data []byte) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	flipped := bytes.Clone(data)
	flipped[500] ^= 1
	for name, c := range map[string]struct {
		change   func(t *testing.T, path string)
		expected types.Descriptor
		restored bool
		data     []byte
	}{
		"unchanged":       {nil, types.Descriptor{}, true, data},
		"longer":          {func(t *testing.T, p string) { rewrite(t, p, append(bytes.Clone(data), 'x')) }, types.Descriptor{}, false, append(bytes.Clone(data), 'x')},
		"shorter":         {func(t *testing.T, p string) { rewrite(t, p, data[:99]) }, types.Descriptor{}, false, data[:99]},
		"other algorithm": {nil, types.Descriptor{Digest: digest.SHA512.FromString("x")}, false, data},
		"another byte, and the time set back": {func(t *testing.T, p string) {
			fi, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			rewrite(t, p, flipped)
			if err := os.Chtimes(p, fi.ModTime(), fi.ModTime()); err != nil {
				t.Fatal(err)
			}
		}, types.Descriptor{}, false, flipped},
		"another file": {func(t *testing.T, p string) {
			fi, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(p, p+".old"); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, flipped, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(p, fi.ModTime(), fi.ModTime()); err != nil {
				t.Fatal(err)
			}
		}, types.Descriptor{}, false, flipped},
	} {
		t.Run(name, func(t *testing.T) {
			o, r := open(t), place(t.TempDir())
			leave(t, o, r, "key", data)
			if c.change != nil {
				c.change(t, ingestFile(r, "key", ingestData))
			}
			in := openRaw(t, open(t), r, "key", scheme.IngestOptions{Expected: c.expected})
			if in.stored != c.restored {
				t.Errorf("the stored hash was used: %v, want %v", in.stored, c.restored)
			}
			if want := in.alg.FromBytes(c.data); in.sum() != want || in.size != int64(len(c.data)) {
				t.Errorf("%d bytes, %s; want %d, %s", in.size, in.sum(), len(c.data), want)
			}
		})
	}
}

func TestHashIsStoredOnlyOfDurableBytes(t *testing.T) {
	for level, want := range map[Durability]bool{Full: true, Commit: false, None: false} {
		o, r := open(t, WithDurability(level)), place(t.TempDir())
		leave(t, o, r, "key", []byte("some bytes"))
		if in := openRaw(t, o, r, "key", scheme.IngestOptions{}); in.stored != want {
			t.Errorf("durability %d: a stored hash was used: %v", level, in.stored)
		}
	}
}

// remeta changes what the meta file of an ingest says.
func remeta(t *testing.T, r ref.Ref, key string, change func(m *ingestMeta)) {
	t.Helper()
	path := ingestFile(r, key, ingestInfo)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseMeta(raw, nameOfKey(key))
	if err != nil {
		t.Fatal(err)
	}
	change(m)
	if raw, err = m.encode(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A disk that loses a bit tells nobody: the stored hash fits, the bytes do not. They get the name they should have had,
// and the first read finds it, also in the process that committed them.
func TestDamageUnderAStoredHashIsFoundByTheFirstRead(t *testing.T) {
	data := schemetest.Blob("rot", 100_000)
	o, r := open(t), place(t.TempDir())
	leave(t, o, r, "key", data)
	flipped := bytes.Clone(data)
	flipped[0] ^= 1
	path := ingestFile(r, "key", ingestData)
	if err := os.WriteFile(path, flipped, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, err := identify(f)
	if err != nil {
		t.Fatal(err)
	}
	remeta(t, r, "key", func(m *ingestMeta) {
		m.Hash.Inode, m.Hash.Size, m.Hash.Modified, m.Hash.Changed = id.ino, id.size, id.mtime, id.ctime
	})
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	u := begin(t, o, r, "key")
	if !u.in.stored {
		t.Fatal("the stored hash was not used: nothing is tested")
	}
	if _, err := u.Commit(t.Context(), d, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := o.BlobOpen(t.Context(), r, d); !errors.Is(err, errs.ErrDigestMismatch) {
		t.Errorf("random access to the damaged blob: %v", err)
	}
	if _, err := o.BlobPut(t.Context(), r, d, bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
	ra, err := o.BlobOpen(t.Context(), r, d)
	if err != nil {
		t.Fatalf("after a put: %v", err)
	}
	ra.Close()
}

func TestWrongStoredHashIsMadeAnew(t *testing.T) {
	data := schemetest.Blob("state", 1000)
	for _, what := range []string{"another state", "no state"} {
		o, r := open(t), place(t.TempDir())
		leave(t, o, r, "key", data)
		remeta(t, r, "key", func(m *ingestMeta) {
			if what == "no state" {
				m.Hash.State = []byte("from another program")
				return
			}
			h := digest.SHA256.Hash()
			h.Write([]byte("other bytes"))
			m.Hash.State = stateOf(digest.SHA256, h, fileID{}).State
		})
		u := begin(t, o, r, "key")
		if u.in.stored != (what == "another state") {
			t.Fatalf("%s: used: %v", what, u.in.stored)
		}
		if _, err := u.Commit(t.Context(), types.Descriptor{Digest: digest.FromBytes(data)}, nil); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestIngestsWhoseMetaIsDamaged(t *testing.T) {
	data := []byte("what was written")
	for name, spoil := range map[string]func(raw []byte) []byte{
		"absent":        nil,
		"empty":         func([]byte) []byte { return nil },
		"torn":          func(raw []byte) []byte { return raw[:len(raw)/2] },
		"a flipped bit": func(raw []byte) []byte { raw[len(raw)/2] ^= 1; return raw },
		"another's":     func([]byte) []byte { raw, _ := newMeta("other", scheme.IngestOptions{}).encode(); return raw },
		"of the future": func([]byte) []byte {
			m := newMeta("key", scheme.IngestOptions{})
			m.Version = 2
			raw, _ := m.encode()
			return raw
		},
		"far too large": func([]byte) []byte { return bytes.Repeat([]byte("x"), 2*maxMeta) },
		"with a bad dig": func([]byte) []byte {
			m := newMeta("key", scheme.IngestOptions{})
			m.Expected.Digest = "sha256:../x"
			raw, _ := m.encode()
			return raw
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, r := open(t), place(t.TempDir())
			leave(t, o, r, "key", data)
			leave(t, o, r, "other one", data)
			path := ingestFile(r, "key", ingestInfo)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if spoil == nil {
				err = os.Remove(path)
			} else {
				err = os.WriteFile(path, spoil(raw), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			in, err := o.IngestStat(t.Context(), r, "key")
			if err != nil || in.Key != "key" || in.Offset != int64(len(data)) || in.Updated.IsZero() || !in.Started.IsZero() {
				t.Errorf("stat: %+v, %v", in, err)
			}
			var keys []string
			if err := o.IngestList(t.Context(), r, func(in blob.Ingest) error { keys = append(keys, in.Key); return nil }); err != nil {
				t.Error(err)
			}
			if len(keys) != 2 || keys[0] != "" || keys[1] != "other one" {
				t.Errorf("listed are %q", keys)
			}
			u := begin(t, o, r, "key")
			if s := u.Status(); s.Offset != 0 || s.Key != "key" || u.Digest() != digest.FromString("") {
				t.Errorf("opened again: %+v", s)
			}
			closed(t, u)
			if in, err := o.IngestStat(t.Context(), r, "key"); err != nil || in.Started.IsZero() {
				t.Errorf("after it was opened: %+v, %v", in, err)
			}
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if gone, err := o.IngestExpire(t.Context(), r, 0); err != nil || len(gone) != 2 {
				t.Errorf("expired: %v, %v", gone, err)
			}
			if left := leftovers(t, r.Root); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
		})
	}
}

// Nobody can have a blob overwritten by putting a link where an ingest's file is to be.
func TestIngestNeverWritesThroughALink(t *testing.T) {
	secret := schemetest.Blob("must stay", 1000)
	for _, file := range []string{ingestData, ingestLock, ingestInfo} {
		for what, put := range map[string]func(blobFile, path string) error{
			"a symbolic link": func(b, path string) error {
				return os.Symlink(filepath.Join("..", "..", "..", "blobs", "sha256", filepath.Base(b)), path)
			},
			"a hard link": os.Link,
			"a FIFO":      func(_, path string) error { return exec.Command("mkfifo", path).Run() },
		} {
			t.Run(what+" as "+file, func(t *testing.T) {
				o, r := open(t), place(t.TempDir())
				putBlob(t, o, r, secret)
				stored := filepath.Join(r.Root, blobsDir, "sha256", digest.FromBytes(secret).Encoded())
				leave(t, o, r, "key", []byte("x"))
				path := ingestFile(r, "key", file)
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				if err := put(stored, path); err != nil {
					t.Fatal(err)
				}
				if err := o.IngestList(t.Context(), r, func(blob.Ingest) error { return nil }); err != nil {
					t.Error(err)
				}
				u := begin(t, o, r, "key")
				writeTo(t, u, []byte("attack"))
				if err := u.Truncate(t.Context(), 0); err != nil {
					t.Error(err)
				}
				writeTo(t, u, []byte("done"))
				if d, err := u.Commit(t.Context(), types.Descriptor{}, nil); err != nil || d.Digest != digest.FromString("done") {
					t.Errorf("%v, %v", d, err)
				}
				if got, err := os.ReadFile(stored); err != nil || !bytes.Equal(got, secret) {
					t.Errorf("the blob was written to: %v", err)
				}
			})
		}
	}
}

func TestLookingAtIngestsDisturbsNobody(t *testing.T) {
	o, r := open(t, WithDurability(None)), place(t.TempDir())
	leave(t, o, r, "key", []byte("x"))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		other := open(t)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := other.IngestStat(t.Context(), r, "key"); err != nil {
					t.Error(err)
					return
				}
				if gone, err := other.IngestExpire(t.Context(), r, time.Hour); err != nil || len(gone) > 0 {
					t.Error(gone, err)
					return
				}
			}
		})
	}
	for range 500 {
		u, err := o.Ingest(t.Context(), r, "key")
		if err != nil {
			t.Error(err)
			break
		}
		if in, err := o.IngestStat(t.Context(), r, "key"); err != nil || !in.Active {
			t.Errorf("open, and described as %+v, %v", in, err)
		}
		closed(t, u)
	}
	close(stop)
	wg.Wait()
}

func TestIngestThatSomebodyDeleted(t *testing.T) {
	for name, path := range map[string]string{"data": ingestDir + "/" + nameOfKey("key") + "/data", "all": stateDir} {
		t.Run(name, func(t *testing.T) {
			for _, end := range []string{"write", "close", "commit"} {
				o, r := open(t), place(t.TempDir())
				putBlob(t, o, r, []byte("first"))
				u := begin(t, o, r, "key")
				writeTo(t, u, []byte("lost"))
				if err := os.RemoveAll(filepath.Join(r.Root, path)); err != nil {
					t.Fatal(err)
				}
				var err error
				switch end {
				case "write":
					_, err = u.Write([]byte("x"))
				case "close":
					err = u.Close()
				case "commit":
					_, err = u.Commit(t.Context(), types.Descriptor{}, nil)
				}
				if !errors.Is(err, errs.ErrUploadUnknown) {
					t.Errorf("%s: got %v", end, err)
				}
				if err := u.Close(); err != nil && end == "commit" {
					t.Error(err)
				}
				u = begin(t, o, r, "key")
				writeTo(t, u, []byte("again"))
				if _, err := u.Commit(t.Context(), types.Descriptor{}, nil); err != nil {
					t.Errorf("%s, and again: %v", end, err)
				}
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

// After a failed sync the system may report the next one of the same file as good, although the data is lost.
func TestIngestWhoseSyncFailedIsWrittenAnew(t *testing.T) {
	for round, when := range []string{"close", "commit", "close", "commit"} {
		again := []string{"close", "commit"}[round/2]
		s := &steps{}
		o, r := open(t, withHook(s.hook)), place(t.TempDir())
		data := schemetest.Blob("sync", 5<<20)
		u := begin(t, o, r, "key")
		writeTo(t, u, data)
		s.set(func(step, name string) error {
			if step == stepSync && strings.HasSuffix(name, "/"+ingestData) {
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

func TestAbandonedPutsAreSweptByAge(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	data := bigBlob("abandoned")
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	broken := errors.New("the network is gone")
	src := func() *slowSource {
		return &slowSource{data: data, stop: 5 << 20, then: func() error { return broken }}
	}
	if _, err := o.BlobPut(t.Context(), r, d, src()); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	key := putKey + string(d.Digest)
	leave(t, o, r, "a user's", []byte("x"))
	age := func(old time.Duration) {
		at := time.Now().Add(-old)
		for _, k := range []string{key, "a user's"} {
			remeta(t, r, k, func(m *ingestMeta) { m.Updated = at })
			if err := os.Chtimes(ingestFile(r, k, ingestData), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	age(putAge - time.Hour)
	putBlob(t, open(t), r, []byte("young"))
	if names := leftovers(t, r.Root); len(names) != 2 {
		t.Fatalf("in ingest are %q", names)
	}
	age(putAge + time.Hour)
	held := openRaw(t, o, r, key, scheme.IngestOptions{})
	putBlob(t, open(t), r, []byte("open"))
	if names := leftovers(t, r.Root); len(names) != 2 {
		t.Fatalf("while it is open: in ingest are %q", names)
	}
	held.letGo()
	putBlob(t, open(t), r, []byte("old"))
	if names := leftovers(t, r.Root); len(names) != 1 || names[0] != nameOfKey("a user's") {
		t.Errorf("in ingest are %q", names)
	}
}

func FuzzIngestMeta(f *testing.F) {
	m := newMeta("key", scheme.IngestOptions{Owner: "me", Labels: map[string]string{"a": "b"}, Expected: types.Descriptor{Digest: digest.FromString("x"), Size: 1}})
	m.Hash = stateOf(digest.SHA256, digest.SHA256.Hash(), fileID{})
	good, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[65:], true)
	f.Add([]byte(`{"version":1,"key":"a2V5","expected":{"size":-1}}`), true)
	f.Add(good, false)
	f.Fuzz(func(t *testing.T, raw []byte, sum bool) {
		if sum { // else nothing gets past the checksum
			raw = []byte(fmt.Sprintf("%s\n%s", digest.FromBytes(raw).Encoded(), raw))
		}
		m, err := parseMeta(raw, nameOfKey("key"))
		if err != nil {
			return
		}
		if string(m.Key) != "key" || m.check() != nil {
			t.Errorf("%+v", m)
		}
		again, err := m.encode()
		if err != nil {
			t.Skip() // times of years that JSON does not have
		}
		if _, err := parseMeta(again, nameOfKey("key")); err != nil {
			t.Errorf("what was read cannot be written and read again: %v", err)
		}
		if h := m.Hash.restore(digest.SHA256, fileID{}); h != nil {
			_, _ = io.WriteString(h, "x")
		}
	})
}
