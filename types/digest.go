package types

import (
	_ "crypto/sha256" // the algorithms that digests may name
	_ "crypto/sha512"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/errs"
)

// ValidDigest reports, as an error that names the fault, whether d is a digest that can be verified: a registered
// algorithm (sha256, sha384 or sha512) and exactly as many lower-case hex digits as it has. A digest from outside
// becomes part of paths and URLs only after this check.
func ValidDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w %q: %w", errs.ErrDigestInvalid, string(d), err)
	}
	return nil
}
