package access_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/scheme/serve/access"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// registry serves memory to users of an htpasswd file, by rules, and returns its host.
func registry(t *testing.T, users []string, rules ...access.Rule) (host string) {
	t.Helper()
	var lines []string
	for _, u := range users {
		h, err := bcrypt.GenerateFromPassword([]byte("pw:"+u), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, u+":"+string(h))
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	who, err := access.NewBasic(access.BasicConfig{Realm: "test", Files: []string{file}, Groups: map[string][]string{"team": {"pusher"}}})
	if err != nil {
		t.Fatal(err)
	}
	may, err := access.NewPolicy(rules...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := serve.New(mem.New(), ref.MustParse("mem://x"), serve.WithAuthenticator(who), serve.WithAuthorizer(may))
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s)
	t.Cleanup(func() {
		web.Close()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return strings.TrimPrefix(web.URL, "http://")
}

// client is the registry's client as a user; "" is nobody.
func client(t *testing.T, host, user, password string) *reg.Reg {
	t.Helper()
	r := reg.New(reg.WithHost(host, reg.Host{TLS: reg.TLSDisabled, Username: user, Password: password}),
		reg.WithCredentials(func(context.Context, string) (reg.Credential, error) { return reg.Credential{}, nil }))
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// push stores an image of two blobs.
func push(ctx context.Context, r *reg.Reg, at ref.Ref) (types.Descriptor, error) {
	config, err := r.BlobPut(ctx, at, types.Descriptor{MediaType: types.MediaTypeEmpty}, strings.NewReader("{}"))
	if err != nil {
		return types.Descriptor{}, err
	}
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[]}`,
		types.MediaTypeImageManifest, types.MediaTypeEmpty, config.Digest)
	m, err := manifest.New(raw)
	if err != nil {
		return types.Descriptor{}, err
	}
	_, err = r.ManifestPut(ctx, at, m)
	return config, err
}

// TestAClientLearnsWhatItMay: with a user's name and password everything goes that a rule allows, and what none allows
// is an error of the right kind.
func TestAClientLearnsWhatItMay(t *testing.T) {
	all := []serve.Action{serve.ActionPull, serve.ActionPush, serve.ActionDelete, serve.ActionCatalog}
	host := registry(t, []string{"puller", "pusher", "owner", "stranger"},
		access.Rule{Subjects: []string{"puller"}, Repositories: []string{"a/*"}, Actions: all[:1]},
		access.Rule{Groups: []string{"team"}, Repositories: []string{"a/*"}, Actions: all[:2]},
		access.Rule{Subjects: []string{access.Anyone}, Repositories: []string{"home/{user}/**"}, Actions: all},
		access.Rule{Subjects: []string{access.Anonymous}, Repositories: []string{"open"}, Actions: all[:1]},
	)
	ctx := t.Context()
	image := ref.MustParse(host + "/a/b:t")
	as := func(user string) *reg.Reg { return client(t, host, user, "pw:"+user) }
	if _, err := push(ctx, as("pusher"), image); err != nil {
		t.Fatal(err)
	}
	want := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) || want == nil && got != nil {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
		if got != nil && strings.Contains(got.Error(), "pw:") {
			t.Errorf("%s: the password is in the error: %v", what, got)
		}
	}
	get := func(r *reg.Reg, at ref.Ref) error { _, err := r.ManifestGet(ctx, at); return err }
	for _, c := range []struct {
		user             string
		pull, push, kill error
	}{
		{"puller", nil, errs.ErrDenied, errs.ErrDenied},
		{"pusher", nil, nil, errs.ErrDenied},
		{"stranger", errs.ErrDenied, errs.ErrDenied, errs.ErrDenied},
	} {
		r := as(c.user)
		want(c.user+" pulls", get(r, image), c.pull)
		_, err := push(ctx, r, image)
		want(c.user+" pushes", err, c.push)
		want(c.user+" removes", r.TagDelete(ctx, image), c.kill)
		own := image.WithRepo("home/" + c.user + "/x").WithTag("t")
		_, err = push(ctx, r, own)
		want(c.user+" pushes its own", err, nil)
		want(c.user+" pulls its own", get(r, own), nil)
		want(c.user+" removes its own", r.TagDelete(ctx, own), nil)
		want(c.user+" pulls what is below", get(r, image.WithRepo("a/b/c").WithTag("t")), errs.ErrDenied)
		_, err = push(ctx, r, image.WithRepo("home/owner/x").WithTag("t"))
		want(c.user+" pushes another's", err, errs.ErrDenied)
	}
	for user, password := range map[string]string{"": "", "puller": "wrong", "none": "pw:none"} {
		r := client(t, host, user, password)
		want(user+" pulls", get(r, image), errs.ErrUnauthorized)
		_, err := push(ctx, r, image)
		want(user+" pushes", err, errs.ErrUnauthorized)
		want(user+" removes", r.TagDelete(ctx, image), errs.ErrUnauthorized)
	}
	want("nobody pulls what is open", get(client(t, host, "", ""), image.WithRepo("open").WithTag("t")), errs.ErrNotFound)
}

// TestAClientMountsOnlyWhatItMayRead, and finds only that in the catalog.
func TestAClientMountsOnlyWhatItMayRead(t *testing.T) {
	all := []serve.Action{serve.ActionPull, serve.ActionPush, serve.ActionCatalog}
	host := registry(t, []string{"one", "two"},
		access.Rule{Subjects: []string{"one", "two"}, Repositories: []string{"{user}/**", "shared"}, Actions: all},
	)
	ctx := t.Context()
	one, two := client(t, host, "one", "pw:one"), client(t, host, "two", "pw:two")
	config, err := push(ctx, one, ref.MustParse(host+"/one/a:t"))
	if err != nil {
		t.Fatal(err)
	}
	if err := one.BlobMount(ctx, ref.MustParse(host+"/one/a"), ref.MustParse(host+"/one/b"), config); err != nil {
		t.Error(err)
	}
	if err := two.BlobMount(ctx, ref.MustParse(host+"/one/a"), ref.MustParse(host+"/two/a"), config); !errors.Is(err, errs.ErrDenied) {
		t.Errorf("of what it may not read: %v", err) // the client has looked for the blob after the mount came to nothing
	}
	if _, err := two.BlobHead(ctx, ref.MustParse(host+"/two/a"), config); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("it is there all the same: %v", err)
	}
	if err := two.BlobMount(ctx, ref.MustParse(host+"/two/none"), ref.MustParse(host+"/two/a"), config); !errors.Is(err, errs.ErrUnsupported) && !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("of what is not there: %v", err)
	}
	if _, err := two.BlobPut(ctx, ref.MustParse(host+"/two/a"), types.Descriptor{}, bytes.NewReader([]byte("x"))); err != nil {
		t.Error(err)
	}
	for user, r := range map[string]*reg.Reg{"one": one, "two": two} {
		names, err := scheme.ListRepos(ctx, r, ref.MustParse(host+"/x").Base())
		if err != nil || len(names) == 0 {
			t.Errorf("%s: %v, %v", user, names, err)
		}
		for _, name := range names {
			if !strings.HasPrefix(name, user+"/") {
				t.Errorf("%s sees %s", user, name)
			}
		}
	}
}

// TestAServerOfOneUserOnly needs no rules.
func TestAServerOfOneUserOnly(t *testing.T) {
	who, err := access.NewBasic(access.BasicConfig{Users: []access.User{{Name: "a", Password: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := serve.New(mem.New(), ref.MustParse("mem://x"), serve.WithAuthenticator(who))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown(context.Background())
	for _, c := range []struct {
		user, password string
		status         int
	}{{"a", "b", 404}, {"a", "c", 401}, {"", "", 401}} {
		r := httptest.NewRequest(http.MethodGet, "/v2/x/tags/list", nil)
		r.SetBasicAuth(c.user, c.password)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != c.status || (w.Header().Get("WWW-Authenticate") != "") != (c.status == 401) {
			t.Errorf("%+v: %d %v", c, w.Code, w.Header())
		}
	}
}
