package ocidir

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var errBroken = errors.New("the source broke")

// breaks is a source of data that breaks after stop bytes.
func breaks(data []byte, stop int64) *slowSource {
	return &slowSource{data: data, stop: stop, then: func() error { return errBroken }}
}

// interrupted makes a layout in which a put of the blob stopped after stop bytes.
func interrupted(t *testing.T, data []byte, stop int64, opts ...Option) (*OCIDir, ref.Ref, types.Descriptor) {
	t.Helper()
	o, r := open(t, opts...), place(t.TempDir())
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	if _, err := o.BlobPut(t.Context(), r, d, breaks(data, stop), deferred); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	return o, r, d
}

// stored expects the blob, and nothing else in ingest.
func stored(t *testing.T, r ref.Ref, d types.Descriptor) {
	t.Helper()
	ra, err := open(t).BlobOpen(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	ra.Close()
	if left := leftovers(t, r.Root); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

func TestPutThatBrokeGoesOn(t *testing.T) {
	data := bigBlob("breaks")
	for _, again := range []string{"the same process", "another value", "after a restart of the system"} {
		o, r, d := interrupted(t, data, 5<<20)
		switch again {
		case "another value":
			o = open(t)
		case "after a restart of the system":
			o = open(t, withClock(clock{wall: systemClock.wall, boot: func() (string, time.Duration) { return "later", 0 }}))
		}
		src := breaks(data, 7<<20)
		if _, err := o.BlobPut(t.Context(), r, d, src); !errors.Is(err, errBroken) || src.bytes != 2<<20 {
			t.Errorf("%s broke again: %v, after %d bytes", again, err, src.bytes)
		}
		src = &slowSource{data: data}
		if _, err := o.BlobPut(t.Context(), r, d, src); err != nil || src.bytes != d.Size-7<<20 || !slices.Equal(src.opens, []int64{7 << 20}) {
			t.Errorf("%s: %v, %d bytes from %d", again, err, src.bytes, src.opens)
		}
		stored(t, r, d)
	}
}

func TestPutThatWasCancelledGoesOn(t *testing.T) {
	data := bigBlob("cancelled")
	o, r := open(t), place(t.TempDir())
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	ctx, cancel := context.WithCancel(t.Context())
	src := &slowSource{data: data, stop: 4 << 20, then: func() error { cancel(); return nil }}
	if _, err := o.BlobPut(ctx, r, d, src); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	src = &slowSource{data: data}
	if _, err := o.BlobPut(t.Context(), r, d, src); err != nil || len(src.opens) != 1 || src.opens[0] < 4<<20 {
		t.Errorf("%v, from %d", err, src.opens)
	}
	stored(t, r, d)
}

// What was resumed and is not the blob must not spoil every run that follows.
func TestResumedPutThatIsWrongStartsOverOnce(t *testing.T) {
	data := bigBlob("poisoned")
	wrong := bytes.Clone(data)
	wrong[len(wrong)-1] ^= 1
	for name, c := range map[string]struct {
		spoil func(t *testing.T, path string)
		src   []byte
		want  error
		opens []int64
	}{
		"wrong bytes": {func(t *testing.T, p string) {
			f, err := os.OpenFile(p, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("spoilt"), 1000); err != nil {
				t.Fatal(err)
			}
		}, data, nil, []int64{5 << 20, 0}},
		"too many bytes": {func(t *testing.T, p string) {
			if err := os.Truncate(p, int64(len(data))+5); err != nil {
				t.Fatal(err)
			}
		}, data, nil, []int64(nil)},
		"all bytes, and one is wrong": {func(t *testing.T, p string) {
			if err := os.WriteFile(p, wrong, 0o644); err != nil {
				t.Fatal(err)
			}
		}, data, nil, []int64{0}},
		"all bytes": {func(t *testing.T, p string) {
			if err := os.WriteFile(p, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}, wrong, nil, nil},
		"a source that is wrong": {func(*testing.T, string) {}, wrong, errs.ErrDigestMismatch, []int64{5 << 20, 0}},
		"a source that is short": {func(*testing.T, string) {}, data[:6<<20], errs.ErrSizeMismatch, []int64{5 << 20, 0}},
		"a source that is long":  {func(*testing.T, string) {}, append(bytes.Clone(data), 'x'), errs.ErrSizeMismatch, []int64{5 << 20, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			o, r, d := interrupted(t, data, 5<<20)
			c.spoil(t, ingestFile(r, putKey+string(d.Digest), ingestData))
			src := &slowSource{data: c.src}
			_, err := o.BlobPut(t.Context(), r, d, src)
			if !errors.Is(err, c.want) || (err != nil) != (c.want != nil) || !slices.Equal(src.opens, c.opens) {
				t.Errorf("%v; opened at %d, want %d", err, src.opens, c.opens)
			}
			if c.want == nil {
				stored(t, r, d)
				return
			}
			if left := leftovers(t, r.Root); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
			src = &slowSource{data: data}
			if _, err := o.BlobPut(t.Context(), r, d, src); err != nil || len(src.opens) > 0 {
				t.Errorf("the next one: %v, opened at %d", err, src.opens)
			}
			stored(t, r, d)
		})
	}
}

func TestWrongContentLeavesNothingToResume(t *testing.T) {
	data := bigBlob("wrong")
	o, r := open(t), place(t.TempDir())
	d := types.Descriptor{Digest: digest.FromString("another"), Size: int64(len(data))}
	verifying, err := blob.NewReader(io.NopCloser(bytes.NewReader(data)), d)
	if err != nil {
		t.Fatal(err)
	}
	for what, src := range map[string]blob.Source{"bytes": &slowSource{data: data}, "a stream that verifies itself": blob.NewSource(verifying, nil)} {
		if _, err := o.BlobPut(t.Context(), r, d, src); !errors.Is(err, errs.ErrDigestMismatch) {
			t.Errorf("%s: %v", what, err)
		}
		if left := leftovers(t, r.Root); len(left) > 0 {
			t.Errorf("%s: %q are left", what, left)
		}
	}
}

// Who comes second waits for nobody: the first may hang.
func TestSecondPutOfABlobHasAFileOfItsOwn(t *testing.T) {
	data := bigBlob("twice")
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	for _, who := range []string{"the same value", "another value"} {
		o, r := open(t), place(t.TempDir())
		started, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		first := &slowSource{data: data, stop: 1 << 20}
		first.then = func() error {
			once.Do(func() { close(started); <-goOn; first.stop = d.Size; first.then = nil })
			return nil
		}
		done := make(chan error, 1)
		go func() {
			_, err := o.BlobPut(t.Context(), r, d, first)
			done <- err
		}()
		<-started
		second := o
		if who == "another value" {
			second = open(t)
		}
		if _, err := second.BlobPut(t.Context(), r, d, &slowSource{data: data}); err != nil {
			t.Errorf("%s: %v", who, err)
		}
		name := filepath.Join(r.Root, blobsDir, "sha256", d.Digest.Encoded())
		before, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		close(goOn)
		if err := <-done; err != nil {
			t.Errorf("%s: the first: %v", who, err)
		}
		if after, err := os.Stat(name); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: the blob was replaced: %v", who, err)
		}
		stored(t, r, d)
	}
}

// Between the look at the blob and the opening of the ingest another one may have put it.
func TestPutThatComesTooLateReadsNothing(t *testing.T) {
	data := bigBlob("late")
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	r, other := place(t.TempDir()), open(t)
	var once sync.Once
	o := open(t, withHook(func(step, name string) error {
		if step == stepCreate && strings.HasSuffix(name, "/"+ingestLock) {
			once.Do(func() { putBlob(t, other, r, data) })
		}
		return nil
	}))
	src := &slowSource{data: data}
	if got, err := o.BlobPut(t.Context(), r, d, src); err != nil || got.Size != d.Size || src.bytes != 0 {
		t.Errorf("%v, %v, %d bytes were read", got, err, src.bytes)
	}
	stored(t, r, d)
}

func TestPutsOnAFullDiskGiveTheSpaceBack(t *testing.T) {
	data := bigBlob("full")
	for _, step := range []string{stepCreate, stepWrite, stepSync} {
		for _, stop := range []int64{0, 5 << 20} {
			s := &steps{}
			o, r, d := interrupted(t, data, stop, withHook(s.hook))
			s.set(func(st, name string) error {
				if st == step && !strings.Contains(name, ingestInfo) {
					return syscall.ENOSPC
				}
				return nil
			})
			_, err := o.BlobPut(t.Context(), r, d, &slowSource{data: data})
			if !errors.Is(err, errs.ErrNoSpace) {
				t.Errorf("full at %s: %v", step, err)
			}
			s.set(nil)
			if names := leftovers(t, r.Root); len(names) > 0 && (step != stepCreate || stop == 0) {
				t.Errorf("full at %s after %d bytes: %q are left", step, stop, names)
			}
			if _, err := o.BlobPut(t.Context(), r, d, &slowSource{data: data}); err != nil {
				t.Errorf("after there was room again: %v", err)
			}
			stored(t, r, d)
		}
	}
}

func TestSmallPutsAndStreamsAreNoIngests(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	small, big := bigBlob("small")[:resumable-1], bigBlob("big")
	for what, c := range map[string]struct {
		d   types.Descriptor
		rdr io.Reader
	}{
		"small":        {types.Descriptor{Digest: digest.FromBytes(small), Size: int64(len(small))}, &slowSource{data: small}},
		"a stream":     {types.Descriptor{Digest: digest.FromBytes(big), Size: int64(len(big))}, bytes.NewReader(big)},
		"of no digest": {types.Descriptor{Size: int64(len(big))}, &slowSource{data: bigBlob("big")}},
		"of no size":   {types.Descriptor{Digest: digest.FromBytes(big)}, &slowSource{data: big}},
	} {
		s.set(nil)
		if _, err := o.BlobPut(t.Context(), r, c.d, c.rdr); err != nil {
			t.Fatal(err)
		}
		for _, step := range s.seen {
			if strings.Contains(step, "/"+ingestData) {
				t.Errorf("%s: %s", what, step)
			}
		}
	}
}

// BenchmarkIngest writes 64 MiB durably, in pieces of 256 KiB: as an ingest, and as puts.
func BenchmarkIngest(b *testing.B) {
	const size = 64 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: size}
	for name, do := range map[string]func(o *OCIDir, r ref.Ref) error{
		"ingest": func(o *OCIDir, r ref.Ref) error {
			u, err := o.Ingest(b.Context(), r, "key")
			if err != nil {
				return err
			}
			for part := range slices.Chunk(data, copySize) {
				if _, err := u.Write(part); err != nil {
					return err
				}
			}
			_, err = u.Commit(b.Context(), d, nil)
			return err
		},
		"put stream": func(o *OCIDir, r ref.Ref) error {
			_, err := o.BlobPut(b.Context(), r, d, bytes.NewReader(data))
			return err
		},
		"put source": func(o *OCIDir, r ref.Ref) error {
			_, err := o.BlobPut(b.Context(), r, d, blob.SourceOf(bytes.NewReader(data), size))
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			o, r := open(b), place(b.TempDir())
			b.SetBytes(size)
			for b.Loop() {
				if err := do(o, r); err != nil {
					b.Fatal(err)
				}
				if err := o.BlobDelete(b.Context(), r, d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkIngestReopen opens an ingest of 64 MiB that was left, with and without a stored hash that fits.
func BenchmarkIngestReopen(b *testing.B) {
	for name, level := range map[string]Durability{"stored hash": Full, "hashed again": None} {
		b.Run(name, func(b *testing.B) {
			o, r := open(b, WithDurability(level)), place(b.TempDir())
			leave(b, o, r, "key", make([]byte, 64<<20))
			for b.Loop() {
				u, err := o.Ingest(b.Context(), r, "key")
				if err != nil {
					b.Fatal(err)
				}
				if err := u.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
