package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// Store is content.Store and content.ReferrersProvider over one repository. It is safe for concurrent use; several
// Stores, in one process or in many, may stand before one repository.
type Store struct {
	api scheme.API
	r   ref.Ref

	mu   sync.Mutex
	open map[string]*writer // by ref: the writers of this Store that are open
}

var (
	_ content.Store             = (*Store)(nil)
	_ content.ReferrersProvider = (*Store)(nil)
)

// New returns r's repository as a content store; tag and digest of r are ignored. It opens nothing, and the repository
// need not exist: reading finds nothing then, and the first commit makes it. What the place lacks (see the capabilities
// of package scheme: BlobOpener, BlobStater, BlobLister, Labeler, Ingester, IngestManager) is answered with
// errdefs.ErrNotImplemented by the methods that need it. Closing api is up to the caller.
func New(api scheme.API, r ref.Ref) *Store {
	return &Store{api: api, r: r.Place(), open: map[string]*writer{}}
}

// capability finds what op needs of s's place.
func capability[T any](s *Store, op string) (T, error) {
	var c T
	if scheme.As(s.api, s.r, &c) {
		return c, nil
	}
	err := fmt.Errorf("%w: the place has no %s", errs.ErrUnsupported, strings.TrimPrefix(fmt.Sprintf("%T", &c), "*"))
	return c, classify(&errs.Error{Op: op, Ref: s.r.String(), Err: err})
}

// Info describes the blob dgst. Errors: NotFound, InvalidArgument for what is no digest.
func (s *Store) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	const op = "content info"
	if err := s.valid(op, dgst); err != nil {
		return content.Info{}, err
	}
	stater, err := capability[scheme.BlobStater](s, op)
	if err != nil {
		return content.Info{}, err
	}
	info, err := stater.BlobStat(ctx, s.r, dgst)
	if err != nil {
		return content.Info{}, classify(err)
	}
	return infoOf(info), nil
}

// ReaderAt opens the blob desc.Digest; nothing else of desc is looked at but the media type, to know a manifest where
// the place keeps those apart. The content was verified as a whole where the place stores it itself. It stays readable
// when the blob is deleted. Errors: NotFound, InvalidArgument for what is no digest, DataLoss for damaged content.
func (s *Store) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	const op = "content open"
	if err := s.valid(op, desc.Digest); err != nil {
		return nil, err
	}
	opener, err := capability[scheme.BlobOpener](s, op)
	if err != nil {
		return nil, err
	}
	ways := []func() (blob.ReaderAt, error){
		func() (blob.ReaderAt, error) {
			return opener.BlobOpen(ctx, s.r, types.Descriptor{Digest: desc.Digest})
		},
		func() (blob.ReaderAt, error) { return s.manifest(ctx, desc.Digest) },
	}
	if types.IsManifest(desc.MediaType) {
		slices.Reverse(ways)
	}
	ra, err := ways[0]()
	if errors.Is(err, errs.ErrNotFound) {
		if second, err2 := ways[1](); !errors.Is(err2, errs.ErrNotFound) {
			ra, err = second, err2
		}
	}
	if err != nil {
		return nil, damaged(err)
	}
	return ra, nil
}

// manifest reads a manifest, for places that do not serve manifests as blobs.
func (s *Store) manifest(ctx context.Context, dgst digest.Digest) (blob.ReaderAt, error) {
	m, err := s.api.ManifestGet(ctx, s.r.WithDigest(dgst))
	if err != nil {
		return nil, err
	}
	return inMemory{bytes.NewReader(m.Raw())}, nil
}

// inMemory is random access to bytes.
type inMemory struct{ r *bytes.Reader }

func (m inMemory) ReadAt(p []byte, off int64) (int, error) { return m.r.ReadAt(p, off) }
func (m inMemory) Size() int64                             { return m.r.Size() }
func (m inMemory) Close() error                            { return nil }

// Update changes labels of the blob info.Digest: all of them without fieldpaths or with "labels", else those that
// "labels.KEY" names. A label that info.Labels lacks or has as "" is removed. Errors: NotFound; InvalidArgument for other
// fields, and for labels above 4096 bytes, key and value together.
func (s *Store) Update(ctx context.Context, info content.Info, fieldpaths ...string) (content.Info, error) {
	const op = "content update"
	if err := s.valid(op, info.Digest); err != nil {
		return content.Info{}, err
	}
	labeler, err := capability[scheme.Labeler](s, op)
	if err != nil {
		return content.Info{}, err
	}
	if err := validLabels(info.Labels); err != nil {
		return content.Info{}, fmt.Errorf("%s %s %s: %w", op, s.r, info.Digest, err)
	}
	got, err := labeler.BlobLabel(ctx, s.r, blob.Info{Digest: info.Digest, Labels: info.Labels}, fieldpaths...)
	if err != nil {
		return content.Info{}, classify(err)
	}
	return infoOf(got), nil
}

// Walk calls fn for every blob that one of the filters matches, or every one when there is none, in the order of the
// digests, until fn returns an error, which it then returns. fn sees the blobs that were there when Walk began, and may
// use the Store. Files that are no blobs are left out; a repository that does not exist has none. Errors:
// InvalidArgument for a filter that cannot be parsed.
func (s *Store) Walk(ctx context.Context, fn content.WalkFunc, fs ...string) error {
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return err
	}
	lister, err := capability[scheme.BlobLister](s, "content walk")
	if err != nil {
		return err
	}
	var found []content.Info
	err = lister.BlobList(ctx, s.r, func(b blob.Info) error {
		if info := infoOf(b); filter.Match(content.AdaptInfo(info)) {
			found = append(found, info)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errs.ErrNotFound) {
		return classify(err)
	}
	slices.SortFunc(found, func(a, b content.Info) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	for _, info := range found {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes the blob dgst. Where it is a manifest of the repository its tags go as well, so that nothing points to
// what is not there. Errors: NotFound, InvalidArgument for what is no digest.
func (s *Store) Delete(ctx context.Context, dgst digest.Digest) error {
	if err := s.valid("content delete", dgst); err != nil {
		return err
	}
	errManifest := s.api.ManifestDelete(ctx, s.r.WithDigest(dgst))
	if errManifest != nil && !errors.Is(errManifest, errs.ErrNotFound) {
		return classify(errManifest)
	}
	err := s.api.BlobDelete(ctx, s.r, types.Descriptor{Digest: dgst})
	if errManifest == nil && errors.Is(err, errs.ErrNotFound) {
		return nil // it was the manifest only
	}
	return classify(err)
}

// Referrers lists the manifests of the repository that refer to desc.
func (s *Store) Referrers(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if err := s.valid("content referrers", desc.Digest); err != nil {
		return nil, err
	}
	list, err := s.api.ReferrerList(ctx, s.r.WithDigest(desc.Digest))
	if err != nil {
		return nil, classify(err)
	}
	return list.Descriptors, nil
}

// valid checks a digest from outside.
func (s *Store) valid(op string, dgst digest.Digest) error {
	if err := types.ValidDigest(dgst); err != nil {
		return classify(&errs.Error{Op: op, Ref: s.r.String(), Err: err})
	}
	return nil
}

// validLabels holds labels to containerd's limit.
func validLabels(m map[string]string) error {
	for k, v := range m {
		if k == "" {
			return fmt.Errorf("a label has no key: %w", errdefs.ErrInvalidArgument)
		}
		if err := labels.Validate(k, v); err != nil {
			return err
		}
	}
	return nil
}

func infoOf(b blob.Info) content.Info {
	return content.Info{Digest: b.Digest, Size: b.Size, CreatedAt: b.Created, UpdatedAt: b.Updated, Labels: b.Labels}
}
