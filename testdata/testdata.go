// Package testdata holds the demo image: a small, real, multi-platform image
// with referrers and a signature, as an OCI image layout. README.md says what
// is in it and gen makes it.
package testdata

import (
	"embed"
	"io/fs"
)

//go:embed all:demo
var demo embed.FS

// Demo returns the OCI image layout of the demo image: oci-layout, index.json
// and blobs are at its root.
func Demo() fs.FS {
	root, err := fs.Sub(demo, "demo")
	if err != nil {
		panic(err) // cannot happen: the name is a valid path
	}
	return root
}
