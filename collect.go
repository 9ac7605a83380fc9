package ocisync

import (
	"context"
	"errors"
	"fmt"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// Collected says what Collect did in one repository.
type Collected struct {
	Ref ref.Ref
	scheme.CollectReport
	Err error // why it ended before it was done; the report says what was done until then
}

// Collect removes what nothing needs: from the repository r, or from all repositories below a directory, one after
// another. See scheme.Collector for what that is, and scheme.WithDryRun and its like for the options. One repository that
// cannot be collected does not keep it from the others; the error joins theirs.
//
// Errors: errs.ErrUnsupported for places that do not collect, as registries do that themselves; errs.ErrInvalid when r has
// a tag or digest; errs.ErrNotFound; what the places answer.
func (c *Client) Collect(ctx context.Context, r ref.Ref, opts ...scheme.CollectOption) ([]Collected, error) {
	const op = "collect"
	if r.Tag != "" || r.Digest != "" {
		return nil, &errs.Error{Op: op, Ref: r.String(), Err: fmt.Errorf("%w: a place is needed, without tag and digest", errs.ErrInvalid)}
	}
	var collector scheme.Collector
	if !scheme.As(c.API(), r, &collector) {
		return nil, &errs.Error{Op: op, Ref: r.String(), Err: errs.ErrUnsupported}
	}
	places, err := c.placesBelow(ctx, r)
	if err != nil {
		return nil, err
	}
	var all []Collected
	var failed []error
	for _, at := range places {
		rep, err := collector.Collect(ctx, at, opts...)
		all = append(all, Collected{Ref: at, CollectReport: rep, Err: err})
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return all, errors.Join(failed...)
}
