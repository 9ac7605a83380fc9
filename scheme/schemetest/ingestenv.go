package schemetest

import (
	"fmt"
	"io/fs"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// withLabels is the option, unless there are none.
func withLabels(labels map[string]string) []scheme.IngestOption {
	if labels == nil {
		return nil
	}
	return []scheme.IngestOption{scheme.WithIngestLabels(labels)}
}

// ingest is Ingest. What a case leaves open is closed with it.
func (e *env) ingest(r ref.Ref, key string, opts ...scheme.IngestOption) scheme.Upload {
	e.t.Helper()
	u, err := find[scheme.Ingester](e, r).Ingest(e.ctx, r, key, opts...)
	e.must(fmt.Sprintf("Ingest %.80q", key), err)
	e.t.Cleanup(func() { u.Close() })
	return u
}

// write writes all of data.
func (e *env) write(u scheme.Upload, data []byte) {
	e.t.Helper()
	n, err := u.Write(data)
	e.must("Write", err)
	e.same("Write", n, len(data))
}

// left opens the ingest, says what it is and closes it again.
func (e *env) left(r ref.Ref, key string) blob.Ingest {
	e.t.Helper()
	u := e.ingest(r, key)
	in := u.Status()
	e.must("Close", u.Close())
	return in
}

// finish commits an ingest in which data was written and left, and expects the blob.
func (e *env) finish(r ref.Ref, key string, data []byte, labels map[string]string) {
	e.t.Helper()
	u := e.ingest(r, key)
	e.same("Offset of what was left", u.Status().Offset, int64(len(data)))
	e.same("Digest of what was left", u.Digest(), digest.FromBytes(data))
	_, err := u.Commit(e.ctx, describe("", data), labels)
	e.must("Commit of what was left", err)
	e.holds(r, digest.FromBytes(data), data)
	e.gone(r, key)
}

// gone expects that there is no such ingest, if the place can tell, and that nobody has the key.
func (e *env) gone(r ref.Ref, key string) {
	e.t.Helper()
	var manager scheme.IngestManager
	if scheme.As(e.api, r, &manager) {
		_, err := manager.IngestStat(e.ctx, r, key)
		e.refused("IngestStat of what is gone", err, errs.ErrUploadUnknown)
		err = manager.IngestList(e.ctx, r, func(in blob.Ingest) error {
			if in.Key == key {
				e.errorf("IngestList names %q, which is gone", key)
			}
			return nil
		})
		e.must("IngestList", err)
	}
	u := e.ingest(r, key)
	e.same("Offset of a new ingest", u.Status().Offset, int64(0))
	e.must("Abort", u.Abort(e.ctx))
}

// another goes on with another API over the same storage, where there is one.
func (e *env) another() {
	e.t.Helper()
	if e.h.Reopen != nil {
		e.api = e.h.Reopen(e.t, e.api, e.r)
	}
}

// twice returns e, and e with another API over the same storage if there is one.
func (e *env) twice() map[string]*env {
	e.t.Helper()
	other := *e
	other.another()
	if e.h.Reopen == nil {
		return map[string]*env{"the same API": e}
	}
	return map[string]*env{"the same API": e, "another API": &other}
}

// closed expects that nothing can be done with u any more.
func (e *env) closed(u scheme.Upload) {
	e.t.Helper()
	n, err := u.Write([]byte("x"))
	e.is("Write after the end", err, fs.ErrClosed)
	e.same("bytes written after the end", n, 0)
	_, err = u.Commit(e.ctx, types.Descriptor{}, nil)
	e.is("Commit after the end", err, fs.ErrClosed)
	e.is("Abort after the end", u.Abort(e.ctx), fs.ErrClosed)
	e.must("Close after the end", u.Close())
	if t, ok := u.(scheme.Truncater); ok {
		e.is("Truncate after the end", t.Truncate(e.ctx, 0), fs.ErrClosed)
	}
}

// sameIngest expects two descriptions of one ingest to agree, but for the time of the last write.
func (e *env) sameIngest(what string, got, want blob.Ingest) {
	e.t.Helper()
	got.Updated = want.Updated
	if len(got.Labels) == 0 && len(want.Labels) == 0 {
		got.Labels = want.Labels
	}
	if d := cmp.Diff(want, got); d != "" {
		e.errorf("%s: unexpected (-want +got):\n%s", what, d)
	}
}
