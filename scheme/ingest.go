package scheme

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// Ingester takes blobs in pieces. An ingest has a key that its caller chooses (a digest, a session's name), belongs to
// one repository, and is no blob of it before it is committed: no other method sees its bytes. It outlives the
// process that began it where the place outlives processes.
type Ingester interface {
	// Ingest opens the ingest key of r's repository to be written on: a new one, or the one that was left, at its end;
	// Upload.Status says where that is. One that was left with another expected digest or size than WithExpectedBlob
	// now gives starts over, empty. Opening creates no repository; Commit does.
	//
	// Errors: ErrLocked while the ingest is open already, here or in another process; ErrExists when
	// WithExpectedBlob names a blob that the repository has whole; ErrInvalid for an empty key, or one above MaxKey
	// bytes, and for labels above MaxLabel; ErrNoSpace, ErrReadOnly.
	Ingest(ctx context.Context, r ref.Ref, key string, opts ...IngestOption) (Upload, error)
}

const (
	// MaxKey is the length of an ingest's key, in bytes, at most. Any bytes are legal.
	MaxKey = 4096
	// MaxLabel is the length of a label's key and value together, in bytes, at most; it is containerd's limit.
	MaxLabel = 4096
)

// ValidKey reports, as errs.ErrInvalid, what is wrong with an ingest's key.
func ValidKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("%w: an ingest's key has 1 to %d bytes, not %d", errs.ErrInvalid, MaxKey, len(key))
	}
	return nil
}

// Upload is an ingest that is open. It is for one goroutine at a time but for Status, which may be called at any time.
// After Close, Commit and Abort it is closed, whatever they returned; Write then answers fs.ErrClosed. ctx of Ingest
// stays in force for Write.
type Upload interface {
	// Write appends p. What Write took survives the end of the process; Close makes it survive a power loss.
	//
	// Errors: ErrNoSpace, after which the ingest has what fitted; ErrUploadUnknown when somebody removed it.
	io.Writer

	// Close ends writing and keeps what was written for another Ingest of the key. Closing twice is legal.
	io.Closer

	// Status is what IngestStat would say.
	Status() blob.Ingest

	// Digest is that of all bytes so far, of the algorithm that the expected digest has, else that of
	// WithIngestAlgorithm, else sha256.
	Digest() digest.Digest

	// Commit makes the bytes the blob that want says, labelled with the ingest's labels and over them labels, and
	// removes the ingest. Without a digest, want is whatever was written, named by Digest; without a size (see
	// types.SizeKnown), however much it is. A digest of another algorithm is checked as well. When Commit returns the
	// blob is as durable as after BlobPut.
	//
	// Errors: ErrDigestMismatch and ErrSizeMismatch, and any failure of the place: the ingest is kept as it is, and
	// can be opened again. ErrExists when the repository has the blob already, whole: the descriptor is its, its
	// labels are unchanged and the ingest is removed. Who only wants the blob to be there takes that for success.
	// fs.ErrClosed when the Upload was closed; the ingest is kept. ErrInvalid for labels above MaxLabel.
	Commit(ctx context.Context, want types.Descriptor, labels map[string]string) (types.Descriptor, error)

	// Abort removes the ingest and what was written. Of an Upload that is closed it removes nothing: fs.ErrClosed.
	Abort(ctx context.Context) error

	// Token is what another process needs to go on, beside place and key: hand it to WithIngestToken. It is opaque,
	// may change with every Write, and is empty where place and key suffice.
	Token() string
}

// Truncater is implemented by an Upload that can take back what was written.
type Truncater interface {
	// Truncate cuts the ingest to size bytes, at which the next Write goes on. Errors: ErrRangeInvalid when it has
	// fewer, or size is negative.
	Truncate(ctx context.Context, size int64) error
}

// Flusher is implemented by an Upload that can make durable what was written without being closed.
type Flusher interface {
	// Flush returns when what was written survives a power loss, as far as the place can promise. Errors: those of
	// Close; the Upload stays open.
	Flush(ctx context.Context) error
}

// Leaver is implemented by an Upload that can be closed without waiting for the disk.
type Leaver interface {
	// Leave is Close, but a power loss may take what was written since the last Close or Flush, or all if there was none. The
	// ingest then ends earlier, or is gone. The end of the process takes nothing.
	Leave() error
}

// Rereader is implemented by an Upload whose bytes can be read before they are a blob, at any offset: for who wants
// to make a blob of them elsewhere.
type Rereader interface {
	// ReadAt is io.ReaderAt over what was written so far. After the end of the Upload it answers fs.ErrClosed.
	io.ReaderAt
}

// IngestManager looks after ingests, those of other processes included.
type IngestManager interface {
	// IngestStat describes one ingest. Errors: ErrUploadUnknown.
	IngestStat(ctx context.Context, r ref.Ref, key string) (blob.Ingest, error)

	// IngestList calls fn for every ingest of r's repository, in byte order of the keys, until fn returns an error,
	// which it then returns. fn may use the API. A repository that does not exist has none.
	IngestList(ctx context.Context, r ref.Ref, fn func(blob.Ingest) error) error

	// IngestAbort removes an ingest. Errors: ErrUploadUnknown; ErrLocked while it is open.
	IngestAbort(ctx context.Context, r ref.Ref, key string) error

	// IngestExpire removes the ingests of r's repository that nobody has open and that were not written to for age or
	// longer, and returns them. 0 is every one that nobody has open.
	IngestExpire(ctx context.Context, r ref.Ref, age time.Duration) ([]blob.Ingest, error)
}

// IngestOption is an option of Ingest.
type IngestOption func(*IngestOptions)

// IngestOptions are the options of Ingest.
type IngestOptions struct {
	Expected types.Descriptor
	Owner    string
	Labels   map[string]string
	Token    string

	LooseSize bool
	Algorithm digest.Algorithm
}

// WithExpectedBlob announces digest and size of the blob, or one of them. Writing more than the size is
// ErrSizeMismatch (see WithLooseSize). Commit checks what it is given itself; nothing is checked there that want leaves open.
func WithExpectedBlob(d types.Descriptor) IngestOption {
	return func(o *IngestOptions) { o.Expected = d }
}

// WithLooseSize lets this opening write more than the size that was announced: for callers to whom that is a forecast, and
// who say at Commit what it has to be. What has more than was announced when it is opened again starts over as ever.
func WithLooseSize() IngestOption {
	return func(o *IngestOptions) { o.LooseSize = true }
}

// WithIngestAlgorithm says with which algorithm the bytes are hashed as they come, where the expected digest does not say
// it. It spares Commit with a digest of that algorithm to read everything again. An ingest that is opened again without
// this option keeps its algorithm; with another one it is hashed again. Errors of Ingest then: ErrDigestInvalid for an
// algorithm that is not known.
func WithIngestAlgorithm(alg digest.Algorithm) IngestOption {
	return func(o *IngestOptions) { o.Algorithm = alg }
}

// ValidAlgorithm reports, as errs.ErrDigestInvalid, an algorithm that nothing can be hashed with. None at all is valid.
func ValidAlgorithm(alg digest.Algorithm) error {
	if alg != "" && !alg.Available() {
		return fmt.Errorf("%w: algorithm %.32q", errs.ErrDigestInvalid, string(alg))
	}
	return nil
}

// WithIngestOwner says who began the ingest, for people who look at the list; it is kept when the ingest is opened
// again. Without it the place says what it knows (process and host).
func WithIngestOwner(owner string) IngestOption {
	return func(o *IngestOptions) { o.Owner = owner }
}

// WithIngestLabels sets labels of the ingest, and of the blob that it becomes. An ingest that is opened again without
// this option keeps those it has.
func WithIngestLabels(labels map[string]string) IngestOption {
	return func(o *IngestOptions) { o.Labels = labels }
}

// WithIngestToken goes on with an ingest that another process began, whose Upload.Token this is. Errors of Ingest then:
// ErrUploadUnknown when the place does not know it any more.
func WithIngestToken(token string) IngestOption {
	return func(o *IngestOptions) { o.Token = token }
}

// IngestFinder finds the repositories of a root that have ingests, those included that are none yet: for who looks after
// ingests of processes that are gone.
type IngestFinder interface {
	// IngestFind calls fn with the name of every repository below r's root that has an ingest, in no particular order,
	// until fn returns an error, which it then returns; io.EOF ends the search without being returned. fn may use the
	// API, and remove ingests. It is no error that there is none.
	IngestFind(ctx context.Context, r ref.Ref, fn func(repo string) error) error
}
