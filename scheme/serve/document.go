package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

// readManifest reads the body, which may come without a length, up to the limit.
func (s *Server) readManifest(x *exchange) ([]byte, error) {
	for _, enc := range ocihttp.List(x.r.Header.Values("Content-Encoding")) {
		if !strings.EqualFold(enc, "identity") { // the digest is that of the bytes as they are sent
			return nil, &statusError{status: http.StatusUnsupportedMediaType, err: ocihttp.Public(fmt.Errorf("%w: content encoding %.32q", errs.ErrUnsupported, enc))}
		}
	}
	tooLarge := ocihttp.Public(fmt.Errorf("%w: a manifest may have %d bytes", errs.ErrSizeInvalid, s.maxManifest))
	if x.r.ContentLength > s.maxManifest {
		return nil, tooLarge
	}
	var b bytes.Buffer
	b.Grow(int(min(max(x.r.ContentLength, 0), 64<<10)) + bytes.MinRead) // as ReadFrom needs; what is announced need not come
	if _, err := b.ReadFrom(io.LimitReader(holder{s, x}, s.maxManifest+1)); err != nil {
		return nil, err
	}
	if int64(b.Len()) > s.maxManifest {
		return nil, tooLarge
	}
	return b.Bytes(), nil
}

// mediaType is the grammar of types without parameters (RFC 6838, 4.2).
var mediaType = regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}$`)

// parseManifest makes a manifest of what was sent. Content-Type and the document's own type must agree, and the document
// must mean the same to whoever reads it: some would otherwise see something else than others (CVE-2021-41190).
// Parameters of the Content-Type are dropped, as none has a meaning for manifests (distribution-spec, "Pulling manifests").
func parseManifest(raw []byte, x *exchange) (*manifest.Manifest, *manifest.View, error) {
	opts := []manifest.Option{manifest.WithDigest(x.req.Digest)}
	for i, v := range x.r.Header.Values("Content-Type") {
		switch clean := types.CleanMediaType(v); {
		case i > 0:
			return nil, nil, fmt.Errorf("%w: there are several Content-Types", errs.ErrManifestInvalid)
		case v != "" && !mediaType.MatchString(clean):
			return nil, nil, fmt.Errorf("%w: %.100q is no media type", errs.ErrManifestInvalid, v)
		default:
			opts = append(opts, manifest.WithMediaType(clean))
		}
	}
	m, err := manifest.New(raw, opts...)
	switch {
	case err != nil:
		return nil, nil, err
	case m.MediaType() == "":
		return nil, nil, fmt.Errorf("%w: neither Content-Type nor the document says its type", errs.ErrManifestInvalid)
	case !mediaType.MatchString(m.MediaType()): // the document's own
		return nil, nil, fmt.Errorf("%w: %.100q is no media type", errs.ErrManifestInvalid, m.MediaType())
	}
	var doc struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(raw, &doc); err == nil && doc.MediaType != "" && !strings.EqualFold(doc.MediaType, m.MediaType()) {
		return nil, nil, fmt.Errorf("%w: Content-Type is %.100q, the document says %.100q", errs.ErrManifestInvalid, m.MediaType(), doc.MediaType)
	}
	view, err := m.View()
	if err != nil {
		return nil, nil, err
	}
	if err := checkDocument(raw, m.MediaType()); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errs.ErrManifestInvalid, err)
	}
	return m, view, checkData(view)
}

// checkData compares what descriptors carry of their content with what they say of it (image-spec, "Embedded Content").
func checkData(v *manifest.View) error {
	all := v.Children()
	if v.Subject != nil {
		all = append(all, *v.Subject)
	}
	for _, d := range all {
		switch {
		case d.Data == nil:
		case int64(len(d.Data)) != d.Size:
			return fmt.Errorf("%w: %s has %d bytes of data, and says %d", errs.ErrManifestInvalid, d.Digest, len(d.Data), d.Size)
		case d.Digest.Algorithm().FromBytes(d.Data) != d.Digest:
			return fmt.Errorf("%w: the data of %s has another digest", errs.ErrManifestInvalid, d.Digest)
		}
	}
	return nil
}

// The members that decide what a manifest is and what it consists of: where encoding/json takes the last of two, or
// "Layers" for "layers", others take the first, or none.
var (
	decidesManifest   = []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "blobs", "manifests", "subject", "annotations", "fsLayers"}
	decidesDescriptor = []string{"mediaType", "artifactType", "digest", "size", "data", "urls", "annotations", "platform"}
)

// checkDocument refuses a document that not every reader understands in the same way. What is no JSON object has no readers
// here, unless its type says that it is one, which View has looked at before.
func checkDocument(raw []byte, mediaType string) error {
	known := types.IsIndex(mediaType) || types.IsImage(mediaType)
	if known && !utf8.Valid(raw) {
		return errors.New("it is not UTF-8")
	}
	if !json.Valid(raw) || bytes.TrimLeft(raw, " \t\r\n")[0] != '{' {
		return nil
	}
	c := &cursor{b: raw}
	c.next()
	list, image := false, false
	return c.object(decidesManifest, func(key string) error {
		switch key {
		case "manifests":
			list = true
		case "config", "layers", "fsLayers":
			image = true
		}
		if list && image {
			return errors.New("it has manifests, and the config or layers of an image, too")
		}
		switch key {
		case "schemaVersion":
			if version := c.skip(); known && string(version) != "2" {
				return fmt.Errorf("schemaVersion is %.32q, not 2", version)
			}
			return nil
		case "config", "subject":
			return c.descriptor()
		case "layers", "blobs", "manifests":
			return c.array(c.descriptor)
		}
		c.skip()
		return nil
	})
}
