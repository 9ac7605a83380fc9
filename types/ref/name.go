package ref

import (
	"fmt"
	"strings"

	"github.com/ocisync/ocisync/types/errs"
)

// The grammar of the distribution specification, "Pulling manifests":
//
//	name: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
//	tag:  [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}

// MaxRepoLength bounds a repository's name, in bytes; the specification advises 255 for host and name together.
const MaxRepoLength = 255

// ValidRepo reports why name is not a repository's name; the error is errs.ErrNameInvalid.
func ValidRepo(name string) error {
	if name == "" {
		return fmt.Errorf("%w: the repository is missing", errs.ErrNameInvalid)
	}
	if len(name) > MaxRepoLength {
		return fmt.Errorf("%w: a repository of %d bytes, more than %d", errs.ErrNameInvalid, len(name), MaxRepoLength)
	}
	for _, c := range strings.Split(name, "/") {
		if err := validComponent(name, c); err != nil {
			return err
		}
	}
	return nil
}

func validComponent(name, c string) error {
	if c == "" {
		return fmt.Errorf("%w: repository %q has an empty component", errs.ErrNameInvalid, name)
	}
	for i := 0; i < len(c); {
		if isLowerAlnum(c[i]) {
			i++
			continue
		}
		sep := i
		for i < len(c) && !isLowerAlnum(c[i]) {
			i++
		}
		s := c[sep:i]
		switch {
		case strings.Trim(s, "._-") != "":
			bad := strings.TrimLeft(s, "._-")
			return fmt.Errorf("%w: repository %q: %q is not allowed (lower-case letters, digits, '.', '_', '-' and '/' are)", errs.ErrNameInvalid, name, firstRune(bad))
		case sep == 0 || i == len(c):
			return fmt.Errorf("%w: repository %q: component %q begins or ends with a separator", errs.ErrNameInvalid, name, c)
		case s != "." && s != "_" && s != "__" && strings.Trim(s, "-") != "":
			return fmt.Errorf("%w: repository %q: separator %q is not one of '.', '_', '__' and dashes", errs.ErrNameInvalid, name, s)
		}
	}
	return nil
}

func firstRune(s string) string {
	for _, r := range s {
		return string(r)
	}
	return s
}

func isLowerAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func isAlnum(c byte) bool { return isLowerAlnum(c) || c >= 'A' && c <= 'Z' }

// ValidTag reports why tag is not a tag; the error is errs.ErrNameInvalid.
func ValidTag(tag string) error {
	if tag == "" {
		return fmt.Errorf("%w: the tag is empty", errs.ErrNameInvalid)
	}
	if len(tag) > 128 {
		return fmt.Errorf("%w: a tag of %d bytes, more than 128", errs.ErrNameInvalid, len(tag))
	}
	for i := range len(tag) {
		c := tag[i]
		if isAlnum(c) || c == '_' || i > 0 && (c == '.' || c == '-') {
			continue
		}
		return fmt.Errorf("%w: tag %q: %q is not allowed at byte %d", errs.ErrNameInvalid, tag, firstRune(tag[i:]), i+1)
	}
	return nil
}

// looksLikeHost tells a registry from the first component of a Docker Hub name, as Docker does: it has a dot or a
// port, or is localhost, or has an upper-case letter, which no repository may have.
func looksLikeHost(s string) bool {
	return s == "localhost" || strings.ContainsAny(s, ".:") || strings.ToLower(s) != s
}

// validHost accepts names, IPv4 and bracketed IPv6 addresses, each with an optional port.
func validHost(h string) bool {
	name, port := h, ""
	if strings.HasPrefix(h, "[") {
		end := strings.IndexByte(h, ']')
		if end < 0 || strings.Trim(h[1:end], "0123456789abcdefABCDEF:.") != "" || !strings.Contains(h[1:end], ":") {
			return false
		}
		rest := h[end+1:]
		if rest == "" {
			return true
		}
		if rest[0] != ':' {
			return false
		}
		return validPort(rest[1:])
	}
	if i := strings.IndexByte(h, ':'); i >= 0 {
		name, port = h[:i], h[i+1:]
		if !validPort(port) {
			return false
		}
	}
	if name == "" || len(name) > 253 {
		return false
	}
	for _, label := range strings.Split(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isAlnum(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

func validPort(p string) bool {
	if p == "" || len(p) > 5 || strings.Trim(p, "0123456789") != "" {
		return false
	}
	n := 0
	for i := range len(p) {
		n = n*10 + int(p[i]-'0')
	}
	return n > 0 && n < 65536
}
