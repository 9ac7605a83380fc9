package main

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ocisync/ocisync/internal/yamlfile"
	"github.com/ocisync/ocisync/scheme/serve/access"
	"github.com/ocisync/ocisync/types"
)

// What is wrong with a configuration file beyond its form: package yamlfile asks each part of it, and shows the place.
// Nothing here looks at anything but the file.

// Validate says what makes no sense beyond a single value.
func (c *serveConfig) Validate() error {
	if err := checkAddr(c.Addr); err != nil {
		return yamlfile.At("addr", err, hintFor(err))
	}
	if err := checkPrefix(c.PathPrefix); err != nil {
		return yamlfile.At("path-prefix", err, "/registry, for https://HOST/registry/v2/")
	}
	if _, err := regexp.Compile(c.Names); err != nil {
		return yamlfile.At("names", err, "a regular expression, as in [a-z]+/.*")
	}
	for i, d := range c.Deletes {
		if !slices.Contains(allDeletes, d) {
			return yamlfile.AtElement("deletes", i, fmt.Errorf("%q is not %s", d, orList(allDeletes)), "deletes: [tags]")
		}
	}
	if c.Grace < 0 {
		return yamlfile.At("grace", fmt.Errorf("%s is less than no time", c.Grace), "0 to wait for nobody")
	}
	names := map[string]bool{}
	for i, p := range c.Places {
		if p.Name != "" && names[p.Name] {
			return yamlfile.AtElement("places", i, fmt.Errorf("two places have the name %q", p.Name), "another name")
		}
		names[p.Name] = true
	}
	if err := c.checkGroups(); err != nil {
		return err
	}
	if c.Auth.AnonymousPull && !c.Auth.known() {
		return yamlfile.At("auth", errors.New("anonymous-pull says what nobody in particular may do, and there is nobody else"), "users or htpasswd beside it")
	}
	if c.Limits.Burst != 0 && c.Limits.Rate == 0 {
		return yamlfile.At("limits", errors.New("burst needs a rate"), "rate: 50")
	}
	return nil
}

// checkGroups finds groups of rules that nobody can be in: a name with a typing error would just allow nothing. Users
// are not looked for, as they may be in an htpasswd file.
func (c *serveConfig) checkGroups() error {
	known := slices.Collect(maps.Keys(c.Groups))
	for _, u := range c.Auth.Users {
		known = append(known, u.Groups...)
	}
	slices.Sort(known)
	for i, r := range c.Rules {
		for _, g := range r.Groups {
			if !slices.Contains(known, g) {
				hint := "groups: {" + g + ": [NAME]}"
				if len(known) > 0 {
					hint = "one of " + strings.Join(slices.Compact(known), ", ")
				}
				return yamlfile.AtElement("rules", i, fmt.Errorf("there is no group %q", g), hint)
			}
		}
	}
	return nil
}

// Validate says whether users can be told apart.
func (c authConfig) Validate() error {
	names := map[string]bool{}
	for i, u := range c.Users {
		if names[u.Name] {
			return yamlfile.AtElement("users", i, fmt.Errorf("two users have the name %q", u.Name), "another name")
		}
		names[u.Name] = true
	}
	return nil
}

// checkPrefix reports a path prefix that no request can have.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	plain := strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/") == ""
	if !strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") || strings.Contains(prefix, "//") || strings.Contains(prefix, "/.") || !plain {
		return fmt.Errorf("%q is no beginning of a path, as in /registry", prefix)
	}
	return nil
}

// Validate says whether both files are there, or none.
func (c tlsConfig) Validate() error {
	switch {
	case c.Cert != "" && c.Key == "":
		return errors.New("a certificate needs its key")
	case c.Cert == "" && c.Key != "":
		return errors.New("a key needs its certificate")
	}
	return nil
}

// Validate says whether the place is one. That it exists is no matter of the file.
func (c placeConfig) Validate() error {
	if c.Place == "" {
		return errors.New("a place is missing: place: ./mirror")
	}
	if _, err := parseNamedPlace(c.arg()); err != nil {
		key := "place"
		if c.Name != "" && strings.Contains(err.Error(), fmt.Sprintf("repository %q", c.Name)) {
			key = "name"
		}
		return yamlfile.At(key, err, hintFor(err))
	}
	return nil
}

// Validate checks everything about a user but the password, which is not here.
func (c userConfig) Validate() error {
	ways := 0
	for _, w := range []string{c.Hash, c.PasswordEnv, c.PasswordFile} {
		if w != "" {
			ways++
		}
	}
	if ways != 1 {
		return errors.New("a user needs one of hash, password-env and password-file")
	}
	u := access.User{Name: c.Name, Groups: c.Groups, Hash: c.Hash}
	if c.Hash == "" {
		u.Password = "not the one"
	}
	if _, err := access.NewBasic(access.BasicConfig{Users: []access.User{u}}); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "user 1: "))
	}
	return nil
}

// Validate says whether the rule can mean something.
func (c ruleConfig) Validate() error {
	_, err := access.NewPolicy(c.rule())
	if err == nil {
		return nil
	}
	text := strings.TrimPrefix(err.Error(), "rule 1: ")
	key, _, _ := strings.Cut(text, ":")
	return yamlfile.At(key, errors.New(text), "")
}

// Validate refuses what would mean nothing: what is below zero, and none at all of what pushes and lists cannot do without.
func (c limitConfig) Validate() error {
	for _, n := range []struct {
		key   string
		value *int
		least int
	}{
		{"tags", c.Tags, 10}, // distribution-spec, "Pushing Manifests"
		{"page", c.Page, 1}, {"sessions", c.Sessions, 1}, {"sessions-each", c.SessionsEach, 1}, {"requests", c.Requests, 0},
		{"requests-each", c.RequestsEach, 0}, {"connections", c.Connections, 0}, {"connections-each", c.ConnectionsEach, 0}, {"burst", &c.Burst, 0},
	} {
		switch {
		case n.value == nil || *n.value >= n.least:
		case n.least == 0:
			return yamlfile.At(n.key, fmt.Errorf("%d is less than nothing", *n.value), "")
		default:
			return yamlfile.At(n.key, fmt.Errorf("%d is too few", *n.value), fmt.Sprintf("%d or more", n.least))
		}
	}
	for _, t := range []struct {
		key   string
		value *time.Duration
	}{{"session-ttl", c.SessionTTL}, {"read-idle", c.ReadIdle}, {"write-idle", c.WriteIdle}} {
		if t.value != nil && (*t.value < 0 || *t.value == 0 && t.key == "session-ttl") {
			return yamlfile.At(t.key, fmt.Errorf("%s is too short", *t.value), "")
		}
	}
	if c.Rate < 0 {
		return yamlfile.At("rate", fmt.Errorf("%v is less than nothing", c.Rate), "")
	}
	if c.Manifest != nil && (*c.Manifest < 4<<20 || *c.Manifest > types.MaxManifestSize) {
		return yamlfile.At("manifest", fmt.Errorf("%s is less than clients may rely on, or more than is read", c.Manifest), "4MiB to 8MiB")
	}
	return nil
}

// Validate says whether the format is one.
func (c logConfig) Validate() error {
	if c.Format != "" && c.Format != logText && c.Format != logJSON {
		return yamlfile.At("format", fmt.Errorf("%q is none of text and json", c.Format), "text or json")
	}
	return nil
}
