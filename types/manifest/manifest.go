// Package manifest holds a manifest as the bytes it came as, with a parsed view on demand.
//
// The bytes are never changed: what was read is what is written, so the digest stays. OCI images and indexes, Docker
// schema 2 and lists, and the former OCI artifact manifest have a view with content; any other type is opaque, and is
// stored, copied and served all the same.
package manifest

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// Manifest is immutable and safe for concurrent use. Callers must not write to the slices and maps it returns.
type Manifest struct {
	raw  []byte
	desc types.Descriptor
	view func() (*View, error)
}

// View is what a manifest says, as far as its type is understood.
type View struct {
	Known        bool               // whether the media type is interpreted; if not, all else is empty
	Config       *types.Descriptor  // of an image
	Layers       []types.Descriptor // of an image; the blobs of an artifact manifest
	Manifests    []types.Descriptor // of an index
	Subject      *types.Descriptor  // what this manifest refers to
	ArtifactType string             // as the referrers API reports it: the field, or the config's media type of an image
	Annotations  map[string]string
}

// PutResult is what a place answered to a put.
type PutResult struct {
	Descriptor types.Descriptor
	Tags       []string // the tags that now point to the manifest
	// SubjectDone reports that the place lists the manifest as a referrer of its subject by itself (a registry's
	// OCI-Subject header; a place that answers ReferrerList from its own data).
	SubjectDone bool
}

// SizeError is errs.ErrManifestInvalid: a manifest says a wrong size of content that is there.
type SizeError struct {
	Descriptor types.Descriptor // as the manifest has it
	Size       int64            // what the content has
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%v: it says that %s has %d bytes, and it has %d", errs.ErrManifestInvalid, e.Descriptor.Digest, e.Descriptor.Size, e.Size)
}

// Unwrap returns errs.ErrManifestInvalid.
func (e *SizeError) Unwrap() error { return errs.ErrManifestInvalid }

// CheckSize returns a *SizeError if d says another size than what its content has. A size that d does not say is none.
func CheckSize(d types.Descriptor, size int64) error {
	if types.SizeKnown(d) && d.Size != size {
		return &SizeError{Descriptor: d, Size: size}
	}
	return nil
}

// Option changes what New makes of the bytes.
type Option func(*types.Descriptor)

// WithMediaType says the type that came with the bytes, as a registry's Content-Type does.
func WithMediaType(mt string) Option {
	return func(d *types.Descriptor) { d.MediaType = types.CleanMediaType(mt) }
}

// WithDescriptor says what the bytes must be: New compares digest and size, where they are set, and takes the media
// type. Platform and annotations of the descriptor are kept out of the manifest's own descriptor.
func WithDescriptor(want types.Descriptor) Option {
	return func(d *types.Descriptor) {
		if want.MediaType != "" {
			d.MediaType = want.MediaType
		}
		d.Digest, d.Size = want.Digest, want.Size
	}
}

// WithDigest says which digest the bytes must have, and so which algorithm the descriptor uses.
func WithDigest(want digest.Digest) Option {
	return func(d *types.Descriptor) { d.Digest = want }
}

// New takes raw as a manifest. Without a media type from an option, the document's own mediaType field decides, and
// without one the shape of the document. The digest is sha256 unless an option names another. New keeps raw: the
// caller must not write to it any more.
//
// Errors: errs.ErrDigestMismatch or errs.ErrSizeMismatch when the bytes are not what an option said;
// errs.ErrDigestInvalid for a digest that cannot be verified. A document that does not parse is not an error here:
// View reports it.
func New(raw []byte, opts ...Option) (*Manifest, error) {
	var d types.Descriptor
	for _, o := range opts {
		o(&d)
	}
	if d.Size > 0 && d.Size != int64(len(raw)) {
		return nil, fmt.Errorf("%w: manifest %s has %d bytes, not %d", errs.ErrSizeMismatch, d.Digest, len(raw), d.Size)
	}
	if d.Digest == "" {
		d.Digest = digest.FromBytes(raw)
	} else {
		if err := types.ValidDigest(d.Digest); err != nil {
			return nil, err
		}
		if got := d.Digest.Algorithm().FromBytes(raw); got != d.Digest {
			return nil, fmt.Errorf("%w: manifest %s has digest %s", errs.ErrDigestMismatch, d.Digest, got)
		}
	}
	d.Size = int64(len(raw))
	if d.MediaType == "" || d.MediaType == types.MediaTypeOctetStream || d.MediaType == "application/json" || d.MediaType == "text/plain" {
		if mt := detect(raw); mt != "" {
			d.MediaType = mt
		}
	}
	m := &Manifest{raw: raw, desc: d}
	m.view = sync.OnceValues(func() (*View, error) { return parse(d.MediaType, raw) })
	return m, nil
}

// FromJSON marshals doc, which must have a MediaType of its own, into a manifest.
func FromJSON(doc any) (*Manifest, error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return New(raw)
}

// Raw returns the manifest's bytes.
func (m *Manifest) Raw() []byte { return m.raw }

// Descriptor returns media type, digest and size.
func (m *Manifest) Descriptor() types.Descriptor { return m.desc }

// MediaType returns the type the manifest came with, or has by its content.
func (m *Manifest) MediaType() string { return m.desc.MediaType }

// Digest returns the digest of the manifest's bytes.
func (m *Manifest) Digest() digest.Digest { return m.desc.Digest }

// IsIndex reports whether the manifest lists other manifests.
func (m *Manifest) IsIndex() bool { return types.IsIndex(m.desc.MediaType) }

// View returns what the manifest says. Its error is errs.ErrManifestInvalid: the bytes are not a document of the
// manifest's type.
func (m *Manifest) View() (*View, error) { return m.view() }

// Children returns everything the manifest needs to be complete: config, layers and manifests, without the subject.
// A digest that is listed twice is returned twice.
func (v *View) Children() []types.Descriptor {
	var all []types.Descriptor
	if v.Config != nil {
		all = append(all, *v.Config)
	}
	return slices.Concat(all, v.Layers, v.Manifests)
}
