package ocidir

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

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
