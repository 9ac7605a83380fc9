package ocisync

import "github.com/ocisync/ocisync/scheme"

// builtin is the settings of the schemes that every Client knows.
type builtin struct{}

// apis makes the built-in schemes, but those that are replaced.
func (b *builtin) apis(map[string]scheme.API) map[string]scheme.API {
	return map[string]scheme.API{}
}
