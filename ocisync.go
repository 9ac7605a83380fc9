// Package ocisync copies OCI images between the places that hold them: registries, directories in OCI image layout,
// and whatever else implements scheme.API.
//
//	c := ocisync.New()
//	defer c.Close()
//	report, err := c.Copy(ctx, ref.MustParse("alpine:3"), ref.MustParse("ocidir://./mirror:3"))
//
// A Client knows the schemes "reg" (registries, also what a reference without a scheme means) and "ocidir". Its parts
// can be used alone: package scheme is the interface, scheme/reg and scheme/ocidir are two implementations of it, and
// scheme/serve makes any implementation a registry.
package ocisync
