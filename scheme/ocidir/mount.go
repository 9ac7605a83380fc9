package ocidir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// BlobMount implements scheme.API: a hard link where the file system has them and both layouts are on it, else shared
// blocks, else a copy. What is linked was verified, so that damage does not spread.
func (o *OCIDir) BlobMount(ctx context.Context, src, tgt ref.Ref, d types.Descriptor, _ ...scheme.BlobMountOption) error {
	const op = "blob mount"
	if there, err := o.mounted(ctx, op, tgt, d); err != nil || there {
		return err
	}
	b, err := o.openBlob(ctx, op, src, d.Digest)
	if err != nil {
		return err
	}
	defer b.end()
	defer b.f.Close()
	if err := b.verify(ctx, d.Digest); err != nil {
		return fail(op, src, d.Digest, err)
	}
	l, end, err := o.beginWrite(ctx, op, tgt)
	if err != nil {
		return err
	}
	defer end()
	if _, err = l.take(ctx, b, d, false); err != nil {
		return failWrite(op, tgt, d.Digest, err)
	}
	return nil
}

// mounted reports whether tgt has the blob already. It makes nothing.
func (o *OCIDir) mounted(ctx context.Context, op string, tgt ref.Ref, d types.Descriptor) (bool, error) {
	if err := types.ValidDigest(d.Digest); err != nil {
		return false, fail(op, tgt, "", err)
	}
	l, end, err := o.begin(ctx, op, tgt)
	if errors.Is(err, errs.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer end()
	_, there, err := l.hit(ctx, types.Descriptor{Digest: d.Digest}, false)
	if err != nil {
		return false, failWrite(op, tgt, d.Digest, err)
	}
	return there, nil
}

// mountAny tries the places that the caller believes to have the blob. Any refusal is silent.
func (o *OCIDir) mountAny(ctx context.Context, l *layout, opt scheme.BlobPutOptions, tgt ref.Ref, d types.Descriptor) (size int64, ok bool) {
	for _, src := range opt.MountFrom {
		if src.Scheme != tgt.Scheme || ctx.Err() != nil {
			continue
		}
		if size, err := o.mountFrom(ctx, l, src, d, opt.DeferredSync); err == nil {
			return size, true
		}
	}
	return 0, false
}

func (o *OCIDir) mountFrom(ctx context.Context, l *layout, src ref.Ref, d types.Descriptor, deferred bool) (int64, error) {
	b, err := o.openBlob(ctx, "blob mount", src, d.Digest)
	if err != nil {
		return 0, err
	}
	defer b.end()
	defer b.f.Close()
	if types.SizeKnown(d) && d.Size != b.id.size {
		return 0, errs.ErrSizeMismatch
	}
	if err := b.verify(ctx, d.Digest); err != nil {
		return 0, err
	}
	return l.take(ctx, b, d, deferred)
}

// take makes src, which was verified, the blob d of l as well.
func (l *layout) take(ctx context.Context, src *blobFile, d types.Descriptor, deferred bool) (int64, error) {
	if _, err := l.leases.take(d.Digest); err != nil {
		return 0, err
	}
	deferred = deferred || !l.o.durability.puts()
	if err := l.settle(ctx); err != nil {
		return 0, err
	}
	err := l.link(ctx, src, d, deferred)
	if err == nil || !noLink(err) && !errors.Is(err, fs.ErrExist) && !errors.Is(err, errMoved) {
		return src.id.size, err
	}
	return src.id.size, l.copyFile(ctx, src, d, deferred)
}

// errMoved: the name is not, or no longer, that of the file that was verified.
var errMoved = errors.New("the name is that of another file")

// link makes a hard link. A damaged blob of that name is in the way of it, and is replaced by a copy instead. A symbolic
// link would itself be linked, and lead nowhere in another layout: its file is copied.
func (l *layout) link(ctx context.Context, src *blobFile, d types.Descriptor, deferred bool) error {
	if fi, err := src.l.vol.root.Lstat(src.name); err != nil || !fi.Mode().IsRegular() {
		return errMoved
	}
	labelled, err := l.labelledAt(src.name, d.Digest)
	if err == nil && labelled != 0 {
		err = errMoved // a file of its own can be as old as the damaged one that it replaces
	}
	if err == nil {
		err = l.dropLabels(ctx, d.Digest) // the file may be as old as they are
	}
	if err != nil {
		return err
	}
	dir := path.Dir(src.name)
	err = l.vol.link(src.l.vol, src.name, src.name)
	if errors.Is(err, fs.ErrNotExist) {
		if err = l.makeBlobDir(dir); err == nil {
			err = l.vol.link(src.l.vol, src.name, src.name)
		}
	}
	if err != nil {
		return err
	}
	id, err := l.statBlob(d.Digest, src.name)
	if err != nil {
		return err
	}
	if !id.sameBytes(src.id) {
		return errMoved
	}
	l.mem.setVerified(id, d.Digest) // for the source as well: a new link gave the file a new change time
	if deferred {
		return nil
	}
	return l.durable(ctx, namedFile{src.name, id})
}

// copyFile makes a file of its own: of the same blocks where the file system can do that.
func (l *layout) copyFile(ctx context.Context, src *blobFile, d types.Descriptor, deferred bool) error {
	t, err := l.vol.newTemp()
	if err != nil {
		return l.vol.full(err, src.id.size)
	}
	defer t.discard()
	if l.vol.clone(t.f, src.f, t.name) != nil { // whatever the reason, a copy tells more
		t.discard()
		_, _, err := l.store(ctx, types.Descriptor{Digest: d.Digest, Size: src.id.size}, io.NewSectionReader(src.f, 0, src.id.size), storing{deferred: deferred, settled: true})
		return err
	}
	if err := l.vol.stamp(t.name); err != nil {
		return l.vol.full(err, src.id.size)
	}
	if !deferred {
		if err := l.files.do(ctx, t); err != nil {
			return l.vol.full(err, src.id.size)
		}
	}
	_, err = l.publish(ctx, t, d.Digest, deferred)
	return err
}
