package mem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// chunk is how many bytes a put reads at once: between two reads it looks at the context and at the limit.
const chunk = 32 << 10

// BlobGet implements scheme.API.
func (m *Mem) BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, _ ...scheme.BlobGetOption) (blob.Reader, error) {
	data, err := m.load(ctx, "blob get", r, d.Digest)
	if err != nil {
		return nil, err
	}
	desc := describe(d, int64(len(data)))
	if types.SizeKnown(d) && d.Size != desc.Size {
		return nil, fail("blob get", r.Place(), d.Digest, fmt.Errorf("%w: it has %d bytes, not %d", errs.ErrSizeMismatch, desc.Size, d.Size))
	}
	return blob.NewReader(&stream{ctx: ctx, Reader: bytes.NewReader(data)}, desc)
}

// BlobHead implements scheme.API.
func (m *Mem) BlobHead(ctx context.Context, r ref.Ref, d types.Descriptor, _ ...scheme.BlobHeadOption) (types.Descriptor, error) {
	data, err := m.load(ctx, "blob head", r, d.Digest)
	if err != nil {
		return types.Descriptor{}, err
	}
	return describe(d, int64(len(data))), nil
}

// BlobOpen implements scheme.BlobOpener.
func (m *Mem) BlobOpen(ctx context.Context, r ref.Ref, d types.Descriptor) (blob.ReaderAt, error) {
	data, err := m.load(ctx, "blob open", r, d.Digest)
	if err != nil {
		return nil, err
	}
	return readerAt{bytes.NewReader(data)}, nil
}

// BlobPut implements scheme.API.
func (m *Mem) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	const op = "blob put"
	r = r.Place()
	if err := begin(ctx, op, r, d.Digest); err != nil {
		return types.Descriptor{}, err
	}
	if size, ok := m.have(r, d.Digest, scheme.Collect(opts).MountFrom); ok {
		if types.SizeKnown(d) && d.Size != size {
			return types.Descriptor{}, fail(op, r, d.Digest, fmt.Errorf("%w: it has %d bytes, not %d", errs.ErrSizeMismatch, size, d.Size))
		}
		return describe(d, size), nil
	}
	data, got, err := m.read(ctx, d, rdr)
	if err == nil {
		if err = ctx.Err(); err != nil {
			m.release(int64(len(data)))
		}
	}
	if err != nil {
		return types.Descriptor{}, fail(op, r, d.Digest, err)
	}
	d.Digest = got
	m.store(r, got, data)
	return describe(d, int64(len(data))), nil
}

// BlobDelete implements scheme.API.
func (m *Mem) BlobDelete(ctx context.Context, r ref.Ref, d types.Descriptor, _ ...scheme.BlobDeleteOption) error {
	const op = "blob delete"
	r = r.Place()
	if err := beginBlob(ctx, op, r, d.Digest); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.find(r)
	if p == nil {
		return fail(op, r, d.Digest, errs.ErrNameUnknown)
	}
	if _, ok := p.blobs[d.Digest]; !ok {
		return fail(op, r, d.Digest, errs.ErrBlobUnknown)
	}
	m.unlink(p, d.Digest)
	m.forgetLeases(r, d.Digest)
	return nil
}

// unlink takes the blob d, which is there, from p. The caller holds mu for writing.
func (m *Mem) unlink(p *repo, d digest.Digest) {
	delete(p.blobs, d)
	c := m.blobs[d]
	if c.repos--; c.repos == 0 {
		delete(m.blobs, d)
		m.used -= int64(len(c.data))
	}
}

// BlobMount implements scheme.API. All places in one Mem can share blobs.
func (m *Mem) BlobMount(ctx context.Context, src, tgt ref.Ref, d types.Descriptor, _ ...scheme.BlobMountOption) error {
	const op = "blob mount"
	src, tgt = src.Place(), tgt.Place()
	if err := beginBlob(ctx, op, tgt, d.Digest); err != nil {
		return err
	}
	if err := begin(ctx, op, src, ""); err != nil {
		return err
	}
	if src.Scheme != tgt.Scheme {
		return fail(op, tgt, d.Digest, fmt.Errorf("%w: %s is of another scheme", errs.ErrUnsupported, src))
	}
	if _, ok := m.have(tgt, d.Digest, []ref.Ref{src}); !ok {
		return fail(op, src, d.Digest, errs.ErrBlobUnknown)
	}
	return nil
}

// BlobList implements scheme.BlobLister.
func (m *Mem) BlobList(ctx context.Context, r ref.Ref, fn func(blob.Info) error) error {
	const op = "blob list"
	r = r.Place()
	if err := begin(ctx, op, r, ""); err != nil {
		return err
	}
	all, ok := m.infos(r)
	if !ok {
		return fail(op, r, "", errs.ErrNameUnknown)
	}
	for _, info := range all {
		if err := ctx.Err(); err != nil {
			return fail(op, r, "", err)
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// infos returns everything that r's repository holds, each digest once.
func (m *Mem) infos(r ref.Ref) ([]blob.Info, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	p := m.find(r)
	if p == nil {
		return nil, false
	}
	return p.infos(), true
}

// infos describes all blobs and manifests, each digest once. The caller holds mu.
func (p *repo) infos() (all []blob.Info) {
	for d := range p.blobs {
		info, _ := p.info(d)
		all = append(all, info)
	}
	for d := range p.manifests {
		if _, twice := p.blobs[d]; !twice {
			info, _ := p.info(d)
			all = append(all, info)
		}
	}
	return all
}

// load returns a blob's bytes, which must not be written to.
func (m *Mem) load(ctx context.Context, op string, r ref.Ref, d digest.Digest) ([]byte, error) {
	r = r.Place()
	if err := beginBlob(ctx, op, r, d); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	p := m.find(r)
	if p == nil {
		return nil, fail(op, r, d, errs.ErrNameUnknown)
	}
	if _, ok := p.blobs[d]; !ok {
		return nil, fail(op, r, d, errs.ErrBlobUnknown)
	}
	m.lease(r, d)
	return m.blobs[d].data, nil
}

// have makes r's repository have blob d without reading it, if it has it or one of from does.
func (m *Mem) have(r ref.Ref, d digest.Digest, from []ref.Ref) (size int64, ok bool) {
	if d == "" {
		return 0, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, src := range append([]ref.Ref{r}, from...) {
		if p := m.find(src); p != nil && src.Scheme == r.Scheme {
			if info, ok := p.blobs[d]; ok {
				m.link(r, d)
				return info.Size, true
			}
		}
	}
	return 0, false
}

// store puts data, whose bytes are reserved, into r's repository.
func (m *Mem) store(r ref.Ref, d digest.Digest, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keep(r, d, data)
}

// keep is store for a caller that holds mu for writing.
func (m *Mem) keep(r ref.Ref, d digest.Digest, data []byte) {
	if _, twice := m.blobs[d]; twice {
		m.used -= int64(len(data))
	} else {
		m.blobs[d] = &content{data: data}
	}
	m.link(r, d)
}

// link adds the content d, which is there, to r's repository. The caller holds mu for writing.
func (m *Mem) link(r ref.Ref, d digest.Digest) {
	p := m.make(r)
	m.lease(r, d)
	if _, ok := p.blobs[d]; ok {
		return
	}
	now := time.Now()
	p.blobs[d] = blob.Info{Digest: d, Size: int64(len(m.blobs[d].data)), Created: now, Updated: now}
	m.blobs[d].repos++
}

// read takes rdr up to io.EOF and checks it against d. The bytes it returns are reserved; after an error none are.
func (m *Mem) read(ctx context.Context, d types.Descriptor, rdr io.Reader) (data []byte, got digest.Digest, err error) {
	alg := digest.SHA256
	if d.Digest != "" {
		alg = d.Digest.Algorithm()
	}
	h := alg.Hash()
	var buf bytes.Buffer
	defer func() {
		if err != nil {
			m.release(int64(buf.Len()))
		}
	}()
	part := make([]byte, chunk)
	for eof, idle := false, 0; !eof; {
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		n, err := rdr.Read(part)
		if eof = err == io.EOF; err != nil && !eof {
			return nil, "", cause(ctx, err)
		}
		if idle++; n > 0 {
			idle = 0
		}
		if idle > 100 {
			return nil, "", io.ErrNoProgress
		}
		if types.SizeKnown(d) && int64(buf.Len()+n) > d.Size {
			return nil, "", fmt.Errorf("%w: more than %d bytes", errs.ErrSizeMismatch, d.Size)
		}
		if err := m.reserve(int64(n)); err != nil {
			return nil, "", err
		}
		h.Write(part[:n])
		buf.Write(part[:n])
	}
	if types.SizeKnown(d) && int64(buf.Len()) != d.Size {
		return nil, "", fmt.Errorf("%w: %d bytes, not %d", errs.ErrSizeMismatch, buf.Len(), d.Size)
	}
	got = digest.NewDigest(alg, h)
	if d.Digest != "" && got != d.Digest {
		return nil, "", fmt.Errorf("%w: it is %s", errs.ErrDigestMismatch, got)
	}
	return bytes.Clone(buf.Bytes()), got, nil // the clone has no spare room
}

// cause prefers the context's end to what it did to a reader.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

// describe is what a method returns about a blob of that size that was asked for with d.
func describe(d types.Descriptor, size int64) types.Descriptor {
	if d.MediaType == "" {
		d.MediaType = types.MediaTypeOctetStream
	}
	return types.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: size}
}

// stream reads bytes until its context ends.
type stream struct {
	ctx context.Context // of the BlobGet: it stays in force for the stream
	*bytes.Reader
}

func (s *stream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}

func (s *stream) Close() error { return nil }

// readerAt is random access to bytes.
type readerAt struct{ r *bytes.Reader }

func (a readerAt) ReadAt(p []byte, off int64) (int, error) { return a.r.ReadAt(p, off) }
func (a readerAt) Size() int64                             { return a.r.Size() }
func (a readerAt) Close() error                            { return nil }
