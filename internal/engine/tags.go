package engine

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/ocisync/ocisync/types/errs"
)

// patterns selects tags. The zero value selects all.
type patterns struct {
	include, exclude []func(tag string) bool
}

// parsePatterns reads globs, "regex:EXPR", and either after "!". Its error is errs.ErrInvalid.
func parsePatterns(list []string) (patterns, error) {
	var p patterns
	for _, s := range list {
		text, not := strings.CutPrefix(s, "!")
		match, err := parsePattern(text)
		if err != nil {
			return patterns{}, fmt.Errorf("%w tag pattern %q: %w", errs.ErrInvalid, s, err)
		}
		if not {
			p.exclude = append(p.exclude, match)
		} else {
			p.include = append(p.include, match)
		}
	}
	return p, nil
}

func parsePattern(text string) (func(string) bool, error) {
	if expr, ok := strings.CutPrefix(text, "regex:"); ok {
		if _, err := regexp.Compile(expr); err != nil { // alone: "a)(b" would be sound inside of the brackets below
			return nil, err
		}
		re, err := regexp.Compile("^(?:" + expr + ")$")
		if err != nil {
			return nil, err
		}
		return re.MatchString, nil
	}
	if text == "" {
		return nil, fmt.Errorf("it is empty")
	}
	if _, err := path.Match(text, ""); err != nil {
		return nil, err
	}
	return func(tag string) bool {
		ok, err := path.Match(text, tag)
		return ok && err == nil
	}, nil
}

// match reports whether tag is selected: by an inclusion, if there are any, and by no exclusion.
func (p patterns) match(tag string) bool {
	for _, no := range p.exclude {
		if no(tag) {
			return false
		}
	}
	for _, yes := range p.include {
		if yes(tag) {
			return true
		}
	}
	return len(p.include) == 0
}
