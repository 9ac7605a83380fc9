package serve

import (
	"errors"
	"testing"

	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// TestPlacesAreFoundByTheLongestName: what a name means, and that what the server lists is what it understands.
func TestPlacesAreFoundByTheLongestName(t *testing.T) {
	tree := ref.Ref{Scheme: ref.SchemeOCIDir, Root: "/srv/tree"}
	layout := ref.Ref{Scheme: ref.SchemeOCIDir, Root: "/srv/layout"}
	hub := ref.Ref{Scheme: ref.SchemeReg, Root: "hub.example"}
	team := ref.Ref{Scheme: ref.SchemeReg, Root: "hub.example", Repo: "team"}
	ps, err := newPlaces([]Place{{Root: tree}, {Name: "one", Root: layout}, {Name: "hub", Root: hub}, {Name: "hub/own", Root: team}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]ref.Ref{
		"a/b":       tree.WithRepo("a/b"),
		"ones":      tree.WithRepo("ones"),
		"one":       layout,
		"one/x":     layout.WithRepo("x"),
		"hub/a":     hub.WithRepo("a"),
		"hub":       tree.WithRepo("hub"), // a registry as a whole is no repository
		"hub/own":   team,
		"hub/own/a": team.WithRepo("team/a"),
		"hub/owner": hub.WithRepo("owner"),
	} {
		p, r, ok := ps.find(name)
		if !ok || r != want {
			t.Errorf("find %s = %v %v, want %v", name, r, ok, want)
			continue
		}
		if back, ok := ps.name(p, r.Repo); !ok || back != name {
			t.Errorf("name of %v = %q %v, want %s", r, back, ok, name)
		}
	}
	for _, hidden := range []struct {
		name string
		repo string
	}{{"", "one"}, {"", "hub/a"}, {"hub", "own/x"}, {"hub/own", "other/x"}, {"", ""}, {"hub", "UPPER"}} {
		i := 0
		for ps[i].Name != hidden.name {
			i++
		}
		if got, ok := ps.name(&ps[i], hidden.repo); ok {
			t.Errorf("repository %q of place %q is listed as %s, which is another one", hidden.repo, hidden.name, got)
		}
	}
}

func TestPlacesThatMakeNoSense(t *testing.T) {
	dir := ref.Ref{Scheme: ref.SchemeOCIDir, Root: "/srv"}
	for name, ps := range map[string][]Place{
		"none":    nil,
		"no root": {{Name: "a"}},
		"tag":     {{Root: dir.WithTag("v1")}},
		"name":    {{Name: "A/b", Root: dir}},
		"slash":   {{Name: "a/", Root: dir}},
		"twice":   {{Name: "a", Root: dir}, {Name: "a", Root: dir}},
	} {
		if _, err := newPlaces(ps); !errors.Is(err, errs.ErrInvalid) && !errors.Is(err, errs.ErrNameInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
