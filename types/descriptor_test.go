package types_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

func TestValidDigestRefusesWhatCannotBeVerified(t *testing.T) {
	hex := strings.Repeat("a", 64)
	for _, ok := range []string{"sha256:" + hex, "sha512:" + strings.Repeat("0", 128)} {
		if err := types.ValidDigest(digest.Digest(ok)); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", "sha256", "sha256:", "sha256:" + hex[:32], "sha256:" + hex + "a", "sha256:" + strings.ToUpper(hex),
		"md5:" + hex[:32], "../../etc:" + hex, "sha256:../" + hex[:61], "SHA256:" + hex, "sha512:" + hex,
	} {
		if err := types.ValidDigest(digest.Digest(bad)); !errors.Is(err, errs.ErrDigestInvalid) {
			t.Errorf("%q: got %v, want ErrDigestInvalid", bad, err)
		}
	}
}

func TestSizeKnown(t *testing.T) {
	empty := digest.FromString("")
	for _, c := range []struct {
		name string
		d    types.Descriptor
		want bool
	}{
		{"size 0 of something is unknown", types.Descriptor{Digest: digest.FromString("x")}, false},
		{"size 0 of the empty digest is known", types.Descriptor{Digest: empty}, true},
		{"no digest, no size", types.Descriptor{}, false},
		{"negative is unknown", types.Descriptor{Digest: empty, Size: -1}, false},
		{"positive is known", types.Descriptor{Size: 1}, true},
	} {
		if got := types.SizeKnown(c.d); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func TestCleanMediaType(t *testing.T) {
	for in, want := range map[string]string{
		"application/vnd.oci.image.index.v1+json":                 "application/vnd.oci.image.index.v1+json",
		"Application/VND.oci.image.index.v1+json; charset=utf-8 ": "application/vnd.oci.image.index.v1+json",
		"broken; ;": "broken",
	} {
		if got := types.CleanMediaType(in); got != want {
			t.Errorf("%q: got %q", in, got)
		}
	}
}
