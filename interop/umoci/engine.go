package umoci

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/umoci/oci/cas"
	"github.com/opencontainers/umoci/pkg/hardening"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// Engine is cas.Engine over one repository. It is safe for concurrent use; several Engines, in one process or in many,
// may stand before one repository. Make one with Open or Create.
type Engine struct {
	api   scheme.API
	r     ref.Ref
	name  string        // tells the marks of this Engine from those of others
	keep  time.Duration // how old an ingest must be for Clean
	store scheme.IndexStore

	mu     sync.Mutex
	last   digest.Digest // of the index that this Engine read or wrote last
	closed bool
}

var _ cas.Engine = (*Engine)(nil)

// Option changes what Open and Create make.
type Option func(*Engine)

// DefaultIngestAge is how long an ingest that nobody writes to is left alone by Clean.
const DefaultIngestAge = 24 * time.Hour

// WithIngestAge sets for how long Clean leaves ingests alone that somebody began and did not go on with. 0 removes every
// one that nobody has open.
func WithIngestAge(age time.Duration) Option { return func(e *Engine) { e.keep = max(age, 0) } }

// Open returns r's repository, which must be there and sound as far as its index goes, as a cas.Engine. Tag and digest of
// r are ignored. Closing api is up to the caller.
//
// Errors: cas.ErrInvalid when there is no image, or its index cannot be used; cas.ErrNotImplemented for a place without
// an index of its own (scheme.IndexStore), as a registry is one.
func Open(ctx context.Context, api scheme.API, r ref.Ref, opts ...Option) (*Engine, error) {
	e, err := newEngine(api, r, opts)
	if err != nil {
		return nil, err
	}
	if _, _, err := e.read(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// Create makes r's repository, with an empty index, and opens it. Of several at once more than one may succeed; they do not
// undo each other's work.
//
// Errors: cas.ErrClobber when it is there already, or other files are; otherwise those of Open.
func Create(ctx context.Context, api scheme.API, r ref.Ref, opts ...Option) (*Engine, error) {
	e, err := newEngine(api, r, opts)
	if err != nil {
		return nil, err
	}
	if err := e.create(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

func newEngine(api scheme.API, r ref.Ref, opts []Option) (*Engine, error) {
	e := &Engine{api: api, r: r.Place(), name: rand.Text(), keep: DefaultIngestAge}
	for _, o := range opts {
		o(e)
	}
	if !scheme.As(api, e.r, &e.store) {
		return nil, e.fail("open", "", fmt.Errorf("%w: the place has no IndexStore", errs.ErrUnsupported))
	}
	return e, nil
}

// fail wraps err with its circumstances and makes it one of umoci's.
func (e *Engine) fail(op string, d digest.Digest, err error) error {
	return classify(&errs.Error{Op: "cas " + op, Ref: e.r.String(), Digest: d, Err: err})
}

// begin checks what every method checks first.
func (e *Engine) begin(op string, d digest.Digest) error {
	e.mu.Lock()
	closed := e.closed
	e.mu.Unlock()
	if closed {
		return e.fail(op, "", fmt.Errorf("the engine: %w", os.ErrClosed))
	}
	if d != "" {
		if err := types.ValidDigest(d); err != nil {
			return e.fail(op, "", err)
		}
	}
	return nil
}

// needed is begin for methods that need a digest.
func (e *Engine) needed(op string, d digest.Digest) error {
	if d == "" {
		return e.fail(op, "", fmt.Errorf("%w: it is empty", errs.ErrDigestInvalid))
	}
	return e.begin(op, d)
}

// PutBlob stores what reader holds under its sha256 digest. It is durable when PutBlob returns.
func (e *Engine) PutBlob(ctx context.Context, reader io.Reader) (digest.Digest, int64, error) {
	if err := e.begin("blob put", ""); err != nil {
		return "", -1, err
	}
	d, err := e.api.BlobPut(ctx, e.r, types.Descriptor{}, reader)
	if err != nil {
		return "", -1, classify(err)
	}
	return d.Digest, d.Size, nil
}

// GetBlob opens a blob of any algorithm that ocisync knows, sha512 among them. The reader is umoci's
// VerifiedReadCloser: a wrong digest is hardening.ErrDigestMismatch, from Read at the end or from Close, which reads what
// is left. Errors: cas.ErrNotExist; cas.ErrInvalid for what is no digest.
func (e *Engine) GetBlob(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	const op = "blob get"
	if err := e.needed(op, d); err != nil {
		return nil, err
	}
	rdr, err := e.api.BlobGet(ctx, e.r, types.Descriptor{Digest: d})
	if err != nil {
		return nil, classify(err)
	}
	size := rdr.Descriptor().Size
	if !types.SizeKnown(rdr.Descriptor()) && !types.EmptyDigest(d) {
		got, err := e.api.BlobHead(ctx, e.r, types.Descriptor{Digest: d})
		if err != nil {
			return nil, errors.Join(classify(err), rdr.Close())
		}
		size = got.Size
	}
	return &hardening.VerifiedReadCloser{Reader: rdr, ExpectedDigest: d, ExpectedSize: size}, nil
}

// StatBlob reports whether a blob is there. As cas.Engine has it, one that is not is an error, cas.ErrNotExist, and not
// only false.
func (e *Engine) StatBlob(ctx context.Context, d digest.Digest) (bool, error) {
	if err := e.needed("blob stat", d); err != nil {
		return false, err
	}
	if _, err := e.api.BlobHead(ctx, e.r, types.Descriptor{Digest: d}); err != nil {
		return false, classify(err)
	}
	return true, nil
}

// DeleteBlob removes a blob, whether or not the index needs it. One that is not there is no error.
func (e *Engine) DeleteBlob(ctx context.Context, d digest.Digest) error {
	if err := e.needed("blob delete", d); err != nil {
		return err
	}
	err := e.api.BlobDelete(ctx, e.r, types.Descriptor{Digest: d})
	if errors.Is(err, errs.ErrNotFound) {
		return nil
	}
	return classify(err)
}

// ListBlobs returns the digests of all blobs, those of sha512 among them, in byte order. Files that are no blobs are left
// out. Errors: cas.ErrNotImplemented for a place that cannot list blobs.
func (e *Engine) ListBlobs(ctx context.Context) ([]digest.Digest, error) {
	const op = "blob list"
	if err := e.begin(op, ""); err != nil {
		return nil, err
	}
	var lister scheme.BlobLister
	if !scheme.As(e.api, e.r, &lister) {
		return nil, e.fail(op, "", fmt.Errorf("%w: the place has no BlobLister", errs.ErrUnsupported))
	}
	all := []digest.Digest{}
	err := lister.BlobList(ctx, e.r, func(info blob.Info) error {
		all = append(all, info.Digest)
		return nil
	})
	if err != nil {
		return nil, broken(err)
	}
	slices.SortFunc(all, func(a, b digest.Digest) int { return strings.Compare(string(a), string(b)) })
	return all, nil
}

// Clean removes what writers left that ended before they were done, and ingests that nobody went on with for
// WithIngestAge. It touches no blob. Errors: cas.ErrNotImplemented for a place that cannot clean.
func (e *Engine) Clean(ctx context.Context) error {
	const op = "clean"
	if err := e.begin(op, ""); err != nil {
		return err
	}
	var cleaner scheme.Cleaner
	if !scheme.As(e.api, e.r, &cleaner) {
		return e.fail(op, "", fmt.Errorf("%w: the place has no Cleaner", errs.ErrUnsupported))
	}
	_, err := cleaner.Clean(ctx, e.r, e.keep)
	return broken(err)
}

// Close ends the use of e, whose methods fail afterwards. The API stays open. Closing twice is legal.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	return nil
}
