package accept_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// file reads a file of the layout.
func file(t *testing.T, dir string, name ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{dir}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func blobOf(t *testing.T, dir string, d digest.Digest) []byte {
	t.Helper()
	return file(t, dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// files returns what is in dir and does not begin with a dot, with sizes and modification times.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasPrefix(e.Name(), ".") {
			return filepath.SkipDir
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err == nil && !e.IsDir() {
			all[filepath.ToSlash(rel)] = fi.Mode().String() + " " + fi.ModTime().String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// blobFiles returns the digests that dir's blobs have as names, after checking that they are what they are named.
func blobFiles(t *testing.T, dir string) []digest.Digest {
	t.Helper()
	var all []digest.Digest
	for name := range files(t, dir) {
		rest, ok := strings.CutPrefix(name, "blobs/")
		if !ok {
			continue
		}
		alg, hex, _ := strings.Cut(rest, "/")
		d := digest.NewDigestFromEncoded(digest.Algorithm(alg), hex)
		if got := d.Algorithm().FromBytes(blobOf(t, dir, d)); got != d {
			t.Errorf("%s has the digest %s", name, got)
		}
		all = append(all, d)
	}
	slices.Sort(all)
	return all
}

// untouched checks that reading changes nothing.
func untouched(t *testing.T, dir string) {
	t.Helper()
	before := files(t, dir)
	t.Cleanup(func() {
		if !maps.Equal(before, files(t, dir)) {
			t.Errorf("the layout was changed by who read it")
		}
	})
}
