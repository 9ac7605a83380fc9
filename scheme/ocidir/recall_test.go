package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
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
func TestWhatIsInMemoryNeedsItsFile(t *testing.T) {
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
		for kind, get := range map[string]func(context.Context, *OCIDir, ref.Ref, types.Descriptor) (string, error){
			"manifest": getManifest, "blob": getBlob,
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				api := New(WithDurability(None))
				defer api.Close()
				r := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
				m := opaque(t, "one")
				if _, err := api.ManifestPut(t.Context(), r.WithTag("t"), m); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if got, err := get(t.Context(), api, r, m.Descriptor()); err != nil || got != "one" {
						t.Fatalf("%q, %v", got, err)
					}
				}
				if len(api.mem.manifests.known)+len(api.mem.blobs.known) != 1 {
					t.Fatal("it is not in memory: this test tests nothing")
				}
				if err := spoil(filepath.Join(r.Root, "blobs", "sha256", m.Digest().Encoded())); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if got, err := get(t.Context(), api, r, m.Descriptor()); err == nil {
						t.Errorf("it is still served: %q", got)
					}
				}
				if _, err := api.ManifestPut(t.Context(), r.WithTag("t"), m); err != nil {
					t.Fatalf("healing it: %v", err)
				}
				if got, err := get(t.Context(), api, r, m.Descriptor()); err != nil || got != "one" {
					t.Errorf("healed: %q, %v", got, err)
				}
			})
		}
	}
}

func getManifest(ctx context.Context, api *OCIDir, r ref.Ref, _ types.Descriptor) (string, error) {
	m, err := api.ManifestGet(ctx, r.WithTag("t"))
	if err != nil {
		return "", err
	}
	return string(m.Raw()), nil
}

func getBlob(ctx context.Context, api *OCIDir, r ref.Ref, d types.Descriptor) (string, error) {
	ra, err := api.BlobOpen(ctx, r, d)
	if err != nil {
		return "", err
	}
	defer ra.Close()
	raw, err := io.ReadAll(io.NewSectionReader(ra, 0, ra.Size()))
	return string(raw), err
}

// A layout that is none any more, or whose directory is another one, has nothing in memory either.
func TestALayoutThatIsGoneIsNotServedFromMemory(t *testing.T) {
	for name, gone := range map[string]func(dir string) error{
		"oci-layout": func(dir string) error { return os.Remove(filepath.Join(dir, markerName)) },
		"renamed":    func(dir string) error { return os.Rename(dir, dir+".away") },
		"replaced": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".away"), os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, markerName), []byte(markerText), 0o644))
		},
		"removed": os.RemoveAll,
	} {
		t.Run(name, func(t *testing.T) {
			api := New(WithDurability(None))
			defer api.Close()
			api.trusted = 0
			r := ref.Ref{Scheme: ref.SchemeOCIDir, Root: filepath.Join(t.TempDir(), "layout")}
			m := opaque(t, "one")
			if _, err := api.ManifestPut(t.Context(), r.WithTag("t"), m); err != nil {
				t.Fatal(err)
			}
			for _, want := range []bool{true, false} {
				for range 2 {
					_, merr := getManifest(t.Context(), api, r, m.Descriptor())
					_, berr := getBlob(t.Context(), api, r, m.Descriptor())
					if (merr == nil) != want || (berr == nil) != want {
						t.Errorf("want it %v: manifest %v, blob %v", want, merr, berr)
					}
				}
				if want {
					if err := gone(r.Root); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// What another process changes in a layout is seen at once, however long the layout itself is trusted to be there.
func TestChangesOfOthersAreSeenAtOnce(t *testing.T) {
	api, other := New(WithDurability(None)), New(WithDurability(None))
	defer api.Close()
	defer other.Close()
	api.trusted = time.Hour
	r := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
	for i := range 50 {
		want := fmt.Sprintf("manifest %02d", i) // of equal length
		if _, err := other.ManifestPut(t.Context(), r.WithTag("t"), opaque(t, want)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := getManifest(t.Context(), api, r, types.Descriptor{}); err != nil || got != want {
				t.Fatalf("%q, %v, want %q", got, err, want)
			}
		}
	}
	if err := other.TagDelete(t.Context(), r.WithTag("t")); err != nil {
		t.Fatal(err)
	}
	if got, err := getManifest(t.Context(), api, r, types.Descriptor{}); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("a deleted tag: %q, %v", got, err)
	}
}

// Memory for contents is bounded, and what is in it counts once.
func TestWhatIsInMemoryIsBounded(t *testing.T) {
	c := &newMemory().blobs
	for range 3 {
		c.keep("l", fileID{ino: 1}, "d", []byte("same"))
	}
	if want := len("same") + recallCost; c.bytes != want {
		t.Errorf("%d bytes for one, want %d", c.bytes, want)
	}
	for i := range 2000 {
		c.keep("l", fileID{ino: uint64(i)}, "d", make([]byte, maxRecallBlob))
		total := 0
		for _, raw := range c.known {
			total += len(raw) + recallCost
		}
		if total != c.bytes || total > maxRecalled {
			t.Fatalf("after %d: %d bytes, counted as %d", i, total, c.bytes)
		}
	}
	if len(c.known) < 1000 {
		t.Errorf("only %d are kept", len(c.known))
	}
	if c.keep("l", fileID{}, "large", make([]byte, maxRecallBlob+1)); len(c.known) > 0 {
		if _, ok := c.get("l", fileID{}, "large"); ok {
			t.Error("one that is too large is kept")
		}
	}
}

// What another layout has read is not found by a link to there, neither its bytes nor that it is there.
func TestWhatIsInMemoryIsOfItsLayout(t *testing.T) {
	for _, planted := range []string{"blobs", "blobs/sha256"} {
		t.Run(planted, func(t *testing.T) {
			api := New(WithDurability(None))
			defer api.Close()
			secret := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
			own := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
			m := opaque(t, "secret")
			for _, r := range []ref.Ref{own, secret} { // so that there is an index with the tag
				if _, err := api.ManifestPut(t.Context(), r.WithTag("t"), m); err != nil {
					t.Fatal(err)
				}
			}
			for _, get := range []func(context.Context, *OCIDir, ref.Ref, types.Descriptor) (string, error){getManifest, getBlob} {
				if got, err := get(t.Context(), api, secret, m.Descriptor()); err != nil || got != "secret" {
					t.Fatal(got, err)
				}
			}
			path := filepath.Join(own.Root, filepath.FromSlash(planted))
			if err := errors.Join(os.RemoveAll(path), os.Symlink(filepath.Join(secret.Root, filepath.FromSlash(planted)), path)); err != nil {
				t.Skip(err)
			}
			if got, err := getManifest(t.Context(), api, own, m.Descriptor()); err == nil {
				t.Errorf("the manifest is read: %q", got)
			}
			if got, err := getBlob(t.Context(), api, own, m.Descriptor()); err == nil {
				t.Errorf("the blob is read: %q", got)
			}
			if d, err := api.BlobHead(t.Context(), own, m.Descriptor()); err == nil {
				t.Errorf("the blob is there: %v", d)
			}
			if d, err := api.ManifestHead(t.Context(), own.WithTag("t")); err == nil {
				t.Errorf("the manifest is there: %v", d)
			}
			if err := api.BlobMount(t.Context(), own, ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}, m.Descriptor()); err == nil {
				t.Error("the blob is mounted")
			}
		})
	}
}
