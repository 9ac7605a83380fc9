package ocisync

import (
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/types/ref"
)

// builtin is the settings of the schemes that every Client knows.
type builtin struct {
	registry []reg.Option
	layout   []ocidir.Option
}

// WithRegistry adds settings of the scheme "reg": hosts, credentials, logging.
func WithRegistry(opts ...reg.Option) Option {
	return func(c *config) { c.registry = append(c.registry, opts...) }
}

// WithLayout adds settings of the scheme "ocidir".
func WithLayout(opts ...ocidir.Option) Option {
	return func(c *config) { c.layout = append(c.layout, opts...) }
}

// apis makes the built-in schemes, but for those that are replaced.
func (b *builtin) apis(replaced map[string]scheme.API) map[string]scheme.API {
	all := map[string]scheme.API{}
	if replaced[ref.SchemeReg] == nil {
		all[ref.SchemeReg] = reg.New(b.registry...)
	}
	if replaced[ref.SchemeOCIDir] == nil {
		all[ref.SchemeOCIDir] = ocidir.New(b.layout...)
	}
	return all
}
