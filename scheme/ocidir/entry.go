package ocidir

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// entry is one descriptor in index.json: the bytes it is written as, whoever wrote it, and what of it has a meaning
// here. Entries are immutable and shared by successive indexes.
type entry struct {
	raw          []byte
	mediaType    string
	digest       digest.Digest // empty when it cannot be verified: the entry is kept, and not used
	size         int64
	artifactType string
	name         string // the annotation org.opencontainers.image.ref.name
	image        string // the annotation io.containerd.image.name
	bare         bool   // says nothing but media type, digest, size and artifact type
}

// newEntry makes an entry of ours. It takes nothing over from the manifest: an annotation there could make itself a tag.
func newEntry(d types.Descriptor, name, image string) (*entry, error) {
	out := types.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType}
	for key, v := range map[string]string{types.AnnotationRefName: name, types.AnnotationImageName: image} {
		if v == "" {
			continue
		}
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[key] = v
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return &entry{
		raw: raw, mediaType: d.MediaType, digest: d.Digest, size: d.Size, artifactType: d.ArtifactType,
		name: name, image: image, bare: name == "" && image == "",
	}, nil
}

// descriptor is what e says of the manifest, without its name.
func (e *entry) descriptor() types.Descriptor {
	return types.Descriptor{MediaType: e.mediaType, Digest: e.digest, Size: e.size, ArtifactType: e.artifactType}
}

// entry reads the next value as an entry.
func (s *scanner) entry() (*entry, error) {
	e := &entry{bare: true}
	if s.next() != '{' {
		return nil, s.fail("an object")
	}
	start := s.i
	err := s.object(func(key string) (err error) {
		switch key {
		case "mediaType":
			e.mediaType, err = s.mediaType()
		case "digest":
			var d string
			d, err = s.optional()
			if e.digest = digest.Digest(d); types.ValidDigest(e.digest) != nil {
				e.digest = ""
			}
		case "artifactType":
			e.artifactType, err = s.optional()
		case "size":
			e.size, err = s.integer()
		case "annotations":
			e.bare = false
			err = s.annotations(e)
		default:
			e.bare = false
			_, err = s.skip(0)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return nil
	})
	e.raw = s.b[start:s.i:s.i]
	return e, err
}

// mediaType reads a string that is one of few, and shares it with them.
func (s *scanner) mediaType() (string, error) {
	v, err := s.optional()
	switch v {
	case types.MediaTypeImageManifest:
		v = types.MediaTypeImageManifest
	case types.MediaTypeImageIndex:
		v = types.MediaTypeImageIndex
	}
	return v, err
}

// optional reads a string or null.
func (s *scanner) optional() (string, error) {
	if s.next() == 'n' {
		return "", s.word("null")
	}
	return s.str()
}

func (s *scanner) integer() (int64, error) {
	raw, err := s.skip(0)
	if err != nil || string(raw) == "null" {
		return 0, err
	}
	return strconv.ParseInt(string(raw), 10, 64)
}

func (s *scanner) annotations(e *entry) error {
	if s.next() == 'n' {
		return s.word("null")
	}
	return s.object(func(key string) (err error) {
		switch key {
		case types.AnnotationRefName:
			e.name, err = s.optional()
		case types.AnnotationImageName:
			e.image, err = s.optional()
		default:
			_, err = s.skip(0)
		}
		return err
	})
}

// untagged returns e without the annotations that give it a name. All else that somebody wrote into it stays.
func (e *entry) untagged() (*entry, error) {
	var doc, notes map[string]json.RawMessage
	if err := json.Unmarshal(e.raw, &doc); err != nil {
		return nil, err
	}
	if raw, ok := doc["annotations"]; ok {
		if err := json.Unmarshal(raw, &notes); err != nil {
			return nil, err
		}
	}
	delete(notes, types.AnnotationRefName)
	delete(notes, types.AnnotationImageName)
	delete(doc, "annotations")
	if len(notes) > 0 {
		raw, err := encode(notes)
		if err != nil {
			return nil, err
		}
		doc["annotations"] = raw
	}
	raw, err := encode(doc)
	if err != nil {
		return nil, err
	}
	return (&scanner{b: raw}).entry()
}

// encode is json.Marshal that leaves '<', '>' and '&' as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// tag returns the tag that e's name is, and whether it is one by itself. A full image name (containerd, skopeo and
// umoci users write them) stands for what follows its last colon, where nothing else claims that tag.
func (e *entry) tag() (tag string, exact bool) {
	if e.name == "" || e.digest == "" {
		return "", false
	}
	if ref.ValidTag(e.name) == nil {
		return e.name, true
	}
	name, _, _ := strings.Cut(e.name, "@")
	i := strings.LastIndexByte(name, ':')
	if i <= strings.LastIndexByte(name, '/') || ref.ValidTag(name[i+1:]) != nil {
		return "", false
	}
	return name[i+1:], false
}
