package main

import (
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	typeSPDX   = "application/spdx+json"
	typeInToto = "application/vnd.in-toto+json"
)

// object keeps documents whose schema is not ours short. Its keys are sorted
// when it is encoded.
type object = map[string]any

// addSBOM stores an SPDX 2.3 document that refers to the whole image.
func addSBOM(l *layout, image ocispec.Descriptor) error {
	const pkg = "SPDXRef-Package-hello"
	return addReferrer(l, typeSPDX, image, object{
		"spdxVersion":       "SPDX-2.3",
		"dataLicense":       "CC0-1.0",
		"SPDXID":            "SPDXRef-DOCUMENT",
		"name":              repo + ":" + version,
		"documentNamespace": "https://example.org/spdx/" + image.Digest.Encoded(),
		"creationInfo": object{
			"created":  created.Format(time.RFC3339),
			"creators": []string{"Tool: ocisync-testdata-gen"},
		},
		"packages": []object{{
			"SPDXID":           pkg,
			"name":             "hello",
			"versionInfo":      version,
			"downloadLocation": "NOASSERTION",
			"filesAnalyzed":    false,
			"licenseConcluded": "Apache-2.0",
			"licenseDeclared":  "Apache-2.0",
			"copyrightText":    "Copyright the ocisync authors",
		}},
		"relationships": []object{{
			"spdxElementId":      "SPDXRef-DOCUMENT",
			"relationshipType":   "DESCRIBES",
			"relatedSpdxElement": pkg,
		}},
	})
}

// addProvenance stores an in-toto statement that refers to one platform.
func addProvenance(l *layout, child ocispec.Descriptor) error {
	return addReferrer(l, typeInToto, child, object{
		"_type": "https://in-toto.io/Statement/v1",
		"subject": []object{{
			"name":   repo,
			"digest": object{child.Digest.Algorithm().String(): child.Digest.Encoded()},
		}},
		"predicateType": "https://slsa.dev/provenance/v1",
		"predicate": object{
			"buildDefinition": object{
				"buildType":          "https://example.org/ocisync/testdata/gen",
				"externalParameters": object{"platform": platformName(*child.Platform)},
			},
			"runDetails": object{
				"builder":  object{"id": "https://example.org/ocisync/testdata/gen"},
				"metadata": object{"startedOn": created.Format(time.RFC3339)},
			},
		},
	})
}

// addReferrer stores doc as an artifact about subject. Its index.json entry
// has no tag: it is found through its subject, as oras-go writes it.
func addReferrer(l *layout, artifactType string, subject ocispec.Descriptor, doc object) error {
	content, err := l.addJSON(artifactType, doc)
	if err != nil {
		return err
	}
	empty := ocispec.DescriptorEmptyJSON
	l.addBlob(empty.MediaType, empty.Data)
	desc, err := l.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType,
		Config:       empty,
		Layers:       []ocispec.Descriptor{content},
		Subject:      &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations:  map[string]string{ocispec.AnnotationCreated: created.Format(time.RFC3339)},
	})
	if err != nil {
		return err
	}
	desc.ArtifactType = artifactType
	l.list(desc, "")
	return nil
}
