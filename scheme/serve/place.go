package serve

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// Place is what a server serves, and under which names.
type Place struct {
	// Name is what repository names begin with: repository NAME/a/b is a/b below Root, and NAME is Root itself, for a
	// root that is a single repository. An empty Name is for all names that no other place has; the longest counts.
	Name string
	// Root is a registry, a directory or whatever else the server's API knows, without tag and digest. If it names a
	// repository, the place's repositories are that one and those below it.
	Root ref.Ref
	// ReadOnly refuses everything that would change the place.
	ReadOnly bool
}

// WithPlace adds a place beside the root of New.
func WithPlace(p Place) Option { return func(c *config) { c.places = append(c.places, p) } }

// places are in order of their names' length, the longest first.
type places []Place

// newPlaces checks what is served. A name that two places have is refused.
func newPlaces(all []Place) (places, error) {
	ps := slices.Clone(all)
	if len(ps) == 0 {
		return nil, fmt.Errorf("%w: there is nothing to serve", errs.ErrInvalid)
	}
	seen := map[string]bool{}
	for _, p := range ps {
		switch {
		case p.Root.IsZero() || p.Root.Tag != "" || p.Root.Digest != "":
			return nil, &errs.Error{Op: "serve", Ref: p.Root.String(), Err: fmt.Errorf("%w: the root must be a registry or directory, without tag and digest", errs.ErrInvalid)}
		case seen[p.Name]:
			return nil, &errs.Error{Op: "serve", Ref: p.Root.String(), Err: fmt.Errorf("%w: two places have the name %q", errs.ErrInvalid, p.Name)}
		}
		if p.Name != "" {
			if err := ref.ValidRepo(p.Name); err != nil {
				return nil, &errs.Error{Op: "serve", Ref: p.Root.String(), Err: err}
			}
		}
		seen[p.Name] = true
	}
	slices.SortStableFunc(ps, func(a, b Place) int { return cmp.Compare(len(b.Name), len(a.Name)) })
	return ps, nil
}

// find returns the place of a repository, and where in it the repository is. ok is false if no place has such names.
func (ps places) find(name string) (p *Place, r ref.Ref, ok bool) {
	for i := range ps {
		p := &ps[i]
		rest, below := cutName(name, p.Name)
		if !below || rest == "" && p.Name != "" && !p.single() {
			continue
		}
		return p, p.Root.WithRepo(joinName(p.Root.Repo, rest)), true
	}
	return nil, ref.Ref{}, false
}

// single reports whether the root itself can be a repository. A registry's root without a repository never is.
func (p *Place) single() bool { return p.Root.Repo != "" || p.Root.Scheme != ref.SchemeReg }

// name is find backwards: what clients call the repository repo of p's root. ok is false for one that they cannot name.
func (ps places) name(p *Place, repo string) (name string, ok bool) {
	rest, below := cutName(repo, p.Root.Repo)
	if !below {
		return "", false
	}
	name = joinName(p.Name, rest)
	if ref.ValidRepo(name) != nil {
		return "", false
	}
	owner, _, found := ps.find(name)
	return name, found && owner == p // else another place hides it
}

// cutName removes prefix, which is whole components, from name.
func cutName(name, prefix string) (rest string, ok bool) {
	if prefix == "" || name == prefix {
		return strings.TrimPrefix(name, prefix), true
	}
	return strings.CutPrefix(name, prefix+"/")
}

func joinName(prefix, rest string) string {
	if prefix == "" || rest == "" {
		return prefix + rest
	}
	return prefix + "/" + rest
}

// before says after which repository of p's root a list of p's names after last begins: "" is the first one. some is false
// if none of them comes after last.
func (ps places) before(p *Place, last string) (repo string, some bool) {
	rest, below := cutName(last, p.Name)
	switch {
	case last != "" && below && rest != "":
		return joinName(p.Root.Repo, rest), true
	case last != "" && !below && last > p.Name+"/":
		return "", false
	case p.Root.Repo == "":
		return "", true
	}
	// Nothing that is a name comes between this and the root's.
	end := len(p.Root.Repo) - 1
	return p.Root.Repo[:end] + string(p.Root.Repo[end]-1) + "~", true
}

// passed reports whether a repository comes after all that are p's, in byte order.
func (p *Place) passed(repo string) bool {
	_, below := cutName(repo, p.Root.Repo)
	return !below && repo > p.Root.Repo+"/"
}
