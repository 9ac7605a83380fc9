package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

const text = "some bytes that are a blob"

func reader(t *testing.T, content io.Reader, d types.Descriptor) *blob.VerifyReader {
	t.Helper()
	r, err := blob.NewReader(io.NopCloser(content), d)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAWrongByteComesInPlaceOfEOF(t *testing.T) {
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		good := types.Descriptor{Digest: alg.FromString(text), Size: int64(len(text))}
		unsized := types.Descriptor{Digest: good.Digest}
		for _, c := range []struct {
			name    string
			content string
			desc    types.Descriptor
			want    error
		}{
			{"right", text, good, nil},
			{"right, size unknown", text, unsized, nil},
			{"empty", "", types.Descriptor{Digest: alg.FromString("")}, nil},
			{"flipped", "S" + text[1:], good, errs.ErrDigestMismatch},
			{"short", text[1:], good, errs.ErrSizeMismatch},
			{"long", text + "x", good, errs.ErrSizeMismatch},
			{"short, size unknown", text[1:], unsized, errs.ErrDigestMismatch},
			{"not empty", "x", types.Descriptor{Digest: alg.FromString("")}, errs.ErrSizeMismatch},
		} {
			for _, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.DataErrReader, iotest.HalfReader} {
				r := reader(t, wrap(strings.NewReader(c.content)), c.desc)
				_, err := io.ReadAll(r)
				if !errors.Is(err, c.want) || (c.want != nil && errors.Is(err, io.EOF)) {
					t.Errorf("%s, %s: %v", alg, c.name, err)
				}
				if _, again := r.Read(make([]byte, 1)); c.want != nil && again != err {
					t.Errorf("%s, %s: the error is not sticky: %v", alg, c.name, again)
				}
			}
		}
	}
}

func TestTheStreamsOwnErrorIsKept(t *testing.T) {
	boom := errors.New("boom")
	r := reader(t, io.MultiReader(strings.NewReader("some"), iotest.ErrReader(boom)), types.Descriptor{Digest: digest.FromString(text)})
	if _, err := io.ReadAll(r); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}

func TestCloseEndsReading(t *testing.T) {
	r := reader(t, strings.NewReader(text), types.Descriptor{Digest: digest.FromString(text)})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read after close: %v", err)
	}
	if _, err := blob.NewReader(nil, types.Descriptor{Digest: "sha256:x"}); !errors.Is(err, errs.ErrDigestInvalid) {
		t.Errorf("a digest that cannot be verified: %v", err)
	}
}

func TestVerifiesIsOnlyTrueForTheWholeStream(t *testing.T) {
	d := types.Descriptor{Digest: digest.FromString(text)}
	r := reader(t, strings.NewReader(text), d)
	seen := 0
	r.Observe(func(n int) { seen += n })
	if !blob.Verifies(r, d) || !blob.Verifies(blob.NewSource(r, nil), d) {
		t.Error("a fresh verified stream is not taken as one")
	}
	if blob.Verifies(r, types.Descriptor{Digest: digest.FromString("other")}) || blob.Verifies(strings.NewReader(text), d) || blob.Verifies(r, types.Descriptor{}) {
		t.Error("a stream is taken as proof of something else")
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if blob.Verifies(r, d) {
		t.Error("a stream that was read from does not yield the whole blob any more")
	}
	if _, err := io.Copy(io.Discard, r); err != nil || seen != len(text) {
		t.Errorf("observed %d bytes, %v", seen, err)
	}
}

func TestSourceOf(t *testing.T) {
	s := blob.SourceOf(strings.NewReader(text), int64(len(text)))
	if got, err := io.ReadAll(s); err != nil || string(got) != text {
		t.Fatalf("%q %v", got, err)
	}
	for _, off := range []int64{0, 5, int64(len(text))} {
		rc, err := s.OpenAt(context.Background(), off)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, []byte(text[off:])) {
			t.Errorf("from %d: %q %v", off, got, err)
		}
	}
	for _, off := range []int64{-1, int64(len(text)) + 1} {
		if _, err := s.OpenAt(context.Background(), off); err == nil {
			t.Errorf("offset %d was accepted", off)
		}
	}
}

func TestLazySourceIsOpenedWhenItIsRead(t *testing.T) {
	d := types.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	opened := 0
	lazy := func(content string, err error) blob.Source {
		return blob.NewLazySource(d, func() (io.Reader, error) {
			opened++
			return strings.NewReader(content), err
		}, func(context.Context, int64) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("rest")), nil
		})
	}
	s := lazy(text, nil)
	if !blob.Verifies(s, d) || blob.Verifies(s, types.Descriptor{Digest: digest.FromString("other")}) || blob.Verifies(s, types.Descriptor{}) {
		t.Error("it is no proof of its content, or one of something else")
	}
	if rc, err := s.OpenAt(context.Background(), 1); err != nil || opened != 0 {
		t.Errorf("opened %d times, %v", opened, err)
	} else {
		rc.Close()
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != text || opened != 1 || blob.Verifies(s, d) {
		t.Errorf("%q, %v, opened %d times", got, err, opened)
	}
	if _, err := io.ReadAll(lazy("S"+text[1:], nil)); !errors.Is(err, errs.ErrDigestMismatch) {
		t.Errorf("wrong content: %v", err)
	}
	boom := errors.New("boom")
	s = lazy(text, boom)
	for range 2 {
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, boom) {
			t.Error(err)
		}
	}
	if opened != 3 || blob.Verifies(s, d) {
		t.Errorf("opened %d times", opened)
	}
}
