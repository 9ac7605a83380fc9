// Package scheme is the interface to every place that holds OCI images, whatever it is made of.
//
// A place is a registry (scheme/reg), a directory in OCI image layout (scheme/ocidir), memory (scheme/mem), or what a
// third party adds. All of them implement API with the same meaning and the same typed errors, which the suite in
// scheme/schemetest holds them to. What only some places can do is an optional capability (capability.go), found with
// As. Mux joins several schemes into one API.
//
// # Conventions
//
// A ref.Ref says where: scheme, root and repository, and, for manifests, tag or digest. Methods that need a manifest
// use the digest if r has one, else the tag, else "latest". Methods that work on a repository ignore both.
//
// Errors are the sentinels of package types/errs, wrapped with operation, place and digest. Every method may also
// return ErrUnauthorized, ErrDenied, ErrRateLimited, ErrUnavailable, ErrUnsupported, ErrNameInvalid, ErrDigestInvalid,
// and the context's error; the methods list the others. Something absent is always ErrNotFound; which finer sentinel
// wraps it (repository, manifest or blob) depends on what the place can tell, as HEAD answers carry no reason.
//
// Every value is safe for concurrent use. The context ends every wait, every read and every retry, and stays in
// force for the streams that a method returned. What a failed or cancelled method was writing is not visible.
package scheme

import (
	"context"
	"io"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ping"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
	"github.com/ocisync/ocisync/types/tag"
)

// API is a place, or all places of a kind. Implementations embed Unimplemented, so that a method added here breaks
// nobody.
type API interface {
	// BlobGet opens the blob d.Digest of r's repository. The stream is verified: a wrong size or digest comes in
	// place of io.EOF. d.Size, when known, must be the blob's. The caller closes the stream; closing it early is legal.
	//
	// Errors: ErrNotFound; from the stream ErrDigestMismatch, ErrSizeMismatch.
	BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...BlobGetOption) (blob.Reader, error)

	// BlobHead reports the size of the blob d.Digest as it really is there; it never echoes d.Size. The media type is
	// d's, or application/octet-stream.
	//
	// Errors: ErrNotFound.
	BlobHead(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...BlobHeadOption) (types.Descriptor, error)

	// BlobPut stores what rdr holds, up to io.EOF, and returns its descriptor. If d has a digest the content must have
	// it, else it is computed with sha256; if d's size is known (types.SizeKnown) it must fit too. Content that is
	// wrong, a reader that fails, and a cancelled context store nothing. Putting what is there already succeeds, and
	// replaces a stored blob that is damaged. When BlobPut returns the blob is durable, as far as the place can
	// promise, unless WithDeferredSync was given.
	//
	// A rdr that is a blob.Source may be opened again, to retry or resume; any other is read once. If the place
	// already has the blob, rdr may be left unread. BlobPut does not close rdr.
	//
	// Errors: ErrDigestMismatch, ErrSizeMismatch, ErrNoSpace, ErrReadOnly, and rdr's own error.
	BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...BlobPutOption) (types.Descriptor, error)

	// BlobDelete removes the blob d.Digest from r's repository, whether or not a manifest needs it.
	//
	// Errors: ErrNotFound, ErrReadOnly.
	BlobDelete(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...BlobDeleteOption) error

	// BlobMount makes the blob d.Digest of src's repository available in tgt's without moving bytes through the
	// caller: a mount within one registry, a hard link, reflink or local copy between layouts. Both refs must be of
	// this scheme. Mounting what is there already succeeds.
	//
	// Errors: ErrNotFound when src lacks the blob; ErrUnsupported when the two places cannot share blobs, and when a
	// registry refuses the mount: the caller then copies.
	BlobMount(ctx context.Context, src, tgt ref.Ref, d types.Descriptor, opts ...BlobMountOption) error

	// ManifestGet reads a manifest, verified. Unknown media types are legal.
	//
	// Errors: ErrNotFound, ErrDigestMismatch, ErrSizeInvalid above types.MaxManifestSize.
	ManifestGet(ctx context.Context, r ref.Ref, opts ...ManifestGetOption) (*manifest.Manifest, error)

	// ManifestHead reports media type, digest and size of a manifest without its bytes.
	//
	// Errors: ErrNotFound.
	ManifestHead(ctx context.Context, r ref.Ref, opts ...ManifestHeadOption) (types.Descriptor, error)

	// ManifestPut stores m, exactly as it is, by its digest and under r's tag, and under the tags of WithTags, all at
	// once or (registries without that request) one after another. If r has a digest it must be m's. A place that
	// stores checks that the referenced content exists (WithSparse turns that off; a subject may always be missing)
	// and names every missing digest, and that it has the sizes that m says; a registry's own answer is relayed. An m
	// with a subject is listed as its referrer afterwards. When ManifestPut returns, the manifest, its tags and
	// everything it reaches are durable.
	//
	// Errors: ErrManifestBlobUnknown with errs.Error.Missing, ErrManifestInvalid (a *manifest.SizeError for a wrong
	// size, of a place that stores), ErrSizeInvalid, ErrDigestMismatch, ErrConflict with WithTagAt, ErrNoSpace, ErrReadOnly.
	ManifestPut(ctx context.Context, r ref.Ref, m *manifest.Manifest, opts ...ManifestPutOption) (manifest.PutResult, error)

	// ManifestDelete removes a manifest and every tag that points to it. r must have a digest: deleting by tag is
	// TagDelete, which keeps the manifest.
	//
	// Errors: ErrNotFound, ErrInvalid when r has no digest, ErrUnsupported where registries forbid it, ErrReadOnly.
	ManifestDelete(ctx context.Context, r ref.Ref, opts ...ManifestDeleteOption) error

	// TagDelete removes r's tag and never the manifest it points to.
	//
	// Errors: ErrNotFound, ErrInvalid when r has no tag, ErrUnsupported where a registry can only delete both,
	// ErrConflict with WithTagDeleteAt, ErrReadOnly.
	TagDelete(ctx context.Context, r ref.Ref, opts ...TagDeleteOption) error

	// TagList lists the repository's tags in byte order. The tags that stand in for a referrers API are left out only
	// where the place itself keeps them for that purpose (a layout); a registry's list is as it answers.
	//
	// Errors: ErrNotFound when there is no such repository. A repository without tags gives an empty list.
	TagList(ctx context.Context, r ref.Ref, opts ...TagListOption) (tag.List, error)

	// ReferrerList lists the manifests that refer to r's manifest. A manifest that is not there, in a repository that
	// is, has no referrers or those that were pushed before it. An error is never an empty list.
	//
	// Errors: ErrNotFound when r has a tag that does not exist, or there is no such repository and the place can tell.
	ReferrerList(ctx context.Context, r ref.Ref, opts ...ReferrerListOption) (referrer.List, error)

	// Ping asks whether r's registry or directory can be reached and used, without changing anything.
	//
	// Errors: those that any use would meet, with a hint what to do.
	Ping(ctx context.Context, r ref.Ref, opts ...PingOption) (ping.Result, error)
}
