package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// served is a place to serve, and the argument that named it.
type served struct {
	serve.Place
	arg string
}

// parseServed reads places as they are on the command line and in a file.
func parseServed(all []placeConfig) ([]served, error) {
	if len(all) == 0 {
		return nil, usagef("ocisync serve ./mirror", "ocisync serve: PLACE is missing")
	}
	var out []served
	by := map[string]served{}
	for _, c := range all {
		p, err := parseServedPlace(c.arg())
		if err != nil {
			return nil, err
		}
		p.ReadOnly = c.ReadOnly
		if other, twice := by[p.Name]; twice {
			return nil, errSameName(other, p)
		}
		by[p.Name] = p
		out = append(out, p)
	}
	return out, nil
}

// parseServedPlace reads [NAME=]PLACE, and finds the name of a place that has none.
func parseServedPlace(arg string) (served, error) {
	p, err := parseNamedPlace(arg)
	if err == nil && p.Name == "" {
		p.Name, err = ownName(p.Root, arg)
	}
	return p, err
}

// parseNamedPlace reads [NAME=]PLACE, and nothing but the argument.
func parseNamedPlace(arg string) (served, error) {
	if rest, ok := strings.CutPrefix(arg, "="); ok {
		return served{}, usagef("NAME="+rest+", or "+rest+" alone", "%q: there is no name before the =", arg)
	}
	name, place := cutServedName(arg)
	r, err := parsePlace(memoryArg(place))
	switch {
	case err != nil:
		return served{}, err
	case r.Repo != "" && isShort(place, r): // few mean Docker Hub, and many forget the "./"
		return served{}, usagef(fmt.Sprintf("%s for the directory, or %s for the repository", asPath(place), display(r)),
			"%q would be a repository of %s", place, r.Root)
	case r.Tag != "" || r.Digest != "":
		return served{}, usagef("ocisync serve "+display(r.Place()), "%s has a tag or digest: serve takes places", arg)
	case name != "" && ref.ValidRepo(name) != nil:
		return served{}, usagef("lower-case letters, digits and dashes, as in team/app="+place, "%q: %w", arg, ref.ValidRepo(name))
	}
	return served{Place: serve.Place{Name: name, Root: r}, arg: arg}, nil
}

// cutServedName splits NAME=PLACE. No registry's name has the character =, and a path begins like one.
func cutServedName(arg string) (name, place string) {
	name, place, named := strings.Cut(arg, "=")
	if !named || name == "" || isPath(arg) || strings.Contains(name, "://") {
		return "", arg
	}
	return name, place
}

// memoryArg lets memory go without a name, as one is enough for most.
func memoryArg(place string) string {
	if place == mem.Scheme || place == mem.Scheme+"://" {
		return mem.Scheme + "://memory"
	}
	return place
}

// ownName is under which name a place is served that was given none: a repository under the last component of its own,
// as its root has no name otherwise, and everything else under all names that no other place has.
func ownName(r ref.Ref, arg string) (string, error) {
	var name string
	switch {
	case r.Scheme == ref.SchemeReg && r.Repo != "":
		name = path.Base(r.Repo)
	case r.Scheme == ref.SchemeOCIDir && isLayout(r):
		abs, err := filepath.Abs(filepath.FromSlash(r.Path()))
		if err != nil {
			return "", err
		}
		name = filepath.Base(abs)
	}
	if name != "" && ref.ValidRepo(name) != nil {
		return "", usagef("app="+arg, "%s is one layout, and no repository can have the name %q", arg, name)
	}
	return name, nil
}

// isLayout reports whether the top of a directory is a layout.
func isLayout(r ref.Ref) bool {
	for _, file := range []string{"oci-layout", "index.json"} {
		if fi, err := os.Stat(filepath.Join(filepath.FromSlash(r.Path()), file)); err == nil && fi.Mode().IsRegular() {
			return true
		}
	}
	return false
}

func errSameName(a, b served) error {
	if a.Name == "" {
		return usagef(fmt.Sprintf("NAME=%s, and repositories are NAME/… then", b.arg),
			"%s and %s: only one place can do without a name", a.arg, b.arg)
	}
	return usagef("another name: NAME="+display(b.Root), "%s and %s would both be %q", a.arg, b.arg, a.Name)
}

// openServed checks that the directories among places can be served, and with --create makes those that are missing.
// Registries are asked when somebody asks for something of theirs.
func openServed(ctx context.Context, api scheme.API, places []served, c *serveConfig) error {
	for _, p := range places {
		var err error
		switch p.Root.Scheme {
		case ref.SchemeReg:
		case ref.SchemeOCIDir:
			err = openDirectory(ctx, api, p, c)
		default:
			_, err = api.Ping(ctx, p.Root) // there may be no such scheme
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func openDirectory(ctx context.Context, api scheme.API, p served, c *serveConfig) error {
	dir := filepath.FromSlash(p.Root.Path())
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && c.Create:
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return &errs.Error{Op: "serve", Ref: p.Root.String(), Err: ioKind(err)}
		}
	case errors.Is(err, fs.ErrNotExist):
		return &hinted{fmt.Errorf("serve %s: %w: there is no such directory", display(p.Root), errs.ErrNotFound),
			fmt.Sprintf("ocisync serve --create %s to make it", p.arg)}
	case err != nil:
		return &errs.Error{Op: "serve", Ref: p.Root.String(), Err: ioKind(err)}
	case !fi.IsDir():
		return usagef("", "serve %s: it is a file, not a directory", display(p.Root))
	}
	res, err := api.Ping(ctx, p.Root)
	switch {
	case errors.Is(err, errs.ErrClobber) && hasLayouts(ctx, api, p.Root):
		return nil // files of somebody else beside the layouts are no business of ours
	case err != nil:
		return err
	case !res.Writable && !c.ReadOnly && !p.ReadOnly:
		return &hinted{fmt.Errorf("serve %s: %w: this user may not write there", display(p.Root), errs.ErrDenied),
			"--read-only, or a directory that belongs to this user"}
	}
	return nil
}

// hasLayouts reports whether there is a layout below r.
func hasLayouts(ctx context.Context, api scheme.API, r ref.Ref) bool {
	var lister scheme.RepoLister
	found := false
	if !scheme.As(api, r, &lister) {
		return false
	}
	err := lister.RepoList(ctx, r, "", func(string) error {
		found = true
		return io.EOF
	})
	return err == nil && found
}

// ioKind makes an error of the file system one that has an exit code.
func ioKind(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", errs.ErrDenied, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", errs.ErrNotFound, err)
	}
	return err
}
