package ocidir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// A repository of a tree is below the tree's directory, whatever names its path has: who may write into one directory of
// it could otherwise put a symbolic link there and have others' files read, and written, in their name. Links within the
// tree are followed. The tree's own directory may be one: whoever names it means it.

// treeOf is the directory that r's layout must be below; "" when r names a layout itself.
func treeOf(r ref.Ref) string {
	if r.Repo == "" {
		return ""
	}
	path, err := filepath.Abs(filepath.FromSlash(r.Base().Path()))
	if err != nil {
		return "" // locate fails, too
	}
	return path
}

// openBelow opens the directory at path, which is below tree unless tree is "".
func openBelow(tree, path string) (*os.Root, error) {
	name, err := filepath.Rel(tree, path)
	if tree == "" || err != nil || name == "." {
		return os.OpenRoot(path)
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	dir, err := root.OpenRoot(name)
	return dir, leadsOut(root, name, err)
}

// inside reports, as errs.ErrDenied, that a directory which is to be made at path would not be below tree: what of its
// path is there leads out of it.
func inside(tree, path string) error {
	name, err := filepath.Rel(tree, path)
	if tree == "" || err != nil || name == "." {
		return nil
	}
	root, err := os.OpenRoot(tree)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	for name = filepath.Dir(name); name != "."; name = filepath.Dir(name) {
		_, err := root.Stat(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return leadsOut(root, name, err)
		}
	}
	return nil
}

// leadsOut says why root refuses name, if that is for where it leads.
func leadsOut(root *os.Root, name string, err error) error {
	if err == nil || absent(err) || errors.Is(err, fs.ErrPermission) || noFiles(err) {
		return err
	}
	if _, serr := os.Stat(filepath.Join(root.Name(), name)); serr != nil {
		return err // not even without the tree's bounds
	}
	return fmt.Errorf("%w: a symbolic link leads out of the tree: %w", errs.ErrDenied, err)
}
