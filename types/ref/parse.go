package ref

import (
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// MaxLength bounds a reference, in bytes: longer ones are refused unread.
const MaxLength = 4096

// Docker Hub's canonical host, and the names that mean it.
const (
	dockerHub     = "docker.io"
	dockerLibrary = "library/"
)

var dockerAliases = map[string]bool{"index.docker.io": true, "registry-1.docker.io": true, "docker.io": true}

// Parse reads a reference of either grammar. Its errors say what is wrong, at which byte, and are errs.ErrInvalid.
func Parse(s string) (Ref, error) {
	if s == "" {
		return Ref{}, invalid(s, 0, "it is empty")
	}
	if len(s) > MaxLength {
		return Ref{}, fmt.Errorf("%w reference: %d bytes are more than %d", errs.ErrInvalid, len(s), MaxLength)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return Ref{}, invalid(s, i, "control characters are not allowed")
		}
	}
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		return parseReg(s, s, 0)
	}
	if at := badScheme(scheme); at >= 0 {
		return Ref{}, invalid(s, at, "a scheme is lower-case letters, digits, '+', '.' and '-', and begins with a letter")
	}
	if scheme == SchemeReg {
		return parseReg(s, rest, len(scheme)+3)
	}
	return parsePath(s, scheme, rest)
}

// MustParse is Parse for references known to be valid, in tests and examples; it panics on an error.
func MustParse(s string) Ref {
	r, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return r
}

// Validate reports what Parse would refuse in a Ref made by hand.
func (r Ref) Validate() error {
	if r.Scheme == "" || badScheme(r.Scheme) >= 0 {
		return fmt.Errorf("%w reference: scheme %q", errs.ErrInvalid, r.Scheme)
	}
	if r.Repo != "" || (r.Scheme == SchemeReg && (r.Tag != "" || r.Digest != "")) {
		if err := ValidRepo(r.Repo); err != nil {
			return err
		}
	}
	if r.Scheme == SchemeReg && !validHost(r.Root) {
		return fmt.Errorf("%w reference: host %q", errs.ErrNameInvalid, r.Root)
	}
	if r.Root == "" {
		return fmt.Errorf("%w reference: %s:// needs a path", errs.ErrInvalid, r.Scheme)
	}
	if r.Tag != "" {
		if err := ValidTag(r.Tag); err != nil {
			return err
		}
	}
	if r.Digest != "" {
		return types.ValidDigest(r.Digest)
	}
	return nil
}

// invalid says what is wrong with s, and where.
func invalid(s string, at int, why string) error {
	return fmt.Errorf("%w reference %q at byte %d: %s", errs.ErrInvalid, s, at+1, why)
}

func badScheme(s string) int {
	if s == "" {
		return 0
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z'
		if letter || (i > 0 && (c >= '0' && c <= '9' || c == '+' || c == '.' || c == '-')) {
			continue
		}
		return i
	}
	return -1
}

// cutDigest splits "@digest" off rest, which begins at byte off of s.
func cutDigest(s, rest string, off int) (string, digest.Digest, error) {
	i := strings.LastIndexByte(rest, '@')
	if i < 0 {
		return rest, "", nil
	}
	d := digest.Digest(rest[i+1:])
	if err := types.ValidDigest(d); err != nil {
		return "", "", fmt.Errorf("reference %q at byte %d: %w", s, off+i+2, err)
	}
	return rest[:i], d, nil
}

// cutTag splits ":tag" off rest: the last colon after the last slash.
func cutTag(s, rest string, off int) (string, string, error) {
	i := strings.LastIndexByte(rest, ':')
	if i < 0 || i < strings.LastIndexByte(rest, '/') {
		return rest, "", nil
	}
	tag := rest[i+1:]
	if err := ValidTag(tag); err != nil {
		return "", "", fmt.Errorf("reference %q at byte %d: %w", s, off+i+2, err)
	}
	return rest[:i], tag, nil
}

func parseReg(s, rest string, off int) (Ref, error) {
	r := Ref{Scheme: SchemeReg}
	rest, d, err := cutDigest(s, rest, off)
	if err != nil {
		return Ref{}, err
	}
	r.Digest = d
	host, repo, slash := strings.Cut(rest, "/")
	if off > 0 && (!slash || repo == "") { // reg://HOST is a registry as a whole
		if r.Digest != "" || !validHost(host) {
			return Ref{}, invalid(s, off, "reg:// needs a host, and a repository before a tag or digest")
		}
		r.Root = canonicalHost(host)
		return r, nil
	}
	at := off
	if slash && (off > 0 || looksLikeHost(host)) {
		if !validHost(host) {
			return Ref{}, invalid(s, off, fmt.Sprintf("%q is not a host", host))
		}
		r.Root, at = canonicalHost(host), off+len(host)+1
	} else {
		r.Root, repo = dockerHub, rest
	}
	repo, r.Tag, err = cutTag(s, repo, at)
	if err != nil {
		return Ref{}, err
	}
	if r.Root == dockerHub && repo != "" && !strings.Contains(repo, "/") {
		repo = dockerLibrary + repo
	}
	if err := ValidRepo(repo); err != nil {
		return Ref{}, fmt.Errorf("reference %q at byte %d: %w", s, at+1, err)
	}
	r.Repo = repo
	return r, nil
}

func canonicalHost(h string) string {
	h = strings.ToLower(h)
	if dockerAliases[h] {
		return dockerHub
	}
	return h
}

func parsePath(s, scheme, rest string) (Ref, error) {
	r := Ref{Scheme: scheme}
	off := len(scheme) + 3
	drive := hasDrive(rest)
	if drive {
		rest = strings.ReplaceAll(rest, `\`, "/")
	}
	rest, d, err := cutDigest(s, rest, off)
	if err != nil {
		return Ref{}, err
	}
	r.Digest = d
	body := rest
	if drive && !strings.Contains(rest[2:], ":") { // the drive's own colon is not a tag's
		body = rest
	} else if body, r.Tag, err = cutTag(s, rest, off); err != nil {
		return Ref{}, err
	}
	if r.Root, err = unescapePath(body); err != nil {
		return Ref{}, fmt.Errorf("reference %q: %w", s, err)
	}
	if r.Root == "" {
		return Ref{}, invalid(s, off, "a path is missing")
	}
	r.Root = cleanPath(r.Root)
	return r, nil
}

// cleanPath makes one spelling of a path, so that one place has one name.
func cleanPath(p string) string {
	if hasDrive(p) {
		rest := strings.ReplaceAll(p[2:], `\`, "/")
		if rest == "" {
			return p[:2]
		}
		return p[:2] + path.Clean(rest)
	}
	return path.Clean(p)
}

func hasDrive(p string) bool {
	return len(p) >= 2 && p[1] == ':' && (p[0]|0x20) >= 'a' && (p[0]|0x20) <= 'z' &&
		(len(p) == 2 || p[2] == '/' || p[2] == '\\')
}
