package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// parsePlace reads an argument that names a place. What begins with ./ ../ or / (or is . or ..), or with a Windows
// drive, is a directory in OCI image layout, written PATH[:TAG][@DIGEST]; all else is a reference as package ref reads
// it.
func parsePlace(arg string) (ref.Ref, error) {
	if !isPath(arg) {
		r, err := ref.Parse(registryArg(arg))
		if err != nil {
			return ref.Ref{}, &usageError{text: err.Error(), err: err, hint: hintReference(arg)}
		}
		if hint := hintReference(arg); hint != "" && foreignScheme[r.Scheme] {
			return ref.Ref{}, usagef(hint, "%q: %s:// is not how a place is named here", arg, r.Scheme)
		}
		return r, nil
	}
	return parseDirectory(filepath.ToSlash(arg))
}

// registryArg makes a registry as a whole of an argument that is only its name, as in ghcr.io and localhost:5000: for
// docker these are repositories and tags of Docker Hub, where no such repository is.
func registryArg(arg string) string {
	if strings.Contains(arg, "://") || strings.Contains(arg, "@") {
		return arg
	}
	host, rest, slash := strings.Cut(arg, "/")
	name, _, _ := strings.Cut(host, ":")
	looks := strings.Contains(name, ".") || strings.HasPrefix(name, "[") || name == "localhost"
	if rest == "" && host != "" && (slash || looks) {
		return "reg://" + host
	}
	return arg
}

// foreignScheme has what other tools and browsers write before a registry's name.
var foreignScheme = map[string]bool{"http": true, "https": true, "docker": true, "oci": true}

// isPath tells a directory from a reference by its beginning alone, so that what an argument means does not depend on
// what happens to be in the current folder.
func isPath(arg string) bool {
	p := arg
	if os.IsPathSeparator('\\') {
		p = filepath.ToSlash(arg)
	}
	return p == "." || p == ".." || strings.HasPrefix(p, "./") || strings.HasPrefix(p, "../") ||
		strings.HasPrefix(p, "/") || isDrive(p)
}

// isDrive reports whether p begins with C:\ or C:/, which no reference does: a port would have to follow the colon.
func isDrive(p string) bool {
	return len(p) >= 3 && p[1] == ':' && (p[2] == '/' || p[2] == '\\') && (p[0]|0x20) >= 'a' && (p[0]|0x20) <= 'z'
}

// parseDirectory reads PATH[:TAG][@DIGEST]. Only the last component can hold tag and digest; a slash at its end says
// that it holds neither: ./a:b/ is the directory "a:b", and ./a:b/:1 its tag 1. Without that slash, a directory of
// exactly this name wins over a reading with tag, if only one of the two exists; if both do, the argument is refused.
// Nothing in a path is an escape: 100% is 100%.
func parseDirectory(arg string) (ref.Ref, error) {
	if isDrive(arg) {
		arg = strings.ReplaceAll(arg, `\`, "/")
	}
	cut := strings.LastIndexByte(arg, '/') + 1
	body, tail := splitTail(arg[cut:])
	p := arg[:cut] + body
	if tail != "" && isDirectory(arg) {
		if body != "" && isDirectory(p) {
			return ref.Ref{}, usagef(fmt.Sprintf("%s/ for the directory, or %s/%s for content of %s", arg, p, tail, p),
				"%q is ambiguous: there are directories %s and %s", arg, arg, p)
		}
		p, tail = arg, ""
	}
	return directory(p, tail, arg)
}

// splitTail splits ":TAG@DIGEST", ":TAG" or "@DIGEST" off the last component of a path.
func splitTail(last string) (body, tail string) {
	body = last
	if i := strings.LastIndexByte(body, '@'); i >= 0 {
		body = body[:i]
	}
	if i := strings.LastIndexByte(body, ':'); i >= 0 {
		body = body[:i]
	}
	return body, last[len(body):]
}

// directory returns the Ref of a path, as it is in the file system, and a tail of ":TAG" and "@DIGEST".
func directory(p, tail, arg string) (ref.Ref, error) {
	r, err := ref.Parse(ref.Ref{Scheme: ref.SchemeOCIDir, Root: path.Clean(p)}.String() + tail)
	if err != nil {
		hint := ""
		if tail != "" {
			hint = arg + "/ if this is a directory's name, not a tag or digest"
		}
		return ref.Ref{}, &usageError{text: fmt.Sprintf("invalid directory %q: %s", arg, plain(err)), err: err, hint: hint}
	}
	return r, nil
}

// plain returns what a parse error says without the reference it repeats, which is not what the user typed.
func plain(err error) string {
	if inner := errors.Unwrap(err); inner != nil && inner != errs.ErrInvalid {
		return inner.Error()
	}
	return err.Error()
}

// display prints r as a user would type it: parsePlace reads it back.
func display(r ref.Ref) string {
	if r.Scheme != ref.SchemeOCIDir {
		return r.String()
	}
	p := path.Clean(r.Path())
	if !isPath(p) {
		p = "./" + p
	}
	tail := ""
	if r.Tag != "" {
		tail += ":" + r.Tag
	}
	if r.Digest != "" {
		tail += "@" + string(r.Digest)
	}
	base := p[strings.LastIndexByte(p, '/')+1:]
	if strings.ContainsAny(base, ":@") || tail != "" && (p == "." || p == "..") {
		p += "/" // what follows is not part of the name
	}
	return p + tail
}

// displayName is display for a reference that another package printed.
func displayName(s string) string {
	r, err := ref.Parse(s)
	if err != nil {
		return printable(s)
	}
	return printable(display(r))
}

func isDirectory(p string) bool {
	info, err := os.Stat(filepath.FromSlash(p))
	return err == nil && info.IsDir()
}

// dockerHub is the registry of names without one.
const dockerHub = "docker.io"

// isShort reports whether arg names r, a repository of Docker Hub, without its registry.
func isShort(arg string, r ref.Ref) bool {
	return r.Scheme == ref.SchemeReg && r.Root == dockerHub && !strings.Contains(arg, "://") && !strings.HasPrefix(arg, dockerHub+"/")
}

// folderHint returns what to type instead when arg was read as a repository of Docker Hub, and is a folder, too.
func folderHint(arg string) string {
	r, err := ref.Parse(arg)
	if err != nil || !isShort(arg, r) {
		return ""
	}
	name := strings.TrimSuffix(arg, ":"+r.Tag)
	if !isDirectory(name) {
		return ""
	}
	return folderQuestion(arg, r)
}

// folderQuestion asks whether arg, which was read as r, was meant as a directory.
func folderQuestion(arg string, r ref.Ref) string {
	return fmt.Sprintf("did you mean the directory ./%s? %q is a repository of %s", arg, arg, r.Root)
}

// isBare reports whether arg is a short name of r without a slash or dot, as folders are often named.
func isBare(arg string, r ref.Ref) bool {
	name, _, _ := strings.Cut(arg, "@")
	name = strings.TrimSuffix(name, ":"+r.Tag)
	return isShort(arg, r) && !strings.ContainsAny(name, "/.")
}

// asPath writes name as a path that is recognised as one.
func asPath(name string) string {
	if isPath(name) {
		return name
	}
	return "./" + name
}

// hintReference explains an argument that is no reference, where the reason can be guessed.
func hintReference(arg string) string {
	switch {
	case strings.HasPrefix(arg, "~"):
		return `"$HOME` + strings.TrimPrefix(arg, "~") + `": the shell did not expand ~`
	case isDirectory(arg):
		return "./" + arg + " for the directory"
	case strings.HasPrefix(arg, "http://"), strings.HasPrefix(arg, "https://"):
		_, name, _ := strings.Cut(arg, "://")
		return name + ": registries are named without http:// or https:// (see --plain-http)"
	case strings.HasPrefix(arg, "docker://"):
		return strings.TrimPrefix(arg, "docker://") + ": registries are named without docker://"
	case strings.HasPrefix(arg, "oci:"):
		return asPath(strings.TrimPrefix(arg, "oci:")) + ": directories are named by a path that begins with ./ or /"
	}
	return ""
}
