// Package containerd lets containerd's own code work on any place that ocisync knows: a Store is one repository as
// containerd's content.Store.
//
//	store := containerd.New(ocidir.New(), ref.Ref{Scheme: ref.SchemeOCIDir, Root: "/srv/images"})
//	err := content.WriteBlob(ctx, store, "layer", rdr, desc)
//
// Blobs, ingests and labels are the repository's: what containerd writes the scheme.API reads, and the other way
// round. docs/interop.md lists where a Store keeps containerd's documented contract and its local store does not.
//
// A content store knows no tags. What is written through a Store is a blob of the repository, and becomes an image
// when somebody puts its manifest under a tag (scheme.API.ManifestPut); before that a garbage collection may remove
// it once it is older than the grace period. containerd's own labels for its collector are kept, and mean nothing to
// ocisync's.
package containerd
