package containerd

import (
	"context"
	"fmt"
	"io/fs"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// writer is an ingest that is open, as containerd's Writer and Syncer. An Upload is for one goroutine at a time; here
// Abort of the Store may come from another one, so a lock stands before it.
type writer struct {
	s      *Store
	ref    string
	cancel context.CancelFunc // ends a Write that waits

	mu     sync.Mutex
	up     scheme.Upload // nil once it is closed
	last   blob.Ingest   // what it was when it was closed
	digest digest.Digest // of what was written, and of what was committed
	why    error         // what every method answers once it is closed
}

var (
	_ content.Writer = (*writer)(nil)
	_ content.Syncer = (*writer)(nil)
)

// Write appends p. Errors: FailedPrecondition on a closed writer.
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.up == nil {
		return 0, w.fail("write", w.why)
	}
	n, err := w.up.Write(p)
	return n, classify(err)
}

// Close keeps what was written for another Writer of the ref. Closing twice is legal.
func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.up == nil {
		return nil
	}
	up := w.end(fs.ErrClosed)
	return classify(up.Close())
}

// end takes the upload away, which the caller then closes, commits or aborts. The caller holds mu. The ref is given
// back before the upload is closed: who opens it meanwhile still finds it locked by the place.
func (w *writer) end(why error) scheme.Upload {
	up := w.up
	w.up, w.why = nil, why
	w.last, w.digest = up.Status(), up.Digest()
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.open[w.ref] == w {
		delete(w.s.open, w.ref)
	}
	return up
}

// Digest is that of everything written so far, and after Commit that of the blob. It may be called at any time.
func (w *writer) Digest() digest.Digest {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.up == nil {
		return w.digest
	}
	return w.up.Digest()
}

// Status describes the ingest; of a closed writer it is what it was then.
func (w *writer) Status() (content.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.up == nil {
		return statusOf(w.last), nil
	}
	return statusOf(w.up.Status()), nil
}

// Truncate takes back what was written beyond size. Errors: OutOfRange for more than there is, FailedPrecondition on a
// closed writer.
func (w *writer) Truncate(size int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.up == nil {
		return w.fail("truncate", w.why)
	}
	t, ok := w.up.(scheme.Truncater)
	if !ok {
		return w.fail("truncate", errs.ErrUnsupported)
	}
	return classify(t.Truncate(context.Background(), size))
}

// Commit makes a blob of what was written; size and expected are checked unless they are zero. The writer is closed
// afterwards in any case. When the content is not what was expected, or the labels are above the limit, the ingest is
// kept and can be opened again.
//
// Errors: FailedPrecondition for a wrong size or digest, and on a closed writer; AlreadyExists, which removes the
// ingest; InvalidArgument for what is no digest, and for labels above 4096 bytes.
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.up == nil {
		return w.fail("commit", w.why)
	}
	var base content.Info
	err := applyAll(&base, opts)
	if err == nil {
		err = validLabels(base.Labels)
	}
	if err == nil && expected != "" {
		err = w.s.valid("content commit", expected)
	}
	up := w.end(fs.ErrClosed)
	defer w.cancel()
	if err != nil {
		if cerr := up.Close(); cerr != nil {
			err = fmt.Errorf("%w; closing it: %w", err, cerr)
		}
		return w.fail("commit", err)
	}
	got, err := up.Commit(ctx, types.Descriptor{Digest: expected, Size: max(size, 0)}, base.Labels)
	if got.Digest != "" {
		w.digest, w.last.Offset = got.Digest, got.Size
	}
	return classify(err)
}

// Sync returns when what was written survives a power loss, as far as the place can tell before a commit. Commit sees to
// that by itself; Sync is for who wants the wait to be over before, as containerd's metadata store does ahead of its
// transaction. Errors: FailedPrecondition on a closed writer.
func (w *writer) Sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.up == nil {
		return w.fail("sync", w.why)
	}
	f, ok := w.up.(scheme.Flusher)
	if !ok {
		return nil // nothing reaches a disk before Commit
	}
	return classify(f.Flush(context.Background()))
}

func applyAll(info *content.Info, opts []content.Opt) error {
	for _, opt := range opts {
		if err := opt(info); err != nil {
			return err
		}
	}
	return nil
}

// abort removes the ingest if the writer is still open, and reports whether it was.
func (w *writer) abort(ctx context.Context) (bool, error) {
	w.cancel() // a Write that waits holds the lock
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.up == nil {
		return false, nil
	}
	up := w.end(fmt.Errorf("%w: the ingest was aborted", fs.ErrClosed))
	return true, up.Abort(ctx)
}

// fail wraps err with its circumstances and gives it its class.
func (w *writer) fail(op string, err error) error {
	return classify(&errs.Error{Op: "content " + op, Ref: w.s.r.String(), Message: fmt.Sprintf("ingest %q", w.ref), Err: err})
}
