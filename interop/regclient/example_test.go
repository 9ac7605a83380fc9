package regclient_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	rcscheme "github.com/regclient/regclient/scheme"
	rcocidir "github.com/regclient/regclient/scheme/ocidir"
	rcref "github.com/regclient/regclient/types/ref"

	"github.com/ocisync/ocisync/interop/regclient"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/ref"
)

// tags is code that was written for regclient.
func tags(ctx context.Context, api rcscheme.API, name string) ([]string, error) {
	r, err := rcref.New(name)
	if err != nil {
		return nil, err
	}
	l, err := api.TagList(ctx, r)
	if err != nil {
		return nil, err
	}
	return l.Tags, nil
}

func ExampleNewScheme() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	layout := ocidir.New()
	defer layout.Close()
	name := "ocidir://" + filepath.ToSlash(filepath.Join(dir, "layout"))
	if err := schemetest.Image("hello").Push(ctx, layout, ref.MustParse(name+":v1")); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(tags(ctx, regclient.NewScheme(layout), name))
	// Output: [v1] <nil>
}

func ExampleNewAPI() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	var api scheme.API = regclient.NewAPI(rcocidir.New())
	r := ref.Ref{Scheme: ref.SchemeOCIDir, Root: filepath.Join(dir, "layout")}
	it := schemetest.Image("hello")
	if err := it.Push(ctx, api, r.WithTag("v1")); err != nil {
		fmt.Println(err)
		return
	}
	d, err := api.ManifestHead(ctx, r.WithTag("v1"))
	fmt.Println(d.Digest == it.Manifest.Digest(), err)
	// Output: true <nil>
}
