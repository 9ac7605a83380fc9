package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

// maxTries is how often a blob is begun whose stream broke, after the places have given up resuming it.
const maxTries = 3

// blobKey is what a run brings once.
type blobKey struct {
	digest digest.Digest
	mode   mode
}

// brought is the outcome for a blob: its size, as the first who asked for it knew it, and whether it was not there.
type brought struct {
	size  int64
	wrote bool
}

// blob makes the target have the blob d, and reports whether it had not.
func (r *run) blob(ctx context.Context, im *image, d types.Descriptor, mode mode) (wrote bool, err error) {
	b, led, err := r.blobs.do(ctx, blobKey{d.Digest, mode}, func() (brought, error) {
		wrote, err := r.bringBlob(ctx, item{im: im, desc: d}, mode)
		return brought{size: d.Size, wrote: wrote}, err
	})
	if err == nil && !led && b.size != d.Size {
		err = sizesDiffer(r.src, d, b.size)
	}
	if b.wrote { // and not before: a foreign layer may turn out to be absent
		im.changed.Store(true)
	}
	return b.wrote, err
}

// sizesDiffer says that content of one digest was described with two sizes: one of the descriptors lies.
func sizesDiffer(at ref.Ref, d types.Descriptor, other int64) error {
	return &errs.Error{
		Op: "copy", Ref: at.String(), Digest: d.Digest, Err: errs.ErrSizeMismatch,
		Message: fmt.Sprintf("one descriptor gives it %d bytes, another %d", other, d.Size),
	}
}

// bringBlob goes from the cheapest way to the dearest: it is there, it can be mounted or linked, it must be read.
func (r *run) bringBlob(ctx context.Context, it item, mode mode) (wrote bool, err error) {
	from := r.mountable(it.desc, mode)
	if !r.absent() && len(from) == 0 || mode == heal { // a mount asks and acts at once
		there, err := r.present(ctx, it, mode)
		if there || err != nil {
			return false, err
		}
	}
	r.rec.content(it, transfer.Planned, 0, nil)
	if r.dry {
		return true, nil
	}
	if r.linkable() && mode != heal {
		if done, err := r.link(ctx, it); done || err != nil {
			return done, err
		}
	}
	err = r.stream(ctx, it, from)
	if errors.Is(err, errAbsentForeign) {
		return false, nil
	}
	if err != nil {
		r.rec.content(it, transfer.Failed, 0, err)
		return false, err
	}
	r.known(it.desc)
	return true, nil
}

// mountable returns the repositories of the target's registry that are believed to have d. A plan asks rather than
// mounts, and what was mounted and then denied is read.
func (r *run) mountable(d types.Descriptor, mode mode) []ref.Ref {
	if !remote(r.dst) || r.dry || mode == heal || r.retag() {
		return nil
	}
	from := r.mounts.find(r.dst, d.Digest)
	if r.src.Scheme == r.dst.Scheme && r.src.Root == r.dst.Root {
		from = append([]ref.Ref{r.src}, from...)
	}
	return from
}

// linkable reports whether source and target may share files.
func (r *run) linkable() bool { return r.src.Scheme == r.dst.Scheme && !remote(r.dst) }

// known remembers for later copies that the target has d.
func (r *run) known(d types.Descriptor) {
	if remote(r.dst) && !r.dry {
		r.mounts.add(r.dst, d.Digest)
	}
}

// present asks whether the target has the blob. One of a wrong size, or one that was found to be damaged, is as good as
// none: it is put again.
func (r *run) present(ctx context.Context, it item, mode mode) (bool, error) {
	release, err := r.sched.acquire(ctx, 0, r.dstSlots)
	if err != nil {
		return false, err
	}
	d, err := r.api.BlobHead(ctx, r.dst, it.desc)
	if err == nil && mode != trust {
		err = r.sound(ctx, it.desc)
	}
	release()
	switch {
	case lacks(err), err == nil && types.SizeKnown(it.desc) && d.Size != it.desc.Size:
		return false, nil
	case err != nil:
		r.rec.content(it, transfer.Failed, 0, err)
		return false, err
	}
	r.rec.content(it, transfer.Present, 0, nil)
	r.known(it.desc)
	return true, nil
}

// sound looks into a blob that the target has, where that costs no requests: a place that stores checks what it opens.
func (r *run) sound(ctx context.Context, d types.Descriptor) error {
	var opener scheme.BlobOpener
	if remote(r.dst) || !scheme.As(r.api, r.dst, &opener) {
		return nil
	}
	rdr, err := opener.BlobOpen(ctx, r.dst, d)
	if errors.Is(err, errs.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	return rdr.Close()
}

// link gives the target the blob without reading it here. done is false when the places cannot do that.
func (r *run) link(ctx context.Context, it item) (done bool, err error) {
	release, err := r.sched.acquire(ctx, it.desc.Size, r.srcSlots, r.dstSlots)
	if err != nil {
		return false, err
	}
	err = r.api.BlobMount(ctx, r.src, r.dst, it.desc)
	release()
	switch {
	case err == nil:
		r.rec.content(it, transfer.Mounted, 0, nil)
		return true, nil
	case errors.Is(err, errs.ErrUnsupported), errors.Is(err, errs.ErrNotFound):
		return false, nil // what the source lacks, reading it says better
	}
	r.rec.content(it, transfer.Failed, 0, err)
	return false, err
}

// errAbsentForeign says that the source lacks a layer that need not be anywhere.
var errAbsentForeign = errors.New("the source does not have this foreign layer")

// stream moves the blob's bytes through this process, unless a repository of from spares them. The places resume what
// breaks; what they gave up is begun again if it was the stream that broke.
func (r *run) stream(ctx context.Context, it item, from []ref.Ref) error {
	release, err := r.sched.acquire(ctx, sizeOf(it.desc), r.srcSlots, r.dstSlots)
	if err != nil {
		return err
	}
	defer release()
	m := &meter{rec: r.rec, it: it}
	defer m.flush()
	r.rec.content(it, transfer.Started, 0, nil)
	for try := 1; ; try++ {
		mounted, err := r.streamOnce(ctx, it, from, m)
		switch {
		case err == nil && mounted:
			r.rec.content(it, transfer.Mounted, 0, nil)
			return nil
		case err == nil:
			m.flush()
			r.rec.content(it, transfer.Moved, 0, nil)
			return nil
		case try == maxTries || ctx.Err() != nil || !broke(err):
			return err
		}
		r.rec.content(it, transfer.Retried, 0, err)
	}
}

// streamOnce is one put. mounted reports that the bytes were not needed.
func (r *run) streamOnce(ctx context.Context, it item, from []ref.Ref, m *meter) (mounted bool, err error) {
	in := &input{r: r, ctx: ctx, desc: it.desc, meter: m}
	defer in.close()
	var rdr io.Reader = in
	switch {
	case len(from) > 0:
	case remote(r.dst):
		if rdr, err = in.open(); err != nil {
			return false, err
		}
	default: // a place that may have a part of it already
		rdr = blob.NewLazySource(it.desc, func() (io.Reader, error) { return in.open() }, in.OpenAt)
	}
	_, err = r.api.BlobPut(ctx, r.dst, it.desc, rdr, scheme.WithMountFrom(from...), scheme.WithDeferredSync())
	if in.err != nil { // what the source said is the cause, however the target words it
		return false, in.err
	}
	if in.unseen && err == nil {
		m.reached(it.desc.Size)
	}
	return !in.used.Load() && len(from) > 0, err
}

// broke reports whether err is a stream that ended too early, which another try may not.
func broke(err error) bool {
	var timeout net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.As(err, &timeout) && timeout.Timeout()
}

// sizeOf returns d's size, or -1 when it is unknown.
func sizeOf(d types.Descriptor) int64 {
	if !types.SizeKnown(d) {
		return -1
	}
	return d.Size
}

// input is a blob of the source that is opened when it is first read: a put that mounts has no need of it.
type input struct {
	r      *run
	ctx    context.Context // of the put that reads
	desc   types.Descriptor
	meter  *meter
	rdr    blob.Reader
	first  io.Reader
	err    error // of opening
	unseen bool  // what is read of first does not pass through here
	used   atomic.Bool
}

var _ blob.Source = (*input)(nil)

// open opens the blob. What it returns keeps the proof of its own content (see blob.Verifies), if there is one.
func (in *input) open() (blob.Source, error) {
	in.used.Store(true)
	src, rdr, err := scheme.BlobSource(in.ctx, in.r.api, in.r.src, in.desc)
	if err != nil {
		in.err = err
		if types.IsForeignLayer(in.desc.MediaType) && errors.Is(err, errs.ErrNotFound) {
			in.err = errAbsentForeign
		}
		return nil, in.err
	}
	in.rdr = rdr
	if v, ok := rdr.(*blob.VerifyReader); ok {
		var n int64
		v.Observe(func(k int) {
			n += int64(k)
			in.meter.reached(n)
		})
		in.first = v
	} else {
		in.first = &counted{Reader: rdr, meter: in.meter}
		if _, isFile := rdr.(scheme.Filer); isFile {
			in.first, in.unseen = rdr, true // its bytes may go past us, in the kernel
		}
	}
	return blob.NewSource(in.first, func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		again, err := src.OpenAt(ctx, offset)
		if err != nil {
			return nil, err
		}
		return in.counted(again, offset), nil
	}), nil
}

// Read implements io.Reader.
func (in *input) Read(p []byte) (int, error) {
	if in.first == nil && in.err == nil {
		if _, err := in.open(); err != nil {
			return 0, err
		}
	}
	if in.err != nil {
		return 0, in.err
	}
	return in.first.Read(p)
}

// OpenAt implements blob.Source.
func (in *input) OpenAt(ctx context.Context, offset int64) (io.ReadCloser, error) {
	in.used.Store(true)
	rc, err := scheme.OpenBlobAt(ctx, in.r.api, in.r.src, in.desc, offset)
	if err != nil {
		return nil, err
	}
	return in.counted(rc, offset), nil
}

// counted counts what is read of a stream that begins at offset. What comes before is not moved now.
func (in *input) counted(rc io.ReadCloser, offset int64) io.ReadCloser {
	in.meter.skip(offset)
	return &countedCloser{counted{Reader: rc, meter: in.meter, n: offset}, rc}
}

// close closes what was opened. That a stream which was read does not close well says nothing about the put.
func (in *input) close() {
	if in.rdr != nil {
		_ = in.rdr.Close()
	}
}

// counted tells a meter how far it was read; n is where it began.
type counted struct {
	io.Reader
	meter *meter
	n     int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	c.meter.reached(c.n)
	return n, err
}

type countedCloser struct {
	counted
	io.Closer
}
