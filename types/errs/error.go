package errs

import (
	"errors"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Error is a failure with its circumstances. Err is never nil and is, or wraps, one of the sentinels where one fits.
type Error struct {
	Op         string          // what was attempted: "blob get", "manifest put", …
	Ref        string          // where, as ref.Ref prints it
	Digest     digest.Digest   // of which content, when not part of Ref
	Code       string          // the code the registry sent, which may be outside the specification
	Status     int             // the HTTP status, 0 when no HTTP was involved
	Message    string          // the registry's own words, or a detail that Err does not say
	Missing    []digest.Digest // with ErrManifestBlobUnknown: every digest that is missing
	RetryAfter time.Duration   // with ErrRateLimited: how long the registry asks to wait
	Hint       string          // what the user can do about it, as a command or setting; not part of Error()
	Err        error
}

// Error prints operation, place, digest, cause and message, once each, on one line.
func (e *Error) Error() string {
	var b strings.Builder
	add := func(sep, s string) {
		if s == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteString(sep)
		}
		b.WriteString(s)
	}
	add("", e.Op)
	add(" ", e.Ref)
	if e.Digest != "" && !strings.Contains(e.Ref, string(e.Digest)) {
		add(" ", string(e.Digest))
	}
	if e.Err != nil {
		add(": ", e.Err.Error())
	}
	if e.Message != "" && (e.Err == nil || !strings.Contains(e.Err.Error(), e.Message)) {
		add(": ", e.Message)
	}
	for i, d := range e.Missing {
		if i == 0 {
			add(": missing ", string(d))
			continue
		}
		if i == 8 {
			add(", ", "…")
			break
		}
		add(", ", string(d))
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint returns the advice of the outermost Error in err that has any, or "".
func Hint(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
