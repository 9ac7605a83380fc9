package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

// The repositories of the demo's registry.
const (
	demoSource = "demo/hello"
	demoTarget = "demo/returned"
)

func (a *app) demoCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "demo [flags]",
		Short: "Try everything with a small image, without network",
		Long: `demo starts a registry in this process that holds a small image for three platforms with its
SBOM, provenance and signature, mirrors it into a directory, mirrors it again, pushes the
directory back under another name, and verifies every digest. It needs no network and leaves
the directory behind, to look at. Every step shows the command that does the same.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.demo(cmd.Context(), dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "./ocisync-demo", "the `FOLDER` to mirror into: a new one, an empty one, or an earlier demo's")
	return cmd
}

// demoStep is one thing the demo did: the command that does the same, and what came out.
type demoStep struct {
	Title    string      `json:"title"`
	Command  string      `json:"command"`
	Report   *jsonReport `json:"report,omitempty"`
	Requests int64       `json:"requests"` // that the registry answered for it
	Verified int         `json:"verified,omitempty"`
}

// demonstration is a running demo.
type demonstration struct {
	app      *app
	registry *demoRegistry
	client   *ocisync.Client
	remote   ref.Ref // the repository to mirror
	returned ref.Ref // the repository to push to
	local    ref.Ref // the directory between them
	steps    []demoStep
}

func (a *app) demo(ctx context.Context, dir string) (err error) {
	if !isPath(dir) {
		dir = "./" + dir
	}
	local, err := directory(dir, "", dir)
	if err != nil {
		return err
	}
	if a.progress.value == "auto" {
		a.progress.value = "none" // the story tells enough
	}
	registry, err := startDemoRegistry(ctx)
	if err != nil {
		return fmt.Errorf("start the demo's registry: %w", err)
	}
	defer func() { err = errors.Join(err, registry.close()) }()
	client, err := a.client()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if err := checkDemoDir(ctx, client, local); err != nil {
		return err
	}
	base := ref.Ref{Scheme: ref.SchemeReg, Root: registry.host}
	d := &demonstration{
		app: a, registry: registry, client: client, local: local,
		remote: base.WithRepo(demoSource), returned: base.WithRepo(demoTarget),
	}
	d.say("A registry with a demo image runs in this process, at %s.\nIts image %s has three platforms, an SBOM, a provenance and a signature.\n\n", registry.host, demoSource)
	if err := d.run(ctx); err != nil {
		return err
	}
	if a.json() {
		return a.out.json(map[string]any{"directory": display(local), "steps": d.steps})
	}
	d.farewell()
	return a.out.err
}

// run does the steps, and stops at the first that does not do what it should.
func (d *demonstration) run(ctx context.Context) error {
	if _, err := d.copy(ctx, "Mirror the repository into a directory", d.remote, d.local); err != nil {
		return err
	}
	again, err := d.copy(ctx, "Do it again: nothing is transferred", d.remote, d.local)
	if err != nil {
		return err
	}
	if again.Copied != 0 || again.Blobs != 0 || again.Manifests != 0 || again.Bytes != 0 {
		return fmt.Errorf("the second copy should transfer nothing, and moved %s, %s, %s",
			count(again.Blobs, "blob"), count(again.Manifests, "manifest"), size(again.Bytes))
	}
	if _, err := d.copy(ctx, "Push the directory back, under another name", d.local, d.returned); err != nil {
		return err
	}
	return d.verify(ctx)
}

// copy is one step: all tags from src to dst, every one of which must end well.
func (d *demonstration) copy(ctx context.Context, title string, src, dst ref.Ref) (*transfer.Report, error) {
	step := demoStep{Title: title, Command: "ocisync copy --all-tags " + display(src) + " " + display(dst)}
	d.say("%d. %s\n   $ %s\n", len(d.steps)+1, step.Title, step.Command)
	before := d.registry.requests.Load()
	report, err := d.app.transfer(ctx, d.client, false, src, dst, []ocisync.CopyOption{ocisync.WithAllTags()})
	if err != nil {
		return nil, err
	}
	step.Requests = d.registry.requests.Load() - before
	out := jsonReportOf(report)
	step.Report = &out
	d.steps = append(d.steps, step)
	d.say("   %s\n   the registry answered %s\n\n", summary(report, dst), count(int(step.Requests), "request"))
	return report, nil
}

// verify is the last step: every digest is computed again from the bytes in the directory and in the new repository.
func (d *demonstration) verify(ctx context.Context) error {
	d.say("%d. Verify: read everything back, and compute every digest again\n", len(d.steps)+1)
	before := d.registry.requests.Load()
	files, err := verifyDirectory(d.local.Path())
	if err != nil {
		return fmt.Errorf("verify %s: %w", display(d.local), err)
	}
	fetched, err := verifyRepository(ctx, d.client.API(), d.remote, d.returned)
	if err != nil {
		return fmt.Errorf("verify %s: %w", d.returned, err)
	}
	d.steps = append(d.steps, demoStep{Title: "Verify", Requests: d.registry.requests.Load() - before, Verified: files + fetched})
	d.say("   %s in %s, and %s pulled from %s: all as their digests say\n   the tags of %s have the digests of the original\n\n",
		count(files, "file"), display(d.local), count(fetched, "object"), d.returned, d.returned.Repo)
	return nil
}

func (d *demonstration) farewell() {
	dir := display(d.local)
	d.say(`All checks passed. The directory %[1]s stays; it is a plain OCI image layout. Try:
   ocisync ls %[1]s
   ocisync inspect %[1]s:1.0
   ocisync copy %[1]s:1.0 ./another
   ocisync copy --all-tags %[1]s REGISTRY/REPOSITORY
("go install ./cmd/ocisync" puts ocisync on your path; "go run ./cmd/ocisync" stands for it until then)
`, dir)
}

// say tells the story on stdout; with --output json the steps are told at the end instead.
func (d *demonstration) say(format string, args ...any) {
	if !d.app.json() && !d.app.quiet {
		d.app.out.printf(format, args...)
	}
}

// checkDemoDir refuses a folder that holds anything but what an earlier demo left. Nothing is written.
func checkDemoDir(ctx context.Context, client *ocisync.Client, local ref.Ref) error {
	entries, err := os.ReadDir(local.Path())
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return usagef("--dir ./another-folder", "--dir %s: %w", display(local), err)
	}
	foreign := func(what string) error {
		return &usageError{
			text: fmt.Sprintf("--dir %s is not empty, and not from an earlier demo: it has %s", display(local), what),
			hint: "--dir with a new folder", err: errs.ErrClobber,
		}
	}
	ours := []string{"oci-layout", "index.json", "blobs", ".ocisync"}
	for _, e := range entries {
		if !slices.Contains(ours, e.Name()) {
			return foreign(fmt.Sprintf("%q", e.Name()))
		}
	}
	want, err := demoTags()
	if err != nil {
		return err
	}
	tags, err := client.API().TagList(ctx, local)
	if err != nil && !errors.Is(err, errs.ErrNotFound) { // a demo that was stopped early may have left no index
		return err
	}
	for _, tag := range tags.Tags {
		if !slices.Contains(want, tag) {
			return foreign(fmt.Sprintf("the tag %q", tag))
		}
	}
	return nil
}
