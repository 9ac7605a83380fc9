package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/types/ref"
)

// globals are the flags that every command has.
type globals struct {
	output    enum
	progress  enum
	quiet     bool
	verbose   bool
	timeout   time.Duration
	plainHTTP []string
	insecure  []string
	caFiles   []string
}

func (g *globals) register(root *cobra.Command) {
	g.output = enum{value: "text", values: []string{"text", "json"}}
	g.progress = enum{value: "auto", values: []string{"auto", "tty", "plain", "json", "none"}}
	f := root.PersistentFlags()
	f.SortFlags = false
	f.Var(&g.output, "output", "form of the result on stdout")
	f.Var(&g.progress, "progress", "form of the progress on stderr; auto is tty on a terminal, else plain")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "print nothing but errors and what was asked for")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "log every HTTP request to stderr, without secrets")
	f.DurationVar(&g.timeout, "timeout", 0, "give up after this time, as in 90s or 15m (default: never)")
	f.StringArrayVar(&g.plainHTTP, "plain-http", nil, "speak HTTP, without TLS, to the registry `HOST` (repeatable)")
	f.StringArrayVar(&g.insecure, "insecure", nil, "do not verify the certificate of the registry `HOST` (repeatable)")
	f.StringArrayVar(&g.caFiles, "ca-file", nil, "trust the certificates in FILE (PEM) for the registry HOST, as `HOST=FILE` (repeatable)")
	for name, e := range map[string]*enum{"output": &g.output, "progress": &g.progress} {
		if err := root.RegisterFlagCompletionFunc(name, e.complete); err != nil {
			panic(err) // the flag was registered above
		}
	}
}

// check reports what is wrong with the flags' values beyond their form.
func (g *globals) check() error {
	if g.timeout < 0 {
		return usagef("--timeout 15m", "--timeout %s: want a time above zero", g.timeout)
	}
	if g.quiet && g.verbose {
		return usagef("", "--quiet and --verbose exclude each other")
	}
	_, err := g.hosts()
	return err
}

func (g *globals) json() bool { return g.output.value == "json" }

// events reports whether stderr is lines of JSON, for a program.
func (g *globals) events() bool { return g.progress.value == "json" }

// client returns a client that does what the global flags ask for. The caller closes it.
func (a *app) client(opts ...ocisync.Option) (*ocisync.Client, error) {
	hosts, err := a.hosts()
	if err != nil {
		return nil, err
	}
	regOpts := []reg.Option{reg.WithUserAgent("ocisync/" + strings.Trim(versionOf(readBuild()).Version, "()"))}
	if a.verbose {
		regOpts = append(regOpts, reg.WithLogger(a.log))
	}
	for host, h := range hosts {
		regOpts = append(regOpts, reg.WithHost(host, h))
	}
	return ocisync.New(append([]ocisync.Option{ocisync.WithRegistry(regOpts...)}, opts...)...), nil
}

// hosts returns what --plain-http, --insecure and --ca-file say about each registry.
func (g *globals) hosts() (map[string]reg.Host, error) {
	all := map[string]reg.Host{}
	by := map[string]string{} // the flag that spoke about a host
	set := func(flag, host string, change func(*reg.Host)) error {
		r, err := ref.Parse("reg://" + host)
		if err != nil || r.Repo != "" {
			return usagef(flag+" localhost:5000", "%s %q: want a registry's name, with its port if it has one", flag, host)
		}
		if other := by[r.Root]; other != "" && other != flag {
			return usagef("", "%s and %s exclude each other for %s", other, flag, r.Root)
		}
		by[r.Root] = flag
		h := all[r.Root]
		change(&h)
		all[r.Root] = h
		return nil
	}
	for _, host := range g.plainHTTP {
		if err := set("--plain-http", host, func(h *reg.Host) { h.TLS = reg.TLSDisabled }); err != nil {
			return nil, err
		}
	}
	for _, host := range g.insecure {
		if err := set("--insecure", host, func(h *reg.Host) { h.TLS = reg.TLSInsecure }); err != nil {
			return nil, err
		}
	}
	for _, arg := range g.caFiles {
		host, file, ok := strings.Cut(arg, "=")
		if !ok || file == "" {
			return nil, usagef("--ca-file reg.lan=ca.pem", "--ca-file %q: want HOST=FILE", arg)
		}
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, usagef("", "--ca-file %s: %w", arg, err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return nil, usagef("", "--ca-file %s: %s has no certificate in PEM form", arg, file)
		}
		if err := set("--ca-file", host, func(h *reg.Host) {
			h.TLS, h.CA = reg.TLSEnabled, fmt.Appendf(h.CA, "%s\n", pem)
		}); err != nil {
			return nil, err
		}
	}
	return all, nil
}
