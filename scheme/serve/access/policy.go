package access

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/errs"
)

// Policy is a serve.Authorizer: what one of its rules allows is allowed, and everything else is denied. It does not
// change; make a new one with NewPolicy.
type Policy struct{ rules []rule }

// rule is a Rule that was checked.
type rule struct {
	anyone, anonymous bool
	subjects, groups  []string
	repositories      []glob
	actions           []serve.Action
	networks          []netip.Prefix
}

// NewPolicy checks the rules. Its error is an errs.ErrInvalid that names the rule, counted from 1, and its field.
func NewPolicy(rules ...Rule) (*Policy, error) {
	p := &Policy{rules: make([]rule, 0, len(rules))}
	for i, in := range rules {
		r, err := compile(in)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		p.rules = append(p.rules, r)
	}
	return p, nil
}

// Authorize returns nil or errs.ErrDenied.
func (p *Policy) Authorize(_ context.Context, c serve.Context) error {
	for i := range p.rules {
		if p.rules[i].allows(&c) {
			return nil
		}
	}
	return errs.ErrDenied
}

func compile(in Rule) (rule, error) {
	var r rule
	for _, f := range []struct {
		name string
		read func(*rule, Rule) error
	}{
		{"subjects", (*rule).readSubjects},
		{"groups", (*rule).readGroups},
		{"actions", (*rule).readActions},
		{"repositories", (*rule).readRepositories},
		{"networks", (*rule).readNetworks},
	} {
		if err := f.read(&r, in); err != nil {
			return rule{}, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return r, nil
}

func (r *rule) readSubjects(in Rule) error {
	if len(in.Subjects)+len(in.Groups) == 0 {
		return fmt.Errorf("%w: nobody is named, and no group", errs.ErrInvalid)
	}
	for _, s := range in.Subjects {
		switch s {
		case Anyone:
			r.anyone = true
			continue
		case Anonymous:
			r.anonymous = true
			continue
		}
		if err := validName(s); err != nil {
			return err
		}
		r.subjects = append(r.subjects, s)
	}
	return nil
}

func (r *rule) readGroups(in Rule) error {
	for _, g := range in.Groups {
		if err := validName(g); err != nil {
			return err
		}
		r.groups = append(r.groups, g)
	}
	return nil
}

func (r *rule) readActions(in Rule) error {
	if len(in.Actions) == 0 {
		return fmt.Errorf("%w: nothing is allowed", errs.ErrInvalid)
	}
	known := []serve.Action{serve.ActionPull, serve.ActionPush, serve.ActionDelete, serve.ActionCatalog}
	for _, a := range in.Actions {
		if !slices.Contains(known, a) {
			return fmt.Errorf("%w: %q is none of %q", errs.ErrInvalid, a, known)
		}
		r.actions = append(r.actions, a)
	}
	return nil
}

func (r *rule) readRepositories(in Rule) error {
	needed := slices.ContainsFunc(in.Actions, func(a serve.Action) bool { return a != serve.ActionCatalog })
	if needed && len(in.Repositories) == 0 {
		return fmt.Errorf("%w: none is named; \"**\" is all of them", errs.ErrInvalid)
	}
	for _, pattern := range in.Repositories {
		g, err := newGlob(pattern)
		if err != nil {
			return err
		}
		r.repositories = append(r.repositories, g)
	}
	return nil
}

func (r *rule) readNetworks(in Rule) error {
	for _, n := range in.Networks {
		if !n.IsValid() {
			return fmt.Errorf("%w: %v is no network", errs.ErrInvalid, n)
		}
		if a := n.Addr(); a.Is4In6() { // who asks is an IPv4 address then
			if n.Bits() < 96 {
				return fmt.Errorf("%w: %v is neither of IPv4 nor of IPv6", errs.ErrInvalid, n)
			}
			n = netip.PrefixFrom(a.Unmap(), n.Bits()-96)
		}
		r.networks = append(r.networks, n)
	}
	return nil
}

// allows reports whether the rule is about c.
func (r *rule) allows(c *serve.Context) bool {
	return slices.Contains(r.actions, c.Action) && r.isFor(c) && r.covers(c) && r.isFrom(c.Remote)
}

func (r *rule) isFor(c *serve.Context) bool {
	switch {
	case r.anonymous:
		return true
	case c.Subject == "":
		return false
	case r.anyone:
		return true
	}
	return slices.Contains(r.subjects, c.Subject) ||
		slices.ContainsFunc(c.Groups, func(g string) bool { return slices.Contains(r.groups, g) })
}

// covers reports whether the rule is about c's repository. The catalog has none: what is listed in it is asked for
// one by one.
func (r *rule) covers(c *serve.Context) bool {
	if c.Action == serve.ActionCatalog {
		return true
	}
	for i := range r.repositories {
		if r.repositories[i].match(c.Repository, c.Subject) {
			return true
		}
	}
	return false
}

func (r *rule) isFrom(remote netip.Addr) bool {
	if len(r.networks) == 0 {
		return true
	}
	remote = remote.Unmap().WithZone("") // a network has no zone
	return slices.ContainsFunc(r.networks, func(n netip.Prefix) bool { return n.Contains(remote) })
}

var _ serve.Authorizer = (*Policy)(nil)
