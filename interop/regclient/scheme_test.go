package regclient_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	rcscheme "github.com/regclient/regclient/scheme"
	rcdescriptor "github.com/regclient/regclient/types/descriptor"
	rcerrs "github.com/regclient/regclient/types/errs"
	rcmanifest "github.com/regclient/regclient/types/manifest"
	rcref "github.com/regclient/regclient/types/ref"

	"github.com/ocisync/ocisync/interop/regclient"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var place = ref.MustParse("mem://test/repo")

// named is r's tag as regclient names it.
func named(tag string) rcref.Ref { return regclient.ToRef(place.WithTag(tag)) }

func push(t *testing.T, api scheme.API, r ref.Ref, it *schemetest.Item) *schemetest.Item {
	t.Helper()
	if err := it.Push(t.Context(), api, r); err != nil {
		t.Fatal(err)
	}
	return it
}

func TestErrorsOfASchemeAreBoth(t *testing.T) {
	m := mem.New()
	s := regclient.NewScheme(m)
	image := push(t, m, place.WithTag("v1"), schemetest.Image("a"))
	push(t, m, place.WithTag("opaque"), schemetest.Opaque("x"))
	ctx := t.Context()
	absent := rcdescriptor.Descriptor{Digest: digest.FromString("absent")}
	for name, c := range map[string]struct {
		err          error
		theirs, ours error
	}{
		"a blob that is absent":        {second(s.BlobGet(ctx, named("v1"), absent)), rcerrs.ErrNotFound, errs.ErrBlobUnknown},
		"a tag that is absent":         {second(s.ManifestGet(ctx, named("v2"))), rcerrs.ErrNotFound, errs.ErrManifestUnknown},
		"a repository that is absent":  {second(s.TagList(ctx, regclient.ToRef(ref.MustParse("mem://none")))), rcerrs.ErrNotFound, errs.ErrNameUnknown},
		"a ping of nothing":            {second(s.Ping(ctx, regclient.ToRef(ref.MustParse("mem://none")))), rcerrs.ErrNotFound, errs.ErrNotFound},
		"another digest than was said": {second(s.BlobPut(ctx, named(""), absent, bytes.NewReader([]byte("x")))), rcerrs.ErrDigestMismatch, errs.ErrDigestMismatch},
		"a delete by tag":              {s.ManifestDelete(ctx, named("v1")), rcerrs.ErrMissingDigest, errs.ErrInvalid},
		"a path for a tag":             {s.TagDelete(ctx, named("../x")), rcerrs.ErrInvalidReference, errs.ErrNameInvalid},
		"a type that nobody knows":     {second(s.ManifestGet(ctx, named("opaque"))), rcerrs.ErrUnsupportedMediaType, nil},
		"referrers of a tag":           {second(s.ReferrerList(ctx, named("v1"))), rcerrs.ErrMissingDigest, errs.ErrInvalid},
		"a read-only place": {
			second(regclient.NewScheme(scheme.ReadOnly(m)).BlobPut(ctx, named(""), rcdescriptor.Descriptor{}, bytes.NewReader(nil))),
			rcerrs.ErrUnsupported, errs.ErrReadOnly,
		},
	} {
		if !errors.Is(c.err, c.theirs) || c.ours != nil && !errors.Is(c.err, c.ours) {
			t.Errorf("%s: got %v, want what is %q and %v", name, c.err, c.theirs, c.ours)
		}
	}
	if err := s.ManifestDelete(ctx, regclient.ToRef(place.WithDigest(image.Manifest.Digest()))); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

// broken gives a blob other bytes than its own.
type broken struct{ scheme.API }

func (b broken) BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...scheme.BlobGetOption) (blob.Reader, error) {
	return blob.NewReader(io.NopCloser(bytes.NewReader([]byte("other bytes"))), d)
}

func TestAWrongByteIsAnErrorOfBothAndNoEnd(t *testing.T) {
	s := regclient.NewScheme(broken{mem.New()})
	rdr, err := s.BlobGet(t.Context(), named(""), rcdescriptor.Descriptor{Digest: digest.FromString("right bytes"), Size: 11})
	if err != nil {
		t.Fatal(err)
	}
	defer rdr.Close()
	_, err = io.Copy(io.Discard, rdr)
	if !errors.Is(err, rcerrs.ErrDigestMismatch) || !errors.Is(err, errs.ErrDigestMismatch) || errors.Is(err, io.EOF) {
		t.Errorf("got %v, want a mismatch of both kinds that is not io.EOF", err)
	}
}

func TestAnIndexMayBeSparseUnlessChildrenAreWanted(t *testing.T) {
	ix := schemetest.Index([]*schemetest.Item{schemetest.Image("absent")})
	m, err := rcmanifest.New(rcmanifest.WithRaw(ix.Manifest.Raw()), rcmanifest.WithDesc(rcdescriptor.Descriptor{MediaType: ix.Manifest.MediaType()}))
	if err != nil {
		t.Fatal(err)
	}
	if err := regclient.NewScheme(mem.New()).ManifestPut(t.Context(), named("v1"), m); err != nil {
		t.Errorf("a sparse index: %v", err)
	}
	err = regclient.NewScheme(mem.New(), regclient.WithChildren()).ManifestPut(t.Context(), named("v1"), m)
	var detail *errs.Error
	if !errors.Is(err, errs.ErrManifestBlobUnknown) || !errors.As(err, &detail) || len(detail.Missing) != 1 {
		t.Errorf("WithChildren: got %v, want ErrManifestBlobUnknown with one digest", err)
	}
}

// TestTheRefSaysTheAlgorithm puts a manifest that regclient knows by its sha256 under its sha512.
func TestTheRefSaysTheAlgorithm(t *testing.T) {
	m := mem.New()
	it := schemetest.Opaque("x")
	ix := schemetest.Index(nil)
	rm, err := rcmanifest.New(rcmanifest.WithRaw(ix.Manifest.Raw()), rcmanifest.WithDesc(rcdescriptor.Descriptor{MediaType: ix.Manifest.MediaType()}))
	if err != nil {
		t.Fatal(err)
	}
	r := place.WithDigest(digest.SHA512.FromBytes(ix.Manifest.Raw()))
	s := regclient.NewScheme(m)
	if err := s.ManifestPut(t.Context(), regclient.ToRef(r), rm); err != nil {
		t.Fatal(err)
	}
	if d, err := m.ManifestHead(t.Context(), r); err != nil || d.Digest != r.Digest {
		t.Errorf("got %s and %v", d.Digest, err)
	}
	if err := s.ManifestPut(t.Context(), regclient.ToRef(place.WithDigest(it.Manifest.Digest())), rm); !errors.Is(err, rcerrs.ErrDigestMismatch) {
		t.Errorf("under the digest of another: got %v, want a mismatch", err)
	}
}

// TestAChildGetsNoEntry shows that regclient's WithManifestChild reaches a layout.
func TestAChildGetsNoEntry(t *testing.T) {
	o := ocidir.New(ocidir.WithDurability(ocidir.None))
	defer o.Close()
	r := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
	s := regclient.NewScheme(o)
	for _, child := range []bool{true, false} {
		it := schemetest.Image("child " + map[bool]string{true: "with", false: "without"}[child])
		if err := it.PushContent(t.Context(), o, r); err != nil {
			t.Fatal(err)
		}
		m, err := rcmanifest.New(rcmanifest.WithRaw(it.Manifest.Raw()), rcmanifest.WithDesc(rcdescriptor.Descriptor{MediaType: it.Manifest.MediaType()}))
		if err != nil {
			t.Fatal(err)
		}
		var opts []rcscheme.ManifestOpts
		if child {
			opts = append(opts, rcscheme.WithManifestChild())
		}
		if err := s.ManifestPut(t.Context(), regclient.ToRef(r.WithDigest(it.Manifest.Digest())), m, opts...); err != nil {
			t.Fatal(err)
		}
		raw, err := o.IndexGet(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(it.Manifest.Digest())) == child {
			t.Errorf("child %v: the index is %s", child, raw)
		}
	}
}

func TestTagsArePagedAndCanBePrinted(t *testing.T) {
	m := mem.New()
	for _, tag := range []string{"a", "b", "c", "d"} {
		push(t, m, place.WithTag(tag), schemetest.Opaque("x"))
	}
	l, err := regclient.NewScheme(m).TagList(t.Context(), named(""), rcscheme.WithTagLimit(2), rcscheme.WithTagLast("a"))
	if err != nil || !slices.Equal(l.Tags, []string{"b", "c"}) {
		t.Fatalf("got %q and %v", l.Tags, err)
	}
	raw, err := json.Marshal(l)
	if err != nil || !bytes.Contains(raw, []byte(`"tags":["b","c"]`)) {
		t.Errorf("as JSON: %s, %v", raw, err)
	}
}

func TestReferrersAreFilteredAndComeFromAnotherRepository(t *testing.T) {
	m := mem.New()
	subject := push(t, m, place.WithTag("v1"), schemetest.Image("subject"))
	sig := schemetest.Image("sig", schemetest.Subject(subject.Descriptor()), schemetest.ArtifactType("application/x-sig"))
	sbom := schemetest.Image("sbom", schemetest.Subject(subject.Descriptor()), schemetest.ArtifactType("application/x-sbom"))
	elsewhere := ref.MustParse("mem://test/elsewhere")
	push(t, m, place.WithDigest(sig.Manifest.Digest()), sig)
	push(t, m, elsewhere.WithDigest(sbom.Manifest.Digest()), sbom)
	s := regclient.NewScheme(m)
	of := regclient.ToRef(place.WithDigest(subject.Manifest.Digest()))
	digests := func(opts ...rcscheme.ReferrerOpts) (all []digest.Digest) {
		t.Helper()
		l, err := s.ReferrerList(t.Context(), of, opts...)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range l.Descriptors {
			all = append(all, d.Digest)
		}
		return all
	}
	if got := digests(); !slices.Equal(got, []digest.Digest{sig.Manifest.Digest()}) {
		t.Errorf("all: %v", got)
	}
	if got := digests(rcscheme.WithReferrerMatchOpt(rcdescriptor.MatchOpt{ArtifactType: "application/x-sbom"})); len(got) > 0 {
		t.Errorf("of another type: %v", got)
	}
	if got := digests(rcscheme.WithReferrerSource(regclient.ToRef(elsewhere))); !slices.Equal(got, []digest.Digest{sbom.Manifest.Digest()}) {
		t.Errorf("from another repository: %v", got)
	}
	if got := digests(rcscheme.WithReferrerSource(regclient.ToRef(ref.MustParse("mem://test/absent")))); len(got) > 0 {
		t.Errorf("from a repository that is not there: %v", got)
	}
}

func TestRefsConvertThereAndBack(t *testing.T) {
	for _, name := range []string{
		"docker.io/library/alpine:3", "localhost:5000/a/b@" + string(digest.FromString("x")), "ocidir:///srv/a b:v1", "ocidir://rel/x", "mem://x/y:z", "s3://bucket/x:v@" + string(digest.FromString("x")),
	} {
		r := ref.MustParse(name)
		back := regclient.FromRef(regclient.ToRef(r))
		if !ref.SamePlace(r, back) || r.Tag != back.Tag || r.Digest != back.Digest {
			t.Errorf("%s became %s", r, back)
		}
	}
	for _, name := range []string{"alpine", "ghcr.io/a/b:v1", "ocidir:///srv/x:v1"} {
		r, err := rcref.New(name)
		if err != nil {
			t.Fatal(err)
		}
		back := regclient.ToRef(regclient.FromRef(r))
		if back.CommonName() != r.CommonName() || !rcref.EqualRepository(r, back) {
			t.Errorf("%s became %s", r.CommonName(), back.CommonName())
		}
	}
}
