package scheme

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/ref"
)

// BlobStater describes single blobs.
type BlobStater interface {
	// BlobStat describes the blob d of r's repository. Errors: ErrNotFound.
	BlobStat(ctx context.Context, r ref.Ref, d digest.Digest) (blob.Info, error)
}

// Labeler keeps labels of blobs: short texts that belong to a repository's blob and say nothing to other tools.
// They survive the process, and go when the blob is deleted.
type Labeler interface {
	// BlobLabel changes labels of the blob info.Digest, and returns what the blob then is. Without fields, and with
	// the field "labels", info.Labels replace all labels; with "labels.KEY" only that one is set, or removed when
	// info.Labels lacks it or has "" for it. Nothing else of info has a meaning. Several calls at once all take
	// effect. The time of update becomes now, that of creation stays.
	//
	// Errors: ErrNotFound; ErrInvalid for any other field, and for labels above MaxLabel.
	BlobLabel(ctx context.Context, r ref.Ref, info blob.Info, fields ...string) (blob.Info, error)
}

// IndexStore reads and replaces a repository's index.json as a whole.
type IndexStore interface {
	// IndexGet returns the index, byte by byte as it is stored. Errors: ErrNotFound, ErrCorrupt.
	IndexGet(ctx context.Context, r ref.Ref) ([]byte, error)

	// IndexPut replaces the index by next, atomically and durably, if it still is old, byte by byte; nil for old is
	// whatever there is, also nothing: then the repository comes into being. Readers see the one or the other. What
	// next names need not be there; what of it is there is durable when IndexPut returns.
	//
	// Errors: ErrConflict when the index is not old: nothing was changed; ErrInvalid when next is no image index.
	IndexPut(ctx context.Context, r ref.Ref, old, next []byte) error
}

// IndexRestorer brings an index back that cannot be used.
type IndexRestorer interface {
	// IndexRestore replaces the index of r's repository, if it is missing or makes no sense, by what the place remembers
	// of it, which may be older than what was lost: somebody has to want that. One that can be used is left as it is.
	//
	// Errors: ErrNotFound when there is no such repository, or nothing is remembered; ErrUnsupported for a version of
	// the format that is not known; ErrReadOnly.
	IndexRestore(ctx context.Context, r ref.Ref) (IndexRestored, error)
}

// IndexRestored says what IndexRestore did.
type IndexRestored struct {
	Index   bool   // the index was replaced
	Entries int    // that the new one has
	Kept    string // where the unusable one is now, as a user would name it
	Marker  bool   // what says that the place is a repository was written anew
}

// Leaser keeps blobs from being collected that no index reaches yet. The API's own methods lease what they put, found
// present or mounted until the API is closed, or for half a day at least where it stays open; this is for callers whose
// knowledge is older, or of other APIs.
type Leaser interface {
	// Lease keeps the blobs of r's repository from every Collect, also of other processes, until release is called,
	// the API is closed, or the process ends. They need not be there. A manifest keeps what it names. Calling release
	// twice is legal. Lease is what makes an answer reliable: a blob that is found after it was leased stays.
	Lease(ctx context.Context, r ref.Ref, blobs ...digest.Digest) (release func(), err error)
}

// Syncer makes durable what was written with less than full durability.
type Syncer interface {
	// Sync returns when everything that was acknowledged for r's repository before it was called survives a power loss.
	Sync(ctx context.Context, r ref.Ref) error
}

// Cleaner removes what writers left that ended before they were done.
type Cleaner interface {
	// Clean removes temporary files that no writer holds any more, and ingests that nobody has open and that were not
	// written to for age or longer. It touches no blob and may run at any time. Errors: ErrNotFound, ErrReadOnly.
	Clean(ctx context.Context, r ref.Ref, age time.Duration) (CleanReport, error)
}

// CleanReport says what Clean removed.
type CleanReport struct {
	Files   int           // temporary files
	Ingests []blob.Ingest // abandoned ingests
	Bytes   int64         // of both
}

// Collector removes blobs that nothing needs.
type Collector interface {
	// Collect removes the blobs of r's repository that its index does not reach, by way of manifests, subjects and
	// referrers, that nobody leased and that are older than the grace period. Others may read and write meanwhile;
	// what they put, find or mount is not collected. It cleans as Clean does. When it cannot read something that
	// decides what is garbage (the index, a manifest that is listed) it removes nothing and says what.
	//
	// Errors: ErrNotFound, ErrReadOnly, ErrCorrupt, ErrDigestMismatch. The report holds also beside an error: it
	// says what was done until then.
	Collect(ctx context.Context, r ref.Ref, opts ...CollectOption) (CollectReport, error)
}

// CollectReport says what Collect did, or with WithDryRun would do.
type CollectReport struct {
	Removed  []Garbage          // blobs, manifests among them
	Untagged []types.Descriptor // entries of the index that were removed (see WithUntagged)
	Kept     int                // blobs that are needed
	Leased   int                // blobs that are not needed but leased
	Young    int                // blobs that are not needed but younger than the grace period
	Vanished []types.Descriptor // manifests kept because another tool dropped their entries (see ocidir)
	Freed    int64              // bytes that became free: of files that no other layout shares
	Clean    CleanReport
	// ClockMoved: the clock was set within the grace period, so that ages say nothing and everything counted as young.
	ClockMoved bool
}

// Garbage is a blob that nothing needs.
type Garbage struct {
	Digest digest.Digest
	Size   int64
	Shared bool // the file has other names, in other layouts: nothing becomes free
}

// CollectOption is an option of Collect.
type CollectOption func(*CollectOptions)

// CollectOptions are the options of Collect. Make them with NewCollectOptions: they have defaults.
type CollectOptions struct {
	DryRun   bool
	Untagged bool
	Vanished bool
	Grace    time.Duration
}

// DefaultGrace is how young a blob must be not to be collected, whether or not somebody leased it. It is for tools that
// take no lease and write blobs before they write the index.
const DefaultGrace = time.Hour

// NewCollectOptions applies opts to the defaults.
func NewCollectOptions(opts ...CollectOption) CollectOptions {
	o := CollectOptions{Grace: DefaultGrace}
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	return o
}

// WithDryRun reports what would be removed, and removes nothing.
func WithDryRun() CollectOption { return func(o *CollectOptions) { o.DryRun = true } }

// WithGrace sets the grace period. 0 is right only when every writer is one of ours.
func WithGrace(d time.Duration) CollectOption {
	return func(o *CollectOptions) { o.Grace = max(d, 0) }
}

// WithUntagged also removes entries without a tag from the index, those that are older than the grace period: what a
// tag pointed to before it moved. Kept are manifests that an index with a tag lists, and referrers of what is kept,
// directly or by way of others, or whose subject is not in the repository at all.
func WithUntagged() CollectOption { return func(o *CollectOptions) { o.Untagged = true } }

// WithVanished also gives up the manifests whose entries another tool dropped, which are kept otherwise, as it may have
// overwritten them by mistake.
func WithVanished() CollectOption { return func(o *CollectOptions) { o.Vanished = true } }

// Checker looks for damage.
type Checker interface {
	// Check looks whether everything that r's repository says it has is there and whole, and calls fn for every
	// problem until fn returns an error, which it then returns. A tag or digest of r narrows it to what that reaches.
	// It changes nothing and may run at any time. What is
	// damaged is not an error but a problem; an error is what kept Check from going on. Without r's repository it is
	// ErrNotFound.
	Check(ctx context.Context, r ref.Ref, fn func(Problem) error, opts ...CheckOption) (CheckReport, error)
}

// CheckReport says how much was checked.
type CheckReport struct {
	Manifests int
	Blobs     int   // blobs that are no manifests; with WithDeep those that nothing needs, too
	Bytes     int64 // that were read and hashed
	Unneeded  int   // blobs that nothing needs; those are checked as well with WithDeep
	Sparse    int   // manifests that an index lists and that were left out when it was put, which is no problem
	Problems  int
}

// ProblemKind says what is wrong.
type ProblemKind string

// What can be wrong.
const (
	ProblemMissing   ProblemKind = "missing"    // it is not there
	ProblemDamaged   ProblemKind = "damaged"    // its bytes do not have its digest
	ProblemSize      ProblemKind = "wrong size" // it has another size than its descriptor says
	ProblemNoFile    ProblemKind = "no file"    // something else than a file has its name
	ProblemUnread    ProblemKind = "unreadable" // the system refuses to read it
	ProblemIndex     ProblemKind = "index"      // index.json or oci-layout cannot be used
	ProblemEntry     ProblemKind = "entry"      // an entry of index.json contradicts what it names
	ProblemVanished  ProblemKind = "vanished"   // another tool dropped the entry of a manifest that is still there
	ProblemForeign   ProblemKind = "foreign"    // a file in blobs that is no blob's
	ProblemAbandoned ProblemKind = "abandoned"  // an ingest or temporary file that nobody writes to any more
)

// Bad reports whether content is lost or wrong. The other problems are untidiness, or need a decision.
func (k ProblemKind) Bad() bool {
	switch k {
	case ProblemVanished, ProblemForeign, ProblemAbandoned:
		return false
	}
	return true
}

// Problem is one thing that is wrong.
type Problem struct {
	Kind     ProblemKind
	Digest   digest.Digest    // of the blob or manifest; empty for other files
	Path     string           // the file, as a user would name it
	Want     types.Descriptor // what it should be, as far as somebody says so
	Tags     []string         // that need it, in byte order; all of them
	Needed   []digest.Digest  // manifests that name it directly
	Manifest bool             // it is named as a manifest
	Err      error            // what a reader would get
}

// CheckOption is an option of Check.
type CheckOption func(*CheckOptions)

// CheckOptions are the options of Check.
type CheckOptions struct {
	Deep     bool
	Progress func(blob.Info)
}

// WithDeep reads and hashes every blob. Without it manifests are read and hashed, and of other blobs the size is
// compared.
func WithDeep() CheckOption { return func(o *CheckOptions) { o.Deep = true } }

// WithCheckProgress has fn called for every blob that was checked, by one goroutine at a time.
func WithCheckProgress(fn func(blob.Info)) CheckOption {
	return func(o *CheckOptions) { o.Progress = fn }
}
