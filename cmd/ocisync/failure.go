package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ocisync/ocisync/internal/yamlfile"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// maxCauses is how many reasons of one failure are told: that of every single layer helps nobody.
const maxCauses = 3

// report tells on stderr what failed, where and why, and what the user can do about it. To people, the same advice is
// given once; where stderr is lines of JSON, each failure is an object of its own.
func (a *app) report(cmd *cobra.Command, err error) {
	given := map[string]bool{}
	for _, e := range separate(err) {
		if errors.Is(e, errDifferences) {
			continue
		}
		causes := leaves(e)
		if a.events() || a.console.lines.Load() {
			hint := strings.TrimPrefix(firstHint(append([]error{e}, causes...)), "usage: ")
			a.console.json(jsonError{Time: time.Now().UTC(), Event: "error", Error: a.explain(cmd, e), Hint: hint})
			continue
		}
		if len(causes) == 1 {
			a.console.printf("error: %s\n", printable(a.explain(cmd, e)))
			a.showPlace(e)
		} else {
			about, _, _ := strings.Cut(e.Error(), causes[0].Error())
			a.console.printf("error: %s\n", printable(strings.TrimSpace(about)))
			for _, c := range causes[:min(len(causes), maxCauses)] {
				a.console.printf("  - %s\n", printable(a.explain(cmd, c)))
			}
			if more := len(causes) - maxCauses; more > 0 {
				a.console.printf("  - and %d more\n", more)
			}
		}
		a.advise(cmd, append([]error{e}, causes...), given)
	}
}

// showPlace prints the line of a configuration file that is at fault, and where in it.
func (a *app) showPlace(err error) {
	var y *yamlfile.Error
	if !errors.As(err, &y) {
		return
	}
	for line := range strings.Lines(y.Excerpt()) {
		a.console.printf("    %s\n", printable(strings.TrimRight(line, "\n")))
	}
}

// separate splits what errors.Join put together: the failures of images, each told on its own.
func separate(err error) []error {
	if parts, ok := joined(err); ok {
		var all []error
		for _, e := range parts {
			all = append(all, separate(e)...)
		}
		return all
	}
	return []error{err}
}

// advise prints the first advice that there is for one of errs, unless it was given before.
func (a *app) advise(cmd *cobra.Command, errs []error, given map[string]bool) {
	hint := firstHint(errs)
	if hint == "" || given[hint] {
		return
	}
	given[hint] = true
	if strings.HasPrefix(hint, "usage: ") {
		a.console.printf("  %s\n  try: %s --help\n", printable(hint), cmd.CommandPath())
	} else {
		a.console.printf("  try: %s\n", printable(hint))
	}
}

// firstHint returns the first advice that there is for one of errs, or "".
func firstHint(errs []error) string {
	for _, e := range errs {
		if hint := hintFor(e); hint != "" {
			return hint
		}
	}
	return ""
}

// explain returns the text of an error. A context says only that it ended; its cause says why.
func (a *app) explain(cmd *cobra.Command, err error) string {
	text := err.Error()
	var t *timeoutError
	if errors.Is(err, context.DeadlineExceeded) && cmd != nil && cmd.Context() != nil && errors.As(context.Cause(cmd.Context()), &t) {
		return strings.ReplaceAll(text, context.DeadlineExceeded.Error(), t.Error())
	}
	return text
}

// hinted is an error with advice that is better than what it came with.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// hintFor returns what the user can do about err, or "".
func hintFor(err error) string {
	var h *hinted
	var u *usageError
	var y *yamlfile.Error
	switch {
	case errors.As(err, &h):
		return h.hint
	case errors.As(err, &u):
		return u.hint
	case errors.As(err, &y):
		return y.Hint
	}
	host := hostOf(err)
	if hint := hintTLS(err, host); hint != "" {
		return hint
	}
	if hint := errs.Hint(err); hint != "" {
		return hint
	}
	if host == "" {
		return hintDirectory(err)
	}
	switch {
	case errors.Is(err, errs.ErrNameUnknown) && host != dockerHub:
		return fmt.Sprintf("ocisync ls %s for its repositories, if it lists them", host)
	case errors.Is(err, errs.ErrUnauthorized):
		return fmt.Sprintf("log in with `docker login %s` or `podman login %s`", host, host)
	case errors.Is(err, errs.ErrDenied):
		return "log in with an account that may do this: " + fmt.Sprintf("`docker login %s` or `podman login %s`", host, host)
	}
	return ""
}

// hintDirectory is advice for what is wrong with a directory and its permissions.
func hintDirectory(err error) string {
	r, ok := located(err)
	if !ok || r.Scheme != ref.SchemeOCIDir {
		return ""
	}
	var p *fs.PathError
	escapes := errors.As(err, &p) && strings.Contains(p.Err.Error(), "path escapes from parent") // os has no name for it
	odd := p != nil && (escapes || errors.Is(p, syscall.ENOTDIR) || errors.Is(p, syscall.EISDIR))
	switch {
	case odd && strings.Contains(filepath.ToSlash(p.Path), ".ocisync"):
		return fmt.Sprintf("move .ocisync of %s away, which ocisync makes anew: no image is lost", display(r.Place()))
	case escapes:
		return fmt.Sprintf("a symbolic link leads out of %s, and is not followed: put there what it leads to", display(r.Place()))
	case errors.Is(err, errs.ErrDenied):
		return hintReadable
	case errors.Is(err, errs.ErrNoSpace):
		return fmt.Sprintf("make room on the disk of %s (ocisync gc removes what nothing needs), and run the same command again", display(r.Place()))
	case errors.Is(err, errs.ErrCorrupt):
		return fmt.Sprintf(hintVerify, display(r.Place()))
	}
	return ""
}

// hintTLS names the flags that change whose certificates are trusted; the library cannot know them.
func hintTLS(err error, host string) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case host == "":
		return ""
	case errors.As(err, &authority), errors.As(err, &name), errors.As(err, &invalid):
		return fmt.Sprintf("--ca-file %s=FILE with the certificate of its authority, or --insecure %s to verify nothing", host, host)
	}
	return ""
}

// hostOf returns the registry that err names, or "".
func hostOf(err error) string {
	if r, ok := located(err); ok && r.Scheme == ref.SchemeReg {
		return r.Root
	}
	return ""
}

// located returns the place that the outermost error names that names just one: that of a copy names two, which together
// may read like the path of a directory.
func located(err error) (ref.Ref, bool) {
	var e *errs.Error
	for errors.As(err, &e) {
		if r, perr := ref.Parse(registryArg(e.Ref)); perr == nil && !(e.Op == "copy" && strings.Contains(e.Ref, " to ")) {
			return r, true
		}
		err, e = e.Err, nil
	}
	return ref.Ref{}, false
}
