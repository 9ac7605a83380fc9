package regclient

import (
	"context"
	"errors"

	rcscheme "github.com/regclient/regclient/scheme"
	rcdescriptor "github.com/regclient/regclient/types/descriptor"
	rcerrs "github.com/regclient/regclient/types/errs"
	rcmanifest "github.com/regclient/regclient/types/manifest"
	rcmediatype "github.com/regclient/regclient/types/mediatype"
	rcv1 "github.com/regclient/regclient/types/oci/v1"
	rcref "github.com/regclient/regclient/types/ref"
	rcreferrer "github.com/regclient/regclient/types/referrer"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

// ManifestDelete implements regclient's scheme.API.
func (s *Scheme) ManifestDelete(ctx context.Context, r rcref.Ref, opts ...rcscheme.ManifestOpts) error {
	var o []scheme.ManifestDeleteOption
	if manifestConfig(opts).CheckReferrers {
		o = append(o, scheme.WithReferrerCleanup())
	}
	err := s.api.ManifestDelete(ctx, FromRef(r), o...)
	if r.Digest == "" && errors.Is(err, errs.ErrInvalid) {
		return &both{err, rcerrs.ErrMissingDigest}
	}
	return toTheirs(err)
}

// ManifestGet implements regclient's scheme.API. A manifest of a type that regclient does not know is
// errs.ErrUnsupportedMediaType of regclient's.
func (s *Scheme) ManifestGet(ctx context.Context, r rcref.Ref) (rcmanifest.Manifest, error) {
	m, err := s.api.ManifestGet(ctx, FromRef(r))
	if err != nil {
		return nil, toTheirs(err)
	}
	return rcmanifest.New(rcmanifest.WithRef(r), rcmanifest.WithDesc(theirs(m.Descriptor())), rcmanifest.WithRaw(m.Raw()))
}

// ManifestHead implements regclient's scheme.API: the manifest has a descriptor and no content.
func (s *Scheme) ManifestHead(ctx context.Context, r rcref.Ref) (rcmanifest.Manifest, error) {
	d, err := s.api.ManifestHead(ctx, FromRef(r))
	if err != nil {
		return nil, toTheirs(err)
	}
	return rcmanifest.New(rcmanifest.WithRef(r), rcmanifest.WithDesc(theirs(d)))
}

// ManifestPut implements regclient's scheme.API. The content of an image must be there; see WithChildren for that of
// an index.
func (s *Scheme) ManifestPut(ctx context.Context, r rcref.Ref, m rcmanifest.Manifest, opts ...rcscheme.ManifestOpts) error {
	raw, err := m.RawBody()
	if err != nil {
		return err
	}
	d := m.GetDescriptor()
	want := d.Digest
	if r.Digest != "" { // which may be of another algorithm
		want = digest.Digest(r.Digest)
	}
	mf, err := manifest.New(raw, manifest.WithMediaType(d.MediaType), manifest.WithDigest(want))
	if err != nil {
		return toTheirs(&errs.Error{Op: "manifest put", Ref: FromRef(r).String(), Err: err})
	}
	var o []scheme.ManifestPutOption
	if !s.strict {
		o = append(o, scheme.WithSparse())
	}
	if manifestConfig(opts).Child && r.Tag == "" {
		o = append(o, scheme.WithChild())
	}
	_, err = s.api.ManifestPut(ctx, FromRef(r), mf, o...)
	return toTheirs(err)
}

func manifestConfig(opts []rcscheme.ManifestOpts) (c rcscheme.ManifestConfig) {
	for _, o := range opts {
		o(&c)
	}
	return c
}

// ReferrerList implements regclient's scheme.API: of a digest, from the repository of WithReferrerSource if that is
// given. A repository that does not exist has none, as in regclient's own schemes.
func (s *Scheme) ReferrerList(ctx context.Context, subject rcref.Ref, opts ...rcscheme.ReferrerOpts) (rcreferrer.ReferrerList, error) {
	var c rcscheme.ReferrerConfig
	for _, o := range opts {
		o(&c)
	}
	list := rcreferrer.New(subject)
	if subject.Digest == "" {
		return list, &both{&errs.Error{Op: "referrer list", Ref: FromRef(subject).String(), Err: errs.ErrInvalid}, rcerrs.ErrMissingDigest}
	}
	from := subject
	if !c.SrcRepo.IsZero() {
		from, list.Source = c.SrcRepo, c.SrcRepo
	}
	l, err := s.api.ReferrerList(ctx, FromRef(from).WithDigest(digest.Digest(subject.Digest)))
	if err != nil && !errors.Is(err, errs.ErrNotFound) {
		return list, toTheirs(err)
	}
	all := []rcdescriptor.Descriptor{}
	for _, d := range l.Descriptors {
		all = append(all, theirs(d))
	}
	list.Descriptors = all
	list.Manifest, err = rcmanifest.New(rcmanifest.WithOrig(rcv1.Index{
		Versioned: rcv1.IndexSchemaVersion, MediaType: rcmediatype.OCI1ManifestList, Manifests: all,
	}))
	if err != nil {
		return list, err
	}
	return rcscheme.ReferrerFilter(c, list), nil
}
