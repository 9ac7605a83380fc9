package main

import (
	"errors"
	"strings"

	"github.com/ocisync/ocisync/types/errs"
)

// The exit codes. They are part of what we promise: docs/cli.md lists them.
const (
	exitDone        = 0
	exitFailed      = 1 // some work failed, or failures of several kinds
	exitUsage       = 2 // the command line or the configuration is wrong
	exitNotFound    = 3
	exitNotAllowed  = 4
	exitRateLimited = 5
	exitVerify      = 6 // content is not what its digest says, or stored data is damaged
	exitDifferences = 10
)

// errDifferences ends a dry run with --exit-code that found something to do. It is a result, not a failure.
var errDifferences = errors.New("there are differences")

// exitCode returns the exit code of a failure: the one that all failures joined in err have, or 1 when they differ.
func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	code := -1
	for _, e := range leaves(err) {
		switch c := kindOf(e); {
		case code < 0:
			code = c
		case code != c:
			return exitFailed
		}
	}
	return code
}

// kindOf returns the exit code of one failure. The order matters where one kind is a case of another: content that
// does not match its digest is ErrInvalid, too, and is not the user's mistake.
func kindOf(err error) int {
	var u *usageError
	var e *errs.Error
	switch {
	case errors.Is(err, errDifferences):
		return exitDifferences
	case errors.As(err, &u):
		return exitUsage
	case errors.Is(err, errs.ErrDigestMismatch), errors.Is(err, errs.ErrCorrupt):
		return exitVerify
	case errors.Is(err, errs.ErrUnauthorized), errors.Is(err, errs.ErrDenied):
		return exitNotAllowed
	case errors.Is(err, errs.ErrRateLimited):
		return exitRateLimited
	case errors.Is(err, errs.ErrNotFound):
		return exitNotFound
	case errors.Is(err, errs.ErrUnknownScheme), errors.Is(err, errs.ErrClobber):
		return exitUsage
	case errors.As(err, &e) && e.Status != 0: // a registry finds something invalid that we took for right
		if errors.Is(err, errs.ErrDigestInvalid) {
			return exitVerify
		}
		return exitFailed
	case errors.Is(err, errs.ErrManifestInvalid), errors.Is(err, errs.ErrManifestBlobUnknown),
		errors.Is(err, errs.ErrSizeInvalid), errors.Is(err, errs.ErrUnknownType):
		return exitFailed // the content is at fault
	case errors.Is(err, errs.ErrInvalid):
		return exitUsage
	default:
		return exitFailed
	}
}

// leaves returns the failures that err is made of, however they were joined and wrapped: they decide the exit code.
func leaves(err error) []error {
	if err == nil {
		return nil
	}
	if parts, ok := joined(err); ok {
		var all []error
		for _, e := range parts {
			all = append(all, leaves(e)...)
		}
		return all
	}
	if all := leaves(errors.Unwrap(err)); len(all) > 1 {
		return all
	}
	return []error{err}
}

// joined returns the parts of an error that is several failures. One failure with several causes (fmt.Errorf with two
// %w) has a text of its own; several failures have nothing but those of their parts, a line each or on one.
func joined(err error) ([]error, bool) {
	j, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil, false
	}
	parts := j.Unwrap()
	texts := make([]string, len(parts))
	for i, e := range parts {
		texts[i] = e.Error()
	}
	text := err.Error()
	return parts, text == strings.Join(texts, "\n") || text == strings.Join(texts, "; ")
}
