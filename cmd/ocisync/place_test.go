package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

const testDigest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

func TestAPlaceIsADirectoryByItsBeginning(t *testing.T) {
	t.Chdir(t.TempDir())
	for arg, want := range map[string]ref.Ref{
		"alpine":                {Scheme: "reg", Root: "docker.io", Repo: "library/alpine"},
		"m:1":                   {Scheme: "reg", Root: "docker.io", Repo: "library/m", Tag: "1"},
		"localhost:5000/a:1":    {Scheme: "reg", Root: "localhost:5000", Repo: "a", Tag: "1"},
		"ocidir://m:1":          {Scheme: "ocidir", Root: "m", Tag: "1"},
		"s3://bucket/a":         {Scheme: "s3", Root: "bucket/a"},
		".":                     {Scheme: "ocidir", Root: "."},
		"..":                    {Scheme: "ocidir", Root: ".."},
		"./m":                   {Scheme: "ocidir", Root: "m"},
		"./m/":                  {Scheme: "ocidir", Root: "m"},
		"./m:1.0":               {Scheme: "ocidir", Root: "m", Tag: "1.0"},
		"../a/b:1":              {Scheme: "ocidir", Root: "../a/b", Tag: "1"},
		"/srv/m@" + testDigest:  {Scheme: "ocidir", Root: "/srv/m", Digest: testDigest},
		"./m:1@" + testDigest:   {Scheme: "ocidir", Root: "m", Tag: "1", Digest: testDigest},
		"./a:b/c":               {Scheme: "ocidir", Root: "a:b/c"},
		"./a@b/c:1":             {Scheme: "ocidir", Root: "a@b/c", Tag: "1"},
		"./a:b/":                {Scheme: "ocidir", Root: "a:b"},
		"./a:b/:1":              {Scheme: "ocidir", Root: "a:b", Tag: "1"},
		"./a:b:1":               {Scheme: "ocidir", Root: "a:b", Tag: "1"},
		"./100%/%3A:1":          {Scheme: "ocidir", Root: "100%/%3A", Tag: "1"},
		"./ä ö:1":               {Scheme: "ocidir", Root: "ä ö", Tag: "1"},
		`C:\images\m:1`:         {Scheme: "ocidir", Root: "C:/images/m", Tag: "1"},
		"c:/images/m":           {Scheme: "ocidir", Root: "c:/images/m"},
		"./UPPER:Tag":           {Scheme: "ocidir", Root: "UPPER", Tag: "Tag"},
		"reg://example.com":     {Scheme: "reg", Root: "example.com"},
		"./-dash":               {Scheme: "ocidir", Root: "-dash"},
		"./m/../n//o/./p/../q:": {},
	} {
		got, err := parsePlace(arg)
		if want.IsZero() {
			if err == nil {
				t.Errorf("%s: parsed as %#v", arg, got)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", arg, err)
		} else if got != want {
			t.Errorf("%s:\ngot  %#v\nwant %#v", arg, got, want)
		}
	}
}

func TestADirectoryThatExistsWinsOverATag(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"v:1", "x@y", "both", "both:1", "plain"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skipf("this file system has no directory named %q: %v", dir, err)
		}
	}
	for arg, want := range map[string]string{"./v:1": "v:1", "./x@y": "x@y", "./v:1:2": "v:1 tag 2", "./plain:1": "plain tag 1", "./both:1/": "both:1"} {
		r, err := parsePlace(arg)
		if err != nil {
			t.Errorf("%s: %v", arg, err)
			continue
		}
		got := r.Root
		if r.Tag != "" {
			got += " tag " + r.Tag
		}
		if got != want {
			t.Errorf("%s is %s, want %s", arg, got, want)
		}
	}
	_, err := parsePlace("./both:1")
	if err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), "ambiguous") {
		t.Errorf("two readings: %v", err)
	}
	for _, form := range []string{"./both:1/ ", "./both/:1 "} {
		if !strings.Contains(hintFor(err), form) {
			t.Errorf("the advice %q lacks %q", hintFor(err), form)
		}
	}
}

func TestAnInvalidPlaceIsUsageAndSaysWhereItIsWrong(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("Mirror", 0o755); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]struct{ text, hint string }{
		"Mirror":              {`"M" is not allowed`, "./Mirror for the directory"},
		"a//b":                {"empty component", ""},
		"":                    {"empty", ""},
		"./m:a b":             {`" " is not allowed`, "./m:a b/ if this is a directory"},
		"./m@sha256:12":       {"invalid digest", "./m@sha256:12/ if"},
		"https://ghcr.io/a/b": {"https:// is not how", "ghcr.io/a/b: registries are named without"},
		"docker://alpine":     {"docker:// is not how", "alpine: registries"},
		"~/m":                 {"~", `"$HOME/m"`},
		"oci:./x":             {"oci:", "./x: directories are named"},
		"oci:x/y:1":           {"oci:", "./x/y:1: directories are named"},
		"oci:/srv/x":          {"oci:", "/srv/x: directories are named"},
	} {
		r, err := parsePlace(arg)
		if err == nil {
			t.Errorf("%q: parsed as %#v", arg, r)
			continue
		}
		if exitCode(err) != exitUsage {
			t.Errorf("%q: exit code %d", arg, exitCode(err))
		}
		if !strings.Contains(err.Error(), want.text) {
			t.Errorf("%q: %q does not say %q", arg, err, want.text)
		}
		if !strings.Contains(hintFor(err), want.hint) || strings.HasPrefix(hintFor(err), "././") {
			t.Errorf("%q: advice %q does not say %q", arg, hintFor(err), want.hint)
		}
	}
}

func TestWhatIsDisplayedCanBeTyped(t *testing.T) {
	t.Chdir(t.TempDir())
	rapid.Check(t, func(t *rapid.T) {
		arg := rapid.StringMatching(`(\./|\.\./|/|C:/)[a-c:@%. ]{0,4}(/[a-c:@%. ]{1,4}){0,2}/?(:[a-zA-Z0-9]{1,3})?`).Draw(t, "arg")
		r, err := parsePlace(arg)
		if err != nil {
			return
		}
		again, err := parsePlace(display(r))
		if err != nil {
			t.Fatalf("%q is displayed as %q: %v", arg, display(r), err)
		}
		if again != r {
			t.Fatalf("%q:\nparsed    %#v\ndisplayed %q\nparsed    %#v", arg, r, display(r), again)
		}
		if s := displayName(r.String()); s != display(r) {
			t.Fatalf("%q: displayName(%q) = %q, display = %q", arg, r, s, display(r))
		}
	})
}

func TestABareNameThatIsAFolderGetsAHint(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("mirror/app", 0o755); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]bool{
		"mirror": true, "mirror:1": true, "mirror/app": true,
		"alpine": false, "docker.io/mirror": false, "./mirror": false, "localhost:5000/mirror": false, "reg://mirror/app": false,
	} {
		if got := folderHint(arg); (got != "") != want {
			t.Errorf("%s: hint %q", arg, got)
		}
	}
	denied := &errs.Error{Op: "tag list", Ref: "docker.io/library/mirror", Err: errs.ErrDenied}
	r := ref.MustParse("mirror")
	err := adviseMissing(t.Context(), nil, r, "mirror", denied)
	if !strings.Contains(hintFor(err), "did you mean the directory ./mirror?") || !errors.Is(err, errs.ErrDenied) {
		t.Errorf("%v, advice %q", err, hintFor(err))
	}
}

func TestATargetOnDockerHubThatIsRefusedMayHaveBeenADirectory(t *testing.T) {
	refused := func(place string) error {
		return &errs.Error{Op: "copy", Ref: "a to b", Err: &errs.Error{Op: "blob put", Ref: place, Err: errs.ErrDenied}}
	}
	for _, c := range []struct {
		arg, place string
		want       bool
	}{
		{"mirror", "docker.io/library/mirror", true},
		{"team/mirror", "docker.io/team/mirror", true},
		{"docker.io/team/mirror", "docker.io/team/mirror", false},
		{"reg.lan/mirror", "reg.lan/mirror", false},
		{"mirror", "docker.io/library/source", false}, // the source refused
	} {
		err := adviseTarget(ref.MustParse(c.arg), c.arg, refused(c.place))
		if got := strings.HasPrefix(hintFor(err), "did you mean the directory ./"+c.arg+"?"); got != c.want {
			t.Errorf("%s, refused by %s: advice %q", c.arg, c.place, hintFor(err))
		}
		if exitCode(err) != exitNotAllowed {
			t.Errorf("%s: exit code %d", c.arg, exitCode(err))
		}
	}
}

func TestABareNameThatFailsMayHaveBeenADirectory(t *testing.T) {
	t.Chdir(t.TempDir()) // where there is none of these names
	for _, c := range []struct {
		arg    string
		reason error
		src    bool // whether it is suggested for SRC
		dst    bool
	}{
		{"mirror", errs.ErrUnavailable, true, true},
		{"mirror:1.0", errs.ErrUnavailable, true, true},
		{"mirror", errs.ErrNotFound, true, true},
		{"mirror@" + testDigest, errs.ErrNotFound, true, true},
		{"mirror", errs.ErrUnauthorized, true, true},
		{"mirror", errors.New("anything else"), false, true},
		{"mirror", context.Canceled, false, false},
		{"team/mirror", errs.ErrUnavailable, false, false},
		{"docker.io/mirror", errs.ErrUnavailable, false, false},
		{"my.mirror:1", errs.ErrUnavailable, false, false},
	} {
		r := ref.MustParse(c.arg)
		failure := &errs.Error{Op: "copy", Ref: "a to b", Err: &errs.Error{Op: "manifest head", Ref: r.String(), Err: c.reason}}
		want := "did you mean the directory ./" + c.arg + "?"
		if err := adviseMissing(t.Context(), scheme.NewMux(nil), r, c.arg, failure); strings.Contains(hintFor(err), want) != c.src {
			t.Errorf("SRC %s, %v: advice %q", c.arg, c.reason, hintFor(err))
		}
		if err := adviseTarget(r, c.arg, failure); strings.Contains(hintFor(err), want) != c.dst {
			t.Errorf("DST %s, %v: advice %q", c.arg, c.reason, hintFor(err))
		}
	}
}

func TestARegistrysNameAloneIsTheWholeRegistry(t *testing.T) {
	for arg, want := range map[string]string{
		"localhost:5000": "reg://localhost:5000", "localhost": "reg://localhost", "ghcr.io": "reg://ghcr.io",
		"10.0.0.1:5000/": "reg://10.0.0.1:5000", "reg:5000/": "reg://reg:5000", "[::1]:5000": "reg://[::1]:5000",
		"alpine": "alpine", "alpine:3": "alpine:3", "ghcr.io/a": "ghcr.io/a", "reg://x": "reg://x", "a.b@sha256:00": "a.b@sha256:00",
	} {
		if got := registryArg(arg); got != want {
			t.Errorf("%s: %s, want %s", arg, got, want)
		}
	}
}
