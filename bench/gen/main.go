// Command gen writes an image layout of small synthetic images, as input of comparisons:
//
//	go run ./bench/gen DIR TAGS LAYER_BYTES
//
// Every tag is an image of a config and two layers of random bytes, the first of which all tags share.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	if len(args) != 3 {
		return errors.New("usage: gen DIR TAGS LAYER_BYTES")
	}
	tags, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	api := ocidir.New()
	defer func() { err = errors.Join(err, scheme.Close(api)) }()
	g := generator{api: api, r: ref.Ref{Scheme: ref.SchemeOCIDir, Root: args[0]}}
	shared, err := g.blob("application/vnd.oci.image.layer.v1.tar", random(0, size))
	if err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(32)
	for i := range tags {
		all.Go(func() error { return g.image(i, shared, random(uint64(i)+1, size)) })
	}
	return all.Wait()
}

type generator struct {
	api scheme.API
	r   ref.Ref
}

func (g generator) image(i int, shared types.Descriptor, layer []byte) error {
	own, err := g.blob("application/vnd.oci.image.layer.v1.tar", layer)
	if err != nil {
		return err
	}
	config, err := g.blob(types.MediaTypeImageConfig, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{"Env":["N=%d"]},"rootfs":{"type":"layers","diff_ids":["%s","%s"]}}`, i, shared.Digest, own.Digest))
	if err != nil {
		return err
	}
	m, err := manifest.FromJSON(map[string]any{
		"schemaVersion": 2, "mediaType": types.MediaTypeImageManifest, "config": config, "layers": []types.Descriptor{shared, own},
	})
	if err != nil {
		return err
	}
	_, err = g.api.ManifestPut(context.Background(), g.r.WithTag(fmt.Sprintf("v%d", i)), m)
	return err
}

func (g generator) blob(mt string, data []byte) (types.Descriptor, error) {
	d, err := g.api.BlobPut(context.Background(), g.r, types.Descriptor{MediaType: mt}, bytes.NewReader(data), scheme.WithDeferredSync())
	d.MediaType = mt
	return d, err
}

// random returns bytes that do not compress, the same for one seed.
func random(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	return data
}
