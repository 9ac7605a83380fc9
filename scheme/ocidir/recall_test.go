package ocidir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// opaque is a manifest that needs nothing.
func opaque(t *testing.T, words string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.New([]byte(words), manifest.WithMediaType("text/x-test"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// What is in memory is good, but only while the layout has it: a file that is gone, damaged or another one is noticed by
// the next GET, also when its size stays.
func TestAManifestInMemoryNeedsItsFile(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	for name, spoil := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			if err := os.WriteFile(path+".new", []byte("two"), 0o644); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		},
		"written to": func(path string) error {
			if err := os.WriteFile(path, []byte("two"), 0o644); err != nil {
				return err
			}
			return os.Chtimes(path, long, long)
		},
		"a directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) },
		"a link that leads away": func(path string) error {
			return errors.Join(os.Rename(path, filepath.Join(t.TempDir(), "away")), os.Symlink("/etc/hostname", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			api := New(WithDurability(None))
			defer api.Close()
			r := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
			m := opaque(t, "one")
			if _, err := api.ManifestPut(t.Context(), r.WithTag("t"), m); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				got, err := api.ManifestGet(t.Context(), r.WithTag("t"))
				if err != nil || string(got.Raw()) != "one" || got.MediaType() != "text/x-test" {
					t.Fatalf("%v, %v", got, err)
				}
			}
			if r := api.mem.manifests.get(m.Digest()); r.m == nil {
				t.Fatal("it is not in memory: this test tests nothing")
			}
			if err := spoil(filepath.Join(r.Root, "blobs", "sha256", m.Digest().Encoded())); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if got, err := api.ManifestGet(t.Context(), r.WithTag("t")); err == nil {
					t.Errorf("it is still served: %q", got.Raw())
				}
			}
			if _, err := api.ManifestPut(t.Context(), r.WithTag("t"), m); err != nil {
				t.Fatalf("healing it: %v", err)
			}
			if got, err := api.ManifestGet(t.Context(), r.WithTag("t")); err != nil || string(got.Raw()) != "one" {
				t.Errorf("healed: %v", err)
			}
		})
	}
}

// Memory for manifests is bounded, and what is in it counts once.
func TestManifestsInMemoryAreBounded(t *testing.T) {
	var c manifestCache
	m := opaque(t, "same")
	for range 3 {
		c.keep(fileID{ino: 1}, "", m)
	}
	if want := len("same") + recallCost; c.bytes != want {
		t.Errorf("%d bytes for one manifest, want %d", c.bytes, want)
	}
	for i := range 100 {
		c.keep(fileID{ino: uint64(i)}, "", opaque(t, fmt.Sprint(i)+string(make([]byte, maxRecall-10))))
		if total := size(&c); total != c.bytes || total > maxRecalled {
			t.Fatalf("after %d: %d bytes, counted as %d", i, total, c.bytes)
		}
	}
	if len(c.known) < 60 {
		t.Errorf("only %d are kept", len(c.known))
	}
	large := opaque(t, string(make([]byte, maxRecall+1)))
	if c.keep(fileID{}, "", large); c.get(large.Digest()).m != nil {
		t.Error("one that is too large is kept")
	}
}

func size(c *manifestCache) (n int) {
	for _, r := range c.known {
		n += r.cost()
	}
	return n
}
