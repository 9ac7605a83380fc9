package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A layout collects blobs and the entries of index.json in memory.
type layout struct {
	blobs   map[digest.Digest][]byte
	entries []ocispec.Descriptor
}

func newLayout() *layout {
	return &layout{blobs: make(map[digest.Digest][]byte)}
}

// addBlob stores data, once however often it is added.
func (l *layout) addBlob(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	l.blobs[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// addJSON stores v, indented on purpose: a tool that decodes a manifest and
// encodes it again, rather than carrying its bytes, gets a different digest.
func (l *layout) addJSON(mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := encode(v)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("encode %s: %w", mediaType, err)
	}
	return l.addBlob(mediaType, data), nil
}

// list names desc in index.json, as a tag unless tag is empty.
func (l *layout) list(desc ocispec.Descriptor, tag string) {
	if tag != "" {
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	}
	l.entries = append(l.entries, desc)
}

// write replaces the layout in dir.
func (l *layout) write(dir string) error {
	index, err := encode(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: l.entries,
	})
	if err != nil {
		return fmt.Errorf("encode %s: %w", ocispec.ImageIndexFile, err)
	}
	marker, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return fmt.Errorf("encode %s: %w", ocispec.ImageLayoutFile, err)
	}
	blobs := filepath.Join(dir, ocispec.ImageBlobsDir)
	if err := os.RemoveAll(blobs); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(blobs, digest.SHA256.String()), 0o755); err != nil {
		return err
	}
	for d, data := range l.blobs {
		if err := os.WriteFile(filepath.Join(blobs, d.Algorithm().String(), d.Encoded()), data, 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ocispec.ImageLayoutFile), marker, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ocispec.ImageIndexFile), index, 0o644)
}

func encode(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}
