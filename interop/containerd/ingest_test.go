package containerd_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestStatus(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		_, err := f.Status(t.Context(), "key")
		is(t, "missing", err, errdefs.IsNotFound)
		want := ocispec.Descriptor{Digest: digest.FromString("0123456789"), Size: 10}
		before := time.Now()
		w := begin(t, f, "key", "01234", content.WithDescriptor(want))
		check := func(when string) {
			t.Helper()
			st, err := f.Status(t.Context(), "key")
			if err != nil {
				t.Fatal(err)
			}
			if st.Ref != "key" || st.Offset != 5 || st.Total != 10 || st.Expected != want.Digest {
				t.Errorf("%s: %+v", when, st)
			}
			if st.StartedAt.Before(before) || st.UpdatedAt.Before(st.StartedAt) || st.UpdatedAt.After(time.Now()) {
				t.Errorf("%s: started at %v, updated at %v", when, st.StartedAt, st.UpdatedAt)
			}
		}
		check("open")
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		check("closed")
		w = begin(t, f, "key", "56789", content.WithDescriptor(want))
		if err := w.Commit(t.Context(), 10, want.Digest); err != nil {
			t.Fatal(err)
		}
		_, err = f.Status(t.Context(), "key")
		is(t, "committed", err, errdefs.IsNotFound)
		if st, err := w.Status(); err != nil || st.Offset != 10 || st.Ref != "key" {
			t.Errorf("the writer's own status after the commit: %+v, %v", st, err)
		}
	})
}

func TestListStatuses(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		list := func(filters ...string) string {
			t.Helper()
			all, err := f.ListStatuses(t.Context(), filters...)
			if err != nil {
				t.Fatal(err)
			}
			refs := []string{}
			for _, st := range all {
				refs = append(refs, st.Ref)
			}
			return strings.Join(refs, " ")
		}
		if got := list(); got != "" {
			t.Errorf("an empty store has the ingests %q", got)
		}
		for _, key := range []string{"c", "a", "layer-sha256:1", "layer-sha256:2"} {
			leave(t, f, key, key)
		}
		begin(t, f, "b", "open")
		for _, c := range []struct {
			want    string
			filters []string
		}{
			{"a b c layer-sha256:1 layer-sha256:2", nil},
			{"b", []string{"ref==b"}},
			{"b", []string{"ref~=^b$"}},
			{"layer-sha256:1 layer-sha256:2", []string{"ref~=^layer-"}},
			{"a c", []string{"ref==c", "ref==a"}},
			{"a c layer-sha256:1 layer-sha256:2", []string{"ref!=b"}},
			{"", []string{"b"}}, // the field b, which there is not
			{"", []string{"ref.b"}},
		} {
			if got := list(c.filters...); got != c.want {
				t.Errorf("%q lists %q, want %q", c.filters, got, c.want)
			}
		}
		if err := f.Abort(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		w := begin(t, f, "c", "")
		if err := w.Commit(t.Context(), 1, digest.FromString("c")); err != nil {
			t.Fatal(err)
		}
		if got := list("ref==a", "ref==b", "ref==c"); got != "b" {
			t.Errorf("what was aborted or committed is still listed: %q", got)
		}
		all, err := f.ListStatuses(t.Context(), "ref==b")
		if err != nil || len(all) != 1 || all[0].Offset != 4 {
			t.Errorf("%+v, %v", all, err)
		}
	})
}

func TestAbort(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		is(t, "missing", f.Abort(t.Context(), "key"), errdefs.IsNotFound)
		leave(t, f, "key", "left")
		if err := f.Abort(t.Context(), "key"); err != nil {
			t.Fatal(err)
		}
		is(t, "again", f.Abort(t.Context(), "key"), errdefs.IsNotFound)

		open := begin(t, f, "key", "open")
		if err := f.Abort(t.Context(), "key"); err != nil {
			t.Fatalf("an open one: %v", err)
		}
		_, err := open.Write([]byte("more"))
		is(t, "write after abort", err, errdefs.IsFailedPrecondition)
		is(t, "commit after abort", open.Commit(t.Context(), 0, ""), errdefs.IsFailedPrecondition)
		_, err = f.Info(t.Context(), digest.FromString("open"))
		is(t, "what was aborted", err, errdefs.IsNotFound)

		w := begin(t, f, "key", "")
		if st, err := w.Status(); err != nil || st.Offset != 0 {
			t.Errorf("begun again it is at %d, %v", st.Offset, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := open.Close(); err != nil {
			t.Error(err)
		}
		if _, err := f.Status(t.Context(), "key"); err != nil {
			t.Errorf("closing the aborted writer touched its successor: %v", err)
		}
	})
}

func TestWriterRefuses(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		_, err := f.Writer(t.Context())
		is(t, "no ref", err, errdefs.IsInvalidArgument)
		_, err = f.Writer(t.Context(), content.WithRef(strings.Repeat("x", 5000)))
		is(t, "a ref of 5000 bytes", err, errdefs.IsInvalidArgument)
		_, err = f.Writer(t.Context(), content.WithRef("k"), content.WithDescriptor(ocispec.Descriptor{Digest: "sha256:x"}))
		is(t, "no digest", err, errdefs.IsInvalidArgument)
		boom := errors.New("boom")
		_, err = f.Writer(t.Context(), func(*content.WriterOpts) error { return boom })
		if !errors.Is(err, boom) {
			t.Errorf("an option's own error: %v", err)
		}

		begin(t, f, "key", "")
		_, err = f.Writer(t.Context(), content.WithRef("key"))
		is(t, "in use", err, errdefs.IsUnavailable)

		d := put(t, f, "there", nil)
		_, err = f.Writer(t.Context(), content.WithRef("other"), content.WithDescriptor(d))
		is(t, "there already", err, errdefs.IsAlreadyExists)
		_, err = f.Status(t.Context(), "other")
		is(t, "the ingest of what is there", err, errdefs.IsNotFound)
	})
}

func TestCommit(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		w := begin(t, f, "key", "content")
		is(t, "a wrong size", w.Commit(t.Context(), 6, ""), errdefs.IsFailedPrecondition)
		w = begin(t, f, "key", "")
		is(t, "a wrong digest", w.Commit(t.Context(), 7, digest.FromString("other")), errdefs.IsFailedPrecondition)
		w = begin(t, f, "key", "")
		is(t, "no digest", w.Commit(t.Context(), 7, "sha256:x"), errdefs.IsInvalidArgument)
		w = begin(t, f, "key", "")
		boom := errors.New("boom")
		if err := w.Commit(t.Context(), 7, "", func(*content.Info) error { return boom }); !errors.Is(err, boom) {
			t.Errorf("an option's own error: %v", err)
		}
		is(t, "on a closed writer", w.Commit(t.Context(), 7, ""), errdefs.IsFailedPrecondition)

		w = begin(t, f, "key", "") // all that failed kept it
		big := digest.SHA512.FromString("content")
		if err := w.Commit(t.Context(), 7, big); err != nil {
			t.Fatalf("a digest of another algorithm: %v", err)
		}
		if w.Digest() != big {
			t.Errorf("the writer has the digest %s", w.Digest())
		}
		if got := read(t, f, big); got != "content" {
			t.Errorf("it reads %q", got)
		}
		is(t, "again", w.Commit(t.Context(), 7, big), errdefs.IsFailedPrecondition)
		if err := w.Close(); err != nil {
			t.Error(err)
		}

		w = begin(t, f, "empty", "")
		if err := w.Commit(t.Context(), 0, digest.FromString("")); err != nil {
			t.Errorf("no bytes at all: %v", err)
		}
	})
}

func TestTruncate(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		w := begin(t, f, "key", "0123456789")
		is(t, "beyond the end", w.Truncate(11), errdefs.IsOutOfRange)
		is(t, "below zero", w.Truncate(-1), errdefs.IsOutOfRange)
		if err := w.Truncate(4); err != nil {
			t.Fatal(err)
		}
		if st, err := w.Status(); err != nil || st.Offset != 4 || w.Digest() != digest.FromString("0123") {
			t.Errorf("cut to 4 it is at %d, %v", st.Offset, err)
		}
		write(t, w, "xyz")
		if err := w.Commit(t.Context(), 7, digest.FromString("0123xyz")); err != nil {
			t.Fatal(err)
		}
		if got := read(t, f, digest.FromString("0123xyz")); got != "0123xyz" {
			t.Errorf("it reads %q", got)
		}
		is(t, "on a closed writer", w.Truncate(0), errdefs.IsFailedPrecondition)
	})
}

func TestAClosedWriter(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		w := begin(t, f, "key", "content")
		for range 2 {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
		_, err := w.Write([]byte("more"))
		is(t, "write", err, errdefs.IsFailedPrecondition)
		if w.Digest() != digest.FromString("content") {
			t.Errorf("digest %s", w.Digest())
		}
		if st, err := w.Status(); err != nil || st.Offset != 7 {
			t.Errorf("status %+v, %v", st, err)
		}
		is(t, "sync", w.(content.Syncer).Sync(), errdefs.IsFailedPrecondition)
	})
}

func TestTheContextOfWriterEndsItsWrites(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w, err := f.Writer(ctx, content.WithRef("key"))
		if err != nil {
			t.Fatal(err)
		}
		write(t, w, "before")
		cancel()
		if _, err := w.Write([]byte("after")); !errors.Is(err, context.Canceled) {
			t.Errorf("write: %v", err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if st, err := f.Status(t.Context(), "key"); err != nil || st.Offset != 6 {
			t.Errorf("kept is %+v, %v", st, err)
		}
	})
}

func TestSync(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		w := begin(t, f, "key", "content")
		if err := w.(content.Syncer).Sync(); err != nil {
			t.Fatal(err)
		}
		write(t, w, " and more")
		if err := w.Commit(t.Context(), 16, digest.FromString("content and more")); err != nil {
			t.Error(err)
		}
	})
}

func TestReferrers(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		subject, referrers := pushReferrers(t, f)
		got, err := f.Referrers(t.Context(), subject)
		if err != nil {
			t.Fatal(err)
		}
		var digests []digest.Digest
		for _, d := range got {
			digests = append(digests, d.Digest)
		}
		slices.Sort(digests)
		slices.Sort(referrers)
		if !slices.Equal(digests, referrers) {
			t.Errorf("%v, want %v", digests, referrers)
		}
		_, err = f.Referrers(t.Context(), ocispec.Descriptor{Digest: "x"})
		is(t, "no digest", err, errdefs.IsInvalidArgument)
	})
}
