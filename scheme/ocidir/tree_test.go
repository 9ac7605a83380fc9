package ocidir

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
)

func TestLinksInATreeDoNotLeadOut(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege on Windows")
	}
	o := open(t)
	tree, outside := place(t.TempDir()), place(t.TempDir())
	it := schemetest.Image("a")
	for _, r := range []string{"inner", "team/inner"} {
		if err := it.Push(t.Context(), o, tree.WithRepo(r).WithTag("v1")); err != nil {
			t.Fatal(err)
		}
	}
	if err := it.Push(t.Context(), o, outside.WithRepo("layout").WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"out": filepath.Join(outside.Root, "layout"), "team/up": outside.Root, "up": "..", "in": "team/inner", "team/in": "../inner",
	} {
		if err := os.Symlink(to, filepath.Join(tree.Root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, repo := range []string{"out", "team/up/layout", "up/x", "team/up/new", "out/below"} {
		r := tree.WithRepo(repo).WithTag("v1")
		if _, err := o.ManifestGet(t.Context(), r); !errors.Is(err, errs.ErrDenied) && !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%s is read: %v", repo, err)
		}
		if err := it.Push(t.Context(), o, r); !errors.Is(err, errs.ErrDenied) {
			t.Errorf("%s is written: %v", repo, err)
		}
	}
	if _, err := o.ManifestGet(t.Context(), tree.WithRepo("out").WithTag("v1")); !errors.Is(err, errs.ErrDenied) {
		t.Errorf("why it is refused is not said: %v", err)
	}
	for _, repo := range []string{"in", "team/in"} {
		if _, err := o.ManifestGet(t.Context(), tree.WithRepo(repo).WithTag("v1")); err != nil {
			t.Errorf("a link within the tree: %v", err)
		}
	}
	out := tree // who names the link itself means it
	out.Root = filepath.Join(tree.Root, "out")
	if _, err := o.ManifestGet(t.Context(), out.WithTag("v1")); err != nil {
		t.Errorf("a root that is a link: %v", err)
	}
	left, err := os.ReadDir(outside.Root)
	if err != nil || len(left) != 1 {
		t.Errorf("outside of the tree there is %v, %v", left, err)
	}
}
