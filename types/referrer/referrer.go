// Package referrer has the list of what refers to a manifest: signatures, SBOMs, attestations.
package referrer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

// List is what refers to Subject. Descriptors carry artifactType and the annotations of the manifests they name.
type List struct {
	Subject     types.Descriptor // digest always set
	Descriptors []types.Descriptor
	// Next continues a page; empty on the last one.
	Next string
}

// Filter selects referrers. The zero value selects all.
type Filter struct {
	ArtifactType string
	Annotations  map[string]string // each must be there; an empty value means any value
}

// Match reports whether d is selected.
func (f Filter) Match(d types.Descriptor) bool {
	if f.ArtifactType != "" && f.ArtifactType != d.ArtifactType {
		return false
	}
	for k, want := range f.Annotations {
		if got, ok := d.Annotations[k]; !ok || want != "" && got != want {
			return false
		}
	}
	return true
}

// Apply returns those of list that are selected, in the same order.
func (f Filter) Apply(list []types.Descriptor) []types.Descriptor {
	out := []types.Descriptor{}
	for _, d := range list {
		if f.Match(d) {
			out = append(out, d)
		}
	}
	return out
}

// Describe returns the descriptor under which m is listed as a referrer, and what it refers to
// (distribution-spec, "Listing Referrers"). ok is false when m has no subject.
func Describe(m *manifest.Manifest) (d types.Descriptor, subject types.Descriptor, ok bool, err error) {
	v, err := m.View()
	if err != nil {
		return d, subject, false, err
	}
	if v.Subject == nil {
		return d, subject, false, nil
	}
	d = m.Descriptor()
	d.ArtifactType = v.ArtifactType
	d.Annotations = v.Annotations
	return d, *v.Subject, true, nil
}

// FallbackTag is the tag under which referrers of d are listed where there is no referrers API
// (distribution-spec, "Referrers Tag Schema"): algorithm and digest, joined by a dash, cut to 32 and 64 characters.
func FallbackTag(d digest.Digest) string {
	alg, enc := string(d.Algorithm()), d.Encoded()
	return alg[:min(len(alg), 32)] + "-" + enc[:min(len(enc), 64)]
}

// IsFallbackTag reports whether tag has the form that FallbackTag gives: such tags are bookkeeping, not images.
func IsFallbackTag(tag string) bool {
	alg, enc, ok := strings.Cut(tag, "-")
	return ok && isAlgorithm(alg) && len(enc) == 64 && isHex(enc)
}

// CosignSubject reports which digest a tag of cosign's form (sha256-<hex>.sig, .att, .sbom) belongs to.
func CosignSubject(tag string) (digest.Digest, bool) {
	base, suffix, ok := strings.Cut(tag, ".")
	if !ok || !slices.Contains(CosignSuffixes, "."+suffix) {
		return "", false
	}
	d := digest.Digest(strings.Replace(base, "-", ":", 1))
	return d, types.ValidDigest(d) == nil
}

// CosignSuffixes are the endings of the tags that cosign attaches to an image.
var CosignSuffixes = []string{".sig", ".att", ".sbom"}

// CosignTag returns the tag of d with one of CosignSuffixes.
func CosignTag(d digest.Digest, suffix string) string {
	return strings.Replace(string(d), ":", "-", 1) + suffix
}

func isAlgorithm(s string) bool { return s == "sha256" || s == "sha384" || s == "sha512" }

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// Index returns the OCI index that lists the referrers: the body of the referrers API, and of a fallback tag.
func Index(list []types.Descriptor) ([]byte, error) {
	if list == nil {
		list = []types.Descriptor{} // never "manifests": null
	}
	ix := ocispec.Index{MediaType: types.MediaTypeImageIndex, Manifests: list}
	ix.SchemaVersion = 2
	return json.Marshal(ix)
}

// ParseIndex reads what Index wrote, from a registry: hostile until checked. It refuses anything but an index of
// referrers with usable digests; a fallback tag may resolve to the subject itself (GitLab does that), which is an
// index, too, but not one of referrers: checkSubject, if not empty, is the digest raw must not have. An index that lists
// nothing is the exception: somebody may have pushed just that, and an empty list of its referrers is the same bytes.
func ParseIndex(raw []byte, checkSubject digest.Digest) ([]types.Descriptor, error) {
	m, err := manifest.New(raw)
	if err != nil {
		return nil, err
	}
	if m.MediaType() != types.MediaTypeImageIndex {
		return nil, fmt.Errorf("%w: a list of referrers must be an OCI index, not %q", errs.ErrManifestInvalid, m.MediaType())
	}
	v, err := m.View()
	if err != nil {
		return nil, err
	}
	if len(v.Manifests) > 0 && checkSubject != "" && types.ValidDigest(checkSubject) == nil && checkSubject.Algorithm().FromBytes(raw) == checkSubject {
		return nil, fmt.Errorf("%w: the referrers of %s are answered with the manifest itself", errs.ErrManifestInvalid, checkSubject)
	}
	return v.Manifests, nil
}
