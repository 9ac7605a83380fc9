package types

import (
	_ "crypto/sha256" // the algorithms that digests may name
	_ "crypto/sha512"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/errs"
)

// ValidDigest reports, as an error that names the fault, whether d is a digest that can be verified: a registered
// algorithm (sha256, sha384 or sha512) and exactly as many lower-case hex digits as it has. A digest from outside
// becomes part of paths and URLs only after this check.
func ValidDigest(d digest.Digest) error {
	if wellFormed(string(d)) {
		return nil
	}
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w %q: %w", errs.ErrDigestInvalid, string(d), err)
	}
	return nil
}

// wellFormed answers for good digests, without the regular expression of Validate: an index of 10,000 tags is read
// twice as fast.
func wellFormed(d string) bool {
	alg, hex, _ := strings.Cut(d, ":")
	switch digest.Algorithm(alg) {
	case digest.SHA256:
		if len(hex) != 64 {
			return false
		}
	case digest.SHA384:
		if len(hex) != 96 {
			return false
		}
	case digest.SHA512:
		if len(hex) != 128 {
			return false
		}
	default:
		return false
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
