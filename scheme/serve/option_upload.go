package serve

import "time"

// The defaults of options about uploads.
const (
	defaultMaxSessions = 10_000
	defaultSessionTTL  = time.Hour
	defaultSweepAfter  = 10 * time.Second
)

// uploadConfig is the part of config that is about uploads.
type uploadConfig struct {
	stateDir     string
	maxSessions  int
	sessionsEach int // 0: half of maxSessions
	sessionTTL   time.Duration
	sweepAfter   time.Duration // the first look for sessions of earlier processes
	minChunk     int64
	maxBlob      int64
}

func newUploadConfig() uploadConfig {
	return uploadConfig{maxSessions: defaultMaxSessions, sessionTTL: defaultSessionTTL, sweepAfter: defaultSweepAfter}
}

// WithStateDir sets the directory for the parts of uploads to places that cannot keep them (those without
// scheme.Ingester: registries). It is made if need be, has to have room for all uploads that are open at once, and is kept:
// uploads go on after a restart. Default: a folder among the system's temporary files, which Shutdown removes. Places
// that can keep uploads do so themselves, and their uploads outlive the server as they do.
func WithStateDir(dir string) Option { return func(c *config) { c.stateDir = dir } }

// WithMaxSessions bounds the uploads that are open at once; further ones are answered with 429. Default: 10,000.
func WithMaxSessions(n int) Option { return func(c *config) { c.maxSessions = n } }

// WithMaxSessionsEach bounds the uploads that one subject has open at once, or one address of those that are nobody in
// particular (an IPv6 address stands for its /64), so that one cannot take all. Default: half of all.
func WithMaxSessionsEach(n int) Option { return func(c *config) { c.sessionsEach = n } }

// WithSessionTTL sets after which time without a request an upload is given up. Default: one hour. Uploads of earlier
// processes are looked for after the start, and then once in that time. 0 and less is the default.
func WithSessionTTL(d time.Duration) Option {
	return func(c *config) {
		if d > 0 {
			c.sessionTTL = d
		}
	}
}

// WithMinChunk announces the least length of a chunk, in bytes, as OCI-Chunk-Min-Length (distribution-spec, "Pushing a
// blob in chunks"). The last chunk may be shorter: what is refused, with 400, is a chunk after one that was. Default: none.
func WithMinChunk(n int64) Option { return func(c *config) { c.minChunk = n } }

// WithMaxBlob refuses blobs of more than n bytes with 413, however they arrive, as soon as that is known. Default: no
// limit.
func WithMaxBlob(n int64) Option { return func(c *config) { c.maxBlob = n } }
