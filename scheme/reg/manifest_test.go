package reg

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
)

// image is a small image manifest, different for each name, that refers to subject if there is one.
func image(t *testing.T, name string, subject ...types.Descriptor) *manifest.Manifest {
	t.Helper()
	doc := map[string]any{
		"schemaVersion": 2, "mediaType": types.MediaTypeImageManifest,
		"config":      types.Descriptor{MediaType: types.MediaTypeEmpty, Digest: digest.FromString("{}"), Size: 2},
		"layers":      []types.Descriptor{},
		"annotations": map[string]string{"name": name},
	}
	if len(subject) > 0 {
		doc["subject"] = subject[0]
		doc["artifactType"] = "application/vnd.example"
	}
	m, err := manifest.FromJSON(doc)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
