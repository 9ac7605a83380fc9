package ocidir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

const (
	markerName = "oci-layout"
	indexName  = "index.json"
	blobsDir   = "blobs"
)

// reserved are the names that a layout has for itself. A repository never has them as a component, whatever is there,
// so that no order of pushes puts one layout into the files of another.
var reserved = map[string]bool{blobsDir: true, indexName: true, markerName: true, stateDir: true}

func validRepo(repo string) error {
	if repo == "" {
		return nil
	}
	if err := ref.ValidRepo(repo); err != nil {
		return err
	}
	for _, c := range strings.Split(repo, "/") {
		if reserved[c] {
			return fmt.Errorf("%w: repository %q: %q is a name that image layouts use themselves", errs.ErrNameInvalid, repo, c)
		}
	}
	return nil
}

// locate returns the absolute path of r's layout.
func (o *OCIDir) locate(ctx context.Context, op string, r ref.Ref) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fail(op, r, "", err)
	}
	if r.Digest != "" {
		if err := types.ValidDigest(r.Digest); err != nil {
			return "", fail(op, r, "", err)
		}
	}
	if r.Tag != "" {
		if err := ref.ValidTag(r.Tag); err != nil {
			return "", fail(op, r, "", err)
		}
	}
	if err := validRepo(r.Repo); err != nil {
		return "", fail(op, r, "", err)
	}
	if r.Root == "" || strings.ContainsRune(r.Root, 0) {
		return "", fail(op, r, "", fmt.Errorf("%w: the path is missing", errs.ErrInvalid))
	}
	path, err := filepath.Abs(filepath.FromSlash(r.Path()))
	if err != nil {
		return "", fail(op, r, "", err)
	}
	return path, nil
}

// blobPath is where a layout keeps the blob d. The digest becomes part of a path only here, and only when it is valid.
func blobPath(d digest.Digest) (string, error) {
	if err := types.ValidDigest(d); err != nil {
		return "", err
	}
	return join(blobsDir, d.Algorithm().String(), d.Encoded()), nil
}

// blobAt is the inverse of blobPath.
func blobAt(name string) (digest.Digest, bool) {
	rest, ok := strings.CutPrefix(name, blobsDir+"/")
	alg, hex, _ := strings.Cut(rest, "/")
	d := digest.NewDigestFromEncoded(digest.Algorithm(alg), hex)
	return d, ok && types.ValidDigest(d) == nil
}

// fail adds operation, place and digest to err, once.
func fail(op string, r ref.Ref, d digest.Digest, err error) error {
	if e, ok := err.(*errs.Error); ok && e.Op == op {
		return err
	} else if ok && e.Op == "" { // made where the place was not known
		out := *e
		out.Op, out.Ref, out.Digest = op, r.String(), d
		return &out
	}
	if noFiles(err) && !errors.Is(err, errs.ErrUnavailable) {
		return &errs.Error{
			Op: op, Ref: r.String(), Digest: d, Err: fmt.Errorf("%w: %w", errs.ErrUnavailable, err),
			Hint: "let this process have more open files (ulimit -n), or let it do less at once",
		}
	}
	return &errs.Error{Op: op, Ref: r.String(), Digest: d, Err: err}
}

// failRead is fail for what the system refuses to a reader.
func failRead(op string, r ref.Ref, d digest.Digest, err error) error {
	if errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("%w: %w", errs.ErrDenied, err)
	}
	return fail(op, r, d, err)
}

// failWrite is fail for what the system refuses to a writer.
func failWrite(op string, r ref.Ref, d digest.Digest, err error) error {
	if isFull(err) && !errors.Is(err, errs.ErrNoSpace) {
		err = fmt.Errorf("%w: %w", errs.ErrNoSpace, err)
	}
	if isReadOnly(err) && !errors.Is(err, errs.ErrReadOnly) {
		return &errs.Error{
			Op: op, Ref: r.String(), Digest: d, Err: fmt.Errorf("%w: %w", errs.ErrReadOnly, err),
			Hint: "make the directory writable for this user, or choose another one",
		}
	}
	return fail(op, r, d, err)
}

// missing is failRead for a layout that could not be opened.
func missing(op string, r ref.Ref, err error) error {
	if absent(err) {
		return fail(op, r, "", errs.ErrNameUnknown)
	}
	return failRead(op, r, "", err)
}

// dirInfo identifies a directory.
type dirInfo struct{ fi os.FileInfo }

func (d dirInfo) same(other dirInfo) bool { return os.SameFile(d.fi, other.fi) }

// statDir identifies the directory at path. What is no directory is treated as absent.
func statDir(path string) (dirInfo, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return dirInfo{}, err
	}
	if !fi.IsDir() {
		return dirInfo{}, &os.PathError{Op: "open", Path: path, Err: errNoDir}
	}
	return dirInfo{fi}, nil
}
