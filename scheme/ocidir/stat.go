package ocidir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/ref"
)

var (
	_ scheme.BlobLister = (*OCIDir)(nil)
	_ scheme.BlobStater = (*OCIDir)(nil)
)

// stamp makes now the time at which a file was stored. Times that the system sets by itself may be some milliseconds
// old: before the call that stored the file. Where a file system sets no times, its own have to do.
func (v *volume) stamp(name string) error {
	err := v.setTime(name, time.Now())
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// BlobStat implements scheme.BlobStater. Created is the modification time of the blob's file: for a blob that was
// mounted as a hard link, when it was stored in the layout that it came from. Updated is when its labels changed, or
// Created.
func (o *OCIDir) BlobStat(ctx context.Context, r ref.Ref, d digest.Digest) (blob.Info, error) {
	const op = "blob stat"
	name, err := blobPath(d)
	if err != nil {
		return blob.Info{}, fail(op, r, "", err)
	}
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return blob.Info{}, err
	}
	defer end()
	id, err := l.lookAt(d, name)
	if err != nil {
		return blob.Info{}, failBlob(op, r, d, err)
	}
	if l.isBad(id, d) {
		return blob.Info{}, fail(op, r, d, l.knownBad(name))
	}
	rec, err := l.readLabels(d, id)
	if err != nil {
		return blob.Info{}, failRead(op, r, d, err)
	}
	return rec.info(d, id), nil
}

// BlobList implements scheme.BlobLister, by algorithm and then in order of the digests, with times and labels as
// BlobStat has them. Files in blobs that are no blob's are left out.
func (o *OCIDir) BlobList(ctx context.Context, r ref.Ref, fn func(blob.Info) error) error {
	const op = "blob list"
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return err
	}
	defer end()
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		if err := l.listBlobs(ctx, alg, fn); err != nil {
			var own callbackError
			if errors.As(err, &own) {
				return own.err
			}
			return failRead(op, r, "", err)
		}
	}
	return nil
}

// callbackError is what a caller's own function returned.
type callbackError struct{ err error }

func (e callbackError) Error() string { return e.err.Error() }

// listBlobs lists those of one algorithm. The directory is opened once: a path's way costs more than its file.
func (l *layout) listBlobs(ctx context.Context, alg digest.Algorithm, fn func(blob.Info) error) error {
	dir := join(blobsDir, alg.String())
	sub, err := l.vol.root.OpenRoot(dir)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := l.readNames(dir)
	if err != nil {
		return err
	}
	labelled, err := l.labelled(alg)
	if err != nil {
		return err
	}
	for _, name := range names {
		d := digest.NewDigestFromEncoded(alg, name)
		info, ok, err := l.listed(ctx, sub, d, labelled[name])
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := fn(info); err != nil {
			return callbackError{err}
		}
	}
	return nil
}

// readNames returns the names in a directory, in byte order. One that is absent has none.
func (l *layout) readNames(dir string) ([]string, error) {
	entries, err := fs.ReadDir(l.vol.root.FS(), dir)
	if absent(err) {
		return nil, nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

// listed describes a file in blobs, in the directory dir. ok is false when it is no blob, or was deleted meanwhile.
func (l *layout) listed(ctx context.Context, dir *os.Root, d digest.Digest, labelled bool) (info blob.Info, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return info, false, err
	}
	name, err := blobPath(d)
	if err != nil {
		return info, false, nil
	}
	id, err := statID(dir, d.Encoded())
	if err != nil && !absent(err) && !notAFile(err) {
		id, err = l.vol.stat(name) // a symbolic link may lead elsewhere in the layout
	}
	if absent(err) || notAFile(err) {
		return info, false, nil
	}
	if err != nil {
		return info, false, err
	}
	var rec labelRecord
	if labelled {
		if rec, err = l.readLabels(d, id); err != nil {
			return info, false, err
		}
	}
	return rec.info(d, id), true, nil
}
