// Package ocisync copies OCI images between the places that hold them: registries, directories in OCI image layout,
// and whatever else implements scheme.API.
//
//	c := ocisync.New()
//	defer c.Close()
//	report, err := c.Copy(ctx, ref.MustParse("alpine:3"), ref.MustParse("ocidir://./mirror:3"))
//
// A Client knows the schemes "reg" (registries, also what a reference without a scheme means) and "ocidir". Its parts
// can be used alone: package scheme is the interface, scheme/reg and scheme/ocidir are two implementations of it, and
// scheme/serve makes any implementation a registry.
package ocisync

import (
	"context"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

// Client copies and inspects images in the places it was given. Make one with New. It is safe for concurrent use, and
// remembers which repository of a registry has which blob, so that later copies can mount.
type Client struct {
	mux    *scheme.Mux
	engine *engine.Engine
}

// New returns a Client with the built-in schemes and those of the options. It opens nothing: the first use does.
func New(opts ...Option) *Client {
	var c config
	for _, o := range opts {
		o(&c)
	}
	mux := scheme.NewMux(c.apis())
	return &Client{mux: mux, engine: engine.New(mux, c.concurrency)}
}

// API returns all places as one: the reference decides which is meant.
func (c *Client) API() scheme.API { return c.mux }

// Close ends the use of all places, also of those that WithScheme added. The Client must not be used afterwards.
func (c *Client) Close() error { return c.mux.Close() }

// Copy makes dst have what src names, and returns what happened: a report in any case, also beside an error.
//
// A source without tag and digest means "latest"; a target without both takes the source's tag, or, if the source is
// only a digest, is put by digest. Children come before parents and the tag last, so that whoever reads the target
// sees complete images at any moment. One image's failure does not stop the others: the error joins them all, and
// errors.Is finds the reason of each.
//
// Errors: errs.ErrInvalid for references or patterns that make no sense together; errs.ErrNotFound; what the places
// answer.
func (c *Client) Copy(ctx context.Context, src, dst ref.Ref, opts ...CopyOption) (*transfer.Report, error) {
	return c.engine.Copy(ctx, src, dst, collect(opts))
}

// Plan reports what Copy would do, and reads only what it must to say so: tags, manifests, and which blobs are there.
// Bytes and counts are what would move; a mount may save some of it.
func (c *Client) Plan(ctx context.Context, src, dst ref.Ref, opts ...CopyOption) (*transfer.Report, error) {
	return c.engine.Plan(ctx, src, dst, collect(opts))
}
