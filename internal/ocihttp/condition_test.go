package ocihttp

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

func TestConditions(t *testing.T) {
	a, b := digest.FromString("a"), digest.SHA512.FromString("b")
	for name, c := range map[string]struct {
		values []string
		weak   bool
		want   *Condition
		hasA   bool
	}{
		"none":         {nil, false, nil, false},
		"one":          {[]string{ETag(a)}, false, &Condition{Digests: []digest.Digest{a}}, true},
		"another":      {[]string{ETag(b)}, false, &Condition{Digests: []digest.Digest{b}}, false},
		"several":      {[]string{ETag(b) + " ,\t" + ETag(a), `"foreign"`}, false, &Condition{Digests: []digest.Digest{b, a}}, true},
		"any":          {[]string{"*"}, false, &Condition{Any: true}, true},
		"weak":         {[]string{"W/" + ETag(a)}, true, &Condition{Digests: []digest.Digest{a}}, true},
		"weak, strong": {[]string{"W/" + ETag(a)}, false, &Condition{}, false},
		"no quotes":    {[]string{string(a)}, true, &Condition{}, false},
		"half quotes":  {[]string{`"` + string(a)}, true, &Condition{}, false},
		"nonsense":     {[]string{`"sha256:../x"`, "", `"`}, true, &Condition{}, false},
	} {
		got := ParseCondition(c.values, c.weak)
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if got != nil && (got.Has(a) != c.hasA || got.Has("")) {
			t.Errorf("%s: Has(a) %v, Has(nothing) %v", name, got.Has(a), got.Has(""))
		}
	}
}
