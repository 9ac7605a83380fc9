package ocidir

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
)

var errSource, errSink = errors.New("the source failed"), errors.New("the writer failed")

// limited takes n bytes and fails then.
type limited struct {
	bytes.Buffer
	n int
}

func (w *limited) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errSink
	}
	return w.Buffer.Write(p)
}

func TestPour(t *testing.T) {
	all := schemetest.Blob("poured", 3*pourFrom+5)
	for _, size := range []int{0, 1, copySize, pourFrom - 1, pourFrom, pourFrom + 1, 2*pourFrom + 3, len(all)} {
		data := all[:size]
		for name, r := range map[string]io.Reader{
			"at once": bytes.NewReader(data), "halves": iotest.HalfReader(bytes.NewReader(data)), "data with EOF": iotest.DataErrReader(bytes.NewReader(data)),
		} {
			var a, b bytes.Buffer
			n, err := pour(t.Context(), r, int64(size), &a, &b)
			if n != int64(size) || err != nil || !bytes.Equal(a.Bytes(), data) || !bytes.Equal(b.Bytes(), data) {
				t.Errorf("%d bytes, %s: got %d, %v; the writers have %d and %d", size, name, n, err, a.Len(), b.Len())
			}
		}
		var a, b bytes.Buffer
		r := io.MultiReader(bytes.NewReader(data), iotest.ErrReader(errSource))
		if n, err := pour(t.Context(), r, -1, &a, &b); n != int64(size) || !errors.Is(err, errSource) || !bytes.Equal(a.Bytes(), data) || !bytes.Equal(b.Bytes(), data) {
			t.Errorf("%d bytes of a source that fails: got %d, %v; the writers have %d and %d", size, n, err, a.Len(), b.Len())
		}
		if size == 0 {
			continue
		}
		for _, w := range []io.Writer{&limited{n: size - 1}, &limited{n: size / 2}} {
			if _, err := pour(t.Context(), bytes.NewReader(data), -1, io.Discard, w); !errors.Is(err, errSink) {
				t.Errorf("%d bytes into a writer that fails: got %v", size, err)
			}
		}
		a.Reset()
		if _, err := pour(t.Context(), bytes.NewReader(data), int64(size)-1, &a); !errors.Is(err, errs.ErrSizeMismatch) || a.Len() >= size {
			t.Errorf("%d bytes, of which one is too much: got %v and wrote %d", size, err, a.Len())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var a bytes.Buffer
	r := io.MultiReader(bytes.NewReader(all), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }), bytes.NewReader(all))
	if n, err := pour(ctx, r, -1, &a); !errors.Is(err, context.Canceled) || n != int64(len(all)) || a.Len() != len(all) {
		t.Errorf("cancelled: got %d, %v; the writer has %d", n, err, a.Len())
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
