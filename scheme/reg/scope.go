package reg

import (
	"maps"
	"slices"
	"strings"
)

// scope is what a token allows: actions by resource ("repository:NAME"). It is not changed once made.
type scope map[string][]string

const maxScope = 4096 // bytes of a scope that a challenge may name

func scopePull(repo string) scope   { return scope{"repository:" + repo: {"pull"}} }
func scopePush(repo string) scope   { return scope{"repository:" + repo: {"pull", "push"}} }
func scopeDelete(repo string) scope { return scope{"repository:" + repo: {"delete", "pull"}} }

var scopeCatalog = scope{"registry:catalog": {"*"}}

// parseScope reads the scope of a challenge: RESOURCE:ACTION,ACTION separated by spaces. What does not fit is left out.
func parseScope(s string) scope {
	out := scope{}
	if len(s) > maxScope {
		return out
	}
	for _, part := range strings.Fields(s) {
		i := strings.LastIndexByte(part, ':')
		if i <= 0 || strings.IndexByte(part[:i], ':') < 0 {
			continue
		}
		for a := range strings.SplitSeq(part[i+1:], ",") {
			if a != "" {
				out = out.union(scope{part[:i]: {a}})
			}
		}
	}
	return out
}

// contains reports whether s allows everything that need does.
func (s scope) contains(need scope) bool {
	for resource, actions := range need {
		have := s[resource]
		for _, a := range actions {
			if !slices.Contains(have, a) && !slices.Contains(have, "*") {
				return false
			}
		}
	}
	return true
}

// union allows what s or t does.
func (s scope) union(t scope) scope {
	out := maps.Clone(s)
	if out == nil {
		out = scope{}
	}
	for resource, actions := range t {
		all := slices.Concat(out[resource], actions)
		slices.Sort(all)
		out[resource] = slices.Compact(all)
	}
	return out
}

// strings prints one scope for each resource, in order.
func (s scope) strings() []string {
	var out []string
	for _, resource := range slices.Sorted(maps.Keys(s)) {
		out = append(out, resource+":"+strings.Join(s[resource], ","))
	}
	return out
}
