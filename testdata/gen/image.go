package main

import (
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// created is the only time there is in the demo image.
var created = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)

const (
	version = "1.0" // also the tag
	repo    = "demo/hello"

	osRelease = `ID=ocisync-demo
NAME="ocisync demo"
VERSION_ID=` + version + `
PRETTY_NAME="ocisync demo image ` + version + `"
`
	license = `The ocisync demo image
Copyright the ocisync authors

Licensed under the Apache License, Version 2.0 (the "License"); you may not
use this file except in compliance with the License. You may obtain a copy of
the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
License for the specific language governing permissions and limitations under
the License.

SPDX-License-Identifier: Apache-2.0
`
)

var platforms = []ocispec.Platform{
	{OS: "linux", Architecture: "amd64"},
	{OS: "linux", Architecture: "arm64"},
	{OS: "linux", Architecture: "arm", Variant: "v7"},
}

func platformName(p ocispec.Platform) string {
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return name
}

// addDemo puts the image, its tags, its referrers and its signature into l.
func addDemo(l *layout) error {
	base, err := packLayer(
		file{name: "etc/", mode: 0o755},
		file{name: "etc/os-release", mode: 0o644, data: []byte(osRelease)},
		file{name: "LICENSE", mode: 0o644, data: []byte(license)},
	)
	if err != nil {
		return err
	}
	var children []ocispec.Descriptor
	for _, p := range platforms {
		child, err := addImage(l, p, base)
		if err != nil {
			return err
		}
		children = append(children, child)
	}
	image, err := l.addJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageIndex,
		Manifests:   children,
		Annotations: annotations("A hello world that runs on three platforms"),
	})
	if err != nil {
		return err
	}
	l.list(image, version)
	l.list(image, "latest")

	if err := addSBOM(l, image); err != nil {
		return err
	}
	if err := addProvenance(l, children[0]); err != nil {
		return err
	}
	return addSignature(l, image)
}

// addImage stores the image of one platform: the base layer that all of them
// share, then a layer with the executable. The descriptor it returns is ready
// for an index.
func addImage(l *layout, p ocispec.Platform, base layer) (ocispec.Descriptor, error) {
	exe, err := hello(p)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	app, err := packLayer(file{name: "hello", mode: 0o755, data: exe})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	config, err := l.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{
		Created:  &created,
		Author:   "the ocisync authors",
		Platform: p,
		Config: ocispec.ImageConfig{
			Env:        []string{"PATH=/"},
			Entrypoint: []string{"/hello"},
			WorkingDir: "/",
			Labels:     annotations("Says hello from " + platformName(p)),
		},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{base.diffID, app.diffID}},
		History: []ocispec.History{
			{Created: &created, CreatedBy: "testdata/gen", Comment: "base files"},
			{Created: &created, CreatedBy: "testdata/gen", Comment: "/hello"},
			{Created: &created, CreatedBy: "testdata/gen", Comment: `ENTRYPOINT ["/hello"]`, EmptyLayer: true},
		},
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := l.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers: []ocispec.Descriptor{
			l.addBlob(ocispec.MediaTypeImageLayerGzip, base.gz),
			l.addBlob(ocispec.MediaTypeImageLayerGzip, app.gz),
		},
		Annotations: annotations("Says hello from " + platformName(p)),
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc.Platform = &p
	return desc, nil
}

func annotations(description string) map[string]string {
	return map[string]string{
		ocispec.AnnotationCreated:     created.Format(time.RFC3339),
		ocispec.AnnotationTitle:       "hello",
		ocispec.AnnotationDescription: description,
		ocispec.AnnotationVersion:     version,
		ocispec.AnnotationLicenses:    "Apache-2.0",
	}
}
