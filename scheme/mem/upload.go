package mem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// upload is an ingest that is open: it implements scheme.Upload, Truncater and Rereader. While it is open the ingest's by
// is this upload, and nobody else's; once it is closed it never touches the ingest again, which may be another's then.
type upload struct {
	ctx   context.Context // of Ingest: it stays in force for Write
	m     *Mem
	r     ref.Ref
	key   string
	in    *ingest
	since time.Time
	alg   digest.Algorithm
	hash  hash.Hash // of all that was written
	loose bool      // more than was announced may be written

	closed bool // guarded by Mem.mu
}

var (
	_ scheme.Upload    = (*upload)(nil)
	_ scheme.Truncater = (*upload)(nil)
	_ scheme.Rereader  = (*upload)(nil)
)

// rehash hashes what is there from the beginning.
func (u *upload) rehash() {
	switch d := u.in.info.Expected.Digest; {
	case d != "":
		u.alg = d.Algorithm()
	case u.in.alg != "":
		u.alg = u.in.alg
	default:
		u.alg = digest.SHA256
	}
	u.hash = u.alg.Hash()
	u.hash.Write(u.in.data)
}

// Write implements scheme.Upload.
func (u *upload) Write(p []byte) (int, error) {
	n, err := u.append(p)
	u.hash.Write(p[:n])
	if err != nil {
		err = u.fail("ingest write", err)
	}
	return n, err
}

// append takes as much of p as there is room for.
func (u *upload) append(p []byte) (n int, err error) {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	if u.closed {
		return 0, fs.ErrClosed
	}
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	if want := u.in.info.Expected; !u.loose && types.SizeKnown(want) && int64(len(u.in.data)+len(p)) > want.Size {
		return 0, fmt.Errorf("%w: more than %d bytes", errs.ErrSizeMismatch, want.Size)
	}
	if room := u.m.limit - u.m.used; u.m.limit > 0 && int64(len(p)) > room {
		p, err = p[:room], fmt.Errorf("%w: the limit is %d bytes", errs.ErrNoSpace, u.m.limit)
	}
	u.m.used += int64(len(p))
	u.in.data = append(u.in.data, p...)
	u.in.info.Updated = time.Now()
	return len(p), err
}

// ReadAt implements scheme.Rereader.
func (u *upload) ReadAt(p []byte, off int64) (int, error) {
	u.m.mu.RLock()
	defer u.m.mu.RUnlock()
	if u.closed {
		return 0, u.fail("ingest read", fs.ErrClosed)
	}
	return bytes.NewReader(u.in.data).ReadAt(p, off)
}

// Truncate implements scheme.Truncater.
func (u *upload) Truncate(ctx context.Context, size int64) error {
	if err := u.cut(ctx, size); err != nil {
		return u.fail("ingest truncate", err)
	}
	u.rehash()
	return nil
}

func (u *upload) cut(ctx context.Context, size int64) error {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	if u.closed {
		return fs.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	have := int64(len(u.in.data))
	if size < 0 || size > have {
		return fmt.Errorf("%w: %d of %d bytes", errs.ErrRangeInvalid, size, have)
	}
	u.m.used -= have - size
	u.in.data = u.in.data[:size]
	u.in.info.Updated = time.Now()
	return nil
}

// Close implements scheme.Upload.
func (u *upload) Close() error {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	if !u.closed {
		u.closed, u.in.by = true, nil
	}
	return nil
}

// Status implements scheme.Upload.
func (u *upload) Status() blob.Ingest {
	u.m.mu.RLock()
	defer u.m.mu.RUnlock()
	return u.in.status()
}

// Digest implements scheme.Upload.
func (u *upload) Digest() digest.Digest { return digest.NewDigest(u.alg, u.hash) }

// Token implements scheme.Upload: place and key suffice.
func (u *upload) Token() string { return "" }

// Abort implements scheme.Upload. It waits for nothing, so that it works when ctx has ended.
func (u *upload) Abort(context.Context) error {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	if u.closed {
		return u.fail("ingest abort", fs.ErrClosed)
	}
	u.closed, u.in.by = true, nil
	u.m.drop(u.r, u.in)
	return nil
}

// Commit implements scheme.Upload. The ingest is this upload's until it is settled: checking takes no lock.
func (u *upload) Commit(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error) {
	if !u.end() {
		return types.Descriptor{}, u.fail("ingest commit", fs.ErrClosed)
	}
	all := maps.Clone(u.in.info.Labels)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, labels)
	got, err := u.check(ctx, want)
	if err == nil {
		err = scheme.ValidLabels(all)
	}
	data := u.in.data
	if err == nil {
		data = bytes.Clone(data) // without spare room
	}

	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	u.in.by = nil
	if err == nil {
		err = u.settle(got, data, all)
	}
	want.Digest = got
	switch {
	case errors.Is(err, errs.ErrExists):
		return describe(want, int64(len(data))), u.fail("ingest commit", err)
	case err != nil:
		return types.Descriptor{}, u.fail("ingest commit", err)
	}
	return describe(want, int64(len(data))), nil
}

// end closes u for its caller, who alone has the ingest until by is taken away. It reports whether u was open.
func (u *upload) end() bool {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	open := !u.closed
	u.closed = true
	return open
}

// check compares what was written with want and returns its digest.
func (u *upload) check(ctx context.Context, want types.Descriptor) (digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if types.SizeKnown(want) && want.Size != int64(len(u.in.data)) {
		return "", fmt.Errorf("%w: %d bytes, not %d", errs.ErrSizeMismatch, len(u.in.data), want.Size)
	}
	if want.Digest == "" {
		return u.Digest(), nil
	}
	if err := types.ValidDigest(want.Digest); err != nil {
		return "", err
	}
	if got := want.Digest.Algorithm().FromBytes(u.in.data); got != want.Digest {
		return "", fmt.Errorf("%w: it is %s", errs.ErrDigestMismatch, got)
	}
	return want.Digest, nil
}

// settle makes data, which was checked, the blob d and removes the ingest. The caller holds mu for writing.
func (u *upload) settle(d digest.Digest, data []byte, labels map[string]string) error {
	if p := u.m.find(u.r); p != nil {
		if _, ok := p.blobs[d]; ok {
			u.m.drop(u.r, u.in)
			return errs.ErrExists
		}
	}
	u.m.forget(u.r, u.in)
	u.m.keep(u.r, d, data)
	p := u.m.find(u.r)
	info := p.blobs[d]
	info.Labels = labels
	p.blobs[d] = info
	return nil
}

func (u *upload) fail(op string, err error) error {
	return fail(op, u.r, "", fmt.Errorf("%w (ingest %.80q)", err, u.key))
}
