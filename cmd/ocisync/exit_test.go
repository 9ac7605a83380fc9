package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

func TestExitCode(t *testing.T) {
	at := func(err error) error { return &errs.Error{Op: "blob get", Ref: "reg.lan/a", Err: err} }
	wire := func(err error) error {
		return &errs.Error{Op: "manifest put", Ref: "reg.lan/a", Status: 400, Err: err}
	}
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"nothing":                         {nil, 0},
		"anything else":                   {errors.New("x"), 1},
		"a place that does not answer":    {at(errs.ErrUnavailable), 1},
		"what a place cannot do":          {at(errs.ErrUnsupported), 1},
		"no space":                        {at(errs.ErrNoSpace), 1},
		"a time limit":                    {fmt.Errorf("copy: %w", &timeoutError{time.Second}), 1},
		"cancelled":                       {context.Canceled, 1},
		"usage":                           {usagef("", "x"), 2},
		"an invalid reference":            {fmt.Errorf("%w reference", errs.ErrInvalid), 2},
		"an invalid digest":               {errs.ErrDigestInvalid, 2},
		"an unknown scheme":               {at(errs.ErrUnknownScheme), 2},
		"a foreign folder":                {at(errs.ErrClobber), 2},
		"not found":                       {at(errs.ErrNotFound), 3},
		"no such repository":              {at(errs.ErrNameUnknown), 3},
		"no such manifest":                {at(errs.ErrManifestUnknown), 3},
		"credentials needed":              {at(errs.ErrUnauthorized), 4},
		"denied":                          {at(errs.ErrDenied), 4},
		"rate limited":                    {at(errs.ErrRateLimited), 5},
		"wrong content":                   {at(errs.ErrDigestMismatch), 6},
		"short content":                   {at(errs.ErrSizeMismatch), 6},
		"damaged data":                    {at(errs.ErrCorrupt), 6},
		"content a registry finds wrong":  {wire(errs.ErrDigestInvalid), 6},
		"a manifest that does not parse":  {at(errs.ErrManifestInvalid), 1},
		"a manifest a registry refuses":   {wire(errs.ErrManifestInvalid), 1},
		"a name a registry refuses":       {wire(errs.ErrNameInvalid), 1},
		"content that is missing":         {at(errs.ErrManifestBlobUnknown), 1},
		"a manifest that is too large":    {at(errs.ErrSizeInvalid), 1},
		"several of one kind":             {errors.Join(at(errs.ErrNotFound), at(errs.ErrBlobUnknown)), 3},
		"kinds mix":                       {errors.Join(at(errs.ErrNotFound), at(errs.ErrDenied)), 1},
		"kinds mix deep inside":           {fmt.Errorf("2 images: %w", errors.Join(at(errs.ErrNotFound), errors.Join(at(errs.ErrDenied)))), 1},
		"one failure with two causes":     {fmt.Errorf("%w: %w", errs.ErrNotFound, errs.ErrDenied), 4},
		"one image, two kinds":            {at(errors.Join(errs.ErrRateLimited, errs.ErrUnavailable)), 1},
		"one image, one kind twice":       {at(errors.Join(errs.ErrRateLimited, errs.ErrRateLimited)), 5},
		"advice changes nothing":          {&hinted{at(errs.ErrNotFound), "try"}, 3},
		"differences":                     {errDifferences, 10},
		"differences, and it was failing": {errors.Join(errDifferences, at(errs.ErrNotFound)), 1},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%s (%v): %d, want %d", name, c.err, got, c.want)
		}
	}
}
