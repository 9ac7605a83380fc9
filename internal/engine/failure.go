package engine

import (
	"context"
	"errors"
	"strings"
)

// failures is several errors on one line, where errors.Join takes one for each.
type failures []error

func (f failures) Error() string {
	texts := make([]string, len(f))
	for i, err := range f {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap lets errors.Is and errors.As find each of them.
func (f failures) Unwrap() []error { return f }

// join returns what went wrong, each failure once although several may have waited for the same work. That ctx ended is
// said only where nothing else is to be said.
func join(ctx context.Context, all []error) error {
	var said failures
	var ended error
	texts := map[string]bool{}
	var add func(err error)
	add = func(err error) {
		if several, ok := err.(failures); ok {
			for _, one := range several {
				add(one)
			}
			return
		}
		switch {
		case err == nil:
		case ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))):
			ended = err
		case !texts[err.Error()]:
			texts[err.Error()] = true
			said = append(said, err)
		}
	}
	for _, err := range all {
		add(err)
	}
	switch len(said) {
	case 0:
		return ended
	case 1:
		return said[0]
	}
	return said
}
