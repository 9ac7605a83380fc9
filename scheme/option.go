package scheme

import (
	"github.com/ocisync/ocisync/types"
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
	TagDeleteOptions    struct{}
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
	Tags   []string
	Sparse bool
	Child  bool
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
