package engine

import (
	"context"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

// Plan reports what Copy would do. It is the same walk, in which the steps that write only tell what they would do;
// that none was forgotten is not left to attention: the API it works on refuses to write.
func (e *Engine) Plan(ctx context.Context, src, dst ref.Ref, o Options) (*transfer.Report, error) {
	return e.copy(ctx, scheme.ReadOnly(e.api), src, dst, o, true)
}
