package ocidir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// RepoList implements scheme.RepoLister: the repositories are the directories with an oci-layout file. A layout may
// have others below it. Symbolic links are not followed, as they may lead in circles, and directories whose names no
// repository can have are passed over.
func (o *OCIDir) RepoList(ctx context.Context, r ref.Ref, last string, fn func(repo string) error) error {
	const op = "repository list"
	path, err := o.locate(ctx, op, r.Base())
	if err != nil {
		return err
	}
	if _, err := statDir(path); err != nil { // OpenRoot's error for a file has no kind
		return missing(op, r, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return missing(op, r, err)
	}
	defer root.Close()
	w := &walker{tree: root.FS(), last: last, fn: fn}
	err = w.walk(ctx)
	if err == nil || w.err != nil {
		return w.err
	}
	return failRead(op, r, "", err)
}

// BlobFind implements scheme.BlobFinder: it looks into one layout after the other, so what it costs grows with their
// number.
func (o *OCIDir) BlobFind(ctx context.Context, r ref.Ref, d digest.Digest, fn func(repo string) error) error {
	if err := types.ValidDigest(d); err != nil {
		return &errs.Error{Op: "blob find", Ref: r.Base().String(), Err: err}
	}
	err := o.RepoList(ctx, r, "", func(repo string) error {
		_, err := o.BlobHead(ctx, r.WithRepo(repo), types.Descriptor{Digest: d})
		if errors.Is(err, errs.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return fn(repo)
	})
	if errors.Is(err, errs.ErrNotFound) {
		return nil // no tree, no blob
	}
	return err
}

var (
	errStop   = errors.New("the caller has seen enough")
	errCaller = errors.New("the caller failed")
)

type walker struct {
	tree fs.FS
	last string
	fn   func(string) error
	err  error // of fn

	// is reports whether a directory is one that is looked for. nil is for layouts.
	is func(tree fs.FS, repo string) (bool, error)
}

// walk lists all. What fn returns comes back as it is; io.EOF is no error.
func (w *walker) walk(ctx context.Context) error {
	switch err := w.dir(ctx, ""); {
	case errors.Is(err, errStop):
		return nil
	case errors.Is(err, errCaller):
		return w.err
	default:
		return err
	}
}

// isLayoutDir reports whether repo has the mark of a layout.
func isLayoutDir(tree fs.FS, repo string) (bool, error) {
	_, err := fs.Stat(tree, join(".", repo, markerName))
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}

// dir lists repo, which is "" for the root, and all below it.
func (w *walker) dir(ctx context.Context, repo string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if repo == "" {
		if err := w.repo(repo); err != nil {
			return err
		}
	}
	entries, err := fs.ReadDir(w.tree, join(".", repo))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	// In byte order "a-b" comes between "a" and "a/b": a directory and what is below it are two places in the order.
	var order []string
	for _, e := range entries {
		name := strings.TrimPrefix(repo+"/"+e.Name(), "/")
		if e.IsDir() && !reserved[e.Name()] && ref.ValidRepo(name) == nil {
			order = append(order, name, name+"/")
		}
	}
	slices.Sort(order)
	for _, name := range order {
		if below, isBelow := strings.CutSuffix(name, "/"); !isBelow {
			err = w.repo(name)
		} else if w.last < name || strings.HasPrefix(w.last, name) {
			err = w.dir(ctx, below)
		}
		if errors.Is(err, fs.ErrPermission) {
			continue // as lost+found at the root of a disk
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// repo gives repo to the caller if it is what is looked for, and its turn.
func (w *walker) repo(repo string) error {
	if repo <= w.last && w.last != "" {
		return nil
	}
	is := w.is
	if is == nil {
		is = isLayoutDir
	}
	if ok, err := is(w.tree, repo); !ok || err != nil {
		return err
	}
	switch err := w.fn(repo); {
	case err == nil:
		return nil
	case err == io.EOF:
		return errStop
	default:
		w.err = err
		return errCaller
	}
}

// isTree reports whether a directory that is no layout has layouts below it.
func isTree(ctx context.Context, root *os.Root) (bool, error) {
	found := false
	w := &walker{tree: root.FS(), fn: func(string) error { found = true; return io.EOF }}
	if err := w.dir(ctx, ""); err != nil && !errors.Is(err, errStop) {
		return false, err
	}
	return found, nil
}
