// Package regclient joins ocisync's places with those of regclient (github.com/regclient/regclient v0.11.7), in both
// directions: a Scheme is any place of ours as regclient's scheme.API, an API any scheme of regclient's as ours.
//
//	theirs := regclient.NewScheme(ocidir.New())                       // for code that takes regclient's scheme.API
//	ours := regclient.NewAPI(rcreg.New(rcreg.WithSlog(slog.Default()))) // for ocisync.WithScheme, serve, scheme.Mux
//
// RegClient itself takes no schemes but its own two, and its Throttler has types that only it can name; so a Scheme
// serves code that is written against scheme.API, not regclient.New.
//
// # What gets lost on the way
//
// regclient's types cannot hold a manifest of a media type that regclient does not know, so neither direction carries
// one: errs.ErrUnknownType. A Scheme has no garbage collection: Close and the GC locks of regclient's ocidir are not
// implemented, and blobs stay until scheme.Collector removes them. An API tells what regclient's scheme does: its
// ocidir writes without locks and syncs, checks no content of a manifest, and keeps referrers under fallback tags; the
// tests of this package name every rule of ours that it breaks.
package regclient
