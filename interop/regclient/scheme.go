package regclient

import (
	"context"
	"encoding/json"
	"io"

	rcscheme "github.com/regclient/regclient/scheme"
	rcblob "github.com/regclient/regclient/types/blob"
	rcdescriptor "github.com/regclient/regclient/types/descriptor"
	rcping "github.com/regclient/regclient/types/ping"
	rcref "github.com/regclient/regclient/types/ref"
	rctag "github.com/regclient/regclient/types/tag"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
)

// Scheme is a place of ours as regclient's scheme.API. Its errors are ours and regclient's at once: errors.Is finds
// either's sentinels. It is safe for concurrent use.
type Scheme struct {
	api    scheme.API
	strict bool
}

var _ rcscheme.API = (*Scheme)(nil)

// Option is a setting of NewScheme.
type Option func(*Scheme)

// WithChildren refuses an index whose manifests are missing. Without it they may be, as regclient copies single
// platforms of an index.
func WithChildren() Option { return func(s *Scheme) { s.strict = true } }

// NewScheme returns api as regclient's. Closing api stays with who opened it.
func NewScheme(api scheme.API, opts ...Option) *Scheme {
	s := &Scheme{api: api}
	for _, o := range opts {
		o(s)
	}
	return s
}

// BlobDelete implements regclient's scheme.API.
func (s *Scheme) BlobDelete(ctx context.Context, r rcref.Ref, d rcdescriptor.Descriptor) error {
	return toTheirs(s.api.BlobDelete(ctx, FromRef(r), ours(d)))
}

// BlobGet implements regclient's scheme.API. The stream is verified by ours, whose error comes in place of io.EOF.
func (s *Scheme) BlobGet(ctx context.Context, r rcref.Ref, d rcdescriptor.Descriptor) (rcblob.Reader, error) {
	rdr, err := s.api.BlobGet(ctx, FromRef(r), ours(d))
	if err != nil {
		return nil, toTheirs(err)
	}
	d.Size = rdr.Descriptor().Size
	return rcblob.NewReader(rcblob.WithRef(r), rcblob.WithDesc(d), rcblob.WithReader(translated{rdr})), nil
}

// translated is a stream whose errors regclient understands.
type translated struct{ io.ReadCloser }

func (t translated) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = toTheirs(err)
	}
	return n, err
}

// BlobHead implements regclient's scheme.API: the reader has a descriptor and nothing to read.
func (s *Scheme) BlobHead(ctx context.Context, r rcref.Ref, d rcdescriptor.Descriptor) (rcblob.Reader, error) {
	got, err := s.api.BlobHead(ctx, FromRef(r), ours(d))
	if err != nil {
		return nil, toTheirs(err)
	}
	d.Size = got.Size
	return rcblob.NewReader(rcblob.WithRef(r), rcblob.WithDesc(d)), nil
}

// BlobMount implements regclient's scheme.API.
func (s *Scheme) BlobMount(ctx context.Context, src, tgt rcref.Ref, d rcdescriptor.Descriptor) error {
	return toTheirs(s.api.BlobMount(ctx, FromRef(src), FromRef(tgt), ours(d)))
}

// BlobPut implements regclient's scheme.API.
func (s *Scheme) BlobPut(ctx context.Context, r rcref.Ref, d rcdescriptor.Descriptor, rdr io.Reader) (rcdescriptor.Descriptor, error) {
	got, err := s.api.BlobPut(ctx, FromRef(r), ours(d), rdr)
	if err != nil {
		return d, toTheirs(err)
	}
	d.Digest, d.Size = got.Digest, got.Size
	return d, nil
}

// Ping implements regclient's scheme.API. A place that does not exist is errs.ErrNotFound, as regclient expects of a
// directory.
func (s *Scheme) Ping(ctx context.Context, r rcref.Ref) (rcping.Result, error) {
	res, err := s.api.Ping(ctx, FromRef(r))
	if err == nil && !res.Exists {
		err = &errs.Error{Op: "ping", Ref: FromRef(r).String(), Err: errs.ErrNotFound}
	}
	return rcping.Result{}, toTheirs(err)
}

// TagDelete implements regclient's scheme.API.
func (s *Scheme) TagDelete(ctx context.Context, r rcref.Ref) error {
	return toTheirs(s.api.TagDelete(ctx, FromRef(r)))
}

// TagList implements regclient's scheme.API.
func (s *Scheme) TagList(ctx context.Context, r rcref.Ref, opts ...rcscheme.TagOpts) (*rctag.List, error) {
	var c rcscheme.TagConfig
	for _, o := range opts {
		o(&c)
	}
	o := []scheme.TagListOption{scheme.WithTagLast(c.Last)}
	if c.Limit > 0 {
		o = append(o, scheme.WithTagLimit(c.Limit))
	}
	l, err := s.api.TagList(ctx, FromRef(r), o...)
	if err != nil {
		return nil, toTheirs(err)
	}
	// With a raw form the list can be printed as JSON, which regclient's does not do without.
	raw, err := json.Marshal(rctag.DockerList{Name: FromRef(r).Place().Path(), Tags: append([]string{}, l.Tags...)})
	if err != nil {
		return nil, err
	}
	return rctag.New(rctag.WithRef(r), rctag.WithRaw(raw), rctag.WithMT("application/json"))
}
