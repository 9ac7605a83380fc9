package ocihttp

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
)

// ETag is the entity tag of content: its digest, in quotes.
func ETag(d digest.Digest) string { return `"` + string(d) + `"` }

// Condition is the value of If-Match or If-None-Match, as far as an ETag of this package can be meant by it.
type Condition struct {
	Any     bool // "*": whatever there is
	Digests []digest.Digest
}

// ParseCondition reads the values of If-Match or If-None-Match; it is nil if there are none. Weak tags count only with
// weak, which is for If-None-Match (RFC 9110, 13.1). Tags that are no digests are left out: nothing here has them.
func ParseCondition(values []string, weak bool) *Condition {
	if len(values) == 0 {
		return nil
	}
	c := &Condition{}
	for _, v := range List(values) {
		if v == "*" {
			c.Any = true
			continue
		}
		if weak {
			v = strings.TrimPrefix(v, "W/")
		}
		d, quoted := strings.CutPrefix(v, `"`)
		d, closed := strings.CutSuffix(d, `"`)
		if quoted && closed && types.ValidDigest(digest.Digest(d)) == nil {
			c.Digests = append(c.Digests, digest.Digest(d))
		}
	}
	return c
}

// Has reports whether the condition is about what there is: d, or nothing if d is empty.
func (c *Condition) Has(d digest.Digest) bool {
	return d != "" && (c.Any || slices.Contains(c.Digests, d))
}
