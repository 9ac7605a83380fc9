// Package types is the vocabulary that all places share. It and the packages below it are pure data: they open no
// file, speak no network and print nothing.
package types

import (
	"mime"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Descriptor says what some content is: media type, digest and size in bytes (OCI image-spec, descriptor.md).
type Descriptor = ocispec.Descriptor

// Platform is what an image runs on (OCI image-spec, image-index.md).
type Platform = ocispec.Platform

// The media types that this module interprets. Content of any other type is stored, copied and served unchanged.
const (
	MediaTypeImageManifest = ocispec.MediaTypeImageManifest
	MediaTypeImageIndex    = ocispec.MediaTypeImageIndex
	MediaTypeImageConfig   = ocispec.MediaTypeImageConfig
	MediaTypeEmpty         = ocispec.MediaTypeEmptyJSON
	// MediaTypeArtifactManifest was dropped before image-spec 1.1, but registries hold such manifests.
	MediaTypeArtifactManifest = "application/vnd.oci.artifact.manifest.v1+json"

	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerConfig       = "application/vnd.docker.container.image.v1+json"
	MediaTypeDockerSchema1      = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeDockerSchema1JWS   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	// MediaTypeOctetStream describes a blob of which nothing else is known.
	MediaTypeOctetStream = "application/octet-stream"
)

// The annotations that have a meaning in a layout's index.json.
const (
	// AnnotationRefName holds the tag of an entry (OCI image-spec, image-layout.md).
	AnnotationRefName = ocispec.AnnotationRefName
	// AnnotationImageName holds containerd's full name of an entry.
	AnnotationImageName = "io.containerd.image.name"
)

// MaxManifestSize is the largest manifest that is read into memory, in bytes. The distribution specification asks
// registries to take 4 MiB at least.
const MaxManifestSize = 8 << 20

// IsIndex reports whether mt lists manifests: an OCI index or a Docker manifest list.
func IsIndex(mt string) bool {
	return mt == MediaTypeImageIndex || mt == MediaTypeDockerManifestList
}

// IsImage reports whether mt is an image or artifact manifest with a config or layers.
func IsImage(mt string) bool {
	return mt == MediaTypeImageManifest || mt == MediaTypeDockerManifest || mt == MediaTypeArtifactManifest
}

// IsManifest reports whether content of type mt is put and fetched as a manifest when an index lists it.
// Docker schema 1 counts: it is a manifest that nothing here interprets.
func IsManifest(mt string) bool {
	return IsIndex(mt) || IsImage(mt) || mt == MediaTypeDockerSchema1 || mt == MediaTypeDockerSchema1JWS
}

// IsForeignLayer reports whether a layer of type mt may be absent from every registry: its bytes are to be
// fetched from elsewhere (image-spec, "non-distributable layers").
func IsForeignLayer(mt string) bool {
	return strings.Contains(mt, ".nondistributable.") || strings.HasPrefix(mt, "application/vnd.docker.image.rootfs.foreign.")
}

// CleanMediaType returns mt without parameters and spaces, in lower case, as it stands in a descriptor.
func CleanMediaType(mt string) string {
	if base, _, err := mime.ParseMediaType(mt); err == nil {
		return base
	}
	base, _, _ := strings.Cut(mt, ";")
	return strings.ToLower(strings.TrimSpace(base))
}

// EmptyDigest reports whether d is the digest of no bytes at all. A descriptor with this digest and size 0 has a
// known size; with any other digest, size 0 means that the size is unknown.
func EmptyDigest(d digest.Digest) bool {
	return d != "" && ValidDigest(d) == nil && d == d.Algorithm().FromString("")
}

// SizeKnown reports whether desc.Size is a statement about the content rather than a value left out.
func SizeKnown(desc Descriptor) bool {
	return desc.Size > 0 || (desc.Size == 0 && EmptyDigest(desc.Digest))
}
