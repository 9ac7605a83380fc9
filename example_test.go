package ocisync_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// Copy an image from a registry to a directory. The registry of this example is a directory, too, that is served.
func Example() {
	registry, stop := demoRegistry()
	defer stop()
	dir, err := os.MkdirTemp("", "ocisync-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	c := ocisync.New()
	defer c.Close()
	src, dst := ref.MustParse(registry+"/demo:1.0"), ref.MustParse("ocidir://"+filepath.ToSlash(dir)+"/mirror")
	report, err := c.Copy(context.Background(), src, dst)
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println(report.Copied, "image copied, unchanged:", report.Unchanged)
	// Output: 1 image copied, unchanged: 0
}

// demoRegistry serves the demo image on the loopback interface.
func demoRegistry() (host string, stop func()) {
	api := ocidir.New()
	handler, err := serve.New(api, ref.MustParse("ocidir://./testdata"), serve.WithReadOnly())
	if err != nil {
		log.Fatal(err)
	}
	srv := httptest.NewServer(handler)
	return strings.TrimPrefix(srv.URL, "http://"), func() {
		srv.Close()
		if err := handler.Shutdown(context.Background()); err != nil {
			log.Fatal(err)
		}
		if err := api.Close(); err != nil {
			log.Fatal(err)
		}
	}
}
