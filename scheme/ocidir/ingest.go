package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// An ingest is a directory in .ocisync/ingest, named by the sha256 of its key: lock, meta and data. From the disk up:
// claim is the right to change it (ingestlock.go), ingestMeta what is known of it (ingestmeta.go), ingest the two with
// the open file (ingestfile.go, and ingestsave.go for keeping it). upload is that for a caller, ingestcommit.go makes the
// blob of it, ingestmanage.go looks after those nobody has open, and ingestput.go puts large blobs by way of one.

var (
	_ scheme.Ingester  = (*OCIDir)(nil)
	_ scheme.Upload    = (*upload)(nil)
	_ scheme.Truncater = (*upload)(nil)
	_ scheme.Flusher   = (*upload)(nil)
	_ scheme.Rereader  = (*upload)(nil)
	_ scheme.Leaver    = (*upload)(nil)
)

// Ingest implements scheme.Ingester. The directory is made if need be; it becomes a layout with Commit.
func (o *OCIDir) Ingest(ctx context.Context, r ref.Ref, key string, opts ...scheme.IngestOption) (scheme.Upload, error) {
	const op = "ingest"
	opt := scheme.Collect(opts)
	if err := newMeta(key, opt).valid(); err != nil {
		return nil, fail(op, r, "", err)
	}
	if opt.Token != "" { // none of ours has one
		return nil, fail(op, r, "", errs.ErrUploadUnknown)
	}
	l, end, err := o.beginWrite(ctx, op, r)
	if err != nil {
		return nil, err
	}
	in, err := l.ingest(ctx, key, opt)
	if err != nil {
		end()
		return nil, failWrite(op, r, opt.Expected.Digest, err)
	}
	u := &upload{ctx: ctx, r: r, in: in, end: end, loose: opt.LooseSize}
	u.publish(true)
	return u, nil
}

// ingest opens the ingest key, unless the layout has the blob that it is to become.
func (l *layout) ingest(ctx context.Context, key string, opt scheme.IngestOptions) (*ingest, error) {
	if opt.Expected.Digest != "" && l.isLayout() {
		_, there, err := l.have(ctx, opt.Expected)
		if err != nil {
			return nil, err
		}
		if there {
			return nil, errs.ErrExists
		}
	}
	return l.openIngest(ctx, key, opt)
}

// isLayout reports whether the directory is one already, rather than about to become one.
func (l *layout) isLayout() bool {
	_, err := l.vol.stat(markerName)
	return err == nil
}

// upload is an open ingest in the hand of a caller.
type upload struct {
	ctx context.Context
	r   ref.Ref
	in  *ingest // nil when it is closed
	end func()

	loose bool // more than was announced may be written

	mu     sync.Mutex // guards what follows: Status may be called at any time
	status blob.Ingest
	digest digest.Digest // of a closed upload
}

// publish makes what Status says that of now.
func (u *upload) publish(active bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.status = u.in.meta.info(u.in.size)
	u.status.Active = active
	u.status.Labels = maps.Clone(u.status.Labels)
}

// Status implements scheme.Upload.
func (u *upload) Status() blob.Ingest {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.status
	s.Labels = maps.Clone(s.Labels)
	return s
}

// Digest implements scheme.Upload. It stays what it was when the upload is closed.
func (u *upload) Digest() digest.Digest {
	if u.in == nil {
		return u.digest
	}
	return u.in.sum()
}

// Token implements scheme.Upload: place and key suffice.
func (u *upload) Token() string { return "" }

func (u *upload) fail(op string, err error) error {
	return failWrite("ingest "+op, u.r, u.status.Expected.Digest, err)
}

// usable reports why nothing can be written.
func (u *upload) usable() error {
	if u.in == nil {
		return fs.ErrClosed
	}
	if err := u.ctx.Err(); err != nil {
		return err
	}
	if u.in.removed() {
		return errs.ErrUploadUnknown
	}
	return nil
}

// Write implements scheme.Upload. What would be more than the size that was announced is not written at all.
func (u *upload) Write(p []byte) (int, error) {
	if err := u.usable(); err != nil {
		return 0, u.fail("write", err)
	}
	if want := u.in.meta.Expected.descriptor(); !u.loose && types.SizeKnown(want) && int64(len(p)) > want.Size-u.in.size {
		return 0, u.fail("write", fmt.Errorf("%w: more than the %d bytes that were announced", errs.ErrSizeMismatch, want.Size))
	}
	n, err := u.in.write(p)
	u.publish(true)
	if err != nil {
		return n, u.fail("write", err)
	}
	return n, nil
}

// ReadAt implements scheme.Rereader.
func (u *upload) ReadAt(p []byte, off int64) (int, error) {
	if u.in == nil {
		return 0, u.fail("read", fs.ErrClosed)
	}
	n, err := io.NewSectionReader(u.in.data.f, 0, u.in.size).ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = u.fail("read", err)
	}
	return n, err
}

// Truncate implements scheme.Truncater. What stays is hashed again.
func (u *upload) Truncate(ctx context.Context, size int64) error {
	if err := u.usable(); err != nil {
		return u.fail("truncate", err)
	}
	if size < 0 || size > u.in.size {
		return u.fail("truncate", fmt.Errorf("%w: %d bytes are there, and %d are to stay", errs.ErrRangeInvalid, u.in.size, size))
	}
	if err := u.in.truncate(ctx, size); err != nil {
		return u.fail("truncate", err)
	}
	u.publish(true)
	return nil
}

// Flush implements scheme.Flusher.
func (u *upload) Flush(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		err = u.usable()
	}
	if err == nil {
		err = u.in.flush()
	}
	if err != nil {
		return u.fail("flush", err)
	}
	return nil
}

// Close implements scheme.Upload.
func (u *upload) Close() error {
	if u.in == nil {
		return nil
	}
	if err := u.over(u.in.close(true)); err != nil {
		return u.fail("close", err)
	}
	return nil
}

// Leave implements scheme.Leaver. It is what the end of the process would do: whoever opens the ingest hashes what it has.
func (u *upload) Leave() error {
	if u.in == nil {
		return nil
	}
	if err := u.over(u.in.leave()); err != nil {
		return u.fail("leave", err)
	}
	return nil
}

// over notes that the ingest was closed, whatever came of it.
func (u *upload) over(err error) error {
	u.publish(false)
	u.digest = u.in.sum()
	u.in = nil
	u.end()
	return err
}

// Abort implements scheme.Upload. It waits for nothing, so that it works when the context has ended.
func (u *upload) Abort(context.Context) error {
	if u.in == nil {
		return u.fail("abort", fs.ErrClosed)
	}
	if err := u.over(u.in.drop()); err != nil {
		return u.fail("abort", err)
	}
	return nil
}

// Commit implements scheme.Upload.
func (u *upload) Commit(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
	if u.in == nil {
		return types.Descriptor{}, u.fail("commit", fs.ErrClosed)
	}
	got, err := u.in.commit(ctx, want, labels)
	if u.over(nil); err != nil && !errors.Is(err, errs.ErrExists) {
		got = types.Descriptor{}
	}
	if err != nil {
		return got, failWrite("ingest commit", u.r, got.Digest, err)
	}
	return got, nil
}
