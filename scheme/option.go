package scheme

import (
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

// Every method has options of a type of its own, so that an option that makes no sense for a method does not compile.
// Implementations collect them with Collect.
type (
	BlobGetOption        func(*BlobGetOptions)
	BlobHeadOption       func(*BlobHeadOptions)
	BlobPutOption        func(*BlobPutOptions)
	BlobDeleteOption     func(*BlobDeleteOptions)
	BlobMountOption      func(*BlobMountOptions)
	ManifestGetOption    func(*ManifestGetOptions)
	ManifestHeadOption   func(*ManifestHeadOptions)
	ManifestPutOption    func(*ManifestPutOptions)
	ManifestDeleteOption func(*ManifestDeleteOptions)
	TagDeleteOption      func(*TagDeleteOptions)
	TagListOption        func(*TagListOptions)
	ReferrerListOption   func(*ReferrerListOptions)
	PingOption           func(*PingOptions)
)

// Collect applies opts to the zero value of their struct.
func Collect[T any, O ~func(*T)](opts []O) T {
	var t T
	for _, o := range opts {
		if o != nil {
			o(&t)
		}
	}
	return t
}

// The options of methods that have none yet.
type (
	BlobGetOptions      struct{}
	BlobHeadOptions     struct{}
	BlobDeleteOptions   struct{}
	BlobMountOptions    struct{}
	ManifestHeadOptions struct{}
	PingOptions         struct{}
)

// BlobPutOptions are the options of BlobPut.
type BlobPutOptions struct {
	MountFrom    []ref.Ref
	DeferredSync bool
}

// WithMountFrom names repositories of the same root that are believed to hold the blob. A place that can mount tries
// them before it reads the stream; any refusal is silent and the put goes on (a registry's 202 in the same session).
func WithMountFrom(refs ...ref.Ref) BlobPutOption {
	return func(o *BlobPutOptions) { o.MountFrom = append(o.MountFrom, refs...) }
}

// WithDeferredSync lets BlobPut return before the blob is durable. It becomes so, together with others, no later than
// the ManifestPut that reaches it returns. If the process is killed before that, the blob is there and whole, or not
// there; after a power loss it may also be damaged, and the next put of it heals it.
func WithDeferredSync() BlobPutOption {
	return func(o *BlobPutOptions) { o.DeferredSync = true }
}

// ManifestGetOptions are the options of ManifestGet.
type ManifestGetOptions struct {
	Expect types.Descriptor
}

// WithExpected says what the manifest must be; it is compared before the manifest is returned. A media type is only
// taken as a hint when the place knows none.
func WithExpected(d types.Descriptor) ManifestGetOption {
	return func(o *ManifestGetOptions) { o.Expect = d }
}

// ManifestPutOptions are the options of ManifestPut.
type ManifestPutOptions struct {
	Tags         []string
	Sparse       bool
	SparseImages bool
	Child        bool
	Precondition
}

// WithTags points further tags to the manifest.
func WithTags(tags ...string) ManifestPutOption {
	return func(o *ManifestPutOptions) { o.Tags = append(o.Tags, tags...) }
}

// WithSparse stores an index some of whose manifests are left out on purpose, without checking that they exist.
// Registries that insist refuse it all the same.
func WithSparse() ManifestPutOption {
	return func(o *ManifestPutOptions) { o.Sparse = true }
}

// WithSparseImages is WithSparse for images, too: config and layers may be missing. Nothing tells such an image from one
// that lost them: who checks it finds them missing, and a copy to where it is takes it for complete, unless it is told to
// verify. It is for registries that must take whatever clients push.
func WithSparseImages() ManifestPutOption {
	return func(o *ManifestPutOptions) { o.Sparse, o.SparseImages = true, true }
}

// WithTagAt puts only if r's tag points to old, or, if old is empty, if there is no such tag. Otherwise the put fails with
// errs.ErrConflict and changes nothing. Looking and putting are one step that no other writer comes between, in this process
// or another one; a registry is asked with If-Match or If-None-Match, and one that does not know these for puts ignores
// them without a word (ours does not). If the connection breaks, a conflict may be with this very put: look again then.
func WithTagAt(old digest.Digest) ManifestPutOption {
	return func(o *ManifestPutOptions) { o.Precondition = Precondition{Set: true, At: old} }
}

// Precondition is what WithTagAt and WithTagDeleteAt ask for.
type Precondition struct {
	Set bool          // there is one
	At  digest.Digest // what the tag must point to; empty if it must not be there
}

// Valid reports whether the precondition can be asked of r: it needs a tag, and digests that can be compared. Its error is
// errs.ErrInvalid.
func (p Precondition) Valid(r ref.Ref) error {
	switch {
	case !p.Set:
		return nil
	case r.Tag == "":
		return fmt.Errorf("%w: a precondition on a tag needs a tag", errs.ErrInvalid)
	case p.At == "":
		return nil
	}
	return types.ValidDigest(p.At)
}

// Check compares what the tag points to, "" if it is not there. Its error is errs.ErrConflict.
func (p Precondition) Check(now digest.Digest) error {
	switch {
	case !p.Set || p.At == now:
		return nil
	case now == "":
		return fmt.Errorf("%w: the tag is not there", errs.ErrConflict)
	}
	return fmt.Errorf("%w: the tag points to %s", errs.ErrConflict, now)
}

// WithChild says that the manifest will be listed by an index that is put next, so that a layout needs no entry of
// its own for it. It needs a ref without a tag. Until the index is there the manifest can be read by this process
// only, and need not be durable.
func WithChild() ManifestPutOption {
	return func(o *ManifestPutOptions) { o.Child = true }
}

// ManifestDeleteOptions are the options of ManifestDelete.
type ManifestDeleteOptions struct {
	Fallback bool
}

// WithReferrerCleanup also removes the manifest from the fallback tag of its subject, on registries without a
// referrers API. It costs a read of the manifest and of that tag.
func WithReferrerCleanup() ManifestDeleteOption {
	return func(o *ManifestDeleteOptions) { o.Fallback = true }
}

// TagDeleteOptions are the options of TagDelete.
type TagDeleteOptions struct {
	Precondition
}

// WithTagDeleteAt removes the tag only if it points to old, which must not be empty; see WithTagAt.
func WithTagDeleteAt(old digest.Digest) TagDeleteOption {
	return func(o *TagDeleteOptions) { o.Precondition = Precondition{Set: true, At: old} }
}

// TagListOptions are the options of TagList. Limit is -1 when there is none.
type TagListOptions struct {
	Limited bool
	Limit   int
	Last    string
}

// WithTagLimit asks for n tags at most; 0 gives none. Without it all tags are listed, over as many pages as it takes.
func WithTagLimit(n int) TagListOption {
	return func(o *TagListOptions) { o.Limited, o.Limit = true, n }
}

// WithTagLast asks for the tags after last in byte order; last itself need not exist.
func WithTagLast(last string) TagListOption {
	return func(o *TagListOptions) { o.Last = last }
}

// PageLimit returns the limit, or -1 when there is none: the form that tag.Page takes.
func (o TagListOptions) PageLimit() int {
	if !o.Limited {
		return -1
	}
	return max(o.Limit, 0)
}

// ReferrerListOptions are the options of ReferrerList.
type ReferrerListOptions struct {
	Filter referrer.Filter
}

// WithFilter selects referrers. It is applied by the place, and again here when a registry does not filter.
func WithFilter(f referrer.Filter) ReferrerListOption {
	return func(o *ReferrerListOptions) { o.Filter = f }
}
