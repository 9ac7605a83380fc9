package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// The repositories of every server.
const (
	repoApp  = "bench/app"  // 1,000 tags, each of a manifest of its own
	repoMany = "bench/many" // tags in which tags are put
	repoPush = "bench/push" // images are pushed here

	appTags  = 1000
	layerMT  = "application/vnd.oci.image.layer.v1.tar"
	tagCount = 256 // tags that pushes move
)

// shelf is what all servers have, as layouts in a tree.
type shelf struct {
	dir       string
	manifests []*manifest.Manifest // of repoApp, by tag
	many      []*manifest.Manifest // of repoMany; tags take turns
	manyTags  int
	config    types.Descriptor
	small     types.Descriptor // 64 KiB
	middle    types.Descriptor // 4 MiB
	large     types.Descriptor
}

func newShelf(ctx context.Context, dir string, c config) (*shelf, error) {
	s := &shelf{dir: dir, manyTags: c.many}
	api := ocidir.New(ocidir.WithDurability(ocidir.None))
	root := ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir}
	err := s.fill(ctx, api, root, c.large)
	if cerr := api.Close(); err == nil {
		err = cerr
	}
	return s, err
}

func (s *shelf) fill(ctx context.Context, api scheme.API, root ref.Ref, large int64) error {
	put := func(repo string, mt string, r io.Reader) (types.Descriptor, error) {
		d, err := api.BlobPut(ctx, root.WithRepo(repo), types.Descriptor{}, r)
		d.MediaType = mt
		return d, err
	}
	var err error
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	for _, repo := range []string{repoApp, repoMany, repoPush} {
		if s.config, err = put(repo, types.MediaTypeImageConfig, bytes.NewReader(config)); err != nil {
			return err
		}
		if s.small, err = put(repo, layerMT, noise(1, 64<<10)); err != nil {
			return err
		}
	}
	if s.middle, err = put(repoApp, layerMT, noise(3, 4<<20)); err != nil {
		return err
	}
	if s.large, err = put(repoApp, layerMT, noise(2, large)); err != nil {
		return err
	}
	if s.manifests, err = s.images(appTags, "app"); err != nil {
		return err
	}
	if s.many, err = s.images(64, "many"); err != nil {
		return err
	}
	if err := tagAll(ctx, api, root.WithRepo(repoApp), s.manifests, appTags); err != nil {
		return err
	}
	return tagAll(ctx, api, root.WithRepo(repoMany), s.many, s.manyTags)
}

// tagAll puts n tags, for which the manifests take turns.
func tagAll(ctx context.Context, api scheme.API, r ref.Ref, all []*manifest.Manifest, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(64)
	for i := 0; i < n; i += 100 {
		g.Go(func() error {
			for k := i; k < min(i+100, n); k++ {
				if _, err := api.ManifestPut(ctx, r.WithTag(tagName(k)), all[k%len(all)]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func tagName(i int) string { return fmt.Sprintf("v%d", i) }

// images makes manifests that differ in an annotation, of about the size that images have.
func (s *shelf) images(n int, name string) ([]*manifest.Manifest, error) {
	all := make([]*manifest.Manifest, n)
	for i := range all {
		m, err := s.image(s.config, []types.Descriptor{s.small}, fmt.Sprintf("%s-%d", name, i))
		if err != nil {
			return nil, err
		}
		all[i] = m
	}
	return all, nil
}

func (s *shelf) image(config types.Descriptor, layers []types.Descriptor, name string) (*manifest.Manifest, error) {
	return manifest.FromJSON(map[string]any{
		"schemaVersion": 2, "mediaType": types.MediaTypeImageManifest, "config": config, "layers": layers,
		"annotations": map[string]string{"org.opencontainers.image.title": name, "org.opencontainers.image.source": "https://example.com/bench/" + name},
	})
}

// noise is n bytes that do not compress, the same for one seed.
func noise(seed uint64, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), n)
}

// copyTree copies a tree of files. Large ones get a second name instead, so that all servers read the same bytes of the
// system's cache.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if e.Name() == ".ocisync" { // ours only
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return copyFile(path, filepath.Join(to, rel))
	})
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	fi, err := os.Stat(from)
	if err != nil {
		return err
	}
	if fi.Size() >= 16<<20 {
		return os.Link(from, to)
	}
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o644)
}

// blobFile is the file of a blob in the tree of layouts.
func (s *shelf) blobFile(repo string, d types.Descriptor) string {
	return filepath.Join(s.dir, repo, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
}

// asFiles writes what a web server needs to answer the same requests: every path a file.
func (s *shelf) asFiles(dir string) error {
	base := filepath.Join(dir, "v2", repoApp)
	for i, m := range s.manifests {
		for _, name := range []string{tagName(i), string(m.Digest())} {
			if err := writeFile(filepath.Join(base, "manifests", name), m.Raw()); err != nil {
				return err
			}
		}
	}
	for _, d := range []types.Descriptor{s.config, s.small, s.middle, s.large} {
		if err := copyFile(s.blobFile(repoApp, d), filepath.Join(base, "blobs", string(d.Digest))); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path string, raw []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o644)
}

// asDistribution writes the tree in the form of distribution's file system driver.
func (s *shelf) asDistribution(dir string) error {
	base := filepath.Join(dir, "docker", "registry", "v2")
	repos := map[string][]*manifest.Manifest{repoApp: s.manifests, repoMany: s.many, repoPush: nil}
	count := map[string]int{repoApp: appTags, repoMany: s.manyTags}
	for repo, all := range repos {
		at := filepath.Join(base, "repositories", repo)
		blobs := []types.Descriptor{s.config, s.small}
		if repo == repoApp {
			blobs = append(blobs, s.middle, s.large)
		}
		for _, d := range blobs {
			if err := s.distributionBlob(base, repo, d); err != nil {
				return err
			}
			if err := writeFile(filepath.Join(at, "_layers/sha256", d.Digest.Encoded(), "link"), []byte(d.Digest)); err != nil {
				return err
			}
		}
		for _, m := range all {
			if err := s.distributionBlob(base, repo, m.Descriptor()); err != nil {
				return err
			}
			if err := writeFile(filepath.Join(at, "_manifests/revisions/sha256", m.Digest().Encoded(), "link"), []byte(m.Digest())); err != nil {
				return err
			}
		}
		for i := range count[repo] {
			d := all[i%len(all)].Digest()
			tag := filepath.Join(at, "_manifests/tags", tagName(i))
			for _, link := range []string{"current/link", "index/sha256/" + d.Encoded() + "/link"} {
				if err := writeFile(filepath.Join(tag, link), []byte(d)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *shelf) distributionBlob(base, repo string, d types.Descriptor) error {
	hex := d.Digest.Encoded()
	to := filepath.Join(base, "blobs/sha256", hex[:2], hex, "data")
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	return copyFile(s.blobFile(repo, d), to)
}
