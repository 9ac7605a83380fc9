package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/ocisync/ocisync/internal/yamlfile"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/scheme/serve/access"
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

// known reports whether anybody can be somebody.
func (c *authConfig) known() bool { return len(c.Users) > 0 || len(c.Htpasswd) > 0 }

// rule is what the server is told.
func (c ruleConfig) rule() access.Rule {
	r := access.Rule{Subjects: c.Subjects, Groups: c.Groups, Repositories: c.Repositories, Networks: prefixes(c.Networks)}
	for _, a := range c.Actions {
		r.Actions = append(r.Actions, serve.Action(a))
	}
	return r
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
