// Command ocisync copies OCI images between registries and directories, looks into both, and makes a registry of a
// directory.
//
// One file per command; the rest is what they share: the flags that every command has (globals.go), what an argument
// may name (place.go), what is shown while work runs (progress*.go), and how a failure is told (failure.go, exit.go).
// Results go to stdout, everything else to stderr. All work is done by package ocisync; nothing here moves a byte.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the whole program: it returns the exit code.
func run(args []string, stdout, stderr *os.File) int {
	a := &app{out: &output{w: stdout}, console: &console{w: stderr}, terminal: isTerminal(stderr)}
	ctx, stop := interruptible(context.Background(), a.interrupted)
	defer stop()
	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if a.cancel != nil {
		a.cancel()
	}
	if werr := a.out.err; werr != nil && err == nil {
		err = fmt.Errorf("write the result: %w", werr)
	}
	if err == nil {
		return exitDone
	}
	if code, ok := interruptedBy(ctx); ok && !a.stopsItself.Load() {
		if !quietly(err) {
			a.report(cmd, err)
		}
		return code
	}
	if !a.running {
		err = asUsage(err)
		a.progress.value = askedProgress(args, a.progress.value)
	}
	a.report(cmd, err)
	return exitCode(err)
}

// app is one run of the program: its streams, and what its global flags say.
type app struct {
	globals
	out      *output
	console  *console
	terminal bool // whether stderr is one
	log      *slog.Logger
	running  bool // the command line was understood; what fails from here on is not a matter of usage
	cancel   context.CancelFunc

	stopsItself atomic.Bool // an interrupt is how the command ends: it tells of it, and it is no failure
}

// interrupted tells the user that the first interrupt was understood.
func (a *app) interrupted() {
	if !a.stopsItself.Load() {
		a.console.note("interrupted: stopping; again to stop at once; the same command moves what is still missing")
	}
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "ocisync",
		Short: "Copy and inspect OCI images in registries and directories",
		Long: `ocisync copies OCI images between places, and looks into them.

A place is a registry's repository, written as docker does (alpine, ghcr.io/org/app:1.2,
localhost:5000/app@sha256:…), or a directory in OCI image layout, written as a path that
begins with ./ ../ or / (./mirror, ./mirror:1.2, /srv/images/app:1.2).

Content keeps its digest and is verified at every step. All platforms and everything that
refers to an image (signatures, SBOMs) come along, unless told otherwise. A copy that was
interrupted moves only what is still missing when the same command is run again.`,
		Example: `  ocisync demo                                   try it, without network or registry
  ocisync copy alpine:3 ./mirror                 a registry's image into a directory
  ocisync copy --all-tags ghcr.io/org/app ./app  all tags of a repository
  ocisync ls ./app                               the tags of a directory
  ocisync copy --all-tags ./app reg.lan/app      and into another registry
  ocisync serve ./mirror                         a registry over a directory`,
		Args:              commandExpected,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.start,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.out)
	root.SetErr(a.console)
	root.SetFlagErrorFunc(flagError)
	root.Flags().SortFlags = false
	a.globals.register(root)
	root.AddCommand(a.copyCommand(), a.lsCommand(), a.inspectCommand(), a.verifyCommand(), a.gcCommand(), a.serveCommand(), a.configCommand(), a.demoCommand(), a.versionCommand())
	root.AddCommand(topics()...)
	helpExpected(root)
	return root
}

// helpExpected makes help of what is no command an error; cobra shows the help of all then.
func helpExpected(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		return
	}
	show := help.Run
	help.RunE = func(cmd *cobra.Command, args []string) error {
		if found, _, err := root.Find(args); len(args) > 0 && (err != nil || found == root) {
			return commandExpected(root, args)
		}
		show(cmd, args)
		return nil
	}
}

// start is run when the command line has been parsed: it checks the global flags and makes what they ask for.
func (a *app) start(cmd *cobra.Command, _ []string) error {
	if err := a.globals.check(); err != nil {
		return err
	}
	a.console.lines.Store(a.events())
	a.log = slog.New(slog.DiscardHandler)
	options := &slog.HandlerOptions{Level: slog.LevelDebug}
	switch {
	case a.verbose && a.events():
		a.log = slog.New(slog.NewJSONHandler(a.console, options))
	case a.verbose:
		a.log = slog.New(slog.NewTextHandler(a.console, options))
	}
	if a.timeout > 0 {
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), a.timeout, &timeoutError{after: a.timeout})
		a.cancel = cancel
		cmd.SetContext(ctx)
	}
	a.running = true
	return nil
}

// askedProgress returns the value of --progress on a command line that was not read to its end, or value: who asked for
// lines of JSON gets the error in one, wherever the flag stands.
func askedProgress(args []string, value string) string {
	for i, arg := range args {
		if arg == "--progress=json" || arg == "--progress" && i+1 < len(args) && args[i+1] == "json" {
			return "json"
		}
	}
	return value
}

// output is stdout. It remembers the first failure, so that printing needs no check at every line and a full disk
// still is an error.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	o.err = err
	return n, err
}

func (o *output) printf(format string, args ...any) { fmt.Fprintf(o, format, args...) }
