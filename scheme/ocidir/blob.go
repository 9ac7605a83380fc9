package ocidir

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// blobFile is the open file of a blob. Its layout is in use until end is called; the file is open until it is closed.
type blobFile struct {
	l    *layout
	f    *os.File
	id   fileID
	name string
	end  func()
}

// openBlob opens the file of the blob d.
func (o *OCIDir) openBlob(ctx context.Context, op string, r ref.Ref, d digest.Digest) (*blobFile, error) {
	name, err := blobPath(d)
	if err != nil {
		return nil, fail(op, r, "", err)
	}
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return nil, err
	}
	f, id, err := l.openBlobFile(d, name)
	if err != nil {
		end()
		return nil, failBlob(op, r, d, err)
	}
	if l.isBad(id, d) {
		f.Close()
		end()
		return nil, fail(op, r, d, l.knownBad(name))
	}
	return &blobFile{l: l, f: f, id: id, name: name, end: end}, nil
}

// failBlob is failRead for a blob's file.
func failBlob(op string, r ref.Ref, d digest.Digest, err error) error {
	if absent(err) {
		return fail(op, r, d, errs.ErrBlobUnknown)
	}
	return failRead(op, r, d, err)
}

// BlobGet implements scheme.API. Random access, and the file, are BlobOpen's.
func (o *OCIDir) BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, _ ...scheme.BlobGetOption) (blob.Reader, error) {
	const op = "blob get"
	b, err := o.openBlob(ctx, op, r, d.Digest)
	if err != nil {
		return nil, err
	}
	defer b.end()
	desc := types.Descriptor{MediaType: mediaTypeOr(d.MediaType), Digest: d.Digest, Size: b.id.size}
	if types.SizeKnown(d) {
		desc.Size = d.Size
	}
	v, err := blob.NewReader(&ctxFile{File: b.f, ctx: ctx}, desc)
	if err != nil {
		return nil, errors.Join(fail(op, r, d.Digest, err), b.f.Close())
	}
	v.OnEnd(func(err error) error {
		if err == nil {
			if after, ierr := identify(b.f); ierr == nil && after.sameBytes(b.id) {
				b.l.mem.setVerified(after, d.Digest)
			}
			return nil
		}
		if errors.Is(err, errs.ErrDigestMismatch) {
			return fail(op, r, d.Digest, o.foundBad(ctx, b, d.Digest, err))
		}
		return &errs.Error{Op: op, Ref: r.String(), Digest: d.Digest, Err: err, Message: "read from " + b.l.file(b.name)}
	})
	return v, nil
}

func mediaTypeOr(mt string) string {
	if mt == "" {
		return types.MediaTypeOctetStream
	}
	return mt
}

// ctxFile ends reading when the context does.
type ctxFile struct {
	*os.File
	ctx context.Context
}

func (f *ctxFile) Read(p []byte) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

// BlobOpen implements scheme.BlobOpener. The first time that this process opens a file, it hashes it. When ctx ends before,
// the hash of a large file goes on, so that it is soon known to who tries again; Close ends it.
func (o *OCIDir) BlobOpen(ctx context.Context, r ref.Ref, d types.Descriptor) (blob.ReaderAt, error) {
	return o.BlobOpenProven(ctx, r, d, math.MaxInt64)
}

// BlobOpenProven implements scheme.BlobProver.
func (o *OCIDir) BlobOpenProven(ctx context.Context, r ref.Ref, d types.Descriptor, unread int64) (blob.ReaderAt, error) {
	const op = "blob open"
	path, err := o.locate(ctx, op, r)
	if err != nil {
		return nil, err
	}
	if raw, ok := o.recallBlob(path, d.Digest); ok {
		return inMemory{bytes.NewReader(raw), raw}, nil
	}
	b, err := o.openBlob(ctx, op, r, d.Digest)
	if err != nil {
		return nil, err
	}
	defer b.end()
	if b.id.size > unread && !b.l.mem.isVerified(b.id, d.Digest) {
		return nil, errors.Join(fail(op, r, d.Digest, scheme.ErrUnproven), b.f.Close())
	}
	if err := o.prove(ctx, b, d.Digest); err != nil {
		return nil, errors.Join(fail(op, r, d.Digest, err), b.f.Close())
	}
	if b.id.size <= maxRecallBlob {
		raw, err := b.read(ctx, d.Digest)
		if err = errors.Join(err, b.f.Close()); err != nil {
			return nil, fail(op, r, d.Digest, err)
		}
		return inMemory{bytes.NewReader(raw), raw}, nil
	}
	return &readerAt{f: b.f, ctx: ctx, name: b.name, id: b.id, l: b.l}, nil
}

// read reads a small blob, which was verified, and remembers it: what is kept in memory for long is verified itself.
func (b *blobFile) read(ctx context.Context, d digest.Digest) ([]byte, error) {
	raw := make([]byte, b.id.size)
	for range 2 {
		if _, err := b.f.ReadAt(raw, 0); errors.Is(err, io.EOF) {
			return nil, b.l.damaged(b.name, errBeingWritten.Error())
		} else if err != nil {
			return nil, err
		}
		if d.Algorithm().FromBytes(raw) == d {
			b.l.mem.setVerified(b.id, d)
			b.l.mem.blobs.keep(b.l.path, b.id, d, raw)
			return raw, nil
		}
		if err := b.l.condemn(ctx, b.f, b.id, b.name, d); err != nil {
			return nil, err
		}
	}
	return nil, b.l.damaged(b.name, errBeingWritten.Error())
}

// inMemory is random access to a blob that is in memory.
type inMemory struct {
	*bytes.Reader
	raw []byte
}

func (b inMemory) Close() error          { return nil }
func (b inMemory) Bytes() ([]byte, bool) { return b.raw, true }

// readerAt is random access to a file that was verified, for as long as nobody writes to it.
type readerAt struct {
	f    *os.File
	ctx  context.Context
	l    *layout // for its name only: it may be closed
	name string
	id   fileID
}

func (b *readerAt) ReadAt(p []byte, off int64) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.f.ReadAt(p, off)
	if same, serr := b.same(); serr == nil && !same {
		return 0, b.l.damaged(b.name, errBeingWritten.Error())
	}
	return n, err
}

// same reports whether the file still has the bytes that were verified.
func (b *readerAt) same() (bool, error) {
	id, err := identify(b.f)
	return err == nil && id.sameBytes(b.id), err
}

func (b *readerAt) Close() error { return b.f.Close() }
func (b *readerAt) Size() int64  { return b.id.size }

func (b *readerAt) File() (*os.File, bool) {
	same, _ := b.same()
	return b.f, same
}

// BlobHead implements scheme.API.
func (o *OCIDir) BlobHead(ctx context.Context, r ref.Ref, d types.Descriptor, _ ...scheme.BlobHeadOption) (types.Descriptor, error) {
	const op = "blob head"
	name, err := blobPath(d.Digest)
	if err != nil {
		return types.Descriptor{}, fail(op, r, "", err)
	}
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return types.Descriptor{}, err
	}
	defer end()
	id, err := l.lookAt(d.Digest, name)
	if err != nil {
		return types.Descriptor{}, failBlob(op, r, d.Digest, err)
	}
	if l.isBad(id, d.Digest) {
		return types.Descriptor{}, fail(op, r, d.Digest, l.knownBad(name))
	}
	return types.Descriptor{MediaType: mediaTypeOr(d.MediaType), Digest: d.Digest, Size: id.size}, nil
}

// BlobPut implements scheme.API.
func (o *OCIDir) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	const op = "blob put"
	opt := scheme.Collect(opts)
	if d.Digest != "" {
		if err := types.ValidDigest(d.Digest); err != nil {
			return types.Descriptor{}, fail(op, r, "", err)
		}
	}
	l, end, err := o.beginWrite(ctx, op, r)
	if err != nil {
		return types.Descriptor{}, err
	}
	defer end()
	if d.Digest != "" {
		size, there, err := l.hit(ctx, d, opt.DeferredSync)
		if err != nil {
			return types.Descriptor{}, failWrite(op, r, d.Digest, err)
		}
		if !there {
			size, there = o.mountAny(ctx, l, opt, r, d)
		}
		if there {
			return types.Descriptor{MediaType: mediaTypeOr(d.MediaType), Digest: d.Digest, Size: size}, nil
		}
	}
	var got types.Descriptor
	if src, ok := mayResume(d, rdr); ok {
		got, err = l.put(ctx, d, src, storing{deferred: opt.DeferredSync})
	} else {
		got, _, err = l.store(ctx, d, rdr, storing{deferred: opt.DeferredSync})
	}
	if err != nil {
		return types.Descriptor{}, failWrite(op, r, d.Digest, err)
	}
	return got, nil
}

// hit reports whether the blob is there already, and makes it as durable as a put would.
func (l *layout) hit(ctx context.Context, d types.Descriptor, deferred bool) (size int64, there bool, err error) {
	file, there, err := l.have(ctx, d)
	if err != nil || !there {
		return 0, false, err
	}
	if err := l.settle(ctx); err != nil {
		return 0, false, err
	}
	err = l.acknowledge(ctx, file, deferred)
	return file.id.size, err == nil, err
}

// putBytes stores data, which has the digest, in a layout that is settled.
func (l *layout) putBytes(ctx context.Context, d types.Descriptor, data []byte) (namedFile, error) {
	file, there, err := l.have(ctx, d)
	if err != nil || there {
		return file, err
	}
	_, file, err = l.store(ctx, d, bytes.NewReader(data), storing{deferred: true, settled: true})
	return file, err
}

// BlobDelete implements scheme.API.
func (o *OCIDir) BlobDelete(ctx context.Context, r ref.Ref, d types.Descriptor, _ ...scheme.BlobDeleteOption) error {
	const op = "blob delete"
	name, err := blobPath(d.Digest)
	if err != nil {
		return fail(op, r, "", err)
	}
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return err
	}
	defer end()
	if _, err := l.vol.root.Lstat(name); err != nil {
		return failBlob(op, r, d.Digest, err)
	}
	if err := l.vol.remove(name); err != nil {
		return failWrite(op, r, d.Digest, err)
	}
	if err := l.dropLabels(ctx, d.Digest); err != nil {
		return failWrite(op, r, d.Digest, err)
	}
	if !l.o.durability.puts() {
		return nil
	}
	if err := l.dirs.do(ctx, path.Dir(name)); err != nil {
		return failWrite(op, r, d.Digest, err)
	}
	return nil
}
