package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ocisync/ocisync/internal/yamlfile"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/scheme/serve/access"
	"github.com/ocisync/ocisync/types"
)

// serveConfig is everything that a server can be told, as it stands in serve.yaml: docs/server.md describes each key.
// Flags change single values of it afterwards.
type serveConfig struct {
	Addr           string              `yaml:"addr"`
	TLS            tlsConfig           `yaml:"tls"`
	Places         []placeConfig       `yaml:"places"`
	Create         bool                `yaml:"create"`
	ReadOnly       bool                `yaml:"read-only"`
	Deletes        []string            `yaml:"deletes"`
	Catalog        bool                `yaml:"catalog"`
	Sparse         bool                `yaml:"sparse"`
	SparseImages   bool                `yaml:"sparse-images"`
	Names          string              `yaml:"names"`
	Warnings       []string            `yaml:"warnings"`
	PathPrefix     string              `yaml:"path-prefix"`
	TrustedProxies []network           `yaml:"trusted-proxies"`
	StateDir       string              `yaml:"state-dir"`
	Grace          time.Duration       `yaml:"grace"`
	Auth           authConfig          `yaml:"auth"`
	Groups         map[string][]string `yaml:"groups"`
	Rules          []ruleConfig        `yaml:"rules"`
	Limits         limitConfig         `yaml:"limits"`
	Log            logConfig           `yaml:"log"`
}

// tlsConfig names the files of the server's certificate.
type tlsConfig struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// placeConfig is one place, written with its keys or as on the command line.
type placeConfig struct {
	Place    string `yaml:"place"`
	Name     string `yaml:"name"`
	ReadOnly bool   `yaml:"read-only"`
}

// authConfig says who may be somebody.
type authConfig struct {
	Realm         string       `yaml:"realm"`
	Service       string       `yaml:"service"`
	Htpasswd      []string     `yaml:"htpasswd"`
	Users         []userConfig `yaml:"users"`
	AnonymousPull bool         `yaml:"anonymous-pull"`
}

// userConfig is a user, with one of three ways to know the password.
type userConfig struct {
	Name         string   `yaml:"name"`
	Hash         string   `yaml:"hash"`
	PasswordEnv  string   `yaml:"password-env"`
	PasswordFile string   `yaml:"password-file"`
	Groups       []string `yaml:"groups"`
}

// ruleConfig is an access.Rule.
type ruleConfig struct {
	Subjects     []string  `yaml:"subjects"`
	Groups       []string  `yaml:"groups"`
	Repositories []string  `yaml:"repositories"`
	Actions      []string  `yaml:"actions"`
	Networks     []network `yaml:"networks"`
}

// limitConfig bounds what clients can make the server do. What is nil has the default of package serve.
type limitConfig struct {
	Manifest        *byteSize      `yaml:"manifest"`
	Blob            *byteSize      `yaml:"blob"`
	MinChunk        *byteSize      `yaml:"min-chunk"`
	Memory          byteSize       `yaml:"memory"`
	Tags            *int           `yaml:"tags"`
	Page            *int           `yaml:"page"`
	Sessions        *int           `yaml:"sessions"`
	SessionsEach    *int           `yaml:"sessions-each"`
	SessionTTL      *time.Duration `yaml:"session-ttl"`
	Requests        *int           `yaml:"requests"`
	RequestsEach    *int           `yaml:"requests-each"`
	Connections     *int           `yaml:"connections"`
	ConnectionsEach *int           `yaml:"connections-each"`
	Rate            float64        `yaml:"rate"`
	Burst           int            `yaml:"burst"`
	ReadIdle        *time.Duration `yaml:"read-idle"`
	WriteIdle       *time.Duration `yaml:"write-idle"`
}

// logConfig says what is told on stderr.
type logConfig struct {
	Format  string `yaml:"format"` // "" is text, or JSON where everything on stderr is
	Access  bool   `yaml:"access"`
	Inspect bool   `yaml:"inspect"`
}

// allDeletes are the kinds of what clients may be allowed to delete.
var allDeletes = []string{"tags", "manifests", "blobs"}

// The formats of the log.
const (
	logText = "text"
	logJSON = "json"
)

func newServeConfig() *serveConfig {
	return &serveConfig{
		Addr: "127.0.0.1:5000", Catalog: true, Grace: 30 * time.Second,
		Limits: limitConfig{Memory: 1 << 30}, Log: logConfig{Access: true},
	}
}

// readServeConfig reads a file over the defaults. Relative paths in it are relative to its folder.
func readServeConfig(file string) (*serveConfig, error) {
	c := newServeConfig()
	if err := yamlfile.ReadFile(file, c); err != nil {
		var y *yamlfile.Error
		if !errors.As(err, &y) { // it cannot be read at all
			return nil, usagef("", "--config %s: %w", file, err)
		}
		return nil, err
	}
	dir := filepath.Dir(file)
	paths := []*string{&c.TLS.Cert, &c.TLS.Key, &c.StateDir}
	for i := range c.Auth.Htpasswd {
		paths = append(paths, &c.Auth.Htpasswd[i])
	}
	for i := range c.Auth.Users {
		paths = append(paths, &c.Auth.Users[i].PasswordFile)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	for i := range c.Places {
		c.Places[i].Place = placeBelow(dir, c.Places[i].Place)
	}
	return c, nil
}

// placeBelow is what a place in a file in dir is, seen from the current folder.
func placeBelow(dir, place string) string {
	slashed := filepath.ToSlash(place)
	if !isPath(place) || strings.HasPrefix(slashed, "/") || isDrive(slashed) || dir == "." {
		return place
	}
	return asPath(filepath.ToSlash(filepath.Join(dir, place)))
}

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
	if c.Auth.AnonymousPull && !c.Auth.known() {
		return yamlfile.At("auth", errors.New("anonymous-pull says what nobody in particular may do, and there is nobody else"), "users or htpasswd beside it")
	}
	if c.Limits.Burst != 0 && c.Limits.Rate == 0 {
		return yamlfile.At("limits", errors.New("burst needs a rate"), "rate: 50")
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

// UnmarshalText reads [NAME=]PLACE.
func (c *placeConfig) UnmarshalText(text []byte) error {
	c.Name, c.Place = cutServedName(string(text))
	return nil
}

// arg is the place as an argument.
func (c placeConfig) arg() string {
	if c.Name == "" {
		return c.Place
	}
	return c.Name + "=" + c.Place
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

// known reports whether anybody can be somebody.
func (c *authConfig) known() bool { return len(c.Users) > 0 || len(c.Htpasswd) > 0 }

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

// rule is what the server is told.
func (c ruleConfig) rule() access.Rule {
	r := access.Rule{Subjects: c.Subjects, Groups: c.Groups, Repositories: c.Repositories, Networks: prefixes(c.Networks)}
	for _, a := range c.Actions {
		r.Actions = append(r.Actions, serve.Action(a))
	}
	return r
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

// Validate refuses what is below zero, which would mean nothing.
func (c limitConfig) Validate() error {
	for _, n := range []struct {
		key   string
		value *int
	}{
		{"tags", c.Tags}, {"page", c.Page}, {"sessions", c.Sessions}, {"sessions-each", c.SessionsEach}, {"requests", c.Requests},
		{"requests-each", c.RequestsEach}, {"connections", c.Connections}, {"connections-each", c.ConnectionsEach}, {"burst", &c.Burst},
	} {
		if n.value != nil && *n.value < 0 {
			return yamlfile.At(n.key, fmt.Errorf("%d is less than nothing", *n.value), "")
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

// network is a range of addresses, or one: 10.0.0.0/8, 192.0.2.7.
type network struct{ netip.Prefix }

// UnmarshalText reads either form.
func (n *network) UnmarshalText(text []byte) error {
	s := string(text)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		n.Prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return yamlfile.At("", fmt.Errorf("%q is no network", s), "10.0.0.0/8, 192.0.2.7 or fd00::/8")
	}
	n.Prefix = p
	return nil
}

func prefixes(all []network) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range all {
		out = append(out, n.Prefix)
	}
	return out
}
