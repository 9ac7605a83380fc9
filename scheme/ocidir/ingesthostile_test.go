package ocidir

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
)

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
