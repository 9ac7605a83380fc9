// Package umoci lets umoci's own code (github.com/opencontainers/umoci v0.6.0, packages oci/casext and mutate) work on
// any place that ocisync knows and that has an index of its own: an Engine is one repository as umoci's cas.Engine.
//
//	engine, err := umoci.Open(ctx, ocidir.New(), ref.Ref{Scheme: ref.SchemeOCIDir, Root: "/srv/image"})
//	paths, err := casext.NewEngine(engine).ResolveReference(ctx, "1.0")
//
// # Concurrent changes of the index
//
// casext changes the index by reading it, changing it and writing it back, and umoci's own engine writes back whatever
// it is given: of 40 tags that are written at once most are lost. An Engine notices: GetIndex marks the index it returns
// (AnnotationState), and PutIndex of an index with that mark fails with cas.ErrClobber, and changes nothing, if somebody
// changed the index since. Nothing is lost silently, and who meets ErrClobber does it again:
//
//	err := umoci.Retry(ctx, func() error { return ext.UpdateReference(ctx, "1.0", desc) })
//
// docs/interop.md lists where an Engine keeps umoci's documented contract and its directory engine does not.
package umoci
