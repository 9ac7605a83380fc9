//go:build !unix

package serve

import "testing"

// descriptors is how many files this process may open, as far as is known.
func descriptors(*testing.T) int { return 1000 }
