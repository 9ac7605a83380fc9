package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/types/platform"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

// copyFlags are the flags of copy.
type copyFlags struct {
	allTags      bool
	tags         []string
	platforms    []string
	rewriteIndex bool
	noReferrers  bool
	verify       bool
	dryRun       bool
	exitCode     bool
	jobs         int
}

func (a *app) copyCommand() *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use:   "copy SRC DST [flags]",
		Short: "Copy images from one place to another",
		Long: `copy brings the image SRC, or with --all-tags or --tags the images of the repository SRC, to
DST. What DST has already is not moved again. Digests do not change: the copy is the image,
with all its platforms, and with the signatures and SBOMs that refer to it.

SRC without a tag is the tag latest. DST without a tag gets the tag of SRC.

The tag of an image is set last, so what a reader of DST sees is always complete. A copy that
was interrupted moves only what is still missing when the same command is run again.`,
		Example: `  ocisync copy alpine:3 ./mirror                           into a directory, as tag 3
  ocisync copy ./mirror:3 reg.lan/library/alpine           and out of it
  ocisync copy --all-tags ghcr.io/org/app reg.lan/org/app  every tag of a repository
  ocisync copy --tags 'v1.*' --tags '!*-rc*' ghcr.io/org/app ./app
  ocisync copy --platform linux/amd64 alpine:3 ./mirror    one platform; the index stays as it is
  ocisync copy --dry-run --exit-code alpine:3 ./mirror     exit code 10 if there is something to do`,
		Args: arguments("SRC", "DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.copy(cmd.Context(), &f, args[0], args[1])
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.BoolVar(&f.allTags, "all-tags", false, "copy every tag")
	fs.StringArrayVar(&f.tags, "tags", nil, "copy the tags that match `PATTERN`: a glob as in 'v1.*', or regex:EXPR; !PATTERN leaves tags out (repeatable)")
	fs.StringArrayVar(&f.platforms, "platform", nil, "copy only this platform of an index, as in `OS/ARCH`[/VARIANT] (repeatable); an image that is no index is copied whatever its platform is")
	fs.BoolVar(&f.rewriteIndex, "rewrite-index", false, "with --platform: write an index that lists only what is copied; this changes its digest")
	fs.BoolVar(&f.noReferrers, "no-referrers", false, "leave out signatures, SBOMs and whatever else refers to an image")
	fs.BoolVar(&f.verify, "verify", false, "check the content of images that the target has already, and complete it: in a directory every blob is read and hashed, and replaced if it is damaged; a registry is only asked what it has (HEAD)")
	fs.BoolVar(&f.dryRun, "dry-run", false, "say what would be copied, and write nothing")
	fs.BoolVar(&f.exitCode, "exit-code", false, "with --dry-run: exit code 10 if there is something to copy")
	fs.IntVarP(&f.jobs, "jobs", "j", 8, "transfers at once")
	return cmd
}

// check reports flags that contradict each other or the arguments.
func (f *copyFlags) check(src, dst ref.Ref) error {
	switch {
	case f.allTags && len(f.tags) > 0:
		return usagef("--tags alone: it implies all tags that match", "--all-tags and --tags exclude each other")
	case f.rewriteIndex && len(f.platforms) == 0:
		return usagef("--platform linux/amd64 --rewrite-index", "--rewrite-index needs --platform")
	case f.exitCode && !f.dryRun:
		return usagef("--dry-run --exit-code", "--exit-code needs --dry-run")
	case f.jobs < 1:
		return usagef("-j 8", "--jobs %d: want 1 or more", f.jobs)
	}
	for name, r := range map[string]ref.Ref{"SRC": src, "DST": dst} {
		if r.Scheme == ref.SchemeReg && r.Repo == "" {
			return usagef("ocisync ls "+display(r)+" for its repositories", "%s %s is a whole registry: copy needs one repository", name, r)
		}
		if f.manyTags() && (r.Tag != "" || r.Digest != "") {
			return usagef(display(r.Place()), "%s %s has a tag or digest, and --%s chooses tags", name, display(r), f.manyTagsFlag())
		}
	}
	return nil
}

func (f *copyFlags) manyTags() bool { return f.allTags || len(f.tags) > 0 }

func (f *copyFlags) manyTagsFlag() string {
	if f.allTags {
		return "all-tags"
	}
	return "tags"
}

// options returns what the flags mean to the library.
func (f *copyFlags) options() ([]ocisync.CopyOption, error) {
	var opts []ocisync.CopyOption
	if f.allTags {
		opts = append(opts, ocisync.WithAllTags())
	}
	if len(f.tags) > 0 {
		opts = append(opts, ocisync.WithTags(f.tags...))
	}
	if len(f.platforms) > 0 {
		platforms, err := platform.ParseAll(f.platforms)
		if err != nil {
			hint := ""
			if i := slices.IndexFunc(f.platforms, func(s string) bool { return strings.Contains(s, ",") }); i >= 0 {
				hint = "repeat --platform: --platform " + strings.Join(strings.Split(f.platforms[i], ","), " --platform ")
			}
			return nil, usagef(hint, "--platform: %w", err)
		}
		opts = append(opts, ocisync.WithPlatforms(platforms...))
	}
	if f.rewriteIndex {
		opts = append(opts, ocisync.WithIndexRewrite())
	}
	if f.noReferrers {
		opts = append(opts, ocisync.WithoutReferrers())
	}
	if f.verify {
		opts = append(opts, ocisync.WithVerify())
	}
	return opts, nil
}

func (a *app) copy(ctx context.Context, f *copyFlags, srcArg, dstArg string) (err error) {
	src, err := parsePlace(srcArg)
	if err != nil {
		return err
	}
	dst, err := parsePlace(dstArg)
	if err != nil {
		return err
	}
	if err := f.check(src, dst); err != nil {
		return err
	}
	opts, err := f.options()
	if err != nil {
		return err
	}
	client, err := a.client(ocisync.WithConcurrency(f.jobs))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	report, err := a.transfer(ctx, client, f.dryRun, src, dst, opts)
	if a.json() || err == nil || len(report.Images) > 0 { // a summary of nothing would hide why
		if perr := a.printReport(report, dst); perr != nil {
			return errors.Join(err, perr)
		}
	}
	if err != nil {
		err = adviseMissing(ctx, client.API(), src, srcArg, err)
		return adviseTarget(dst, dstArg, err)
	}
	if len(report.Images) == 0 && len(f.tags) > 0 {
		if err := unmatched(ctx, client.API(), src, f.tags); err != nil {
			return err
		}
	}
	if len(report.Images) == 0 && !a.quiet {
		a.console.note("nothing to copy: %s has no tags", display(src))
	}
	if note := untagged(report, dst); note != "" && !a.quiet && !a.json() {
		a.console.note("note: %s", note)
	}
	if f.exitCode && report.Copied > 0 {
		return errDifferences
	}
	return nil
}

// transfer runs one copy or plan, with a view of it on stderr. The view is gone when it returns.
func (a *app) transfer(ctx context.Context, client *ocisync.Client, dryRun bool, src, dst ref.Ref, opts []ocisync.CopyOption) (*transfer.Report, error) {
	if dryRun {
		return client.Plan(ctx, src, dst, opts...)
	}
	v := a.view()
	defer v.close()
	return client.Copy(ctx, src, dst, append(opts, ocisync.WithEvents(v.event))...)
}

// printReport prints the result on stdout: the whole report as JSON, or one line; a dry run has a line for each image.
func (a *app) printReport(r *transfer.Report, dst ref.Ref) error {
	if a.json() {
		return a.out.json(jsonReportOf(r))
	}
	if r.DryRun {
		for _, im := range r.Images {
			a.out.printf("%s\n", printable(planLine(im)))
		}
	}
	if !a.quiet || r.DryRun {
		a.out.printf("%s\n", printable(summary(r, dst)))
	}
	return a.out.err
}

// untagged returns what to know about a copy by digest to a place without a tag, or "": what has no tag, a copy of all
// tags leaves behind.
func untagged(r *transfer.Report, dst ref.Ref) string {
	if r.DryRun || len(r.Images) != 1 || dst.Tag != "" || dst.Digest != "" {
		return ""
	}
	im := r.Images[0]
	if at, err := ref.Parse(im.Target); err != nil || at.Tag != "" {
		return ""
	}
	here := display(dst)
	return fmt.Sprintf("%s has it without a tag; use %s, or copy to %s", here,
		display(dst.WithDigest(im.Descriptor.Digest)), display(dst.WithTag("TAG")))
}

// planLine says what would happen to an image.
func planLine(im transfer.Image) string {
	line := fmt.Sprintf("%-10s %s → %s", im.Outcome, displayName(im.Source), displayName(im.Target))
	if im.Descriptor.Digest != "" {
		line += "  " + shortDigest(string(im.Descriptor.Digest))
	}
	return line
}

// summary is the line that a copy ends with.
func summary(r *transfer.Report, dst ref.Ref) string {
	copied := "copied"
	if r.DryRun {
		copied = "would copy"
	}
	s := fmt.Sprintf("%s %d, unchanged %d, failed %d · %s, %s", copied, r.Copied, r.Unchanged, r.Failed,
		count(r.Blobs, "blob"), size(r.Bytes))
	if !r.DryRun {
		s += " in " + elapsed(r.Elapsed)
	}
	if r.Mounted > 0 {
		s += fmt.Sprintf(" · %d mounted", r.Mounted)
	}
	if r.Retries > 0 {
		s += " · " + count(r.Retries, "retry")
	}
	return s + " · " + display(dst)
}
