package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// serveFlags are the flags of serve.
type serveFlags struct {
	addr     string
	readOnly bool
	sparse   bool
	create   bool
	stateDir string
	grace    time.Duration
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve PLACE… [flags]",
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
Several places need names, which are the beginnings of their repositories' names: NAME=PLACE.

Only this machine can connect, unless --addr says otherwise. The first interrupt lets requests that are
running finish, for --grace at most; the second ends the program at once. Uploads over directories go on
after a restart.`,
		Example: `  ocisync serve ./mirror                                every layout below ./mirror
  ocisync serve --read-only --addr :5000 ./mirror       for other machines, too
  ocisync serve hub=docker.io team=./team ./mirror      localhost:5000/hub/library/alpine and so on
  ocisync serve --create ./new                          a folder that is not there yet
  ocisync serve --addr 127.0.0.1:0 mem://scratch        on any free port, which it prints`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.serve(cmd.Context(), &f, args)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.addr, "addr", "127.0.0.1:5000", "listen on `HOST:PORT`; :PORT is every address of this machine, port 0 any that is free")
	fs.BoolVar(&f.readOnly, "read-only", false, "refuse everything that would change a place")
	fs.BoolVar(&f.sparse, "sparse", false, "take indexes some of whose manifests are missing")
	fs.BoolVar(&f.create, "create", false, "make directories that do not exist")
	fs.StringVar(&f.stateDir, "state-dir", "", "keep the beginnings of uploads in `FOLDER`, for places that cannot keep them (default: that of temporary files)")
	fs.DurationVar(&f.grace, "grace", 30*time.Second, "wait so long for requests that are running, when stopped")
	return cmd
}

// check reports flags that make no sense.
func (f *serveFlags) check() error {
	if f.grace < 0 {
		return usagef("--grace 0 to wait for nobody", "--grace %s: want 0 or more", f.grace)
	}
	return checkAddr(f.addr)
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
	hint := "--addr 127.0.0.1:5000"
	if _, perr := net.LookupPort("tcp", addr); perr == nil {
		hint = fmt.Sprintf("--addr 127.0.0.1:%s for this machine alone, or --addr :%s for all", addr, addr)
	}
	return usagef(hint, "--addr %q: want HOST:PORT", addr)
}

func (f *serveFlags) options() []serve.Option {
	var opts []serve.Option
	if f.readOnly {
		opts = append(opts, serve.WithReadOnly())
	}
	if f.sparse {
		opts = append(opts, serve.WithSparse())
	}
	if f.stateDir != "" {
		opts = append(opts, serve.WithStateDir(f.stateDir))
	}
	return opts
}

func (a *app) serve(ctx context.Context, f *serveFlags, args []string) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	places, err := parseServed(args)
	if err != nil {
		return err
	}
	client, err := a.client(ocisync.WithScheme(mem.Scheme, mem.New()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if err := openServed(ctx, client.API(), places, f); err != nil {
		return err
	}
	opts := f.options()
	for _, p := range places {
		opts = append(opts, serve.WithPlace(p.Place))
	}
	registry, err := serve.New(client.API(), ref.Ref{}, opts...)
	if err != nil {
		return err
	}
	listener, err := listen(ctx, f.addr)
	if err != nil {
		return errors.Join(err, registry.Shutdown(ctx))
	}
	health := newHealth(client.API(), places, registry)
	server := startHTTP(listener, health, registry)
	return a.serveUntilStopped(ctx, f, server, health, places)
}

// serveUntilStopped says where the server is, and stops it in good order when somebody wants that, or when it fails.
func (a *app) serveUntilStopped(ctx context.Context, f *serveFlags, server *httpServer, health *health, places []served) error {
	a.onInterrupt(fmt.Sprintf("interrupted: no new requests; waiting up to %s for those that are running; again to stop at once", shortDuration(f.grace)))
	if err := a.greet(server, places); err != nil {
		return errors.Join(err, server.stop(0))
	}
	select {
	case <-ctx.Done():
	case err := <-server.done:
		server.done <- err // stop reports it
	}
	health.stopping.Store(true)
	return server.stop(f.grace)
}

// greet says where the server listens, and how to try it: to a program on stdout, to people on stderr.
func (a *app) greet(server *httpServer, places []served) error {
	host := reachable(server.listener.Addr())
	url := "http://" + host
	names := make([]string, len(places))
	for i, p := range places {
		names[i] = p.arg
	}
	if a.json() {
		return a.out.json(map[string]any{"url": url, "places": names})
	}
	if a.quiet {
		return nil
	}
	a.console.note("serving %s on %s", strings.Join(names, ", "), url)
	a.console.note("  try: ocisync ls %s", host)
	return nil
}

// reachable is an address that clients on this machine can use for what a server listens on.
func reachable(addr net.Addr) string {
	t, ok := addr.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return addr.String()
	}
	return fmt.Sprintf("localhost:%d", t.Port)
}
