package clients_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// orasRepo is a repository as oras-go sees it, for user.
func orasRepo(t *testing.T, reg *registry, repo, user string, rt http.RoundTripper) *remote.Repository {
	t.Helper()
	r, err := remote.NewRepository(reg.host + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	c := &auth.Client{Client: &http.Client{Transport: rt, Timeout: patience}, Cache: auth.NewCache()}
	if user != "" {
		c.Credential = auth.StaticCredential(reg.host, auth.Credential{Username: user, Password: password})
	}
	r.Client, r.PlainHTTP = c, !reg.mode.https
	return r
}

// orasStore is a store of oras-go's with the release under tag.
func orasStore(t *testing.T, r *release, tag string) *memory.Store {
	t.Helper()
	store := memory.New()
	for _, n := range slices.Concat(r.blobs, r.manifests) {
		if err := store.Push(t.Context(), n.desc, bytes.NewReader(n.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Tag(t.Context(), r.index, tag); err != nil {
		t.Fatal(err)
	}
	return store
}

func TestOrasPushesAndPulls(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			reg, rel := start(t, m), newRelease(t, "oras")
			repo := orasRepo(t, reg, "team/oras", pusher, reg.transport())
			if _, err := oras.ExtendedCopy(t.Context(), orasStore(t, rel, "1.0"), "1.0", repo, "1.0", oras.DefaultExtendedCopyOptions); err != nil {
				t.Fatal(err)
			}
			rel.isIn(reg, "team/oras", "1.0")

			// Its own way back finds the referrers by itself.
			back := memory.New()
			if _, err := oras.ExtendedCopy(t.Context(), orasRepo(t, reg, "team/oras", reader, reg.transport()), "1.0", back, "1.0", oras.DefaultExtendedCopyOptions); err != nil {
				t.Fatal(err)
			}
			for _, n := range slices.Concat(rel.blobs, rel.manifests) {
				if data, err := content.FetchAll(t.Context(), back, n.desc); err != nil || !bytes.Equal(data, n.data) {
					t.Errorf("%s comes back with %d bytes, %v", n.desc.Digest, len(data), err)
				}
			}
			orasLists(t, repo, rel)
			orasMounts(t, reg, repo)
			if !m.auth {
				return
			}
			for _, user := range []string{"", reader, "nobody"} {
				_, err := oras.Copy(t.Context(), orasStore(t, rel, "1.0"), "1.0", orasRepo(t, reg, "team/other", user, reg.transport()), "1.0", oras.DefaultCopyOptions)
				var refused *errcode.ErrorResponse
				if !errors.Is(err, auth.ErrBasicCredentialNotFound) && (!errors.As(err, &refused) || refused.StatusCode/100 != 4) {
					t.Errorf("%q may push: %v", user, err)
				}
			}
		})
	}
}

// orasLists looks at tags and referrers.
func orasLists(t *testing.T, repo *remote.Repository, rel *release) {
	t.Helper()
	var tags []string
	if err := repo.Tags(t.Context(), "", func(page []string) error { tags = append(tags, page...); return nil }); err != nil || !slices.Equal(tags, []string{"1.0"}) {
		t.Errorf("the tags are %q, %v", tags, err)
	}
	for artifactType, want := range map[string]int{"": 1, sbom: 1, signature: 0} {
		var found []ocispec.Descriptor
		err := repo.Referrers(t.Context(), rel.index, artifactType, func(page []ocispec.Descriptor) error { found = append(found, page...); return nil })
		if err != nil || len(found) != want {
			t.Errorf("the referrers of type %q are %v, %v", artifactType, found, err)
		}
	}
}

// orasMounts copies to another repository, whose blobs come from the first.
func orasMounts(t *testing.T, reg *registry, from *remote.Repository) {
	t.Helper()
	opts := oras.DefaultCopyOptions
	mounted, copied := 0, 0
	opts.Concurrency = 1
	opts.MountFrom = func(context.Context, ocispec.Descriptor) ([]string, error) {
		return []string{from.Reference.Repository}, nil
	}
	opts.OnMounted = func(context.Context, ocispec.Descriptor) error { mounted++; return nil }
	opts.PostCopy = func(_ context.Context, d ocispec.Descriptor) error {
		if d.MediaType == ocispec.MediaTypeImageLayer {
			copied++
		}
		return nil
	}
	to := orasRepo(t, reg, "team/mounted", pusher, reg.transport())
	if _, err := oras.Copy(t.Context(), from, "1.0", to, "1.0", opts); err != nil || mounted == 0 || copied != 0 {
		t.Errorf("%d blobs were mounted, and %d layers copied: %v", mounted, copied, err)
	}
}

func TestOrasPushesAgainWhatBrokeOff(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			reg, rel := start(t, m), newRelease(t, "oras")
			store := orasStore(t, rel, "1.0")
			cut := &cutter{RoundTripper: reg.transport(), after: 150_000}
			opts := oras.DefaultExtendedCopyOptions
			opts.Concurrency = 1 // a cutter is for one request at a time
			_, err := oras.ExtendedCopy(t.Context(), store, "1.0", orasRepo(t, reg, "team/oras", pusher, cut), "1.0", opts)
			wasCut(t, cut, err)
			if status, _, body := reg.get("/v2/team/oras/manifests/1.0"); status != http.StatusNotFound {
				t.Fatalf("half of an image has a tag: %d %s", status, body)
			}
			if _, err := oras.ExtendedCopy(t.Context(), store, "1.0", orasRepo(t, reg, "team/oras", pusher, cut), "1.0", opts); err != nil {
				t.Fatal(err)
			}
			rel.isIn(reg, "team/oras", "1.0")
		})
	}
}
