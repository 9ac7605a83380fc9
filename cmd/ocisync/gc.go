package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// gcFlags are the flags of gc.
type gcFlags struct {
	dryRun, untagged, vanished bool
	grace                      time.Duration
}

func (a *app) gcCommand() *cobra.Command {
	var f gcFlags
	cmd := &cobra.Command{
		Use:   "gc PLACE [flags]",
		Short: "Remove what nothing lists from a directory",
		Long: `gc removes the blobs of PLACE that index.json does not reach: a directory in OCI image layout,
whoever wrote it, or a folder with layouts below it. Others may read and write meanwhile: what another
ocisync has just put or found there stays.

Needed is what an entry of index.json names, with or without a tag: its manifests, configs, layers, and
what it refers to. When a tag moves or is deleted, its image stays listed without a tag; --untagged
removes such images, but for referrers (signatures, SBOMs) of those that stay.

Blobs and images younger than --grace stay, for tools that write blobs first and index.json last.
--grace 0 is right when nothing but ocisync writes there.

If a file cannot be read that decides what is needed, nothing is removed: ocisync verify says more.
Registries collect their own garbage.`,
		Example: `  ocisync gc ./mirror --dry-run     what would go
  ocisync gc ./mirror               what nothing lists
  ocisync gc ./mirror --untagged    and what lost its tag
  ocisync gc /srv/registry          every layout below a folder`,
		Args: arguments("PLACE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.gc(cmd.Context(), args[0], f)
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.BoolVar(&f.dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	fl.BoolVar(&f.untagged, "untagged", false, "also remove images that have no tag, and that no tag leads to")
	fl.BoolVar(&f.vanished, "vanished", false, "also give up images that another tool dropped from index.json, which stay otherwise")
	fl.DurationVar(&f.grace, "grace", scheme.DefaultGrace, "leave alone what is younger than `DURATION`")
	return cmd
}

func (f gcFlags) options() []scheme.CollectOption {
	opts := []scheme.CollectOption{scheme.WithGrace(f.grace)}
	for _, o := range []struct {
		set bool
		opt scheme.CollectOption
	}{{f.dryRun, scheme.WithDryRun()}, {f.untagged, scheme.WithUntagged()}, {f.vanished, scheme.WithVanished()}} {
		if o.set {
			opts = append(opts, o.opt)
		}
	}
	return opts
}

func (a *app) gc(ctx context.Context, arg string, f gcFlags) (err error) {
	r, err := parsePlace(arg)
	if err != nil {
		return err
	}
	switch {
	case r.Scheme == ref.SchemeReg:
		hint := folderHint(arg)
		if hint == "" {
			hint = "the garbage collection of the registry itself; or ocisync gc DIRECTORY"
		}
		return usagef(hint, "%s is a registry: gc removes files from directories", arg)
	case r.Tag != "" || r.Digest != "":
		return usagef("ocisync gc "+display(r.Place()), "%s has a tag or digest: gc collects places", arg)
	case f.grace < 0:
		return usagef("--grace 0 for none", "--grace %s: want 0 or more", f.grace)
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	all, err := client.Collect(ctx, r, f.options()...)
	for _, dir := range unreadable(ctx, r) {
		if !a.quiet {
			a.console.note("note: %s cannot be read by this user, and was passed over", displayPath(dir))
		}
	}
	if len(all) == 0 {
		return adviseMissing(ctx, client.API(), r, arg, err)
	}
	if a.json() {
		if werr := a.out.json(gcResultOf(r, f, all)); werr != nil {
			return werr
		}
	} else {
		a.printCollected(r, f, all)
	}
	return errors.Join(adviseMissing(ctx, client.API(), r, arg, err), a.out.err)
}

// printCollected prints a line for each repository, and before it what goes: images without a tag, and in a dry run blobs.
func (a *app) printCollected(r ref.Ref, f gcFlags, all []ocisync.Collected) {
	var total scheme.CollectReport
	for _, c := range all {
		if c.Err != nil && nothingDone(c) {
			continue // the error says which one it was
		}
		for _, d := range c.Untagged {
			a.out.printf("%s\n", printable("untagged  "+string(d.Digest)))
		}
		for _, g := range c.Removed {
			if !f.dryRun {
				break
			}
			line := fmt.Sprintf("garbage   %s  %8s", g.Digest, size(g.Size))
			if g.Shared {
				line += "  shared with other layouts"
			}
			a.out.printf("%s\n", printable(line))
		}
		total.Removed, total.Freed = append(total.Removed, c.Removed...), total.Freed+c.Freed
		if !a.quiet {
			a.out.printf("%s: %s\n", printable(display(c.Ref)), collectedLine(c, f))
		}
		a.noteCollected(c, f)
	}
	if len(all) > 1 && !a.quiet {
		a.out.printf("%s: %s in %s\n", printable(display(r)), removedWords(total, f), count(len(all), "repository"))
	}
}

func nothingDone(c ocisync.Collected) bool {
	return len(c.Removed)+len(c.Untagged)+c.Kept+c.Leased+c.Young == 0
}

// removedWords says how much went.
func removedWords(rep scheme.CollectReport, f gcFlags) string {
	if f.dryRun {
		return fmt.Sprintf("%s would be removed, %s would become free", count(len(rep.Removed), "blob"), size(rep.Freed))
	}
	return fmt.Sprintf("%s removed, %s free", count(len(rep.Removed), "blob"), size(rep.Freed))
}

// collectedLine says what went, and in brackets what stays, and why.
func collectedLine(c ocisync.Collected, f gcFlags) string {
	words := removedWords(c.CollectReport, f)
	if n := len(c.Untagged); n > 0 {
		words += ", " + count(n, "image") + " without a tag"
	}
	if n := c.Clean.Files + len(c.Clean.Ingests); n > 0 {
		words += fmt.Sprintf(", %s of interrupted writers (%s)", count(n, "file"), size(c.Clean.Bytes))
	}
	why := []string{fmt.Sprintf("%d needed", c.Kept)}
	if c.Leased > 0 {
		why = append(why, fmt.Sprintf("%d in use by other processes", c.Leased))
	}
	if c.Young > 0 {
		why = append(why, fmt.Sprintf("%d younger than %s", c.Young, shortDuration(f.grace)))
	}
	if n := len(c.Vanished); n > 0 {
		why = append(why, count(n, "image")+" dropped by another tool")
	}
	return words + " (kept: " + strings.Join(why, ", ") + ")"
}

// shortDuration prints 1h0m0s as 1h.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// noteCollected says what the user may want to decide.
func (a *app) noteCollected(c ocisync.Collected, f gcFlags) {
	if a.quiet {
		return
	}
	if c.ClockMoved {
		a.console.note("%s: the clock was set lately, so that nobody knows how old files are: all counted as young. Run it again in %s, or with --grace 0 if nothing but ocisync writes there",
			display(c.Ref), shortDuration(f.grace))
	}
	if n := len(c.Vanished); n > 0 {
		a.console.note("%s: another tool dropped %s from index.json, perhaps by mistake (ocisync verify names them); --vanished gives them up",
			display(c.Ref), count(n, "image"))
	}
}

// gcResult is gc's result with --output json.
type gcResult struct {
	Place        string         `json:"place"`
	DryRun       bool           `json:"dryRun"`
	Removed      int            `json:"removed"`
	Freed        int64          `json:"freed"`
	Repositories []gcRepository `json:"repositories"`
}

type gcRepository struct {
	Place      string             `json:"place"`
	Removed    []gcBlob           `json:"removed"`
	Untagged   []types.Descriptor `json:"untagged"`
	Kept       int                `json:"kept"`
	Leased     int                `json:"leased"`
	Young      int                `json:"young"`
	Vanished   []types.Descriptor `json:"vanished"`
	Freed      int64              `json:"freed"`
	Leftovers  int                `json:"leftovers"`
	ClockMoved bool               `json:"clockMoved,omitempty"`
	Error      string             `json:"error,omitempty"`
}

type gcBlob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	Shared bool          `json:"shared,omitempty"`
}

func gcResultOf(r ref.Ref, f gcFlags, all []ocisync.Collected) gcResult {
	out := gcResult{Place: display(r), DryRun: f.dryRun}
	for _, c := range all {
		repo := gcRepository{
			Place: display(c.Ref), Removed: []gcBlob{}, Untagged: append([]types.Descriptor{}, c.Untagged...),
			Kept: c.Kept, Leased: c.Leased, Young: c.Young, Vanished: append([]types.Descriptor{}, c.Vanished...), Freed: c.Freed,
			Leftovers: c.Clean.Files + len(c.Clean.Ingests), ClockMoved: c.ClockMoved, Error: errorText(c.Err),
		}
		for _, g := range c.Removed {
			repo.Removed = append(repo.Removed, gcBlob{Digest: g.Digest, Size: g.Size, Shared: g.Shared})
		}
		out.Removed += len(c.Removed)
		out.Freed += c.Freed
		out.Repositories = append(out.Repositories, repo)
	}
	return out
}
