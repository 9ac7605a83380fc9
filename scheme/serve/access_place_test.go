package serve_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/scheme/serve/access"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// guarded are servers over every kind of place with two users: root may do everything, guest pulls and pushes mine. The
// registry behind one of them knows neither.
func guarded(t *testing.T, fn func(t *testing.T, w *wire)) {
	users, err := access.NewBasic(access.BasicConfig{Users: []access.User{{Name: "root", Password: "r"}, {Name: "guest", Password: "g"}}})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := access.NewPolicy(
		access.Rule{Subjects: []string{"root"}, Repositories: []string{"**"}, Actions: []serve.Action{serve.ActionPull, serve.ActionPush, serve.ActionDelete, serve.ActionCatalog}},
		access.Rule{Subjects: []string{"guest"}, Repositories: []string{"mine"}, Actions: []serve.Action{serve.ActionPull, serve.ActionPush, serve.ActionCatalog}},
	)
	if err != nil {
		t.Fatal(err)
	}
	opts := []serve.Option{serve.WithAuthenticator(users), serve.WithAuthorizer(rules)}
	t.Run("mem", func(t *testing.T) { fn(t, overMem(t, opts...)) })
	t.Run("ocidir", func(t *testing.T) { fn(t, overDir(t, opts...)) })
	t.Run("reg", func(t *testing.T) {
		back := overMem(t)
		client := reg.New(reg.WithHost(back.addr, reg.Host{TLS: reg.TLSDisabled}))
		t.Cleanup(func() {
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		})
		fn(t, serving(t, client, ref.Ref{Scheme: ref.SchemeReg, Root: back.addr}, opts...))
	})
}

var (
	asRoot  = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("root:r"))
	asGuest = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("guest:g"))
)

// TestContentOfAForbiddenRepositoryIsNowhere: neither by its digest in another repository, nor by a mount, nor as a part of
// a manifest, nor in a list; and who has the bytes can push them, which tells nothing.
func TestContentOfAForbiddenRepositoryIsNowhere(t *testing.T) {
	guarded(t, func(t *testing.T, w *wire) {
		layer, none := digest.FromString("secret layer"), digest.FromString("never pushed")
		m := func(d digest.Digest) string {
			return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":12},"layers":[]}`, types.MediaTypeImageManifest, types.MediaTypeEmpty, d)
		}
		image := digest.FromString(m(layer))
		typed := "Content-Type: " + types.MediaTypeImageManifest
		for _, r := range [][3]string{
			{"POST", "/v2/secret/blobs/uploads/?digest=" + layer.String(), "secret layer"},
			{"PUT", "/v2/secret/manifests/t", m(layer)},
			{"GET", "/v2/secret/blobs/" + layer.String(), ""}, // the server has seen it now
			{"POST", "/v2/mine/blobs/uploads/?digest=" + digest.FromString("x").String(), "x"},
		} {
			if a := w.ask(r[0], r[1], r[2], asRoot, typed); a.res.StatusCode >= 300 {
				t.Fatalf("%s: %d %s", a.asked, a.res.StatusCode, a.body)
			}
		}
		for _, r := range []struct {
			method, there, none, body string
			status                    int
		}{
			{"GET", "blobs/" + layer.String(), "blobs/" + none.String(), "", 404},
			{"HEAD", "blobs/" + layer.String(), "blobs/" + none.String(), "", 404},
			{"GET", "manifests/" + image.String(), "manifests/" + none.String(), "", 404},
			{"HEAD", "manifests/" + image.String(), "manifests/" + none.String(), "", 404},
			{"GET", "referrers/" + image.String(), "referrers/" + none.String(), "", 200},
			{"POST", "blobs/uploads/?mount=" + layer.String(), "blobs/uploads/?mount=" + none.String(), "", 202},
			{"POST", "blobs/uploads/?from=secret&mount=" + layer.String(), "blobs/uploads/?from=secret&mount=" + none.String(), "", 202},
			{"POST", "blobs/uploads/?from=secret&mount=" + layer.String(), "blobs/uploads/?from=absent&mount=" + none.String(), "", 202},
		} {
			there, none := w.ask(r.method, "/v2/mine/"+r.there, r.body, asGuest), w.ask(r.method, "/v2/mine/"+r.none, r.body, asGuest)
			if there.res.StatusCode != r.status || told(there) != told(none) {
				t.Errorf("%s: %s\nand of what is not there %s", there.asked, told(there), told(none))
			}
		}
		for _, d := range []digest.Digest{layer, none} {
			a := w.ask("PUT", "/v2/mine/manifests/t", m(d), asGuest, typed)
			if a.res.StatusCode != 400 || !strings.Contains(a.body, "MANIFEST_BLOB_UNKNOWN") || !strings.Contains(a.body, d.String()) {
				t.Errorf("%s: %d %s", a.asked, a.res.StatusCode, a.body)
			}
		}
		if a := w.ask("GET", "/v2/_catalog", nil, asGuest); a.body != `{"repositories":["mine"]}` {
			t.Errorf("the catalog is %s", a.body)
		}
		if a := w.ask("POST", "/v2/mine/blobs/uploads/?digest="+layer.String(), "secret layer", asGuest); a.res.StatusCode != 201 {
			t.Errorf("%s: %d %s", a.asked, a.res.StatusCode, a.body)
		}
		if a := w.ask("GET", "/v2/secret/blobs/"+layer.String(), nil, asGuest); a.res.StatusCode != 403 {
			t.Errorf("%s: %d", a.asked, a.res.StatusCode)
		}
	})
}

// told is what an answer tells: all of it but what is another one for each request.
func told(a reply) string {
	h := a.res.Header.Clone()
	for _, k := range []string{"Date", "Docker-Upload-Uuid", "X-Request-Id"} {
		h.Del(k)
	}
	if l, _, ok := strings.Cut(h.Get("Location"), "/uploads/"); ok {
		h.Set("Location", l)
	}
	return fmt.Sprint(a.res.Status, h, a.body)
}

// TestAnUploadIsItsSubjectsOverEveryPlace, also when it is over.
func TestAnUploadIsItsSubjectsOverEveryPlace(t *testing.T) {
	guarded(t, func(t *testing.T, w *wire) {
		d := "?digest=" + digest.FromString("hello").String()
		start := w.ask("POST", "/v2/mine/blobs/uploads/", "", asGuest)
		path := start.res.Header.Get("Location")
		if a := w.ask("PATCH", path, "hello", asGuest); a.res.StatusCode != 202 {
			t.Fatalf("%s: %d %s", a.asked, a.res.StatusCode, a.body)
		}
		other := func() {
			t.Helper()
			for _, r := range [][2]string{{"GET", path}, {"PATCH", path}, {"PUT", path + d}, {"DELETE", path}} {
				if a := w.ask(r[0], r[1], "", asRoot); a.res.StatusCode != 404 {
					t.Errorf("%s as somebody else: %d %s", a.asked, a.res.StatusCode, a.body)
				}
			}
		}
		other()
		for range 2 { // the second time as when the answer was lost
			if a := w.ask("PUT", path+d, "", asGuest); a.res.StatusCode != 201 {
				t.Errorf("%s: %d %s", a.asked, a.res.StatusCode, a.body)
			}
			other()
		}
	})
}
