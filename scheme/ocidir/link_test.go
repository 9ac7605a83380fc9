package ocidir

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/ref"
)

func TestBlobThatIsASymbolicLinkIsCopied(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege on Windows")
	}
	for name, target := range map[string]string{"in blobs": "kept", "elsewhere in the layout": "../../kept"} {
		t.Run(name, func(t *testing.T) {
			o, dir := open(t), t.TempDir()
			src, tgt, via := place(dir+"/src"), place(dir+"/tgt"), place(dir+"/via")
			data := schemetest.Blob("linked", 5000)
			d := putBlob(t, o, src, data)
			file := blobFileOf(src, d.Digest)
			if err := os.Rename(file, filepath.Join(filepath.Dir(file), target)); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, file); err != nil {
				t.Fatal(err)
			}
			if err := o.BlobMount(t.Context(), src, tgt, d); err != nil {
				t.Error(err)
			}
			if _, err := o.BlobPut(t.Context(), via, d, errReader{}, scheme.WithMountFrom(src)); err != nil {
				t.Error(err)
			}
			for _, r := range []ref.Ref{tgt, via} {
				fi, err := os.Lstat(blobFileOf(r, d.Digest))
				if err != nil {
					t.Error(err)
				} else if !fi.Mode().IsRegular() {
					t.Errorf("%s is %v", r, fi.Mode())
				}
				if got, err := os.ReadFile(blobFileOf(r, d.Digest)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s has other bytes (%v)", r, err)
				}
			}
		})
	}
}
