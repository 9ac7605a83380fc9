package serve

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
)

// The defaults of options.
const (
	defaultMaxTags = 500
	defaultMaxPage = 10000
)

// Option is a setting of New.
type Option func(*config)

// config is what the options set. It does not change after New.
type config struct {
	places   []Place // of the options; Server.places are those that were checked
	prefix   string  // of every path, before /v2/
	readOnly bool
	log      *slog.Logger

	switches
	maxManifest int64
	maxHeld     int64
	maxTags     int
	putOptions  []scheme.ManifestPutOption // of every put

	authenticator Authenticator // nil: nobody is anybody in particular
	authorizer    Authorizer    // nil: see WithAuthenticator
	inspectors    []Inspector
	accessLogged  bool // an AccessLog writes to log

	uploadConfig

	readIdle, writeIdle    time.Duration
	maxConns, maxConnsEach int
	proxies                []netip.Prefix // that are trusted

	maxRequests, maxRequestsEach int
	rate                         rate.Limit // 0: none
	burst                        int
}

func newConfig(opts []Option) config {
	c := config{
		switches:    switches{maxPage: defaultMaxPage},
		maxManifest: types.MaxManifestSize, maxHeld: defaultMaxHeld, maxTags: defaultMaxTags,
		log: slog.New(slog.DiscardHandler), uploadConfig: newUploadConfig(),
		readIdle: defaultReadIdle, writeIdle: defaultWriteIdle, maxConns: connsFor(maxDescriptors()), maxConnsEach: defaultMaxConnsEach,
		maxRequests: defaultMaxRequests, maxRequestsEach: defaultMaxRequestsEach,
	}
	for _, o := range opts {
		o(&c)
	}
	c.accessLogged = slices.Contains(c.inspectors, AccessLog(c.log))
	return c
}

// WithPathPrefix says that clients write prefix before /v2/, as in "/registry", because something in front of the server
// leaves it there. Locations and links begin with it, too. Whoever strips it must write it into those itself.
func WithPathPrefix(prefix string) Option {
	return func(c *config) { c.prefix = strings.TrimSuffix(prefix, "/") }
}

// WithReadOnly refuses every request that writes with 405, whatever the place would allow.
func WithReadOnly() Option { return func(c *config) { c.readOnly = true } }

// WithSparse accepts indexes some of whose manifests the repository lacks (see scheme.WithSparse). Without it they are
// refused with MANIFEST_BLOB_UNKNOWN, so that all that is listed can be pulled. Images must be complete either way.
func WithSparse() Option {
	return func(c *config) { c.putOptions = append(c.putOptions, scheme.WithSparse()) }
}

// WithSparseImages is WithSparse, and accepts images whose config or layers the repository lacks, too. What they lack is
// told from what was lost by nobody (see scheme.WithSparseImages): leave it off where images are kept for long.
func WithSparseImages() Option {
	return func(c *config) { c.putOptions = append(c.putOptions, scheme.WithSparseImages()) }
}

// WithMaxManifest bounds the size of manifests that are pushed, in bytes; larger ones are answered with 413. It is at
// least 4 MiB, as the specification asks, and at most types.MaxManifestSize, the default. Manifests that are just pushed or
// sent, and lists, may take 512 MiB of memory together: a request that needs more gets 503 with Retry-After.
func WithMaxManifest(bytes int64) Option {
	return func(c *config) { c.maxManifest = min(max(bytes, 4<<20), types.MaxManifestSize) }
}

// WithMaxTags bounds the tags that one put of a manifest may name beside that of its path; more are answered with 414. It
// is at least 10, as the specification asks. Default: 500.
func WithMaxTags(n int) Option { return func(c *config) { c.maxTags = max(n, 10) } }

// WithLogger sets where failures are logged: those of the server as errors, those of requests as debug messages, as are
// all of them where an AccessLog to the same logger tells them anyway. Default: nowhere.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.log = l } }
