package reg

import (
	"context"
	"time"
)

// testLimits make waits short enough for tests, and long enough for a loaded machine.
var testLimits = limits{
	attempts:   4,
	backoff:    time.Millisecond,
	maxBackoff: 4 * time.Millisecond,
	retryAfter: 5 * time.Second,
	dial:       10 * time.Second,
	header:     30 * time.Second,
	commit:     30 * time.Second,
	idle:       30 * time.Second,
	cleanup:    5 * time.Second,
}

// newTest returns a client without this machine's credentials.
func newTest(opts ...Option) *Reg {
	return New(append([]Option{withLimits(testLimits), WithCredentials(nobody)}, opts...)...)
}

func nobody(context.Context, string) (Credential, error) { return Credential{}, nil }
