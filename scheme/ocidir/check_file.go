package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

// found is what became of looking at a file. kind is empty when it is as it should be.
type found struct {
	kind scheme.ProblemKind
	err  error
	id   fileID
	read int64 // bytes that were read
}

// maxLooks is how often a file is looked at again that was replaced or written to meanwhile.
const maxLooks = 5

// look looks at the file of a blob, and hashes it if it should. sizes are those that somebody says it has. Where the
// file turns out to be good it is remembered as verified, and as bad where it is not.
func (c *checker) look(ctx context.Context, d digest.Digest, sizes []int64, hash bool) (found, error) {
	name, err := blobPath(d)
	if err != nil {
		return found{}, err
	}
	var f found
	for range maxLooks {
		f, err = c.lookOnce(ctx, name, d, hash)
		if !errors.Is(f.err, errBeingWritten) || err != nil {
			break
		}
	}
	if err != nil || f.kind != "" && f.kind != scheme.ProblemDamaged {
		return f, err
	}
	for _, size := range sizes {
		if size != f.id.size {
			f.kind = scheme.ProblemSize
			f.err = c.failed(name, fmt.Errorf("%w: the file has %d bytes, not %d", errs.ErrSizeMismatch, f.id.size, size))
			break
		}
	}
	return f, nil
}

func (c *checker) lookOnce(ctx context.Context, name string, d digest.Digest, hash bool) (found, error) {
	if err := ctx.Err(); err != nil {
		return found{}, err
	}
	file, id, err := c.open(name)
	if absent(err) { // a collector that died may have left it in the trash, from where any reader takes it back
		file, id, err = c.l.vol.openFile(trashName(d))
	}
	switch {
	case err == nil:
		defer file.Close()
	case absent(err):
		return found{kind: scheme.ProblemMissing, err: c.failed(name, errs.ErrBlobUnknown)}, nil
	case errors.Is(err, errs.ErrCorrupt):
		return found{kind: scheme.ProblemNoFile, err: c.failed(name, err)}, nil
	default:
		return c.unread(ctx, name, found{}, err)
	}
	f := found{id: id}
	if !hash {
		if c.l.isBad(id, d) {
			f.kind, f.err = scheme.ProblemDamaged, c.l.knownBad(name)
		}
		return f, nil
	}
	for range 2 { // bytes that are wrong are read again
		got, after, err := hashFile(ctx, file, id, d.Algorithm())
		f.read += id.size
		switch {
		case errors.Is(err, errBeingWritten):
			f.kind, f.err = scheme.ProblemUnread, err
			return f, nil
		case err != nil:
			return c.unread(ctx, name, f, err)
		case got == d:
			c.l.mem.setVerified(after, d)
			f.id, f.kind, f.err = after, "", nil
			return f, nil
		}
		f.id, f.kind, f.err = after, scheme.ProblemDamaged, c.l.damaged(name, c.words(file, got, after))
	}
	c.l.mem.setBad(f.id, d)
	if now, err := c.l.vol.stat(name); err == nil && !now.sameBytes(f.id) || absent(err) {
		f.kind, f.err = scheme.ProblemUnread, errBeingWritten // somebody put a new file there
	}
	return f, nil
}

func (c *checker) words(f *os.File, got digest.Digest, id fileID) string {
	words := wrongBytes(got, id.size)
	if n := links(f); n > 1 {
		words += fmt.Sprintf("; the file has %d names, in other layouts perhaps, which have the same damage", n)
	}
	return words
}

// open opens a blob's file. It is errs.ErrCorrupt when something else has the name, a link that leads nowhere or out of
// the layout included.
func (c *checker) open(name string) (*os.File, fileID, error) {
	fi, err := c.l.vol.root.Lstat(name)
	if err != nil {
		return nil, fileID{}, err
	}
	f, id, err := c.l.vol.openFile(name)
	if err != nil && fi.Mode()&fs.ModeSymlink != 0 && !errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: %s is a symbolic link that leads to no file of the layout: %s", errs.ErrCorrupt, name, err.Error())
	}
	return f, id, err
}

// unread tells what is wrong with a file from what is wrong with this process or the system.
func (c *checker) unread(ctx context.Context, name string, f found, err error) (found, error) {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return f, err
		}
	}
	if ctx.Err() != nil {
		return f, err
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: %w", errs.ErrDenied, err)
	}
	f.kind, f.err = scheme.ProblemUnread, c.failed(name, err)
	return f, nil
}

func (c *checker) failed(name string, err error) error {
	return &errs.Error{Op: "verify", Ref: c.l.file(name), Err: err, Hint: healHint}
}

// blob looks at a blob that is no manifest.
func (c *checker) blob(ctx context.Context, i int32) (found, error) {
	it := &c.net.items[i]
	f, err := c.look(ctx, it.digest, it.sizes(), c.opt.Deep)
	if err != nil {
		return f, err
	}
	foreign := !slices.ContainsFunc(it.up, func(e naming) bool { return e.kind != asForeign }) && len(it.roots) == 0
	if f.kind == scheme.ProblemMissing && foreign {
		return found{}, nil // it is at its URLs
	}
	c.checked(blob.Info{Digest: it.digest, Size: f.id.size}, func(r *scheme.CheckReport) { r.Blobs++; r.Bytes += f.read })
	return f, nil
}

// errWrongBytes: the bytes of a manifest are not what its name says.
var errWrongBytes = errors.New("the bytes are wrong")

// manifest looks at a manifest, and enters what it names into the net.
func (c *checker) manifest(ctx context.Context, i int32) (found, error) {
	it := c.net.items[i]
	name := mustPath(it.digest)
	m, id, err := c.l.loadManifest(ctx, it.digest, it.mediaType, func(*os.File, fileID, string) error { return errWrongBytes })
	f := found{id: id, read: id.size}
	if err != nil && !errors.Is(err, errs.ErrSizeInvalid) {
		if f, err = c.look(ctx, it.digest, nil, true); err != nil { // which also tells what is wrong
			return f, err
		}
		if f.kind == "" { // it was replaced by a good one meanwhile, or is in the trash
			m, f.id, err = c.l.loadManifest(ctx, it.digest, it.mediaType, func(*os.File, fileID, string) error { return errWrongBytes })
		}
	}
	if f.kind == scheme.ProblemMissing {
		f.err = c.failed(name, errs.ErrManifestUnknown)
		return f, nil
	}
	c.checked(blob.Info{Digest: it.digest, Size: f.id.size}, func(r *scheme.CheckReport) { r.Manifests++; r.Bytes += f.read })
	switch {
	case f.kind != "":
		return f, nil
	case errors.Is(err, errs.ErrNotFound):
		f.kind, f.err = scheme.ProblemMissing, c.failed(name, err)
		return f, nil
	case err != nil:
		f.kind, f.err = scheme.ProblemEntry, c.failed(name, err)
		return f, nil
	}
	view, err := m.View()
	if err != nil { // what it is by itself is followed all the same
		f.kind, f.err = scheme.ProblemEntry, c.failed(name, err)
		if m, err = manifest.New(m.Raw(), manifest.WithDigest(it.digest)); err == nil {
			view, err = m.View()
		}
		if err != nil {
			return f, nil
		}
	}
	c.net.add(i, view)
	return f, nil
}

// contradicted compares the size of a manifest's file with what is said of it, once everything was read.
func (c *checker) contradicted(i int32, f found) found {
	if f.kind != "" && f.kind != scheme.ProblemDamaged {
		return f
	}
	it := &c.net.items[i]
	kind, who, size := scheme.ProblemKind(""), "", int64(0)
	for _, e := range it.up {
		if e.size >= 0 && e.size != f.id.size {
			kind, who, size = scheme.ProblemSize, string(c.net.items[e.from].digest), e.size
		}
	}
	for _, e := range it.roots {
		if e.size != f.id.size {
			kind, who, size = scheme.ProblemEntry, indexName, e.size
		}
	}
	if kind == "" {
		return f
	}
	if f.kind == scheme.ProblemDamaged {
		kind = scheme.ProblemSize // the file is at fault, and not who describes it
	}
	return found{kind: kind, id: f.id, err: c.failed(mustPath(it.digest), fmt.Errorf("%w: the file has %d bytes, and %s says %d", errs.ErrSizeMismatch, f.id.size, who, size))}
}

// mustPath is blobPath for a digest that was checked.
func mustPath(d digest.Digest) string {
	return join(blobsDir, d.Algorithm().String(), d.Encoded())
}

// describe makes a Problem of what was found.
func (c *checker) describe(i int32, f found) scheme.Problem {
	it := &c.net.items[i]
	want := types.Descriptor{MediaType: it.mediaType, Digest: it.digest}
	if sizes := it.sizes(); len(sizes) > 0 {
		want.Size = sizes[0]
	}
	return scheme.Problem{
		Kind: f.kind, Digest: it.digest, Path: c.l.file(mustPath(it.digest)), Want: want,
		Tags: slices.Clone(c.net.tagsOf(i)), Needed: c.net.namedBy(i), Manifest: it.manifest, Err: f.err,
	}
}
