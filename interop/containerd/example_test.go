package containerd_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/interop/containerd"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types/ref"
)

// A directory in OCI image layout as containerd's content store.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	api := ocidir.New()
	defer api.Close()
	store := containerd.New(api, ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir})

	const layer = "what a layer holds"
	desc := ocispec.Descriptor{Digest: digest.FromString(layer), Size: int64(len(layer))}
	labels := content.WithLabels(map[string]string{"from": "somewhere"})
	if err := content.WriteBlob(ctx, store, "layer", strings.NewReader(layer), desc, labels); err != nil {
		log.Fatal(err)
	}
	err = store.Walk(ctx, func(i content.Info) error {
		fmt.Println(i.Size, i.Labels)
		return nil
	}, "labels.from==somewhere")
	if err != nil {
		log.Fatal(err)
	}
	data, err := content.ReadBlob(ctx, store, desc)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(data))
	// Output:
	// 18 map[from:somewhere]
	// what a layer holds
}
