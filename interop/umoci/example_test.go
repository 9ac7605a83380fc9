package umoci_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/umoci/oci/casext"

	"github.com/ocisync/ocisync/interop/umoci"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types/ref"
)

// A directory in OCI image layout for umoci's casext.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	api := ocidir.New()
	defer api.Close()
	engine, err := umoci.Create(ctx, api, ref.Ref{Scheme: ref.SchemeOCIDir, Root: filepath.Join(dir, "image")})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()

	ext := casext.NewEngine(engine)
	d, size, err := ext.PutBlob(ctx, strings.NewReader("hello"))
	if err != nil {
		log.Fatal(err)
	}
	err = umoci.Retry(ctx, func() error { // others may change the index at the same time
		return ext.UpdateReference(ctx, "1.0", ispec.Descriptor{MediaType: "text/plain", Digest: d, Size: size})
	})
	if err != nil {
		log.Fatal(err)
	}
	paths, err := ext.ResolveReference(ctx, "1.0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(paths), paths[0].Descriptor().MediaType)
	// Output: 1 text/plain
}
