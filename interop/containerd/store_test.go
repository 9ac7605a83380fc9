package containerd_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/interop/containerd"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func TestWalkVisitsEveryBlobInTheOrderOfDigests(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		if got := walked(t, f); len(got) != 0 {
			t.Errorf("a store that never held a blob has %v", got)
		}
		var want []digest.Digest
		for _, data := range strings.Fields("some words each of which is a blob of its own") {
			alg := digest.SHA256
			if data > "m" {
				alg = digest.SHA512
			}
			if d := putAs(t, f, alg, data, nil).Digest; !slices.Contains(want, d) {
				want = append(want, d)
			}
		}
		slices.Sort(want)
		if got := walked(t, f); !slices.Equal(got, want) {
			t.Errorf("walked\n%v, want\n%v", got, want)
		}
	})
}

func TestWalkEndsWithTheFunctionsError(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		put(t, f, "a", nil)
		put(t, f, "b", nil)
		for _, want := range []error{errors.New("enough"), errs.ErrNotFound} { // an error of ours has no meaning here
			n := 0
			err := f.Walk(t.Context(), func(content.Info) error { n++; return want })
			if err != want || n != 1 {
				t.Errorf("%v after %d blobs, want %v after one", err, n, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		err := f.Walk(ctx, func(content.Info) error { n++; cancel(); return nil })
		if !errors.Is(err, context.Canceled) || n != 1 {
			t.Errorf("%v after %d blobs, want the context's end after one", err, n)
		}
	})
}

func TestWalksFunctionMayUseTheStore(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		for _, data := range []string{"a", "b", "c"} {
			put(t, f, data, nil)
		}
		n := 0
		err := f.Walk(t.Context(), func(i content.Info) error {
			n++
			put(t, f, "more of "+i.Digest.String(), nil)
			return f.Delete(t.Context(), i.Digest)
		})
		if err != nil || n != 3 {
			t.Errorf("%v after %d blobs, want all three that were there", err, n)
		}
		if got := walked(t, f); len(got) != 3 {
			t.Errorf("then there are %v", got)
		}
	})
}

func TestWalkLeavesOutWhatIsNoBlob(t *testing.T) {
	dir := t.TempDir()
	s, _ := inDir(t, dir)
	want := []digest.Digest{put(t, s, "good", nil).Digest, putAs(t, s, digest.SHA512, "good", nil).Digest}
	for _, name := range []string{
		"blobs/sha256/README", "blobs/sha256/" + strings.Repeat("A", 64), "blobs/sha256/" + strings.Repeat("a", 63),
		"blobs/md5/" + strings.Repeat("a", 32), "blobs/junk", "blobs/sha256/.tmp",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("junk"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "blobs", "sha256", strings.Repeat("b", 64)), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := walked(t, s); !slices.Equal(got, want) {
		t.Errorf("walked %v, want %v", got, want)
	}
}

func TestInfo(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		d := putAs(t, f, digest.SHA512, "content", map[string]string{"k": "v"})
		info, err := f.Info(t.Context(), d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if info.Digest != d.Digest || info.Size != 7 || info.CreatedAt.IsZero() || info.UpdatedAt.IsZero() {
			t.Errorf("%+v", info)
		}
		sameLabels(t, "info", info.Labels, map[string]string{"k": "v"})
		_, err = f.Info(t.Context(), digest.FromString("nothing"))
		is(t, "missing", err, errdefs.IsNotFound)
		for _, d := range []digest.Digest{"", "sha256:x", "sha256:../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
			_, err = f.Info(t.Context(), d)
			is(t, "invalid "+string(d), err, errdefs.IsInvalidArgument)
		}
	})
}

func TestDelete(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		is(t, "in an empty store", f.Delete(t.Context(), digest.FromString("x")), errdefs.IsNotFound)
		a, b := put(t, f, "aaaa", map[string]string{"k": "v"}), put(t, f, "b", nil)
		ra, err := f.ReaderAt(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Delete(t.Context(), a.Digest); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(content.NewReader(ra)); string(got) != "aaaa" || err != nil {
			t.Errorf("what was open reads as %q, %v", got, err)
		}
		if err := ra.Close(); err != nil {
			t.Error(err)
		}
		_, err = f.Info(t.Context(), a.Digest)
		is(t, "info of the deleted", err, errdefs.IsNotFound)
		_, err = f.ReaderAt(t.Context(), a)
		is(t, "reader of the deleted", err, errdefs.IsNotFound)
		is(t, "again", f.Delete(t.Context(), a.Digest), errdefs.IsNotFound)
		is(t, "no digest", f.Delete(t.Context(), "sha256:.."), errdefs.IsInvalidArgument)
		if got := walked(t, f); !slices.Equal(got, []digest.Digest{b.Digest}) {
			t.Errorf("then there are %v", got)
		}
		put(t, f, "aaaa", nil)
		info, err := f.Info(t.Context(), a.Digest)
		if err != nil || len(info.Labels) != 0 {
			t.Errorf("put again it has labels of its former life: %v, %v", info.Labels, err)
		}
	})
}

func TestAManifestsDeletionTakesItsTagsAlong(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		image := schemetest.Image("image")
		if err := image.Push(t.Context(), f.api, f.r.WithTag("1.0")); err != nil {
			t.Fatal(err)
		}
		d := image.Descriptor()
		for _, desc := range []ocispec.Descriptor{d, {Digest: d.Digest}} {
			if got, err := content.ReadBlob(t.Context(), f, desc); string(got) != string(image.Manifest.Raw()) || err != nil {
				t.Errorf("a manifest is no content: %v", err)
			}
		}
		if got := walked(t, f); len(got) != 4 || !slices.Contains(got, d.Digest) {
			t.Errorf("manifest, config and two layers are walked as %v", got)
		}
		if info, err := f.Info(t.Context(), d.Digest); err != nil || info.Size != d.Size {
			t.Errorf("%+v, %v", info, err)
		}
		if err := f.Delete(t.Context(), d.Digest); err != nil {
			t.Fatal(err)
		}
		if list, err := f.api.TagList(t.Context(), f.r); err != nil || len(list.Tags) != 0 {
			t.Errorf("tags %v, %v point to what is deleted", list.Tags, err)
		}
		is(t, "again", f.Delete(t.Context(), d.Digest), errdefs.IsNotFound)
		if got := walked(t, f); len(got) != 3 {
			t.Errorf("then there are %v", got)
		}
	})
}

func TestReaderAtReadsAnywhere(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		data := string(schemetest.Blob("random access", 100_000))
		d := put(t, f, data, nil)
		ra, err := f.ReaderAt(t.Context(), ocispec.Descriptor{Digest: d.Digest, Size: 5}) // only the digest counts
		if err != nil {
			t.Fatal(err)
		}
		defer ra.Close()
		if ra.Size() != d.Size {
			t.Errorf("size %d, want %d", ra.Size(), d.Size)
		}
		if err := iotest.TestReader(io.NewSectionReader(ra, 0, ra.Size()), []byte(data)); err != nil {
			t.Error(err)
		}
		p := make([]byte, 10)
		if n, err := ra.ReadAt(p, 99_995); n != 5 || err != io.EOF || string(p[:5]) != data[99_995:] {
			t.Errorf("at the end: %d bytes, %v", n, err)
		}
		if n, err := ra.ReadAt(p, 100_000); n != 0 || err != io.EOF {
			t.Errorf("behind the end: %d bytes, %v", n, err)
		}
		if n, err := ra.ReadAt(p, -1); n != 0 || err == nil {
			t.Errorf("before the beginning: %d bytes, %v", n, err)
		}
		_, err = f.ReaderAt(t.Context(), ocispec.Descriptor{Digest: "sha256:x"})
		is(t, "no digest", err, errdefs.IsInvalidArgument)
	})
}

func TestDamagedContentIsDataLoss(t *testing.T) {
	dir := t.TempDir()
	s, api := inDir(t, dir)
	d := put(t, s, "precious", nil)
	if err := scheme.Close(api); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded())
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("preCious"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, _ = inDir(t, dir)
	_, err := s.ReaderAt(t.Context(), d)
	is(t, "reader", err, errdefs.IsDataLoss)
}

func TestWhatThePlaceLacksIsNotImplemented(t *testing.T) {
	base, r := mem.New(), ref.Ref{Scheme: mem.Scheme, Root: "x", Repo: "repo"}
	d, err := base.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	s := containerd.New(scheme.ReadOnly(base), r)
	if got := read(t, s, d.Digest); got != "x" {
		t.Errorf("a read-only place reads %q", got)
	}
	_, err = s.Writer(t.Context(), content.WithRef("k"))
	is(t, "writer", err, errdefs.IsNotImplemented)
	_, err = s.Update(t.Context(), content.Info{Digest: d.Digest})
	is(t, "update", err, errdefs.IsNotImplemented)
	is(t, "abort", s.Abort(t.Context(), "k"), errdefs.IsNotImplemented)
	is(t, "delete", s.Delete(t.Context(), d.Digest), errdefs.IsFailedPrecondition)
	if err == nil || !strings.Contains(err.Error(), "Labeler") {
		t.Errorf("%v does not say what is missing", err)
	}
}
