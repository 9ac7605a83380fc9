// Package ref names content in any place.
//
// A Ref is a comparable value: scheme, root, repository, tag and digest. Two grammars print and parse it.
//
// References of the scheme "reg" are Docker's: [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST], optionally after "reg://".
// A name without a host is on Docker Hub, and without a slash below library/: alpine is docker.io/library/alpine.
//
// All other schemes share NAME://PATH[:TAG][@DIGEST]. The tag begins at the last colon after the last separator. A
// path that itself holds ':', '@' or '%' in a place where they would be misread writes them %3A, %40 and %25. A path
// may begin with a Windows drive on every system. Schemes need not be known to anybody: s3://bucket/x parses.
//
// Parse adds no default tag. Parse and String are inverses: parsing what String printed gives the same place, tag
// and digest, and the identical value when it came from Parse.
package ref

import (
	"strings"

	"github.com/opencontainers/go-digest"
)

// SchemeReg is the scheme of registries that are spoken to over HTTP.
const SchemeReg = "reg"

// SchemeOCIDir is the scheme of directories in OCI image layout.
const SchemeOCIDir = "ocidir"

// DefaultTag is what operations that need a tag use when a reference has neither tag nor digest.
const DefaultTag = "latest"

// Ref names a place (Scheme, Root, Repo) and optionally something in it (Tag, Digest). The zero value names nothing.
// Refs made by hand are not checked; Validate does that.
type Ref struct {
	Scheme string // "reg", "ocidir", "mem", …
	Root   string // the registry's host[:port], or the path of a folder
	Repo   string // the repository below Root; empty for a single layout, and for a registry as a whole
	Tag    string
	Digest digest.Digest
}

// IsZero reports whether r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// Place returns r without tag and digest.
func (r Ref) Place() Ref {
	r.Tag, r.Digest = "", ""
	return r
}

// Base returns the registry or tree that r's repository is in: r without repository, tag and digest.
func (r Ref) Base() Ref { return Ref{Scheme: r.Scheme, Root: r.Root} }

// WithRepo names a repository below r, in place of the one r names.
func (r Ref) WithRepo(repo string) Ref { return Ref{Scheme: r.Scheme, Root: r.Root, Repo: repo} }

// WithTag names a tag in r's place. It drops the digest: the tag may point elsewhere.
func (r Ref) WithTag(tag string) Ref {
	r.Tag, r.Digest = tag, ""
	return r
}

// WithDigest names the content with digest d in r's place. It drops the tag.
func (r Ref) WithDigest(d digest.Digest) Ref {
	r.Tag, r.Digest = "", d
	return r
}

// OrLatest returns r with the tag "latest" if it has neither tag nor digest.
func (r Ref) OrLatest() Ref {
	if r.Tag == "" && r.Digest == "" {
		r.Tag = DefaultTag
	}
	return r
}

// Reference returns what stands for the manifest in a request: the digest, else the tag, else "latest".
func (r Ref) Reference() string {
	if r.Digest != "" {
		return string(r.Digest)
	}
	return r.OrLatest().Tag
}

// Path is Root joined with Repo by a slash. Together with Scheme it identifies the place.
func (r Ref) Path() string {
	switch {
	case r.Repo == "":
		return r.Root
	case strings.HasSuffix(r.Root, "/"):
		return r.Root + r.Repo
	default:
		return r.Root + "/" + r.Repo
	}
}

// SamePlace reports whether a and b name the same repository or layout, however it is divided into Root and Repo.
func SamePlace(a, b Ref) bool { return a.Scheme == b.Scheme && a.Path() == b.Path() }

// String prints r so that Parse reads it back.
func (r Ref) String() string {
	if r.IsZero() {
		return ""
	}
	var b strings.Builder
	if r.Scheme == SchemeReg {
		b.WriteString(r.Path())
		if r.Repo == "" || !looksLikeHost(r.Root) { // a whole registry, or a host that would be read as a repository
			b.Reset()
			b.WriteString("reg://" + r.Path())
		}
	} else {
		b.WriteString(r.Scheme + "://" + escapePath(r.Path()))
	}
	if r.Tag != "" {
		b.WriteString(":" + r.Tag)
	}
	if r.Digest != "" {
		b.WriteString("@" + string(r.Digest))
	}
	return b.String()
}
