package clients_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociauth"
	"cuelabs.dev/go/oci/ociregistry/ociclient"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// login is the configuration that ociclient takes a user from.
type login string

func (l login) EntryForRegistry(string) (ociauth.ConfigEntry, error) {
	if l == "" {
		return ociauth.ConfigEntry{}, nil
	}
	return ociauth.ConfigEntry{Username: string(l), Password: password}, nil
}

// cueClient is a registry as ociclient sees it, for user.
func cueClient(t *testing.T, reg *registry, user string, rt http.RoundTripper) ociregistry.Interface {
	t.Helper()
	c, err := ociclient.New(reg.host, &ociclient.Options{
		Insecure: !reg.mode.https, Transport: ociauth.NewStdTransport(ociauth.StdTransportParams{Config: login(user), Transport: rt}),
		ListPageSize: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// cuePush pushes the release; every other blob goes in chunks.
func cuePush(t *testing.T, c ociregistry.Interface, repo string, r *release, tag string) {
	t.Helper()
	for i, b := range r.blobs {
		if i%2 == 0 {
			cueChunks(t, c, repo, b)
		} else if _, err := c.PushBlob(t.Context(), repo, b.desc, bytes.NewReader(b.data)); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range r.manifests {
		under := ""
		if m.desc.Digest == r.index.Digest {
			under = tag
		}
		if d, err := c.PushManifest(t.Context(), repo, under, m.data, m.desc.MediaType); err != nil || d.Digest != m.desc.Digest {
			t.Fatalf("%v, %v", d, err)
		}
	}
}

// cueChunks pushes a blob in chunks of 32 KiB.
func cueChunks(t *testing.T, c ociregistry.Interface, repo string, b node) {
	t.Helper()
	w, err := c.PushBlobChunked(t.Context(), repo, 32<<10)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(struct{ io.Writer }{w}, bytes.NewReader(b.data)); err != nil {
		t.Fatal(err)
	}
	if d, err := w.Commit(b.desc.Digest); err != nil || d.Digest != b.desc.Digest {
		t.Fatalf("%v, %v", d, err)
	}
}

func TestOciclientPushesAndPulls(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			const repo = "team/cue"
			reg, rel := start(t, m), newRelease(t, "cue")
			c := cueClient(t, reg, pusher, reg.transport())
			cuePush(t, c, repo, rel, "1.0")
			rel.isIn(reg, repo, "1.0")

			r := cueClient(t, reg, reader, reg.transport())
			for _, b := range rel.blobs {
				cueSame(t, b.data)(r.GetBlob(t.Context(), repo, b.desc.Digest))
				if n := b.desc.Size; n > 10 {
					cueSame(t, b.data[3:n-4])(r.GetBlobRange(t.Context(), repo, b.desc.Digest, 3, n-4))
					cueSame(t, b.data[n-4:])(r.GetBlobRange(t.Context(), repo, b.desc.Digest, n-4, -1))
				}
				if d, err := r.ResolveBlob(t.Context(), repo, b.desc.Digest); err != nil || d.Size != b.desc.Size {
					t.Errorf("%v, %v", d, err)
				}
			}
			for _, mf := range rel.manifests {
				cueSame(t, mf.data)(r.GetManifest(t.Context(), repo, mf.desc.Digest))
			}
			if d, err := r.ResolveTag(t.Context(), repo, "1.0"); err != nil || d.Digest != rel.index.Digest || d.MediaType != rel.index.MediaType {
				t.Errorf("%v, %v", d, err)
			}
			cueLists(t, c, repo, rel)
			if _, err := c.MountBlob(t.Context(), repo, "team/mounted", rel.blobs[0].desc.Digest); err != nil {
				t.Errorf("a mount: %v", err)
			}
			cueSame(t, rel.blobs[0].data)(c.GetBlob(t.Context(), "team/mounted", rel.blobs[0].desc.Digest))
			cueErrors(t, reg, repo)
		})
	}
}

// cueSame reads what a method returns, and compares.
func cueSame(t *testing.T, want []byte) func(rdr ociregistry.BlobReader, err error) {
	return func(rdr ociregistry.BlobReader, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
			return
		}
		defer rdr.Close()
		if got, err := io.ReadAll(rdr); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v; want the %d that were pushed", len(got), err, len(want))
		}
	}
}

// cueLists lists in pages of two.
func cueLists(t *testing.T, c ociregistry.Interface, repo string, rel *release) {
	t.Helper()
	raw := rel.manifests[len(rel.manifests)-1]
	want := []string{"1.0"}
	for i := range 5 {
		want = append(want, fmt.Sprint("t", i))
		if _, err := c.PushManifest(t.Context(), repo, want[i+1], raw.data, raw.desc.MediaType); err != nil {
			t.Fatal(err)
		}
	}
	if tags, err := all(c.Tags(t.Context(), repo, "")); err != nil || !slices.Equal(tags, want) {
		t.Errorf("the tags are %q, %v", tags, err)
	}
	if tags, err := all(c.Tags(t.Context(), repo, "t1")); err != nil || !slices.Equal(tags, want[3:]) {
		t.Errorf("the tags after t1 are %q, %v", tags, err)
	}
	list, err := all(c.Referrers(t.Context(), repo, rel.index.Digest, sbom))
	if err != nil || !slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == rel.sbom.Digest }) {
		t.Errorf("the referrers are %v, %v", list, err)
	}
}

func all[T any](seq iter.Seq2[T, error]) (list []T, err error) {
	for v, err := range seq {
		if err != nil {
			return list, err
		}
		list = append(list, v)
	}
	return list, nil
}

// cueErrors checks that refusals are the errors of ociregistry that say why.
func cueErrors(t *testing.T, reg *registry, repo string) {
	t.Helper()
	c := cueClient(t, reg, pusher, reg.transport())
	absent := digest.FromString("absent")
	if _, err := c.GetTag(t.Context(), repo, "absent"); !errors.Is(err, ociregistry.ErrManifestUnknown) {
		t.Errorf("a tag that is not there: %v", err)
	}
	if _, err := c.GetBlob(t.Context(), repo, absent); !errors.Is(err, ociregistry.ErrBlobUnknown) {
		t.Errorf("a blob that is not there: %v", err)
	}
	d := ocispec.Descriptor{Digest: absent, Size: 5}
	if _, err := c.PushBlob(t.Context(), repo, d, bytes.NewReader([]byte("other"))); !errors.Is(err, ociregistry.ErrDigestInvalid) {
		t.Errorf("a blob of another digest: %v", err)
	}
	if !reg.mode.auth {
		return
	}
	for user, want := range map[string]error{"": ociregistry.ErrUnauthorized, "nobody": ociregistry.ErrUnauthorized, reader: ociregistry.ErrDenied} {
		rd := bytes.NewReader([]byte("x"))
		d := ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}
		if _, err := cueClient(t, reg, user, reg.transport()).PushBlob(t.Context(), repo, d, rd); !errors.Is(err, want) {
			t.Errorf("a push by %q: %v, want %v", user, err, want)
		}
	}
}

// ociclient is the only client that goes on with an upload: it asks how far it came.
func TestOciclientGoesOnWithWhatBrokeOff(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			const repo, chunk = "team/cue", 256 << 10
			reg := start(t, m)
			data := noise("a large blob", 2_000_000)
			cut := &cutter{RoundTripper: reg.transport(), after: chunk / 2}
			first, err := cueClient(t, reg, pusher, reg.transport()).PushBlobChunked(t.Context(), repo, chunk)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := first.Write(data[:3*chunk]); err != nil {
				t.Fatal(err)
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			id := first.ID()

			// The server is started again. Another program goes on, and is cut off in the middle of a chunk.
			reg.restart()
			second, err := cueClient(t, reg, pusher, cut).PushBlobChunkedResume(t.Context(), repo, id, -1, chunk)
			if err != nil {
				t.Fatal(err)
			}
			if at := second.Size(); at != 3*chunk {
				t.Fatalf("the upload is at %d", at)
			}
			_, err = second.Write(data[second.Size() : 5*chunk])
			wasCut(t, cut, err)

			// A third one, which finds what arrived of it. As long as the server has not noticed that the second one is gone,
			// it lets nobody else write.
			d := digest.FromBytes(data)
			for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
				at, err := cueGoOn(t, reg, repo, id, node{ocispec.Descriptor{Digest: d}, data})
				if err == nil {
					if at < 3*chunk || at > 3*chunk+chunk/2 {
						t.Errorf("the upload was at %d", at)
					}
					break
				}
				if time.Now().After(end) {
					t.Fatal(err)
				}
			}
			if _, _, body := reg.get("/v2/" + repo + "/blobs/" + string(d)); !bytes.Equal(body, data) {
				t.Errorf("%d bytes are there, and not those that were pushed", len(body))
			}
		})
	}
}

// cueGoOn asks how far the upload id came, sends the rest of the blob, and commits it.
func cueGoOn(t *testing.T, reg *registry, repo, id string, b node) (at int64, err error) {
	w, err := cueClient(t, reg, pusher, reg.transport()).PushBlobChunkedResume(t.Context(), repo, id, -1, len(b.data))
	if err != nil {
		return 0, err
	}
	at = w.Size()
	if _, err = w.Write(b.data[at:]); err == nil {
		_, err = w.Commit(b.desc.Digest)
	}
	return at, err
}
