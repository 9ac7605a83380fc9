package platform_test

import (
	"errors"
	"testing"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/platform"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		want, have string
		match      bool
	}{
		{"linux/amd64", "linux/amd64", true},
		{"linux/x86_64", "linux/amd64", true},
		{"linux/arm64", "linux/arm64/v8", true},
		{"linux/arm64/v8", "linux/arm64", true},
		{"linux/arm", "linux/arm/v6", true},
		{"linux/arm/v7", "linux/arm/v6", false},
		{"linux/arm/v7", "linux/arm/v7", true},
		{"linux/amd64", "windows/amd64", false},
		{"linux/amd64", "linux/s390x", false},
	} {
		want, err := platform.Parse(c.want)
		if err != nil {
			t.Fatal(err)
		}
		have, err := platform.Parse(c.have)
		if err != nil {
			t.Fatal(err)
		}
		if got := platform.Match(want, have); got != c.match {
			t.Errorf("%s matches %s: %v", c.want, c.have, got)
		}
	}
	win := types.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.17763.1"}
	if !platform.Match(types.Platform{OS: "windows", Architecture: "amd64"}, win) {
		t.Error("an OS version that was not asked for excludes")
	}
}

func TestMatchAny(t *testing.T) {
	amd := types.Platform{OS: "linux", Architecture: "amd64"}
	arm := types.Platform{OS: "linux", Architecture: "arm64"}
	unknown := types.Platform{OS: "unknown", Architecture: "unknown"}
	for name, c := range map[string]struct {
		want []types.Platform
		have *types.Platform
		ok   bool
	}{
		"no wish":                {nil, &amd, true},
		"no platform":            {[]types.Platform{amd}, nil, true},
		"second wish":            {[]types.Platform{arm, amd}, &amd, true},
		"other":                  {[]types.Platform{arm}, &amd, false},
		"buildkit's attestation": {[]types.Platform{arm}, &unknown, false},
	} {
		if got := platform.MatchAny(c.want, c.have); got != c.ok {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestParseRefusesHalfAPlatform(t *testing.T) {
	for _, s := range []string{"", "linux", "linux/", "/amd64", "a/b/c/d", "linux//v7", "lin ux/amd64"} {
		if p, err := platform.Parse(s); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %+v, %v", s, p, err)
		}
	}
	if _, err := platform.ParseAll([]string{"linux/amd64", "linux"}); err == nil {
		t.Error("ParseAll accepts what Parse refuses")
	}
	p, err := platform.Parse("linux/arm/v7")
	if err != nil || platform.String(p) != "linux/arm/v7" {
		t.Errorf("%v %v", p, err)
	}
}
