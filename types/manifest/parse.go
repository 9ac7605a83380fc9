package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// document has the fields of all manifest types that are understood.
type document struct {
	SchemaVersion int                `json:"schemaVersion"`
	MediaType     string             `json:"mediaType"`
	ArtifactType  string             `json:"artifactType"`
	Config        *types.Descriptor  `json:"config"`
	Layers        []types.Descriptor `json:"layers"`
	Blobs         []types.Descriptor `json:"blobs"` // artifact manifest
	Manifests     []types.Descriptor `json:"manifests"`
	FSLayers      json.RawMessage    `json:"fsLayers"` // Docker schema 1
	Subject       *types.Descriptor  `json:"subject"`
	Annotations   map[string]string  `json:"annotations"`
}

// detect guesses the media type of a document that came without one. It returns "" when it cannot tell.
func detect(raw []byte) string {
	var doc document
	if json.Unmarshal(raw, &doc) != nil {
		return ""
	}
	switch {
	case doc.MediaType != "":
		return types.CleanMediaType(doc.MediaType)
	case doc.SchemaVersion == 1 && len(doc.FSLayers) > 0:
		return types.MediaTypeDockerSchema1JWS
	case doc.Manifests != nil && doc.Layers == nil && doc.Config == nil:
		return ocispec.MediaTypeImageIndex
	case doc.Config != nil && doc.Manifests == nil:
		return ocispec.MediaTypeImageManifest
	default:
		return ""
	}
}

// parse reads raw as a document of type mt. A document of two natures (layers and manifests) is refused, as one
// reader would see an image and the next an index (GHSA-77vh-xpmg-72qh).
func parse(mt string, raw []byte) (*View, error) {
	if !types.IsIndex(mt) && !types.IsImage(mt) {
		return &View{}, nil
	}
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, invalid(mt, explain(raw, err))
	}
	if doc.MediaType != "" && types.CleanMediaType(doc.MediaType) != mt {
		return nil, invalid(mt, fmt.Sprintf("the document says it is a %s", doc.MediaType))
	}
	v := &View{Known: true, Subject: doc.Subject, Annotations: doc.Annotations, ArtifactType: doc.ArtifactType}
	if types.IsIndex(mt) {
		if doc.Layers != nil || doc.Config != nil {
			return nil, invalid(mt, "an index must not have a config or layers")
		}
		v.Manifests = doc.Manifests
	} else {
		if doc.Manifests != nil {
			return nil, invalid(mt, "an image must not have manifests")
		}
		v.Config, v.Layers = doc.Config, doc.Layers
		if mt == types.MediaTypeArtifactManifest {
			v.Layers = doc.Blobs
		} else if v.Config == nil {
			return nil, invalid(mt, "the config is missing")
		}
		if v.ArtifactType == "" && v.Config != nil { // distribution-spec, "Listing Referrers"
			v.ArtifactType = v.Config.MediaType
		}
	}
	return v, v.check(mt)
}

// check makes sure that what others use as digests, paths and sizes is usable as such.
func (v *View) check(mt string) error {
	all := v.Children()
	if v.Subject != nil {
		all = append(all, *v.Subject)
	}
	for _, d := range all {
		if err := types.ValidDigest(d.Digest); err != nil {
			return fmt.Errorf("%w: %w", errs.ErrManifestInvalid, err)
		}
		if d.Size < 0 {
			return invalid(mt, fmt.Sprintf("%s has size %d", d.Digest, d.Size))
		}
	}
	return nil
}

func invalid(mt, why string) error {
	return fmt.Errorf("%w: %s: %s", errs.ErrManifestInvalid, mt, why)
}

// explain names the place of a JSON error.
func explain(raw []byte, err error) string {
	if len(bytes.TrimSpace(raw)) == 0 {
		return "it is empty"
	}
	return err.Error()
}
