package containerd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types/ref"
)

var memRef = ref.Ref{Scheme: mem.Scheme, Root: "x", Repo: "repo"}

// distant is a place whose writes wait for a network that does not answer, and that counts what is made durable.
type distant struct {
	*mem.Mem
	waiting chan struct{} // a write waits
	mu      sync.Mutex
	flushed []int64 // how much was there at each Flush
	fails   error   // what Flush answers
}

func (d *distant) Ingest(ctx context.Context, r ref.Ref, key string, opts ...scheme.IngestOption) (scheme.Upload, error) {
	up, err := d.Mem.Ingest(ctx, r, key, opts...)
	if err != nil {
		return nil, err
	}
	return &distantUpload{Upload: up, ctx: ctx, d: d}, nil
}

type distantUpload struct {
	scheme.Upload
	ctx context.Context
	d   *distant
}

func (u *distantUpload) Write(p []byte) (int, error) {
	if string(p) != "wait" {
		return u.Upload.Write(p)
	}
	close(u.d.waiting)
	<-u.ctx.Done()
	return 0, u.ctx.Err()
}

func (u *distantUpload) Flush(context.Context) error {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	u.d.flushed = append(u.d.flushed, u.Status().Offset)
	return u.d.fails
}

func TestAbortEndsAWriteThatWaits(t *testing.T) {
	d := &distant{Mem: mem.New(), waiting: make(chan struct{})}
	s := New(d, memRef)
	w, err := s.Writer(t.Context(), content.WithRef("key"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := w.Write([]byte("wait"))
		done <- err
	}()
	<-d.waiting
	if err := s.Abort(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the write: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestSyncFlushesWhatWasWritten(t *testing.T) {
	d := &distant{Mem: mem.New()}
	w, err := New(d, memRef).Writer(t.Context(), content.WithRef("key"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.Write([]byte("content")); err != nil {
			t.Fatal(err)
		}
		if err := w.(content.Syncer).Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(d.flushed); got != "[7 14]" {
		t.Errorf("flushed at %s", got)
	}
	d.fails = errors.New("boom")
	if err := w.(content.Syncer).Sync(); !errors.Is(err, d.fails) {
		t.Errorf("a failing sync: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnUploadThatCannotBeCutIsNotImplemented(t *testing.T) {
	w, err := New(&distant{Mem: mem.New()}, memRef).Writer(t.Context(), content.WithRef("key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Truncate(0); !errdefs.IsNotImplemented(err) {
		t.Errorf("truncate: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestAStoreForgetsWritersThatAreOver(t *testing.T) {
	s := New(mem.New(), memRef)
	for i, end := range []func(content.Writer) error{
		content.Writer.Close,
		func(w content.Writer) error { return w.Commit(t.Context(), 0, "") },
		func(w content.Writer) error {
			if err := w.Commit(t.Context(), 99, ""); !errdefs.IsFailedPrecondition(err) {
				return fmt.Errorf("a wrong size: %w", err)
			}
			return nil
		},
		func(content.Writer) error { return s.Abort(t.Context(), "key") },
	} {
		desc := ocispec.Descriptor{Size: -1} // which some take for an unknown one
		w, err := s.Writer(t.Context(), content.WithRef("key"), content.WithDescriptor(desc))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(strings.Repeat("x", i))); err != nil {
			t.Fatal(err)
		}
		if len(s.open) != 1 {
			t.Errorf("%d: %d writers are open", i, len(s.open))
		}
		if st, err := w.Status(); err != nil || st.Total != 0 || w.Digest().Algorithm() != digest.SHA256 {
			t.Errorf("%d: %+v, %v", i, st, err)
		}
		if err := end(w); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		if len(s.open) != 0 {
			t.Errorf("%d: it is still remembered", i)
		}
	}
}
