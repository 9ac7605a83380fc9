package ocidir

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func putBlob(t *testing.T, o *OCIDir, r ref.Ref, data []byte) types.Descriptor {
	t.Helper()
	d, err := o.BlobPut(t.Context(), r, types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func blobFileOf(r ref.Ref, d digest.Digest) string {
	return filepath.Join(r.Root, blobsDir, d.Algorithm().String(), d.Encoded())
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi
}

// damage changes a file in place, as a disk or a careless program does.
func damage(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(data), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var damages = map[string]func([]byte) []byte{
	"emptied":   func([]byte) []byte { return nil },
	"truncated": func(b []byte) []byte { return b[:len(b)/2] },
	"zeroed":    func(b []byte) []byte { return make([]byte, len(b)) },
	"flipped":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
	"grown":     func(b []byte) []byte { return append(b, 0) },
}

func TestPutHealsDamage(t *testing.T) {
	for name, change := range damages {
		for _, who := range []string{"the process that wrote it", "another process"} {
			for _, sized := range []bool{true, false} {
				t.Run(name+", "+who, func(t *testing.T) {
					o, dir := open(t), t.TempDir()
					r, other := place(dir).WithRepo("a"), place(dir).WithRepo("b")
					data := schemetest.Blob(name, 5000)
					d := putBlob(t, o, r, data)
					if err := o.BlobMount(t.Context(), r, other, d); err != nil {
						t.Fatal(err)
					}
					path := filepath.Join(dir, "a", blobsDir, "sha256", d.Digest.Encoded())
					damage(t, path, change)
					before := stat(t, path)
					damaged, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					if who == "another process" {
						o = open(t)
					}
					if !sized {
						d.Size = 0
					}
					if _, err := o.BlobPut(t.Context(), r, d, bytes.NewReader(data)); err != nil {
						t.Fatal(err)
					}
					if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
						t.Errorf("after the put the blob is still damaged (%v)", err)
					}
					if os.SameFile(before, stat(t, path)) {
						t.Error("the damaged file itself was written to: other layouts may share it")
					}
					shared := filepath.Join(dir, "b", blobsDir, "sha256", d.Digest.Encoded())
					if got, err := os.ReadFile(shared); err != nil || !bytes.Equal(got, damaged) {
						t.Errorf("the put reached into another layout (%v)", err)
					}
				})
			}
		}
	}
}

func TestPutOfWhatIsThereReadsNothing(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	data := schemetest.Blob("there", 5000)
	d := putBlob(t, o, r, data)
	before := stat(t, blobFileOf(r, d.Digest))
	for who, api := range map[string]*OCIDir{"the same": o, "another": open(t)} {
		got, err := api.BlobPut(t.Context(), r, d, errReader{})
		if err != nil || got.Size != 5000 {
			t.Errorf("%s: got %v, %v", who, got, err)
		}
	}
	if !os.SameFile(before, stat(t, blobFileOf(r, d.Digest))) {
		t.Error("a blob that was whole was written again")
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("it was read") }

func TestPutOfAManifestHealsIt(t *testing.T) {
	for name, change := range damages {
		t.Run(name, func(t *testing.T) {
			it := schemetest.Image(name)
			r := place(t.TempDir())
			if err := it.Push(t.Context(), open(t), r.WithTag("v1")); err != nil {
				t.Fatal(err)
			}
			path := blobFileOf(r, it.Manifest.Digest())
			damage(t, path, change)
			o := open(t)
			_, err := o.ManifestGet(t.Context(), r.WithTag("v1"))
			if !errors.Is(err, errs.ErrDigestMismatch) || !strings.Contains(err.Error(), path) || errs.Hint(err) == "" {
				t.Errorf("get: got %v, want ErrDigestMismatch that names the file, and a hint", err)
			}
			_, err = o.ManifestHead(t.Context(), r.WithTag("v1"))
			if !errors.Is(err, errs.ErrNotFound) || !errors.Is(err, errs.ErrDigestMismatch) {
				t.Errorf("head: got %v, want ErrNotFound, so that it is put again, and ErrDigestMismatch", err)
			}
			if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
				t.Fatal(err)
			}
			if _, err := o.ManifestGet(t.Context(), r.WithTag("v1")); err != nil {
				t.Errorf("after a put: %v", err)
			}
		})
	}
}

// A directory in the place of a manifest is as good as damage: whoever asks is told so, and a put replaces it.
func TestPutOfAManifestReplacesADirectory(t *testing.T) {
	it := schemetest.Image("it")
	o, r := open(t), place(t.TempDir())
	if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	path := blobFileOf(r, it.Manifest.Digest())
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	o = open(t)
	if _, err := o.ManifestGet(t.Context(), r.WithTag("v1")); !errors.Is(err, errs.ErrDigestMismatch) || errors.Is(err, errs.ErrNotFound) {
		t.Errorf("get: got %v, want ErrDigestMismatch", err)
	}
	if _, err := o.ManifestHead(t.Context(), r.WithTag("v1")); !errors.Is(err, errs.ErrNotFound) || !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("head: got %v, want ErrNotFound, so that it is put again, and ErrCorrupt", err)
	}
	if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	if _, err := o.ManifestGet(t.Context(), r.WithTag("v1")); err != nil {
		t.Errorf("after a put: %v", err)
	}
}

// A blob of the wrong size, as a power loss leaves it, is not there for a manifest that needs it.
func TestTruncatedContentIsMissing(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	it := schemetest.Image("truncated")
	if err := it.PushContent(t.Context(), o, r); err != nil {
		t.Fatal(err)
	}
	lost := digest.FromBytes(it.Blobs[2])
	damage(t, blobFileOf(r, lost), damages["emptied"])
	_, err := open(t).ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest)
	var detail *errs.Error
	if !errors.Is(err, errs.ErrManifestBlobUnknown) || !errors.As(err, &detail) || len(detail.Missing) != 1 || detail.Missing[0] != lost {
		t.Errorf("got %v, want the emptied blob to be missing", err)
	}
}

func TestDamageIsFoundByReading(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	d := putBlob(t, o, r, schemetest.Blob("read", 5000))
	path := blobFileOf(r, d.Digest)
	damage(t, path, damages["flipped"])
	rdr, err := o.BlobGet(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	defer rdr.Close()
	_, err = io.ReadAll(rdr)
	if !errors.Is(err, errs.ErrDigestMismatch) || !strings.Contains(err.Error(), path) || errs.Hint(err) == "" {
		t.Errorf("BlobGet: got %v, want ErrDigestMismatch that names the file, and a hint", err)
	}
	if ra, err := o.BlobOpen(t.Context(), r, d); !errors.Is(err, errs.ErrDigestMismatch) {
		t.Errorf("BlobOpen: got %v, %v", ra, err)
	}
	if err := o.BlobMount(t.Context(), r, place(t.TempDir()), d); !errors.Is(err, errs.ErrDigestMismatch) {
		t.Errorf("BlobMount: got %v: damage must not spread", err)
	}
}

func TestMount(t *testing.T) {
	data := schemetest.Blob("mounted", 5000)
	for name, c := range map[string]struct {
		fail map[string]error // by step
		link bool
	}{
		"hard link":                   {nil, true},
		"another file system":         {map[string]error{stepLink: syscall.EXDEV}, false},
		"too many links":              {map[string]error{stepLink: syscall.EMLINK}, false},
		"protected links":             {map[string]error{stepLink: syscall.EPERM}, false},
		"neither links nor reflinks":  {map[string]error{stepLink: syscall.EXDEV, stepClone: syscall.EOPNOTSUPP}, false},
		"a clone that fails half way": {map[string]error{stepLink: syscall.EXDEV, stepClone: syscall.EIO}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && c.fail != nil {
				t.Skip("the errors are those of Unix")
			}
			s := &steps{}
			o, dir := open(t, withHook(s.hook)), t.TempDir()
			src, tgt, via := place(dir+"/src"), place(dir+"/tgt"), place(dir+"/via")
			d := putBlob(t, o, src, data)
			s.set(func(step, _ string) error { return c.fail[step] })
			if err := o.BlobMount(t.Context(), src, tgt, d); err != nil {
				t.Fatal(err)
			}
			if _, err := o.BlobPut(t.Context(), via, d, errReader{}, scheme.WithMountFrom(place(dir+"/absent"), src)); err != nil {
				t.Fatal(err)
			}
			for _, r := range []ref.Ref{tgt, via} {
				path := blobFileOf(r, d.Digest)
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s has other bytes (%v)", path, err)
				}
				if linked := os.SameFile(stat(t, path), stat(t, blobFileOf(src, d.Digest))); linked != c.link {
					t.Errorf("%s is linked: %v, want %v", path, linked, c.link)
				}
				if left := leftovers(t, r.Root); len(left) > 0 {
					t.Errorf("%q are left behind", left)
				}
			}
			if !s.has(stepSyncDir + " " + blobsDir) {
				t.Error("the new name was not made durable")
			}
		})
	}
}

func TestMountFailsAsAWhole(t *testing.T) {
	s := &steps{}
	o, dir := open(t, withHook(s.hook)), t.TempDir()
	src, tgt := place(dir+"/src"), place(dir+"/tgt")
	d := putBlob(t, o, src, schemetest.Blob("mounted", 5000))
	s.set(func(step, _ string) error {
		if step == stepLink {
			return syscall.EIO
		}
		return nil
	})
	if err := o.BlobMount(t.Context(), src, tgt, d); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v, want the disk's error", err)
	}
	if _, err := os.Stat(blobFileOf(tgt, d.Digest)); err == nil {
		t.Error("the blob is there all the same")
	}
}

func TestBlobOpenGivesTheFile(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	data := schemetest.Blob("open", maxRecallBlob+1)
	d := putBlob(t, o, r, data)
	ra, err := o.BlobOpen(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	defer ra.Close()
	f, ok := ra.(scheme.Filer).File()
	if !ok {
		t.Fatal("there is no file")
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("the file has other bytes (%v)", err)
	}
}
