package main

import (
	"fmt"
	"net"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// serveFlags are the flags of serve. Each that was given changes one value of the configuration.
type serveFlags struct {
	file      string
	given     serveConfig // what the flags say
	htpasswd  []string
	proxies   []string
	logFormat enum
	noAccess  bool
	deletes   bool
}

func newServeFlags() *serveFlags {
	return &serveFlags{given: *newServeConfig(), logFormat: enum{value: logText, values: []string{logText, logJSON}}}
}

func (f *serveFlags) register(cmd *cobra.Command) {
	fs, c := cmd.Flags(), &f.given
	fs.SortFlags = false
	fs.StringVar(&f.file, "config", "", "read the configuration in `FILE` (YAML); flags come before it")
	fs.StringVar(&c.Addr, "addr", c.Addr, "listen on `HOST:PORT`; :PORT is every address of this machine, port 0 any that is free")
	fs.StringVar(&c.TLS.Cert, "tls-cert", "", "speak HTTPS with the certificate, and those it depends on, in `FILE` (PEM), which is read again when it changes")
	fs.StringVar(&c.TLS.Key, "tls-key", "", "the certificate's key, in `FILE` (PEM)")
	fs.StringArrayVar(&f.htpasswd, "htpasswd", nil, "the users in `FILE`, as htpasswd -B writes it, which is read again when it changes (repeatable)")
	fs.BoolVar(&c.Auth.AnonymousPull, "anonymous-pull", false, "with --htpasswd: everybody may pull, without an account")
	fs.BoolVar(&c.ReadOnly, "read-only", false, "refuse everything that would change a place")
	fs.BoolVar(&f.deletes, "allow-delete", false, "let clients delete tags, manifests and blobs")
	fs.BoolVar(&c.Create, "create", false, "make directories that do not exist")
	fs.BoolVar(&c.Sparse, "sparse", false, "take indexes some of whose manifests are missing")
	fs.BoolVar(&c.SparseImages, "sparse-images", false, "and images some of whose blobs are missing")
	fs.BoolVar(&c.Catalog, "catalog", true, "list repositories to those who ask")
	fs.StringVar(&c.PathPrefix, "path-prefix", "", "what clients write before /v2/, as in `/registry`, and a proxy in front leaves there")
	fs.StringArrayVar(&f.proxies, "trusted-proxy", nil, "believe X-Forwarded-For of the proxies in this `NETWORK`, as in 10.0.0.0/8 (repeatable)")
	fs.StringVar(&c.StateDir, "state-dir", "", "keep the beginnings of uploads to registries in `FOLDER`, so that they go on after a restart")
	fs.Var(&c.Limits.Memory, "mem-limit", "what mem:// may hold")
	fs.DurationVar(&c.Grace, "grace", c.Grace, "wait so long for requests that are running, when stopped")
	fs.Var(&f.logFormat, "log-format", "form of the log on stderr")
	fs.BoolVar(&f.noAccess, "no-access-log", false, "log failures only, and not every request")
	fs.BoolVar(&c.Log.Inspect, "inspect", false, "print every request and answer with its headers, without secrets")
}

// config is the file's configuration, or the default, with what the flags say instead.
func (f *serveFlags) config(fs *pflag.FlagSet, args []string) (*serveConfig, error) {
	c := newServeConfig()
	if f.file != "" {
		var err error
		if c, err = readServeConfig(f.file); err != nil {
			return nil, err
		}
	}
	proxies := make([]network, len(f.proxies))
	for i, s := range f.proxies {
		if err := proxies[i].UnmarshalText([]byte(s)); err != nil {
			return nil, usagef("--trusted-proxy 10.0.0.0/8", "--trusted-proxy: %w", err)
		}
	}
	g := &f.given
	for name, set := range map[string]func(){
		"addr": func() { c.Addr = g.Addr }, "tls-cert": func() { c.TLS.Cert = g.TLS.Cert }, "tls-key": func() { c.TLS.Key = g.TLS.Key },
		"htpasswd": func() { c.Auth.Htpasswd = f.htpasswd }, "anonymous-pull": func() { c.Auth.AnonymousPull = g.Auth.AnonymousPull },
		"read-only": func() { c.ReadOnly = g.ReadOnly }, "allow-delete": func() { c.Deletes = deletesOf(f.deletes) }, "create": func() { c.Create = g.Create },
		"sparse": func() { c.Sparse = g.Sparse }, "sparse-images": func() { c.SparseImages = g.SparseImages }, "catalog": func() { c.Catalog = g.Catalog },
		"path-prefix": func() { c.PathPrefix = g.PathPrefix }, "trusted-proxy": func() { c.TrustedProxies = proxies },
		"state-dir": func() { c.StateDir = g.StateDir }, "mem-limit": func() { c.Limits.Memory = g.Limits.Memory }, "grace": func() { c.Grace = g.Grace },
		"log-format": func() { c.Log.Format = f.logFormat.value }, "no-access-log": func() { c.Log.Access = !f.noAccess }, "inspect": func() { c.Log.Inspect = g.Log.Inspect },
	} {
		if fs.Changed(name) {
			set()
		}
	}
	if len(args) > 0 {
		c.Places = nil
		for _, arg := range args {
			name, place := cutServedName(arg)
			c.Places = append(c.Places, placeConfig{Name: name, Place: place})
		}
	}
	return c, f.check(c)
}

// check reports what flags made of a configuration that was right.
func (f *serveFlags) check(c *serveConfig) error {
	switch {
	case c.Grace < 0:
		return usagef("--grace 0 to wait for nobody", "--grace %s: want 0 or more", c.Grace)
	case c.TLS.Cert != "" && c.TLS.Key == "":
		return usagef("--tls-key FILE with the certificate's key", "--tls-cert needs --tls-key")
	case c.TLS.Key != "" && c.TLS.Cert == "":
		return usagef("--tls-cert FILE with the key's certificate", "--tls-key needs --tls-cert")
	case c.Auth.AnonymousPull && !c.Auth.known():
		return usagef("--htpasswd FILE beside it, or leave it out: without users everybody may do everything", "--anonymous-pull says what nobody in particular may do, and there is nobody else")
	}
	if err := checkPrefix(c.PathPrefix); err != nil {
		return usagef("--path-prefix /registry", "--path-prefix: %w", err)
	}
	return checkAddr(c.Addr)
}

// checkAddr reports an address that no program can listen on.
func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err == nil {
		return nil
	}
	hint := "127.0.0.1:5000"
	if _, perr := net.LookupPort("tcp", addr); perr == nil {
		hint = fmt.Sprintf("127.0.0.1:%s for this machine alone, or :%s for all", addr, addr)
	}
	return usagef(hint, "address %q: want HOST:PORT", addr)
}

// deletesOf is what --allow-delete means: everything, or nothing.
func deletesOf(allowed bool) []string {
	if allowed {
		return allDeletes
	}
	return nil
}
