package serve_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/errs"
)

// guard denies everything that has to do with one repository, until it is opened, and remembers what it was asked.
type guard struct {
	name string

	mu    sync.Mutex
	open  bool
	asked []serve.Context
}

func (g *guard) Authorize(_ context.Context, c serve.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, c)
	if c.Repository == g.name && !g.open {
		return errs.ErrDenied
	}
	return nil
}

func (g *guard) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open, g.asked = open, nil
}

// Whatever way a repository's name is written, who decides by the name sees the one that is served.
func TestAttackOtherSpellingsOfAForbiddenName(t *testing.T) {
	g := &guard{name: "team/secret"}
	each(t, func(t *testing.T, w *wire) {
		g.set(true)
		s := newSet()
		s.image(nil, "v1")
		w.pushBlobs("team/secret", s)
		w.putManifest("team/secret", s, s.manifests[0])
		m, d := s.manifests[0], digest.FromString(secret).String()
		w.push("team/secret", secret)
		at := w.session("team/secret")
		g.set(false)
		for _, name := range []string{
			"team/secret", "team/secre%74", "%74eam/%73ecret", "team%2fsecret", "team%2Fsecret", "team//secret", "team/./secret", "team/x/../secret", "x/../team/secret", "team/secret/",
			"team/secret%00", "team/secret%20", "team/secret%0a", "team/SECRET", "Team/secret", "team/secret;x", "team/secret?", "team/secret#", `team\secret`, "team%5csecret", "team/%2e/secret", "./team/secret", "team/secret/.",
		} {
			for _, target := range []string{
				"/manifests/v1", "/manifests/" + m.Digest.String(), "/blobs/" + d, "/tags/list", "/referrers/" + m.Digest.String(), "/blobs/uploads/", "/blobs/uploads/?digest=" + d, strings.TrimPrefix(at, "/v2/team/secret"),
			} {
				for _, method := range []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"} {
					a := w.ask(method, "/v2/"+name+target, secret, "Content-Type: "+v1.MediaTypeImageManifest)
					if a.res.StatusCode < 400 || strings.Contains(a.body, secret) || strings.Contains(a.body, `"layers"`) {
						t.Errorf("%s is answered with %s: %.200s", a.asked, a.res.Status, a.body)
					}
				}
			}
			if !strings.ContainsAny(name, "?#;") {
				a := w.ask("POST", "/v2/other/blobs/uploads/?mount="+d+"&from="+name, "")
				if s := a.res.StatusCode; s != 202 && s != 400 {
					t.Errorf("%s is answered with %s", a.asked, a.res.Status)
				}
			}
		}
		for _, c := range g.asked {
			if strings.ContainsAny(c.Repository, "%\\ \x00\n?#;ST") || strings.Contains(c.Repository, "//") || strings.Contains(c.Repository, "..") {
				t.Errorf("the authorizer is asked about %q, which is no name", c.Repository)
			}
		}
		if a := w.want("200", "GET", "/v2/_catalog", nil); strings.Contains(a.body, "secret") {
			t.Errorf("the catalog lists what may not be read: %s", a.body)
		}
		w.gone("/v2/other/blobs/" + d)
		g.set(true)
		w.readsManifest("team/secret", "v1", m) // nothing was changed, or deleted
		w.has(w.want("204", "GET", at, nil), "Range: 0-0")
	}, serve.WithAuthorizer(g))
}
