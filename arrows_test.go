package ocisync_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ocisync/ocisync"

// An arrow says what a package may import itself.
type arrow struct {
	pkg  string
	may  []string // packages of this module
	libs []string // third-party modules, golang.org/x among them
}

// The arrows of docs/architecture.md: which package may import which. Packages are named below the module; "." is
// package ocisync, and "x/..." is x and everything below it. A package of this module that has no line here fails the
// test: who adds one says where it belongs. What a test imports is free.
var arrows = []arrow{
	{"types", []string{"types/errs"}, []string{digestLib, imageSpec}},
	{"types/errs", nil, []string{digestLib}},
	{"types/platform", []string{"types", "types/errs"}, []string{regclient}},
	{"types/...", []string{"types/..."}, []string{digestLib, imageSpec}},

	{"scheme", []string{"types/..."}, []string{digestLib, xSync}},
	{"scheme/mem", []string{"scheme", "types/..."}, []string{digestLib}},
	{"scheme/schemetest", []string{"scheme", "scheme/mem", "types/..."}, []string{digestLib, imageSpec, xSync, goCmp, rapid}},
	{"scheme/ocidir/...", []string{"scheme", "types/...", "scheme/ocidir/..."}, []string{digestLib, imageSpec, xSync, xSys}},
	{"scheme/reg/...", []string{"scheme", "types/...", "internal/ocihttp", "scheme/reg/..."}, []string{digestLib, imageSpec, xSync, xTime, oras}},
	{"scheme/serve", []string{"scheme", "types/...", "internal/ocihttp", "scheme/serve/spool"}, []string{digestLib, imageSpec, xSync, xTime}},
	{"scheme/serve/access", []string{"scheme/serve", "types/...", "internal/ocihttp"}, []string{crypto}},
	{"scheme/serve/spool", []string{"scheme", "types/...", "scheme/ocidir"}, nil}, // keeps uploads for places that cannot

	{"internal/ocihttp", []string{"types/..."}, []string{digestLib, imageSpec}},
	{"internal/spell", nil, nil},
	{"internal/memdir", nil, nil}, // for tests
	{"internal/yamlfile", []string{"types/errs", "internal/spell"}, []string{yaml}},
	{"internal/engine/...", []string{"scheme", "types/...", "internal/engine/..."}, []string{digestLib, imageSpec, xSync, xTime}},
	{".", []string{"scheme", "scheme/reg", "scheme/ocidir", "types/...", "internal/engine/..."}, []string{digestLib, imageSpec, xSync}},
	{"mirror/...", []string{".", "scheme", "types/...", "internal/engine/...", "mirror/..."}, []string{digestLib, imageSpec, xSync, xTime, yaml, semver}},

	// The command may use everything that is public, and the modules that a library must not impose on anybody.
	{"cmd/...", []string{".", "scheme/...", "mirror/...", "types/...", "cmd/...", "testdata", "internal/spell", "internal/yamlfile"}, []string{
		digestLib, imageSpec, xSync, xTime, xSys, xTerm, oras, cobra, pflag, mpb, runewidth, yaml, semver, crypto,
	}},

	{"testdata/...", []string{"types/...", "testdata/..."}, []string{digestLib, imageSpec}},
	{"bench/...", []string{".", "scheme/...", "types/...", "bench/..."}, []string{digestLib, imageSpec, xSync}},
}

const (
	digestLib = "github.com/opencontainers/go-digest"
	imageSpec = "github.com/opencontainers/image-spec"
	regclient = "github.com/regclient/regclient"
	oras      = "oras.land/oras-go/v2"
	xSync     = "golang.org/x/sync"
	xSys      = "golang.org/x/sys"
	xTime     = "golang.org/x/time"
	xTerm     = "golang.org/x/term"
	crypto    = "golang.org/x/crypto"
	goCmp     = "github.com/google/go-cmp"
	rapid     = "pgregory.net/rapid"
	cobra     = "github.com/spf13/cobra"
	pflag     = "github.com/spf13/pflag"
	mpb       = "github.com/vbauerster/mpb/v8"
	runewidth = "github.com/mattn/go-runewidth"
	yaml      = "github.com/goccy/go-yaml"
	semver    = "github.com/Masterminds/semver/v3"
)

// linked is what may be in a program that uses the library: what it imports directly, and what that brings along.
// schemetest is for tests, and is not part of this.
var linked = []string{
	digestLib, imageSpec, regclient, oras, xSync, xSys, xTime, yaml, semver, crypto,
}

// impure is what the vocabulary must not import itself: it is data.
var impure = []string{"os", "os/...", "net", "net/...", "syscall", "os/exec", "path/filepath", "log", "log/...", "flag", "testing"}

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
	Module     *struct{ Path string }
	Error      *struct{ Err string }
}

// below names a package of this module, or returns false.
func below(path string) (string, bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}

// matches reports whether name is one of patterns.
func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		base, all := strings.CutSuffix(p, "/...")
		return name == base || all && strings.HasPrefix(name, base+"/")
	})
}

// list is go list -deps -json for this module. It works offline: all modules that the build needs are at hand.
func list(t *testing.T) map[string]*goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-json=ImportPath,Imports,Deps,Standard,Module,Error", "./...")
	cmd.Env = append(cmd.Environ(), "GOFLAGS=-mod=readonly", "GOPROXY=off", "GOTOOLCHAIN=local", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s\nrun \"go mod download\" if a module is missing from the module cache", err, &stderr)
	}
	all := map[string]*goPackage{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("reading what go list printed: %v", err)
		}
		if p.Error != nil && p.Module != nil && p.Module.Path != module {
			t.Fatalf("go list: %s: %s\nrun \"go mod download\" if a module is missing from the module cache", p.ImportPath, p.Error.Err)
		}
		all[p.ImportPath] = &p
	}
}

func TestArrows(t *testing.T) {
	all := list(t)
	if len(all) < 20 {
		t.Fatalf("go list knows only %d packages: nothing can be said", len(all))
	}
	for path, p := range all {
		name, ours := below(path)
		if !ours {
			continue
		}
		i := slices.IndexFunc(arrows, func(a arrow) bool { return matches(name, []string{a.pkg}) })
		if i < 0 {
			t.Errorf("package %s has no line in the table of arrows_test.go: add one that says what it may import", name)
			continue
		}
		for _, imp := range p.Imports {
			to, inside := below(imp)
			switch dep := all[imp]; {
			case inside && !matches(to, arrows[i].may) && to != name:
				t.Errorf("%s imports %s: the arrows allow it %q. Move what they share into types, scheme or internal, or pass it in", name, to, arrows[i].may)
			case !inside && dep != nil && dep.Module != nil && !slices.Contains(arrows[i].libs, dep.Module.Path):
				t.Errorf("%s imports %s of module %s: the budget allows it %q. A new dependency needs a line in docs/architecture.md, and then one in arrows_test.go", name, imp, dep.Module.Path, arrows[i].libs)
			}
		}
	}
}

func TestTypesArePureData(t *testing.T) {
	for path, p := range list(t) {
		if name, ours := below(path); !ours || !matches(name, []string{"types/..."}) {
			continue
		}
		for _, imp := range p.Imports {
			if matches(imp, impure) {
				t.Errorf("%s imports %s: the vocabulary opens no file, speaks no network and prints nothing", path, imp)
			}
		}
	}
}

func TestLibraryLinksNothingForTerminalsOrMetrics(t *testing.T) {
	all := list(t)
	for path, p := range all {
		name, ours := below(path)
		if !ours || matches(name, []string{"cmd/...", "bench/...", "testdata/...", "scheme/schemetest"}) {
			continue
		}
		told := map[string]bool{}
		for _, dep := range p.Deps {
			d := all[dep]
			if d == nil || d.Module == nil || d.Module.Path == module || slices.Contains(linked, d.Module.Path) || told[d.Module.Path] {
				continue
			}
			told[d.Module.Path] = true
			t.Errorf("%s links module %s (through %s): who uses the library would get it too. If it is needed, and is nothing for commands, terminals or metrics, add it to \"linked\" in arrows_test.go", name, d.Module.Path, dep)
		}
	}
}

// TestArrowsTable holds that the table says what it means: no line hides behind an earlier one, and implementations
// are not allowed each other.
func TestArrowsTable(t *testing.T) {
	implementations := []string{"scheme/mem", "scheme/ocidir", "scheme/reg", "scheme/serve"}
	for i, a := range arrows {
		base := strings.TrimSuffix(a.pkg, "/...")
		for _, before := range arrows[:i] {
			if strings.HasSuffix(before.pkg, "/...") && matches(base, []string{before.pkg}) {
				t.Errorf("the line of %s is hidden by that of %s", a.pkg, before.pkg)
			}
		}
		for _, other := range implementations {
			if slices.Contains(implementations, base) && base != other && matches(other, a.may) {
				t.Errorf("%s may import %s: implementations never import each other", a.pkg, other)
			}
		}
	}
}
