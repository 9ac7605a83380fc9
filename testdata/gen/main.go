// Command gen writes testdata/demo, the small multi-platform image that is
// embedded in the ocisync binary and used by its tests.
//
//	go run ./testdata/gen
//
// Its output depends on nothing but its source: no clock, no random numbers,
// no compressor whose output changes from one Go release to the next. So a
// digest found in demo/ may be written down in a test.
//
// Where things are: hello.go assembles the executables, layer.go packs them,
// image.go says what the image and its referrers are, layout.go puts blobs on
// disk.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	out := flag.String("o", "testdata", "directory that holds demo/ and cosign.pub")
	flag.Parse()
	if err := generate(*out); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// generate writes demo/ and cosign.pub into out, replacing what is there.
func generate(out string) error {
	l := newLayout()
	if err := addDemo(l); err != nil {
		return err
	}
	if err := l.write(filepath.Join(out, "demo")); err != nil {
		return err
	}
	pub, err := publicKeyPEM()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "cosign.pub"), pub, 0o644)
}
