package ocisync

import (
	"maps"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/transfer"
)

// Option is a setting of New.
type Option func(*config)

// config is what the options of New say.
type config struct {
	builtin
	schemes     map[string]scheme.API
	concurrency int
}

// apis joins the built-in schemes with those that were added, which win.
func (c *config) apis() map[string]scheme.API {
	all := c.builtin.apis(c.schemes)
	maps.Copy(all, c.schemes)
	return all
}

// WithScheme adds the place that serves references NAME://…, or replaces a built-in one. Closing the Client closes it.
func WithScheme(name string, api scheme.API) Option {
	return func(c *config) {
		if c.schemes == nil {
			c.schemes = map[string]scheme.API{}
		}
		c.schemes[name] = api
	}
}

// WithConcurrency sets how many blobs of size one copy moves at once; small ones and requests without content go
// beside them. The default, also for n < 1, is 8. A host's own limit holds as well.
func WithConcurrency(n int) Option { return func(c *config) { c.concurrency = n } }

// CopyOption is a setting of Copy and Plan.
type CopyOption func(*engine.Options)

func collect(opts []CopyOption) engine.Options {
	var o engine.Options
	for _, set := range opts {
		set(&o)
	}
	return o
}

// WithAllTags copies every tag of the source repository. Neither reference may have a tag or digest then. The tags
// under which referrers are listed on registries without a referrers API are bookkeeping and not copied as tags.
func WithAllTags() CopyOption { return func(o *engine.Options) { o.AllTags = true } }

// WithTags copies the tags that match: a pattern is a glob over the whole tag (*, ?, [a-z], as path.Match reads them),
// or "regex:EXPR", which must match the whole tag. A leading "!" excludes what matches. If there are only exclusions,
// everything else is copied. That no tag matches is no error. Patterns that are malformed are errs.ErrInvalid.
func WithTags(patterns ...string) CopyOption {
	return func(o *engine.Options) {
		o.AllTags = true
		o.Tags = append(o.Tags, patterns...)
	}
}

// WithPlatforms copies only the images for these platforms of an index. The index stays as it is, and so does its
// digest; registries that insist on complete indexes refuse it (see WithIndexRewrite). An image that is no index is
// copied whatever its platform is.
func WithPlatforms(platforms ...types.Platform) CopyOption {
	return func(o *engine.Options) { o.Platforms = append(o.Platforms, platforms...) }
}

// WithIndexRewrite makes WithPlatforms put a new index that lists the chosen images only. Its digest is another one,
// so that signatures of the original index do not apply to it and are not copied; those of the images are.
func WithIndexRewrite() CopyOption { return func(o *engine.Options) { o.Rewrite = true } }

// WithoutReferrers leaves out what refers to the images: signatures, SBOMs, attestations.
func WithoutReferrers() CopyOption { return func(o *engine.Options) { o.NoReferrers = true } }

// WithVerify checks the content of an image although the target has its manifest, and completes what is missing. A
// directory's blobs and manifests are read and hashed, every one of the image, and those that are damaged are replaced.
// A registry is only asked by HEAD whether it has them: what it stores is its own matter. Without WithVerify a manifest
// that is there is taken for a complete image.
func WithVerify() CopyOption { return func(o *engine.Options) { o.Verify = true } }

// WithEvents calls fn with everything that happens: one event at a time, those of one blob or manifest in their order.
// fn must not block.
func WithEvents(fn func(transfer.Event)) CopyOption {
	return func(o *engine.Options) { o.Events = fn }
}
