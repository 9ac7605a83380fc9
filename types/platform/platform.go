// Package platform selects among the platforms of an index. It builds on regclient's normalisation of names
// (x86_64 is amd64, arm64/v8 is arm64), and never asks what this machine runs on: the same selection gives the same
// copy everywhere.
package platform

import (
	"fmt"
	"strings"

	regplatform "github.com/regclient/regclient/types/platform"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// Parse reads OS/ARCH[/VARIANT], as in linux/amd64 and linux/arm/v7. Its error is errs.ErrInvalid.
func Parse(s string) (types.Platform, error) {
	if n := strings.Count(s, "/"); n < 1 || n > 2 || strings.Contains("/"+s+"/", "//") {
		return types.Platform{}, fmt.Errorf("%w platform %q: want OS/ARCH or OS/ARCH/VARIANT, as in linux/amd64 or linux/arm/v7", errs.ErrInvalid, s)
	}
	p, err := regplatform.Parse(s)
	if err != nil {
		return types.Platform{}, fmt.Errorf("%w platform %q: %w", errs.ErrInvalid, s, err)
	}
	if strings.Count(s, "/") == 1 {
		p.Variant = "" // regclient fills in a default (v7 for arm); here an open variant is a wish for all of them
	}
	return types.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}, nil
}

// ParseAll reads several platforms.
func ParseAll(list []string) ([]types.Platform, error) {
	var all []types.Platform
	for _, s := range list {
		p, err := Parse(s)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// String prints p as Parse reads it, with the OS version in brackets when there is one.
func String(p types.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	if p.OSVersion != "" {
		s += " (" + p.OSVersion + ")"
	}
	return s
}

// Match reports whether have is what want asks for. What want leaves open (variant, OS version) matches anything.
func Match(want, have types.Platform) bool {
	if want.Variant == "" {
		have.Variant = ""
	}
	w, h := convert(want), convert(have)
	if want.OSVersion == "" {
		w.OSVersion, h.OSVersion = "", ""
	}
	return regplatform.Match(w, h)
}

// MatchAny reports whether have is one of want. No wish is a wish for everything. A descriptor without a platform
// matches everything too: it may be an attestation or a nested index, which belong to the whole.
func MatchAny(want []types.Platform, have *types.Platform) bool {
	if len(want) == 0 || have == nil || have.OS == "" && have.Architecture == "" {
		return true
	}
	for _, w := range want {
		if Match(w, *have) {
			return true
		}
	}
	return false
}

func convert(p types.Platform) regplatform.Platform {
	return regplatform.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}
}
