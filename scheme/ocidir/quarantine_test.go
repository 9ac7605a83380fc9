package ocidir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// rot damages a file as a disk does: nobody wrote to it lately.
func rot(t *testing.T, path string, change func([]byte) []byte) []byte {
	t.Helper()
	damage(t, path, change)
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, long, long); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// inQuarantine returns the names in a layout's quarantine.
func inQuarantine(t *testing.T, r ref.Ref) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(r.Root, filepath.FromSlash(quarantineDir)))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func readBlob(o *OCIDir, r ref.Ref, d types.Descriptor) ([]byte, error) {
	rdr, err := o.BlobGet(context.Background(), r, d)
	if err != nil {
		return nil, err
	}
	defer rdr.Close()
	return io.ReadAll(rdr)
}

// touches are the ways to read a blob for the first time.
var touches = map[string]func(o *OCIDir, r ref.Ref, d types.Descriptor) error{
	"get": func(o *OCIDir, r ref.Ref, d types.Descriptor) error { _, err := readBlob(o, r, d); return err },
	"open": func(o *OCIDir, r ref.Ref, d types.Descriptor) error {
		ra, err := o.BlobOpen(context.Background(), r, d)
		if err == nil {
			ra.Close()
		}
		return err
	},
	"mount": func(o *OCIDir, r ref.Ref, d types.Descriptor) error {
		return o.BlobMount(context.Background(), r, place(r.Root+"-mounted"), d)
	},
	"manifest get": func(o *OCIDir, r ref.Ref, d types.Descriptor) error {
		_, err := o.ManifestGet(context.Background(), r.WithDigest(d.Digest))
		return err
	},
}

func TestDamageIsSetAside(t *testing.T) {
	for name, change := range damages {
		for touch, read := range touches {
			t.Run(touch+", "+name, func(t *testing.T) {
				it, r := schemetest.Image(touch+name), place(filepath.Join(t.TempDir(), "l"))
				if err := it.Push(t.Context(), open(t), r.WithTag("v1")); err != nil {
					t.Fatal(err)
				}
				d, good := it.Manifest.Descriptor(), it.Manifest.Raw()
				path := blobFileOf(r, d.Digest)
				bad := rot(t, path, change)
				o := open(t)
				err := read(o, r, types.Descriptor{Digest: d.Digest})
				if !errors.Is(err, errs.ErrDigestMismatch) || !strings.Contains(err.Error(), path) || errs.Hint(err) == "" {
					t.Errorf("got %v, want ErrDigestMismatch that names the file, and a hint", err)
				}
				_, headErr := o.BlobHead(t.Context(), r, d)
				_, getErr := readBlob(o, r, d)
				if !errors.Is(headErr, errs.ErrBlobUnknown) || !errors.Is(getErr, errs.ErrBlobUnknown) {
					t.Errorf("afterwards: head %v, get %v, want ErrBlobUnknown of both", headErr, getErr)
				}
				if len(bad) > 0 { // of an empty file it is clear without reading
					names := inQuarantine(t, r)
					if len(names) != 1 || names[0] != fmt.Sprintf("sha256-%s-1", d.Digest.Encoded()) {
						t.Fatalf("in quarantine are %q", names)
					}
					if got, err := os.ReadFile(filepath.Join(r.Root, quarantineDir, names[0])); err != nil || !bytes.Equal(got, bad) {
						t.Errorf("what was set aside is not what was found (%v)", err)
					}
				}
				if _, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest); err != nil {
					t.Fatal(err)
				}
				if got, err := readBlob(o, r, d); err != nil || !bytes.Equal(got, good) {
					t.Errorf("after a put: %v", err)
				}
			})
		}
	}
}

// What somebody may still be writing stays where it is; this process knows that it is bad all the same.
func TestDamageThatCannotBeSetAside(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, path string)
		fail   error
		words  string
	}{
		"written a moment ago": {func(t *testing.T, path string) { damage(t, path, damages["flipped"]) }, nil, "last minutes"},
		"a read-only layout":   {func(t *testing.T, path string) { rot(t, path, damages["flipped"]) }, syscall.EROFS, "read-only file system"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &steps{}
			o, r := open(t, withHook(s.hook)), place(t.TempDir())
			data := schemetest.Blob(name, 5000)
			d := putBlob(t, o, r, data)
			path := blobFileOf(r, d.Digest)
			c.damage(t, path)
			s.set(func(string, string) error { return c.fail })
			if _, err := readBlob(o, r, d); !errors.Is(err, errs.ErrDigestMismatch) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v, want ErrDigestMismatch that says why the file stays", err)
			}
			if names := inQuarantine(t, r); len(names) > 0 {
				t.Errorf("%q were set aside", names)
			}
			_, headErr := o.BlobHead(t.Context(), r, d)
			_, getErr := readBlob(o, r, d)
			for _, err := range []error{headErr, getErr} {
				if !errors.Is(err, errs.ErrBlobUnknown) || !errors.Is(err, errs.ErrDigestMismatch) {
					t.Errorf("afterwards: %v, want ErrBlobUnknown and ErrDigestMismatch", err)
				}
			}
			s.set(nil)
			putBlob(t, o, r, data)
			if got, err := readBlob(o, r, d); err != nil || !bytes.Equal(got, data) {
				t.Errorf("after a put: %v", err)
			}
		})
	}
}

// A put that comes while a damaged file is being set aside waits, and what it puts stays.
func TestHealedFileIsNotSetAside(t *testing.T) {
	s := &steps{}
	o, healer, r := open(t, withHook(s.hook)), open(t), place(t.TempDir())
	data := schemetest.Blob("healed", 5000)
	d := putBlob(t, o, r, data)
	rot(t, blobFileOf(r, d.Digest), damages["flipped"])
	healed := make(chan error, 1)
	s.set(func(step, name string) error {
		if step == stepRename && strings.HasPrefix(name, quarantineDir) {
			go func() {
				_, err := healer.BlobPut(context.Background(), r, d, bytes.NewReader(data))
				healed <- err
			}()
			select { // it may not get through before the rename
			case err := <-healed:
				healed <- err
			case <-time.After(200 * time.Millisecond):
			}
		}
		return nil
	})
	if _, err := readBlob(o, r, d); !errors.Is(err, errs.ErrDigestMismatch) {
		t.Fatal(err)
	}
	if err := <-healed; err != nil {
		t.Fatal(err)
	}
	if got, err := readBlob(o, r, d); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the healed blob is gone: %v", err)
	}
}

// A reader that opened the damaged file finds out after it was healed.
func TestFileThatWasHealedMeanwhileStays(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	data := schemetest.Blob("healed", 5000)
	d := putBlob(t, o, r, data)
	rot(t, blobFileOf(r, d.Digest), damages["flipped"])
	rdr, err := o.BlobGet(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	defer rdr.Close()
	putBlob(t, open(t), r, data)
	if _, err := io.ReadAll(rdr); !errors.Is(err, errs.ErrDigestMismatch) {
		t.Fatal(err)
	}
	if got, err := readBlob(o, r, d); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the healed blob is gone: %v", err)
	}
	for _, name := range inQuarantine(t, r) { // the put found the damage, too
		if got, err := os.ReadFile(filepath.Join(r.Root, quarantineDir, name)); err != nil || bytes.Equal(got, data) {
			t.Errorf("a good file is in quarantine (%v)", err)
		}
	}
}

func TestReadersAndHealersAtOnce(t *testing.T) {
	dir := t.TempDir()
	r := place(dir)
	data := schemetest.Blob("contended", 300_000)
	d := putBlob(t, open(t), r, data)
	for round := range 5 {
		rot(t, blobFileOf(r, d.Digest), damages["flipped"])
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range 16 {
			wg.Go(func() {
				<-start
				got, err := readBlob(open(t), r, d)
				if err == nil && !bytes.Equal(got, data) {
					t.Errorf("round %d: reader %d got wrong bytes without an error", round, i)
				}
			})
		}
		for range 3 {
			wg.Go(func() {
				<-start
				if _, err := open(t).BlobPut(context.Background(), r, d, bytes.NewReader(data)); err != nil {
					t.Errorf("round %d: put: %v", round, err)
				}
			})
		}
		close(start)
		wg.Wait()
		if got, err := readBlob(open(t), r, d); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("round %d: what was healed is gone: %v", round, err)
		}
	}
}

func TestBytesThatChangeWhileTheyAreReadProveNothing(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	data := schemetest.Blob("changing", 900_000)
	d := putBlob(t, o, r, data)
	path := blobFileOf(r, d.Digest)
	rdr, err := o.BlobGet(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	defer rdr.Close()
	if _, err := io.ReadFull(rdr, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	damage(t, path, func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
	if _, err := io.ReadAll(rdr); !errors.Is(err, errs.ErrDigestMismatch) {
		t.Errorf("got %v, want ErrDigestMismatch", err)
	}
	damage(t, path, func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
	if got, err := readBlob(o, r, d); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the file is right again: %v", err)
	}
}

func TestCancelledReadersCondemnNothing(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	d := putBlob(t, open(t), r, schemetest.Blob("cancelled", 900_000))
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(blobFileOf(r, d.Digest), long, long); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	rdr, err := o.BlobGet(ctx, r, d)
	if err != nil {
		t.Fatal(err)
	}
	defer rdr.Close()
	cancel()
	if _, err := io.ReadAll(rdr); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if got, err := o.BlobHead(t.Context(), r, d); err != nil || got.Size != d.Size {
		t.Errorf("after a cancelled read: %v, %v", got, err)
	}
}

// Damage is set aside in one layout; the file that others share stays as it is.
func TestSharedDamageIsNamedAndNotTouched(t *testing.T) {
	dir := t.TempDir()
	a, b := place(dir+"/a"), place(dir+"/b")
	o := open(t)
	d := putBlob(t, o, a, schemetest.Blob("shared", 5000))
	if err := o.BlobMount(t.Context(), a, b, d); err != nil {
		t.Fatal(err)
	}
	bad := rot(t, blobFileOf(a, d.Digest), damages["flipped"])
	_, err := readBlob(open(t), a, d)
	if !errors.Is(err, errs.ErrDigestMismatch) || !strings.Contains(err.Error(), "2 names") {
		t.Errorf("got %v, want ErrDigestMismatch that says that the file has two names", err)
	}
	if got, err := os.ReadFile(blobFileOf(b, d.Digest)); err != nil || !bytes.Equal(got, bad) {
		t.Errorf("the other layout's file was changed (%v)", err)
	}
}

// notFiles puts something else in the place of a blob.
var notFiles = map[string]func(path string) error{
	"a directory": func(path string) error { return os.Mkdir(path, 0o755) },
	"a directory with a file": func(path string) error {
		return errors.Join(os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, "x"), nil, 0o644))
	},
	"a link to nothing": func(path string) error { return os.Symlink("nothing", path) },
	"a link to itself":  func(path string) error { return os.Symlink(filepath.Base(path), path) },
	"a link out":        func(path string) error { return os.Symlink("/etc/hostname", path) },
	"a link to another": func(path string) error {
		other := filepath.Join(filepath.Dir(path), digest.FromString("other").Encoded())
		return errors.Join(os.WriteFile(other, []byte("other"), 0o644), os.Symlink(filepath.Base(other), path))
	},
}

func TestSomethingElseInAFilesPlace(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege on Windows")
	}
	for name, spoil := range notFiles {
		t.Run(name, func(t *testing.T) {
			o, r := open(t), place(t.TempDir())
			data := schemetest.Blob(name, 5000)
			d := putBlob(t, o, r, data)
			path := blobFileOf(r, d.Digest)
			if err := errors.Join(os.Remove(path), spoil(path)); err != nil {
				t.Fatal(err)
			}
			if _, err := readBlob(o, r, d); err == nil {
				t.Error("it was read")
			}
			putBlob(t, o, r, data)
			if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() {
				t.Errorf("after a put it is still no file (%v)", err)
			}
			if got, err := readBlob(o, r, d); err != nil || !bytes.Equal(got, data) {
				t.Errorf("after a put: %v", err)
			}
			other := types.Descriptor{Digest: digest.FromString("other")}
			if got, err := readBlob(o, r, other); name == "a link to another" && (err != nil || string(got) != "other") {
				t.Errorf("the file that the link led to: %q, %v", got, err)
			}
			if names := inQuarantine(t, r); strings.HasPrefix(name, "a directory") && len(names) != 1 {
				t.Errorf("%q are in quarantine, want the directory", names)
			}
		})
	}
}

func TestQuarantineIsBounded(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	var first string
	for i := range maxQuarantine + 3 {
		d := putBlob(t, o, r, schemetest.Blob(fmt.Sprint(i), 100))
		rot(t, blobFileOf(r, d.Digest), damages["flipped"])
		if _, err := readBlob(o, r, d); !errors.Is(err, errs.ErrDigestMismatch) {
			t.Fatal(err)
		}
		if i == 0 {
			first = inQuarantine(t, r)[0]
		}
	}
	names := inQuarantine(t, r)
	if len(names) != maxQuarantine {
		t.Errorf("%d files are in quarantine, want %d", len(names), maxQuarantine)
	}
	for _, n := range names {
		if n == first {
			t.Error("the one that came first is still there")
		}
	}
	l, end, err := o.begin(t.Context(), "test", r)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if n, _, err := l.cleanQuarantine(time.Hour); n != 0 || err != nil {
		t.Errorf("%d files that came just now were removed, %v", n, err)
	}
	if n, bytes, err := l.cleanQuarantine(0); n != maxQuarantine || bytes != 100*maxQuarantine || err != nil {
		t.Errorf("removed %d files of %d bytes, %v", n, bytes, err)
	}
}
