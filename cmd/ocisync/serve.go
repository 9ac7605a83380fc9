package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

func (a *app) serveCommand() *cobra.Command {
	f := newServeFlags()
	cmd := &cobra.Command{
		Use:   "serve [NAME=]PLACE… [flags]",
		Short: "Make a registry of directories, memory or other registries",
		Long: `serve is a registry over PLACE, for docker, podman, skopeo, oras, crane, helm and ocisync itself, until
it is interrupted. What they push is in the directory when they are told so, and what else comes into the
directory meanwhile is served at once: other processes may write there, ocisync gc and verify may run.

PLACE is
  a folder          whose layouts, and those below it, are its repositories: ./mirror/team/app is team/app
  one layout        under its own name: ./mirror/team/app as app
  mem://NAME        memory, which is empty at the start and gone at the end
  a registry        or a part of it (ghcr.io, ghcr.io/org): what is asked for is asked for there, with the
                    accounts of this user, which no client gets to see
Several places need names, which are the beginnings of their repositories' names.

Only this machine can connect, unless --addr says otherwise; then think of --tls-cert and --htpasswd.
With users and no rules, users may do everything; rules are in the file of --config, which has all that
the flags say, and more (docs/server.md). Flags come before it. Nothing is deleted without --allow-delete.

The first interrupt lets requests that are running finish, for --grace at most; the second ends the
program at once. Uploads over directories go on after a restart. /livez and /readyz say whether the
process lives, and whether it can be used.`,
		Example: `  ocisync serve ./mirror                                every layout below ./mirror
  ocisync serve --read-only --addr :5000 ./mirror       for other machines, too
  ocisync serve --tls-cert reg.pem --tls-key reg.key --htpasswd users --addr :443 ./mirror
  ocisync serve hub=docker.io team=./team               localhost:5000/hub/library/alpine and so on
  ocisync serve --addr 127.0.0.1:0 mem://scratch        on any free port, which it prints
  ocisync serve --config serve.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.config(cmd.Flags(), args)
			if err != nil {
				return err
			}
			return a.serve(cmd.Context(), c)
		},
	}
	f.register(cmd)
	return cmd
}

func (a *app) serve(ctx context.Context, c *serveConfig) (err error) {
	places, err := parseServed(c.Places)
	if err != nil {
		return err
	}
	log, flush, err := a.serveLog(c)
	if err != nil {
		return err
	}
	defer flush()
	opts, err := c.options(log)
	if err != nil {
		return err
	}
	if c.Log.Inspect {
		opts = append(opts, serve.WithInspector(serve.Printer(a.console)))
	}
	client, err := a.client(ocisync.WithScheme(mem.Scheme, mem.New(mem.WithLimit(int64(c.Limits.Memory)))))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if err := openServed(ctx, client.API(), places, c); err != nil {
		return err
	}
	for _, p := range places {
		opts = append(opts, serve.WithPlace(p.Place))
	}
	tls, err := c.TLS.load(log)
	if err != nil {
		return err
	}
	registry, err := serve.New(client.API(), ref.Ref{}, opts...)
	if err != nil {
		return err
	}
	listener, err := listen(ctx, c.Addr)
	if err != nil {
		return errors.Join(err, registry.Shutdown(ctx))
	}
	a.warnOpen(c, listener.Addr())
	health := newHealth(client.API(), places, c.ReadOnly, registry)
	server := startHTTP(listener, health, registry, tls)
	return a.serveUntilStopped(ctx, c, server, health, places)
}

// serveUntilStopped says where the server is, and stops it in good order when somebody wants that, or when it fails.
func (a *app) serveUntilStopped(ctx context.Context, c *serveConfig, server *httpServer, health *health, places []served) error {
	a.stopsItself.Store(true)
	// In "ocisync serve … | tee log", an interrupt ends tee first: requests are still to be finished.
	outliveReader()
	if err := a.greet(c, server, places); err != nil {
		return errors.Join(err, server.stop(0))
	}
	select {
	case <-ctx.Done():
		if !a.quiet {
			a.console.note("stopping: no new requests; waiting up to %s for those that are running; again to stop at once", shortDuration(c.Grace))
		}
	case err := <-server.done:
		server.done <- err // stop reports it
	}
	health.stopping.Store(true)
	return server.stop(c.Grace)
}

// greet says where the server listens, and how to try it: to a program on stdout, to people on stderr.
func (a *app) greet(c *serveConfig, server *httpServer, places []served) error {
	host, protocol := reachable(server.listener.Addr()), "http"
	if c.TLS.Cert != "" {
		protocol = "https"
	}
	names := make([]string, len(places))
	for i, p := range places {
		names[i] = p.arg
	}
	if a.json() {
		return a.out.json(map[string]any{"url": protocol + "://" + host + c.PathPrefix, "host": host, "places": names})
	}
	if a.quiet {
		return nil
	}
	a.console.note("serving %s on %s://%s%s", strings.Join(names, ", "), protocol, host, c.PathPrefix)
	if c.PathPrefix == "" {
		a.console.note("  try: ocisync ls %s", host)
	}
	return nil
}

// warnOpen warns of a server that more can use than its user may think. --quiet does not silence it.
func (a *app) warnOpen(c *serveConfig, addr net.Addr) {
	t, ok := addr.(*net.TCPAddr)
	if !ok || t.IP.IsLoopback() {
		return
	}
	guarded := c.Auth.known() || len(c.Rules) > 0
	may := "push and pull"
	if c.ReadOnly {
		may = "pull"
	}
	if !guarded {
		a.console.note("WARNING: everybody who reaches %s may %s: there are no users (--htpasswd FILE)", addr, may)
	}
	if c.TLS.Cert == "" && len(c.TrustedProxies) == 0 {
		what := "whoever is in between can change what is pulled"
		if guarded {
			what = "whoever is in between can read passwords, and change what is pulled"
		}
		a.console.note("WARNING: %s is served without TLS: %s (--tls-cert FILE --tls-key FILE)", addr, what)
	}
}

// reachable is an address that clients on this machine can use for what a server listens on.
func reachable(addr net.Addr) string {
	t, ok := addr.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return addr.String()
	}
	return fmt.Sprintf("localhost:%d", t.Port)
}
