package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func (a *app) verifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify PLACE [flags]",
		Short: "Look for damage, and repair it from another copy",
		Long: `verify looks whether everything is there and whole that PLACE says it has: a directory in OCI
image layout, one tag of it, a folder with layouts below it, or a registry's repository. Manifests
are read and hashed, and the sizes of blobs compared; with --deep every blob is read and hashed, in
a directory also those that nothing needs.

Each problem is a line: what is wrong, the digest, the file, and every tag that needs it. Files
that do not belong, and what interrupted writers left, are notes: they do no harm.

With --repair-from what is missing or damaged is fetched from another place that has the same
content, whatever its tags are. Nothing else is changed, and no tag moves. An index.json that cannot be
used is left as it is, unless --restore-index asks for what it was after the last commit by ocisync:
what other programs entered later is lost then. The unusable one is kept.

The exit code is 0 when all is well, 6 when something is missing or damaged, and with
--repair-from 1 when something could not be repaired.`,
		Example: `  ocisync verify ./mirror
  ocisync verify --deep ./mirror:1.2
  ocisync verify ./mirror --deep --repair-from ghcr.io/org/app
  ocisync verify ./mirror --restore-index     index.json is missing or makes no sense`,
		Args: arguments("PLACE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.verify(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&f.deep, "deep", false, "read and hash every blob")
	flags.StringVar(&f.from, "repair-from", "", "fetch what is missing or damaged from `SOURCE`, a repository or directory")
	flags.BoolVar(&f.restore, "restore-index", false, "replace an index.json that cannot be used by what it was after the last commit by ocisync")
	return cmd
}

// verifyFlags are the flags of verify.
type verifyFlags struct {
	deep    bool
	from    string
	restore bool
}

func (a *app) verify(ctx context.Context, arg string, flags verifyFlags) (err error) {
	fromArg, deep := flags.from, flags.deep
	r, err := parsePlace(arg)
	if err != nil {
		return err
	}
	var from ref.Ref
	if fromArg != "" {
		if from, err = parsePlace(fromArg); err != nil {
			return err
		}
		if ref.SamePlace(from, r) {
			return usagef("", "--repair-from %s is the place that is to be repaired", fromArg)
		}
		if from.Scheme == ref.SchemeOCIDir { // a wrong name is to be noticed before the day on which it is needed
			if _, err := os.Stat(filepath.FromSlash(from.Path())); errors.Is(err, fs.ErrNotExist) {
				return usagef("", "--repair-from %s: there is no such directory", fromArg)
			}
		}
	}
	if flags.restore && r.Scheme == ref.SchemeReg {
		return usagef("--repair-from SOURCE for a registry", "%s is a registry: --restore-index is for the index.json of a directory", arg)
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if flags.restore {
		if err := a.restoreIndex(ctx, client, r); err != nil {
			return adviseMissing(ctx, client.API(), r, arg, err)
		}
	}
	watch := a.watchVerify()
	opts := []ocisync.VerifyOption{ocisync.VerifyProgress(watch.checked)}
	if deep {
		opts = append(opts, ocisync.VerifyDeep())
	}
	if !a.json() && from.IsZero() {
		opts = append(opts, ocisync.VerifyFindings(func(f ocisync.Finding) { a.out.printf("%s\n", printable(findingLine(f))) }))
	}
	started := time.Now()
	var rep *ocisync.VerifyReport
	if from.IsZero() {
		rep, err = client.Verify(ctx, r, opts...)
	} else {
		rep, err = client.Repair(ctx, r, from, opts...)
	}
	watch.close()
	closed := notVerified(unreadable(ctx, r))
	if err != nil && len(rep.Findings) == 0 {
		return errors.Join(adviseMissing(ctx, client.API(), r, arg, err), closed)
	}
	if a.json() {
		if werr := a.out.json(verifyResultOf(r, deep, rep, time.Since(started))); werr != nil {
			return werr
		}
	} else {
		a.printVerified(r, from, deep, rep)
	}
	return errors.Join(err, verdict(r, from, arg, rep), closed, a.out.err)
}

// notVerified is the error for directories that may not be read: nobody may take them for verified.
func notVerified(dirs []string) error {
	var all []error
	for _, dir := range dirs {
		all = append(all, &errs.Error{
			Op: "verify", Ref: displayPath(dir), Err: errs.ErrDenied, Message: "nothing in it was verified",
			Hint: "run the command as a user who may read it",
		})
	}
	return errors.Join(all...)
}

// restoreIndex does what --restore-index asks for, and says what was done.
func (a *app) restoreIndex(ctx context.Context, client *ocisync.Client, r ref.Ref) error {
	done, err := client.RestoreIndex(ctx, r)
	if err != nil {
		return err
	}
	if done.Index {
		kept := ""
		if done.Kept != "" {
			kept = "; the one that could not be used is " + displayPath(done.Kept)
		}
		a.console.note("note: index.json of %s was replaced by what it was after the last commit by ocisync, with %s%s",
			display(r.Place()), count(done.Entries, "entry"), kept)
	}
	if done.Marker {
		a.console.note("note: oci-layout of %s was written anew", display(r.Place()))
	}
	return nil
}

// printVerified prints the end of the result, and with a repair all of it: only then it is known what became of it.
func (a *app) printVerified(r, from ref.Ref, deep bool, rep *ocisync.VerifyReport) {
	if !from.IsZero() {
		for _, f := range rep.Findings {
			a.out.printf("%s\n", printable(findingLine(f)))
		}
	}
	bad, notes, repaired := tallyFindings(rep)
	parts := []string{count(rep.Manifests, "manifest"), count(rep.Blobs, "blob")}
	if rep.Repositories != 1 {
		parts = append([]string{count(rep.Repositories, "repository")}, parts...)
	}
	how := "read and hashed"
	if !deep {
		how = "of manifests read; --deep reads blobs, too"
	}
	parts = append(parts, size(rep.Bytes)+" "+how)
	if rep.Sparse > 0 {
		parts = append(parts, count(rep.Sparse, "manifest")+" left out by sparse copies")
	}
	words := []string{"no damage"}
	if bad+repaired > 0 {
		words = []string{count(bad+repaired, "problem")}
	}
	if repaired > 0 {
		words = append(words, fmt.Sprintf("%d repaired", repaired))
	}
	if notes > 0 {
		words = append(words, count(notes, "note"))
	}
	if !a.quiet || bad > 0 {
		a.out.printf("%s: %s (%s)\n", printable(display(r)), strings.Join(words, ", "), strings.Join(parts, ", "))
	}
	if slices.ContainsFunc(rep.Findings, func(f ocisync.Finding) bool { return f.Kind == scheme.ProblemVanished }) && !a.quiet {
		a.console.note("what vanished is kept: copy it again to list it, or give it up with ocisync gc %s --vanished", display(r.Place()))
	}
}

// tallyFindings counts what is bad and left, what is untidy, and what was repaired.
func tallyFindings(rep *ocisync.VerifyReport) (bad, notes, repaired int) {
	for _, f := range rep.Findings {
		switch {
		case f.Repaired:
			repaired++
		case f.Kind.Bad():
			bad++
		default:
			notes++
		}
	}
	return bad, notes, repaired
}

// verdict is the failure that damage is.
func verdict(r, from ref.Ref, arg string, rep *ocisync.VerifyReport) error {
	bad := rep.Bad()
	switch {
	case len(bad) == 0:
		return nil
	case from.IsZero():
		return &hinted{fmt.Errorf("%w: %s in %s", errs.ErrCorrupt, count(len(bad), "problem"), display(r)), cure(bad, arg, false)}
	}
	err := fmt.Errorf("%s in %s could not be repaired from %s", count(len(bad), "problem"), display(r), display(from))
	if why := whyNoSource(from, bad, rep); why != "" {
		err = &explained{err, why}
	}
	return &hinted{err, cure(bad, arg, true)}
}

// whyNoSource says why nothing could be had from a directory, or returns "".
func whyNoSource(from ref.Ref, bad []ocisync.Finding, rep *ocisync.VerifyReport) string {
	if !slices.ContainsFunc(bad, func(f ocisync.Finding) bool { return errors.Is(f.RepairErr, errs.ErrNameUnknown) }) {
		return ""
	}
	if why := whyNoLayout(from); why != "" || rep.Repositories != 1 {
		return why // with several, from is a folder that has layouts below
	}
	return whyNothing(from)
}

// cure says what helps against the worst of bad, or is "": other copies have content, but neither the index of a
// directory, nor the right to read it. tried says that another copy was asked.
func cure(bad []ocisync.Finding, arg string, tried bool) string {
	content, entry, denied := false, "", false
	garbage := ""
	for _, f := range bad {
		switch {
		case errors.Is(f.Err, errs.ErrDenied), errors.Is(f.Err, fs.ErrPermission):
			denied = true
		case f.Kind == scheme.ProblemIndex && errors.Is(f.Err, errs.ErrUnsupported):
			return "" // neither damaged nor ours
		case f.Kind == scheme.ProblemIndex:
			brings := "brings back what the last commit by ocisync left"
			if filepath.Base(f.Path) != "index.json" {
				brings = "writes oci-layout anew"
			}
			return fmt.Sprintf("ocisync verify %s --restore-index, which %s", display(f.Ref.Place()), brings)
		case f.Kind == scheme.ProblemEntry:
			entry = displayPath(filepath.Join(filepath.FromSlash(f.Ref.Path()), "index.json"))
		case f.Kind == scheme.ProblemDamaged && !f.Manifest && len(f.Tags)+len(f.Needed) == 0:
			garbage = display(f.Ref.Place())
		default:
			content = true
		}
	}
	switch {
	case denied:
		return hintReadable
	case garbage != "" && !content && entry == "":
		return fmt.Sprintf("ocisync gc %s, which removes what nothing needs once it is as old as --grace", garbage)
	case content && !tried:
		return fmt.Sprintf("ocisync verify %s --repair-from SOURCE, where SOURCE is another place with the same content", arg)
	case !content && entry != "":
		return fmt.Sprintf("write the entry of %s anew, or remove it, with the program that made it: no other copy can repair it", entry)
	}
	return ""
}

// hintReadable is advice for what the system does not let us read.
const hintReadable = "make the directory, and the files in it, readable for this user"

// findingLine is a problem in one line.
func findingLine(f ocisync.Finding) string {
	kind := string(f.Kind)
	if f.Repaired {
		kind = "repaired"
	}
	line := pad(kind, 10) + " "
	if f.Digest != "" {
		line += string(f.Digest) + "  "
	}
	line += displayPath(f.Path)
	if len(f.Tags) > 0 {
		line += "  needed by " + strings.Join(f.Tags, ", ")
	}
	switch {
	case f.RepairErr != nil:
		line += "  (not repaired: " + f.RepairErr.Error() + ")"
	case f.Kind == scheme.ProblemIndex, f.Kind == scheme.ProblemEntry, f.Kind == scheme.ProblemUnread, !f.Kind.Bad():
		line += "  (" + reason(f.Err) + ")"
	}
	return line
}

// reason is what an error says beside operation and file, which are told already.
func reason(err error) string {
	var e *errs.Error
	if !errors.As(err, &e) {
		return fmt.Sprint(err)
	}
	for inner, ok := e.Err.(*errs.Error); ok && e.Message == ""; inner, ok = e.Err.(*errs.Error) {
		e = inner
	}
	words := e.Err.Error()
	if e.Message != "" {
		words += ": " + e.Message
	}
	return words
}

// displayPath shows a file as the user would name it: from here, when that is shorter.
func displayPath(file string) string {
	if !filepath.IsAbs(file) {
		return file
	}
	here, err := filepath.Abs(".")
	if err != nil {
		return file
	}
	if rel, err := filepath.Rel(here, file); err == nil && len(rel) < len(file) && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return file
}

// verifyResult is verify's result with --output json.
type verifyResult struct {
	Place        string        `json:"place"`
	Deep         bool          `json:"deep"`
	Repositories int           `json:"repositories"`
	Manifests    int           `json:"manifests"`
	Blobs        int           `json:"blobs"`
	Bytes        int64         `json:"bytes"`
	Unneeded     int           `json:"unneeded"`
	Sparse       int           `json:"sparse"`
	Bad          int           `json:"bad"`
	Notes        int           `json:"notes"`
	Repaired     int           `json:"repaired"`
	Seconds      float64       `json:"seconds"`
	Problems     []jsonFinding `json:"problems"`
}

type jsonFinding struct {
	Kind      scheme.ProblemKind `json:"kind"`
	Bad       bool               `json:"bad"`
	Place     string             `json:"place"`
	Digest    digest.Digest      `json:"digest,omitempty"`
	Path      string             `json:"path"`
	MediaType string             `json:"mediaType,omitempty"`
	Size      int64              `json:"size,omitempty"`
	Manifest  bool               `json:"manifest"`
	Tags      []string           `json:"tags"`
	Needed    []digest.Digest    `json:"neededBy"`
	Error     string             `json:"error,omitempty"`
	Repaired  bool               `json:"repaired"`
	RepairErr string             `json:"repairError,omitempty"`
}

func verifyResultOf(r ref.Ref, deep bool, rep *ocisync.VerifyReport, took time.Duration) verifyResult {
	out := verifyResult{
		Place: display(r), Deep: deep, Repositories: rep.Repositories, Manifests: rep.Manifests, Blobs: rep.Blobs, Bytes: rep.Bytes,
		Unneeded: rep.Unneeded, Sparse: rep.Sparse, Seconds: took.Seconds(), Problems: []jsonFinding{},
	}
	out.Bad, out.Notes, out.Repaired = tallyFindings(rep)
	for _, f := range rep.Findings {
		out.Problems = append(out.Problems, jsonFinding{
			Kind: f.Kind, Bad: f.Kind.Bad(), Place: display(f.Ref), Digest: f.Digest, Path: f.Path, MediaType: f.Want.MediaType, Size: f.Want.Size,
			Manifest: f.Manifest, Tags: append([]string{}, f.Tags...), Needed: append([]digest.Digest{}, f.Needed...),
			Error: errorText(f.Err), Repaired: f.Repaired, RepairErr: errorText(f.RepairErr),
		})
	}
	return out
}
