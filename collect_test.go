package ocisync_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// garbage writes a blob that nothing needs into a layout, as another tool does.
func garbage(t *testing.T, r ref.Ref) string {
	t.Helper()
	path := filepath.Join(r.Path(), "blobs", "sha256", digest.FromString("garbage").Encoded())
	if err := os.WriteFile(path, []byte("garbage"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCollectOfATree(t *testing.T) {
	root := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
	api := ocidir.New()
	var files []string
	for _, repo := range []string{"a", "b/c", "broken"} {
		if err := schemetest.Image(repo).Push(t.Context(), api, root.WithRepo(repo).WithTag("v1")); err != nil {
			t.Fatal(err)
		}
		files = append(files, garbage(t, root.WithRepo(repo)))
	}
	if err := api.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root.Root, "broken", "index.json"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c := ocisync.New()
	t.Cleanup(func() { c.Close() })
	all, err := c.Collect(t.Context(), root, scheme.WithGrace(0))
	if !errors.Is(err, errs.ErrCorrupt) || len(all) != 3 || !errors.Is(all[2].Err, errs.ErrCorrupt) {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, rep := range all[:2] {
		if rep.Err != nil || len(rep.Removed) != 1 || rep.Kept != 4 || rep.Freed != 7 {
			t.Errorf("%+v", rep)
		}
		if _, err := os.Stat(files[i]); err == nil {
			t.Errorf("%s is there", files[i])
		}
	}
	if _, err := os.Stat(files[2]); err != nil {
		t.Error(err)
	}
}

func TestCollectOfWhatIsNoDirectory(t *testing.T) {
	c := ocisync.New()
	t.Cleanup(func() { c.Close() })
	dir := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
	for name, want := range map[ref.Ref]error{
		{Scheme: ref.SchemeReg, Root: "localhost:1", Repo: "x"}: errs.ErrUnsupported,
		dir.WithTag("v1"): errs.ErrInvalid,
		dir:               errs.ErrNotFound,
	} {
		if _, err := c.Collect(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
}
