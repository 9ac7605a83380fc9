package regclient_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	rcocidir "github.com/regclient/regclient/scheme/ocidir"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/interop/regclient"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func TestPingTellsAbsentFromUnusable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	api := regclient.NewAPI(rcocidir.New())
	res, err := api.Ping(t.Context(), ref.Ref{Scheme: ref.SchemeOCIDir, Root: filepath.Join(dir, "absent")})
	if err != nil || res.Exists {
		t.Errorf("a directory that can be made: got %+v and %v", res, err)
	}
	if _, err := api.Ping(t.Context(), ref.Ref{Scheme: ref.SchemeOCIDir, Root: file}); err == nil {
		t.Error("a file in place of a directory: no error")
	}
}

// TestDamageIsNoEnd holds that what regclient calls io.EOF as well is only a mismatch here.
func TestDamageIsNoEnd(t *testing.T) {
	r := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
	api := regclient.NewAPI(rcocidir.New())
	data := schemetest.Blob("damaged", 5000)
	d, err := api.BlobPut(t.Context(), r, types.Descriptor{}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.Root, "blobs", "sha256", d.Digest.Encoded())
	for what, damaged := range map[string][]byte{"a flipped bit": append([]byte{data[0] ^ 1}, data[1:]...), "a short file": data[:4999], "an empty file": nil} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		rdr, err := api.BlobGet(t.Context(), r, types.Descriptor{Digest: d.Digest})
		if err == nil {
			_, err = io.Copy(io.Discard, rdr)
			rdr.Close()
		}
		if !errors.Is(err, errs.ErrDigestMismatch) || errors.Is(err, io.EOF) {
			t.Errorf("%s: got %v, want a mismatch that is not io.EOF", what, err)
		}
	}
}

// TestWhatIsAskedIsCheckedFirst holds that nothing malformed reaches regclient, whose layouts make paths of it.
func TestWhatIsAskedIsCheckedFirst(t *testing.T) {
	api := regclient.NewAPI(nil) // any call of regclient would panic
	r := ref.Ref{Scheme: ref.SchemeOCIDir, Root: "x"}
	bad := digest.Digest("sha256:../../x")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, errGet := api.BlobGet(t.Context(), r, types.Descriptor{Digest: bad})
	_, errPut := api.BlobPut(t.Context(), r, types.Descriptor{Digest: bad}, nil)
	_, errManifest := api.ManifestGet(t.Context(), r.WithDigest(bad))
	_, errTags := api.TagList(t.Context(), r.WithRepo("../x"))
	for name, err := range map[string]error{
		"BlobGet": errGet, "BlobPut": errPut, "ManifestGet": errManifest, "TagList": errTags,
		"BlobDelete": api.BlobDelete(t.Context(), r, types.Descriptor{}), "TagDelete": api.TagDelete(t.Context(), r.WithTag("../x")),
		"ManifestDelete": api.ManifestDelete(t.Context(), r.WithTag("v1")),
	} {
		if !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	if _, err := api.Ping(ended, r); !errors.Is(err, context.Canceled) {
		t.Errorf("Ping after the end of its context: got %v", err)
	}
	var opener scheme.BlobOpener
	if scheme.As(scheme.API(api), r, &opener) {
		t.Error("it has a capability that regclient has not")
	}
}
