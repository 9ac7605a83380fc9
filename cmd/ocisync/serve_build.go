package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/scheme/serve/access"
)

// maxSecret bounds a file with a password, in bytes.
const maxSecret = 4096

// options are what the configuration means to package serve, but for the places.
func (c *serveConfig) options(log *slog.Logger) ([]serve.Option, error) {
	opts := []serve.Option{serve.WithLogger(log)}
	for _, o := range []struct {
		set bool
		opt func() serve.Option
	}{
		{c.ReadOnly, serve.WithReadOnly},
		{c.Sparse, serve.WithSparse},
		{c.SparseImages, serve.WithSparseImages},
		{c.PathPrefix != "", func() serve.Option { return serve.WithPathPrefix(c.PathPrefix) }},
		{c.StateDir != "", func() serve.Option { return serve.WithStateDir(c.StateDir) }},
		{!c.Catalog, serve.WithoutCatalog},
		{c.Names != "", func() serve.Option { return serve.WithNamePattern(regexp.MustCompile(c.Names)) }},
		{c.Log.Access, func() serve.Option { return serve.WithInspector(serve.AccessLog(log)) }},
	} {
		if o.set {
			opts = append(opts, o.opt())
		}
	}
	for _, text := range c.Warnings {
		opts = append(opts, serve.WithWarning(text))
	}
	has := func(kind string) bool { return slices.Contains(c.Deletes, kind) }
	opts = append(opts, serve.WithDeletes(serve.Deletes{Tags: has("tags"), Manifests: has("manifests"), Blobs: has("blobs")}))
	opts = append(opts, serve.WithTrustedProxies(prefixes(c.TrustedProxies)...))
	opts = append(opts, c.Limits.options()...)
	who, err := c.accessOptions(log)
	return append(opts, who...), err
}

// options are the limits that were set.
func (c *limitConfig) options() []serve.Option {
	var opts []serve.Option
	size := func(n *byteSize, opt func(int64) serve.Option) {
		if n != nil {
			opts = append(opts, opt(int64(*n)))
		}
	}
	size(c.Manifest, serve.WithMaxManifest)
	size(c.Blob, serve.WithMaxBlob)
	size(c.MinChunk, serve.WithMinChunk)
	number := func(n *int, opt func(int) serve.Option) {
		if n != nil {
			opts = append(opts, opt(*n))
		}
	}
	number(c.Tags, serve.WithMaxTags)
	number(c.Page, serve.WithMaxPage)
	number(c.Sessions, serve.WithMaxSessions)
	number(c.SessionsEach, serve.WithMaxSessionsEach)
	if c.Connections != nil || c.ConnectionsEach != nil {
		opts = append(opts, serve.WithMaxConns(orDefault(c.Connections, -1), orDefault(c.ConnectionsEach, -1)))
	}
	if c.Requests != nil || c.RequestsEach != nil {
		opts = append(opts, serve.WithMaxRequests(orDefault(c.Requests, -1), orDefault(c.RequestsEach, -1)))
	}
	if c.SessionTTL != nil {
		opts = append(opts, serve.WithSessionTTL(*c.SessionTTL))
	}
	if c.ReadIdle != nil {
		opts = append(opts, serve.WithReadIdle(*c.ReadIdle))
	}
	if c.WriteIdle != nil {
		opts = append(opts, serve.WithWriteIdle(*c.WriteIdle))
	}
	if c.Rate > 0 {
		opts = append(opts, serve.WithRateLimit(c.Rate, max(c.Burst, int(c.Rate), 1)))
	}
	return opts
}

// orDefault is what was set, or the default of package serve where it takes two values at once.
func orDefault(n *int, otherwise int) int {
	if n == nil {
		return otherwise
	}
	return *n
}

// accessOptions say who may do what: with users and without rules, users everything.
func (c *serveConfig) accessOptions(log *slog.Logger) ([]serve.Option, error) {
	var opts []serve.Option
	if c.Auth.known() {
		basic, err := c.basic(log)
		if err != nil {
			return nil, err
		}
		opts = append(opts, serve.WithAuthenticator(basic))
	}
	rules := make([]access.Rule, 0, len(c.Rules)+2)
	for _, r := range c.Rules {
		rules = append(rules, r.rule())
	}
	everything := []serve.Action{serve.ActionPull, serve.ActionPush, serve.ActionDelete, serve.ActionCatalog}
	if c.Auth.AnonymousPull {
		if len(rules) == 0 {
			rules = append(rules, access.Rule{Subjects: []string{access.Anyone}, Repositories: []string{"**"}, Actions: everything})
		}
		rules = append(rules, access.Rule{
			Subjects: []string{access.Anonymous}, Repositories: []string{"**"}, Actions: []serve.Action{serve.ActionPull, serve.ActionCatalog},
		})
	}
	if len(rules) > 0 {
		policy, err := access.NewPolicy(rules...)
		if err != nil {
			return nil, usagef("", "rules: %w", err)
		}
		opts = append(opts, serve.WithAuthorizer(policy))
	}
	return opts, nil
}

// basic reads the users, and their passwords from where they are.
func (c *serveConfig) basic(log *slog.Logger) (*access.Basic, error) {
	a := &c.Auth
	config := access.BasicConfig{Realm: a.Realm, Service: a.Service, Files: a.Htpasswd, Groups: c.Groups, Log: log}
	for _, u := range a.Users {
		password, err := u.password()
		if err != nil {
			return nil, usagef("", "user %q: %w", u.Name, err)
		}
		config.Users = append(config.Users, access.User{Name: u.Name, Hash: u.Hash, Password: password, Groups: u.Groups})
	}
	basic, err := access.NewBasic(config)
	if err != nil {
		return nil, usagef("", "users: %w", err)
	}
	return basic, nil
}

// password reads the one that is not in the file. A line's end behind it is none of its characters.
func (c *userConfig) password() (string, error) {
	switch {
	case c.PasswordEnv != "":
		p := os.Getenv(c.PasswordEnv)
		if p == "" {
			return "", fmt.Errorf("the environment variable %s is not set", c.PasswordEnv)
		}
		return p, nil
	case c.PasswordFile != "":
		fi, err := os.Stat(c.PasswordFile)
		if err != nil {
			return "", err
		}
		if !fi.Mode().IsRegular() || fi.Size() > maxSecret {
			return "", fmt.Errorf("%s is no file with a password", c.PasswordFile)
		}
		raw, err := os.ReadFile(c.PasswordFile)
		p := strings.TrimRight(string(raw), "\r\n")
		if err == nil && p == "" {
			err = errors.New(c.PasswordFile + " is empty")
		}
		return p, err
	}
	return "", nil
}

// serveLog is what the server logs to: failures, and with the access log every request. flush ends its use. On a terminal
// somebody watches: nothing waits there.
func (a *app) serveLog(c *serveConfig) (log *slog.Logger, flush func(), err error) {
	if c.Log.Inspect && a.events() {
		return nil, nil, usagef("--log-format json for programs", "--inspect is for people, and --progress json for programs")
	}
	level := slog.LevelInfo
	switch {
	case a.verbose:
		level = slog.LevelDebug
	case a.quiet:
		level, c.Log.Access = slog.LevelError, false
	}
	b := &lineBuffer{w: a.console}
	var w io.Writer = b
	if a.terminal {
		w = a.console
	}
	options := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, options)
	if c.Log.Format == logJSON || c.Log.Format == "" && a.events() {
		a.console.lines.Store(true) // who reads the log gets no line of another form
		h = slog.NewJSONHandler(w, options)
	}
	return slog.New(promptly{h, b}), b.flush, nil
}
