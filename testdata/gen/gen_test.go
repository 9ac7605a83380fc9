package main

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/testdata"
)

// sizeBudget bounds what the demo image adds to the ocisync binary.
const sizeBudget = 60 << 10

// TestGenerate holds that what is committed is what the generator makes, and
// that all of it, and nothing else, is embedded.
func TestGenerate(t *testing.T) {
	out := t.TempDir()
	if err := generate(out); err != nil {
		t.Fatal(err)
	}
	made := readTree(t, os.DirFS(filepath.Join(out, "demo")))
	compareTrees(t, "testdata/demo", readTree(t, os.DirFS("../demo")), made)
	compareTrees(t, "testdata.Demo()", readTree(t, testdata.Demo()), made)

	size := 0
	for _, data := range made {
		size += len(data)
	}
	if size > sizeBudget {
		t.Errorf("demo has %d bytes, more than the budget of %d", size, sizeBudget)
	}
	pub, err := publicKeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("../cosign.pub"); err != nil || !bytes.Equal(got, pub) {
		t.Errorf("testdata/cosign.pub differs from the generator's (%v)", err)
	}
}

// TestGenerateReplaces holds that blobs of an earlier version do not stay.
func TestGenerateReplaces(t *testing.T) {
	out := t.TempDir()
	stale := filepath.Join(out, "demo", "blobs", "sha256", strings.Repeat("0", 64))
	if err := os.MkdirAll(filepath.Dir(stale), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stale, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := generate(out); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("stale blob: %v, want it gone", err)
	}
}

// TestBlobs holds that each blob has the digest of its name, and that each is
// reached from index.json by descriptors that tell its size.
func TestBlobs(t *testing.T) {
	demo := testdata.Demo()
	for name, data := range readTree(t, demo) {
		if dir, hex := path.Split(name); dir == "blobs/sha256/" {
			if got := digest.FromBytes(data).Encoded(); got != hex {
				t.Errorf("%s has digest %s", name, got)
			}
		}
	}
	seen := map[digest.Digest]bool{}
	for _, desc := range index(t, demo).Manifests {
		walk(t, demo, desc, seen)
	}
	entries, err := fs.ReadDir(demo, "blobs/sha256")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !seen[digest.NewDigestFromEncoded(digest.SHA256, e.Name())] {
			t.Errorf("blob %s is reached from nothing", e.Name())
		}
	}
}

func TestTagsAndReferrers(t *testing.T) {
	demo := testdata.Demo()
	var got []string
	for _, d := range index(t, demo).Manifests {
		got = append(got, d.Annotations[ocispec.AnnotationRefName]+"|"+d.ArtifactType)
	}
	image := tagged(t, demo, version)
	want := []string{
		"1.0|", "latest|", "|" + typeSPDX, "|" + typeInToto,
		"sha256-" + image.Digest.Encoded() + ".sig|",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("index.json lists %q, want %q", got, want)
	}
	if latest := tagged(t, demo, "latest"); latest.Digest != image.Digest {
		t.Errorf("latest is %s, want %s", latest.Digest, image.Digest)
	}
}

// TestDiffIDs holds that a config lists the digests of its uncompressed layers.
func TestDiffIDs(t *testing.T) {
	demo := testdata.Demo()
	for _, child := range images(t, demo) {
		var m ocispec.Manifest
		var config ocispec.Image
		decode(t, blob(t, demo, child), &m)
		decode(t, blob(t, demo, m.Config), &config)
		if got, want := platformName(config.Platform), platformName(*child.Platform); got != want {
			t.Errorf("config is for %s, index entry for %s", got, want)
		}
		if len(m.Layers) != len(config.RootFS.DiffIDs) {
			t.Fatalf("%d layers, %d diff IDs", len(m.Layers), len(config.RootFS.DiffIDs))
		}
		for i, l := range m.Layers {
			if got := digest.FromBytes(gunzip(t, blob(t, demo, l))); got != config.RootFS.DiffIDs[i] {
				t.Errorf("layer %d of %s has diff ID %s, config says %s", i, platformName(*child.Platform), got, config.RootFS.DiffIDs[i])
			}
		}
	}
}

// TestHelloRuns runs the executable of this machine's platform, and the others
// where a QEMU user emulator is installed.
func TestHelloRuns(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the executables are for linux")
	}
	emulator := map[string]string{"amd64": "qemu-x86_64", "arm64": "qemu-aarch64", "arm": "qemu-arm"}
	for _, p := range platforms {
		t.Run(p.Architecture, func(t *testing.T) {
			exe, err := hello(p)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(t.TempDir(), "hello")
			if err := os.WriteFile(name, exe, 0o755); err != nil {
				t.Fatal(err)
			}
			args := []string{name}
			if p.Architecture != runtime.GOARCH {
				qemu, err := exec.LookPath(emulator[p.Architecture])
				if err != nil {
					t.Skip(err)
				}
				args = []string{qemu, name}
			}
			out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			want := "Hello from the ocisync demo image, " + platformName(p) + "\n"
			if err != nil || string(out) != want {
				t.Errorf("hello printed %q (%v), want %q", out, err, want)
			}
		})
	}
}

// TestSignature holds that the cosign signature verifies with cosign.pub.
func TestSignature(t *testing.T) {
	demo := testdata.Demo()
	image := tagged(t, demo, version)
	var m ocispec.Manifest
	decode(t, blob(t, demo, tagged(t, demo, "sha256-"+image.Digest.Encoded()+".sig")), &m)
	payload := blob(t, demo, m.Layers[0])
	if !bytes.Contains(payload, []byte(image.Digest)) {
		t.Errorf("payload %s is not about %s", payload, image.Digest)
	}
	sig, err := base64.StdEncoding.DecodeString(m.Layers[0].Annotations[keySignature])
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../cosign.pub")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("cosign.pub is not PEM")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(payload)
	if !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), hash[:], sig) {
		t.Error("signature does not verify")
	}
}

// walk visits desc and what it refers to, checking each descriptor's size.
func walk(t *testing.T, demo fs.FS, desc ocispec.Descriptor, seen map[digest.Digest]bool) {
	t.Helper()
	data := blob(t, demo, desc)
	if int64(len(data)) != desc.Size {
		t.Errorf("%s has %d bytes, descriptor says %d", desc.Digest, len(data), desc.Size)
	}
	if seen[desc.Digest] {
		return
	}
	seen[desc.Digest] = true
	switch desc.MediaType {
	case ocispec.MediaTypeImageIndex:
		var idx ocispec.Index
		decode(t, data, &idx)
		for _, child := range idx.Manifests {
			walk(t, demo, child, seen)
		}
	case ocispec.MediaTypeImageManifest:
		var m ocispec.Manifest
		decode(t, data, &m)
		walk(t, demo, m.Config, seen)
		for _, l := range m.Layers {
			walk(t, demo, l, seen)
		}
		if m.Subject != nil {
			walk(t, demo, *m.Subject, seen)
		}
	}
}

func index(t *testing.T, demo fs.FS) ocispec.Index {
	t.Helper()
	data, err := fs.ReadFile(demo, ocispec.ImageIndexFile)
	if err != nil {
		t.Fatal(err)
	}
	var idx ocispec.Index
	decode(t, data, &idx)
	return idx
}

func tagged(t *testing.T, demo fs.FS, tag string) ocispec.Descriptor {
	t.Helper()
	for _, d := range index(t, demo).Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			return d
		}
	}
	t.Fatalf("index.json has no tag %s", tag)
	return ocispec.Descriptor{}
}

// images returns the descriptors of the three platforms.
func images(t *testing.T, demo fs.FS) []ocispec.Descriptor {
	t.Helper()
	var idx ocispec.Index
	decode(t, blob(t, demo, tagged(t, demo, version)), &idx)
	if len(idx.Manifests) != len(platforms) {
		t.Fatalf("image has %d platforms, want %d", len(idx.Manifests), len(platforms))
	}
	return idx.Manifests
}

func blob(t *testing.T, demo fs.FS, desc ocispec.Descriptor) []byte {
	t.Helper()
	data, err := fs.ReadFile(demo, path.Join(ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

func gunzip(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func readTree(t *testing.T, root fs.FS) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files[name], err = fs.ReadFile(root, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func compareTrees(t *testing.T, name string, got, want map[string][]byte) {
	t.Helper()
	for file, data := range want {
		if !bytes.Equal(got[file], data) {
			t.Errorf("%s: %s differs from what the generator makes; run go run ./testdata/gen", name, file)
		}
	}
	for file := range got {
		if _, ok := want[file]; !ok {
			t.Errorf("%s: %s is not made by the generator", name, file)
		}
	}
}
