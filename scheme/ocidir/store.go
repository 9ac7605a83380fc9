package ocidir

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// copySize is how much of a blob is in memory at once, in bytes.
const copySize = 256 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, copySize); return &b }}

// have reports whether the blob is there and whole. A file of another size than want's (when that is known), one that
// has not its digest, and one that could not be made durable before are not: writing the blob again heals them. The
// first look at a file hashes it, which costs less than writing it.
//
// A blob that is found was leased before it was looked for.
func (l *layout) have(ctx context.Context, want types.Descriptor) (namedFile, bool, error) {
	name, err := blobPath(want.Digest)
	if err != nil {
		return namedFile{}, false, err
	}
	if _, err := l.leases.take(want.Digest); err != nil {
		return namedFile{}, false, err
	}
	id, err := l.vol.stat(name)
	if absent(err) || replaceable(err) || l.vol.isLink(name) {
		return namedFile{}, false, nil
	}
	if err != nil {
		return namedFile{}, false, err
	}
	if l.mem.isSuspect(id) || types.SizeKnown(want) && id.size != want.Size || types.EmptyDigest(want.Digest) != (id.size == 0) || l.isBad(id, want.Digest) {
		return namedFile{}, false, nil
	}
	id, err = l.verify(ctx, name, want.Digest)
	if errors.Is(err, errs.ErrDigestMismatch) || absent(err) || replaceable(err) {
		return namedFile{}, false, nil
	}
	return namedFile{name, id}, err == nil, err
}

// replaceable reports that a blob's name leads to nothing that can be read, and that a new file helps.
func replaceable(err error) bool {
	return errors.Is(err, errs.ErrCorrupt) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EIO)
}

// verify makes sure, once for every state of a file, that its bytes have the digest.
func (l *layout) verify(ctx context.Context, name string, d digest.Digest) (fileID, error) {
	if id, err := l.vol.stat(name); err != nil || l.mem.isVerified(id, d) {
		return id, err
	}
	f, id, err := l.vol.openFile(name)
	if err != nil {
		return id, err
	}
	defer f.Close()
	b := &blobFile{l: l, f: f, id: id, name: name}
	err = b.verify(ctx, d)
	return b.id, err
}

// verify is layout.verify for a file that is open.
func (b *blobFile) verify(ctx context.Context, d digest.Digest) error {
	if b.l.mem.isVerified(b.id, d) {
		return nil
	}
	done, err := b.l.mem.turn(ctx, b.id, d)
	if err != nil {
		return err
	}
	defer done()
	if b.l.mem.isVerified(b.id, d) {
		return nil
	}
	if b.l.isBad(b.id, d) {
		return b.l.knownBad(b.name)
	}
	got, after, err := hashFile(ctx, b.f, b.id, d.Algorithm())
	switch {
	case errors.Is(err, errBeingWritten):
		return b.l.damaged(b.name, err.Error())
	case err != nil:
		return err
	case got != d:
		if err := b.l.condemn(ctx, b.f, after, b.name, d); err != nil {
			return err
		}
	}
	b.id = after
	b.l.mem.setVerified(after, d)
	return nil
}

// sameBytes reports that nothing but the file's names changed between two looks at one inode.
func (id fileID) sameBytes(other fileID) bool {
	id.ctime = other.ctime
	return id == other
}

// copyTo copies up to io.EOF, and returns how many bytes. More than limit, unless that is negative, are an error.
func copyTo(ctx context.Context, w io.Writer, r io.Reader, limit int64) (n int64, err error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		k, err := r.Read(*buf)
		if k > 0 {
			if n += int64(k); limit >= 0 && n > limit {
				return n, fmt.Errorf("%w: more than %d bytes", errs.ErrSizeMismatch, limit)
			}
			if _, werr := w.Write((*buf)[:k]); werr != nil {
				return n, werr
			}
		}
		if err == io.EOF {
			return n, ctx.Err()
		}
		if err != nil {
			return n, err
		}
	}
}

// storing is how a blob is stored.
type storing struct {
	deferred bool // it need not be durable yet
	settled  bool // settle was called: it must not be under the file lock
}

// store writes what rdr holds as the blob want, and returns its descriptor. Where the digest is not given it is made
// with sha256. Nothing has the blob's name before it is whole, and, unless deferred, durable. A layout comes into being
// when there is something to store, and not before.
func (l *layout) store(ctx context.Context, want types.Descriptor, rdr io.Reader, how storing) (types.Descriptor, namedFile, error) {
	t, err := l.vol.newTemp()
	if err != nil {
		return want, namedFile{}, l.vol.full(err, want.Size)
	}
	defer t.discard()
	got, err := l.fill(ctx, t, want, rdr)
	if err != nil {
		return want, namedFile{}, err
	}
	file, err := l.finish(ctx, t, got, how)
	return got, file, err
}

// finish gives t, whose bytes are got, the blob's name, after it became as durable as how says.
func (l *layout) finish(ctx context.Context, t *temp, got types.Descriptor, how storing) (namedFile, error) {
	how.deferred = how.deferred || !l.o.durability.puts()
	if err := l.vol.stamp(t.name); err != nil {
		return namedFile{}, l.vol.full(err, got.Size)
	}
	var err error
	if l.o.durability.commits() && (!how.deferred || got.Size >= largeFile) {
		if got.Size >= largeFile {
			err = l.vol.sync(t.f, t.name)
		} else {
			err = l.files.do(ctx, t)
		}
		if err != nil {
			return namedFile{}, fmt.Errorf("%w: %w", errUnsynced, l.vol.full(err, got.Size))
		}
	}
	if err := ctx.Err(); err != nil {
		return namedFile{}, err
	}
	if !how.settled {
		if err := l.settle(ctx); err != nil {
			return namedFile{}, err
		}
	}
	return l.publish(ctx, t, got.Digest, how.deferred)
}

// errUnsynced: the disk did not take the bytes of a file that has no name yet. A second sync proves nothing.
var errUnsynced = errors.New("the content could not be made durable")

// fill writes rdr into t and checks that it is what want says.
func (l *layout) fill(ctx context.Context, t *temp, want types.Descriptor, rdr io.Reader) (types.Descriptor, error) {
	limit := int64(-1)
	if types.SizeKnown(want) {
		limit = want.Size
	}
	var h hash.Hash
	out := []io.Writer{t}
	if !blob.Verifies(rdr, want) {
		h = digestAlgorithm(want).Hash()
		out = append(out, h)
	}
	n, err := pour(ctx, rdr, limit, out...)
	if err != nil {
		return want, l.vol.full(err, max(want.Size, n))
	}
	if limit >= 0 && n != limit {
		return want, fmt.Errorf("%w: %d bytes, not %d", errs.ErrSizeMismatch, n, limit)
	}
	got := types.Descriptor{MediaType: want.MediaType, Digest: want.Digest, Size: n}
	if h != nil {
		sum := digest.NewDigestFromBytes(digestAlgorithm(want), h.Sum(nil))
		if want.Digest != "" && sum != want.Digest {
			return want, fmt.Errorf("%w: the content is %s", errs.ErrDigestMismatch, sum)
		}
		got.Digest = sum
	}
	if got.MediaType == "" {
		got.MediaType = types.MediaTypeOctetStream
	}
	return got, nil
}

func digestAlgorithm(want types.Descriptor) digest.Algorithm {
	if want.Digest == "" {
		return digest.Canonical
	}
	return want.Digest.Algorithm()
}

// publish gives t, whose bytes have the digest, the blob's name. It replaces a damaged blob by a new file: the old one
// may be shared with other layouts by hard links, and is not written to. One that is whole stays as it is.
func (l *layout) publish(ctx context.Context, t *temp, d digest.Digest, deferred bool) (namedFile, error) {
	name, err := blobPath(d)
	if err != nil {
		return namedFile{}, err
	}
	if _, err := l.leases.take(d); err != nil {
		return namedFile{}, err
	}
	if err := l.keepLabels(t, name, d, deferred); err != nil {
		return namedFile{}, l.vol.full(err, 0)
	}
	dir := path.Dir(name)
	err = t.renameNew(name)
	if errors.Is(err, fs.ErrNotExist) { // the first blob of this algorithm
		if err = l.makeBlobDir(dir); err == nil {
			err = t.renameNew(name)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		file, there, herr := l.have(ctx, types.Descriptor{Digest: d})
		if herr != nil || there { // somebody was faster; what is known of that file stays right
			return file, errors.Join(herr, l.acknowledge(ctx, file, deferred || herr != nil))
		}
		err = l.installBlob(t, name, d)
	}
	if err != nil {
		return namedFile{}, l.vol.full(err, 0)
	}
	id, err := identify(t.f)
	if err != nil {
		return namedFile{}, err
	}
	if !t.unproven {
		l.mem.setVerified(id, d)
	}
	if deferred || !l.o.durability.puts() {
		return namedFile{name, id}, nil
	}
	if err := l.dirs.do(ctx, dir); err != nil {
		return namedFile{}, err
	}
	l.mem.setDurable(id)
	return namedFile{name, id}, nil
}

// acknowledge makes a file as durable as its put has to be.
func (l *layout) acknowledge(ctx context.Context, file namedFile, deferred bool) error {
	if deferred || !l.o.durability.puts() {
		return nil
	}
	return l.durable(ctx, file)
}

func (l *layout) makeBlobDir(dir string) error {
	for _, d := range []string{blobsDir, dir} {
		if err := l.vol.mkdir(d); err != nil {
			return err
		}
	}
	if !l.o.durability.commits() {
		return nil
	}
	return errors.Join(l.vol.syncDir(blobsDir), l.vol.syncDir("."))
}
