package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/errs"
)

func mustPolicy(t *testing.T, rules ...Rule) *Policy {
	t.Helper()
	p, err := NewPolicy(rules...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var pull = []serve.Action{serve.ActionPull}

func TestWhatNoRuleAllowsIsDenied(t *testing.T) {
	everything := serve.Context{Subject: "alice", Action: serve.ActionPull, Repository: "a"}
	if err := mustPolicy(t).Authorize(t.Context(), everything); !errors.Is(err, errs.ErrDenied) {
		t.Errorf("without rules: %v", err)
	}
	p := mustPolicy(t,
		Rule{Subjects: []string{"alice"}, Repositories: []string{"a", "b/**"}, Actions: []serve.Action{serve.ActionPull, serve.ActionPush}},
		Rule{Subjects: []string{Anyone}, Repositories: []string{"shared/*"}, Actions: pull},
		Rule{Subjects: []string{Anonymous}, Repositories: []string{"public/**"}, Actions: pull},
		Rule{Groups: []string{"ops"}, Repositories: []string{"**"}, Actions: []serve.Action{serve.ActionDelete}},
		Rule{Subjects: []string{"alice"}, Actions: []serve.Action{serve.ActionCatalog}},
		Rule{Subjects: []string{Anyone}, Repositories: []string{"home/{user}/**"}, Actions: []serve.Action{serve.ActionPush}},
		Rule{Subjects: []string{Anyone}, Repositories: []string{"inside"}, Actions: pull, Networks: []netip.Prefix{
			netip.MustParsePrefix("10.1.2.3/8"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::ffff:192.0.2.0/120"),
		}},
	)
	for _, c := range []struct {
		who    string // and the groups behind it
		action serve.Action
		repo   string
		remote string
		ok     bool
	}{
		{"alice", "pull", "a", "", true},
		{"alice", "push", "a", "", true},
		{"alice", "delete", "a", "", false},
		{"alice", "pull", "a/b", "", false}, // a right for a is none for what is below
		{"alice", "pull", "b", "", false},
		{"alice", "pull", "b/c/d", "", true},
		{"alice", "catalog", "", "", true},
		{"alice", "pull", "", "", false},
		{"alice", "", "a", "", false},
		{"alice", "PULL", "a", "", false},
		{"Alice", "pull", "a", "", false},
		{"bob", "pull", "a", "", false},
		{"bob", "catalog", "", "", false},
		{"", "pull", "a", "", false},

		{"bob", "pull", "shared/x", "", true},
		{"bob", "push", "shared/x", "", false},
		{"", "pull", "shared/x", "", false},
		{"", "pull", "public/x/y", "", true},
		{"bob", "pull", "public/x/y", "", true}, // a name takes nothing away
		{"", "push", "public/x/y", "", false},
		{"anonymous", "pull", "a", "", false}, // names that somebody else's Authenticator may have
		{"*", "pull", "a", "", false},

		{"carol ops", "delete", "a", "", true},
		{"carol dev ops", "delete", "a", "", true},
		{"carol dev", "delete", "a", "", false},
		{"ops", "delete", "a", "", false}, // a user is not the group of its name
		{"carol ops", "push", "a", "", false},

		{"bob", "push", "home/bob/x", "", true},
		{"bob", "push", "home/alice/x", "", false},
		{"bob", "push", "home/bob", "", false},
		{"bob/x", "push", "home/bob/x/y", "", false},

		{"bob", "pull", "inside", "10.200.0.1", true},
		{"bob", "pull", "inside", "::ffff:10.200.0.1", true},
		{"bob", "pull", "inside", "192.0.2.255", true},
		{"bob", "pull", "inside", "192.0.3.1", false},
		{"bob", "pull", "inside", "fe80::1%eth0", true},
		{"bob", "pull", "inside", "2001:db8::1", false},
		{"bob", "pull", "inside", "", false},
		{"", "pull", "inside", "10.200.0.1", false},
	} {
		who, groups, _ := strings.Cut(c.who, " ")
		in := serve.Context{Subject: who, Groups: strings.Fields(groups), Action: c.action, Repository: c.repo}
		if c.remote != "" {
			in.Remote = netip.MustParseAddr(c.remote)
		}
		err := p.Authorize(t.Context(), in)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, errs.ErrDenied) {
			t.Errorf("%q %s %q from %q: %v", c.who, c.action, c.repo, c.remote, err)
		}
	}
}

func TestRulesThatMeanNothingAreRefusedWithTheirPlace(t *testing.T) {
	good := Rule{Subjects: []string{"a"}, Repositories: []string{"**"}, Actions: pull}
	for _, c := range []struct {
		field  string
		change func(*Rule)
	}{
		{"subjects", func(r *Rule) { r.Subjects = nil }},
		{"subjects", func(r *Rule) { r.Subjects = []string{"b", ""} }},
		{"subjects", func(r *Rule) { r.Subjects = []string{"a:b"} }},
		{"subjects", func(r *Rule) { r.Subjects = []string{"a\n"} }},
		{"groups", func(r *Rule) { r.Groups = []string{""} }},
		{"groups", func(r *Rule) { r.Groups = []string{Anyone} }},
		{"actions", func(r *Rule) { r.Actions = nil }},
		{"actions", func(r *Rule) { r.Actions = []serve.Action{"read"} }},
		{"actions", func(r *Rule) { r.Actions = []serve.Action{""} }},
		{"repositories", func(r *Rule) { r.Repositories = nil }},
		{"repositories", func(r *Rule) { r.Repositories = nil; r.Actions = []serve.Action{"catalog", "pull"} }},
		{"repositories", func(r *Rule) { r.Repositories = []string{"a", "Team/**"} }},
		{"networks", func(r *Rule) { r.Networks = []netip.Prefix{{}} }},
		{"networks", func(r *Rule) { r.Networks = []netip.Prefix{netip.MustParsePrefix("::ffff:0:0/90")} }},
	} {
		bad := good
		c.change(&bad)
		_, err := NewPolicy(good, bad)
		if !errors.Is(err, errs.ErrInvalid) || !strings.HasPrefix(err.Error(), "rule 2: "+c.field+": ") {
			t.Errorf("%+v: %v, want rule 2: %s", bad, err, c.field)
		}
	}
}

func BenchmarkPolicy(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		var rules []Rule
		for i := range n {
			rules = append(rules, Rule{Groups: []string{fmt.Sprint("team", i)}, Repositories: []string{fmt.Sprintf("team%d/**", i), "shared/*"}, Actions: pull})
		}
		p, err := NewPolicy(rules...)
		if err != nil {
			b.Fatal(err)
		}
		c := serve.Context{Subject: "alice", Groups: []string{fmt.Sprint("team", n-1)}, Action: serve.ActionPull, Repository: fmt.Sprintf("team%d/app/web", n-1)}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Authorize(context.Background(), c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
