package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/testdata"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// demoRegistry is a registry on a free port of this machine, whose content is in memory.
type demoRegistry struct {
	host     string
	requests atomic.Int64
	api      *mem.Mem
	server   *httpServer
}

// startDemoRegistry starts a registry that holds the demo image. The caller closes it.
func startDemoRegistry(ctx context.Context) (*demoRegistry, error) {
	root := ref.Ref{Scheme: "mem", Root: "demo"}
	r := &demoRegistry{api: mem.New()}
	if err := seed(ctx, r.api, root.WithRepo(demoSource), testdata.Demo()); err != nil {
		return nil, err
	}
	registry, err := serve.New(r.api, root)
	if err != nil {
		return nil, err
	}
	listener, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, registry.Shutdown(ctx))
	}
	r.host = listener.Addr().String()
	r.server = startHTTP(listener, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.requests.Add(1)
		registry.ServeHTTP(w, req)
	}), registry, nil)
	return r, nil
}

// close ends the registry, and with it its content. Its clients are done.
func (r *demoRegistry) close() error {
	return errors.Join(r.server.stop(0), scheme.Close(r.api))
}

// seed puts everything that a layout's index.json lists into r, by the same calls that any copy makes.
func seed(ctx context.Context, api scheme.API, r ref.Ref, layout fs.FS) error {
	index, err := layoutIndex(layout)
	if err != nil {
		return err
	}
	s := &seeder{api: api, r: r, layout: layout, put: map[digest.Digest]bool{}}
	for _, d := range index.Manifests {
		if err := s.manifest(ctx, d, d.Annotations[types.AnnotationRefName]); err != nil {
			return err
		}
	}
	return nil
}

// demoTags returns the tags of the demo image.
func demoTags() ([]string, error) {
	index, err := layoutIndex(testdata.Demo())
	var tags []string
	for _, d := range index.Manifests {
		if tag := d.Annotations[types.AnnotationRefName]; tag != "" {
			tags = append(tags, tag)
		}
	}
	return tags, err
}

func layoutIndex(layout fs.FS) (ocispec.Index, error) {
	var index ocispec.Index
	raw, err := fs.ReadFile(layout, "index.json")
	if err == nil {
		err = json.Unmarshal(raw, &index)
	}
	return index, err
}

type seeder struct {
	api    scheme.API
	r      ref.Ref
	layout fs.FS
	put    map[digest.Digest]bool
}

// manifest puts a manifest after everything that it lists.
func (s *seeder) manifest(ctx context.Context, d types.Descriptor, tag string) error {
	raw, err := s.read(d)
	if err != nil {
		return err
	}
	m, err := manifest.New(raw, manifest.WithDescriptor(d))
	if err != nil {
		return err
	}
	v, err := m.View()
	if err != nil {
		return err
	}
	for _, child := range v.Children() {
		if s.put[child.Digest] {
			continue
		}
		if types.IsManifest(child.MediaType) {
			err = s.manifest(ctx, child, "")
		} else {
			err = s.blob(ctx, child)
		}
		if err != nil {
			return err
		}
		s.put[child.Digest] = true
	}
	at := s.r.WithDigest(d.Digest)
	at.Tag = tag
	_, err = s.api.ManifestPut(ctx, at, m)
	return err
}

func (s *seeder) blob(ctx context.Context, d types.Descriptor) error {
	raw, err := s.read(d)
	if err != nil {
		return err
	}
	_, err = s.api.BlobPut(ctx, s.r, d, bytes.NewReader(raw))
	return err
}

func (s *seeder) read(d types.Descriptor) ([]byte, error) {
	if err := types.ValidDigest(d.Digest); err != nil {
		return nil, fmt.Errorf("demo image: %w", err)
	}
	return fs.ReadFile(s.layout, "blobs/"+string(d.Digest.Algorithm())+"/"+d.Digest.Encoded())
}
