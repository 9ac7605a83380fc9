package main

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/internal/yamlfile"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// TestServedPlaces: what an argument of serve names, and under which names its repositories are.
func TestServedPlaces(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, file := range []string{"tree/app/oci-layout", "one/oci-layout", "Upper/index.json", "a=b/x"} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dir := func(path string) ref.Ref { return ref.Ref{Scheme: ref.SchemeOCIDir, Root: path} }
	for arg, want := range map[string]struct {
		name string
		root ref.Ref
	}{
		"./tree":               {"", dir("tree")},
		"./tree/app":           {"app", dir("tree/app")},
		"./tree/app/":          {"app", dir("tree/app")},
		"x/y=./tree":           {"x/y", dir("tree")},
		"./a=b":                {"", dir("a=b")},
		"x=./a=b":              {"x", dir("a=b")},
		"u=./Upper":            {"u", dir("Upper")},
		"docker.io":            {"", ref.MustParse("reg://docker.io")},
		"hub=docker.io":        {"hub", ref.MustParse("reg://docker.io")},
		"localhost:5000":       {"", ref.MustParse("reg://localhost:5000")},
		"ghcr.io/org":          {"org", ref.MustParse("ghcr.io/org")},
		"docker.io/library/up": {"up", ref.MustParse("docker.io/library/up")},
		"x=ghcr.io/org/app":    {"x", ref.MustParse("ghcr.io/org/app")},
		"mem":                  {"", ref.MustParse("mem://memory")},
		"mem://":               {"", ref.MustParse("mem://memory")},
		"fast=mem://a":         {"fast", ref.MustParse("mem://a")},
		"mem://a=b":            {"", ref.MustParse("mem://a=b")},
	} {
		p, err := parseServedPlace(arg)
		if err != nil || p.Name != want.name || p.Root != want.root {
			t.Errorf("%s: %q %+v, %v; want %q %+v", arg, p.Name, p.Root, err, want.name, want.root)
		}
	}
	for arg, says := range map[string]string{
		"tree": "would be a repository of docker.io", "x=org/app": "would be a repository", "./Upper": `no repository can have the name "Upper"`,
		"X=./tree": "is not allowed", "./tree:1.0": "tag or digest", "ghcr.io/org:1": "tag or digest", "=./tree": "", "": "", "x=": "", "http://h/x": "",
	} {
		if p, err := parseServedPlace(arg); err == nil || !strings.Contains(err.Error(), says) || exitCode(err) != exitUsage {
			t.Errorf("%q: %+v, %v (exit code %d); want %q", arg, p, err, exitCode(err), says)
		}
	}
}

// TestPlacesKeepWhatIsSaidOfThem: the places of a file have more than a name.
func TestPlacesKeepWhatIsSaidOfThem(t *testing.T) {
	all, err := parseServed([]placeConfig{{Name: "a", Place: "mem://x", ReadOnly: true}, {Place: "mem://y"}})
	if err != nil || len(all) != 2 || !all[0].ReadOnly || all[1].ReadOnly || all[0].arg != "a=mem://x" {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestALayoutHereHasTheNameOfItsFolder: "." has none of its own.
func TestALayoutHereHasTheNameOfItsFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "app")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, arg := range []string{".", "./", "../app", filepath.ToSlash(dir)} {
		if p, err := parseServedPlace(arg); err != nil || p.Name != "app" {
			t.Errorf("%s: %q, %v", arg, p.Name, err)
		}
	}
}

// TestPlacesOfAFileAreRelativeToIt, and those of other kinds are what they are.
func TestPlacesOfAFileAreRelativeToIt(t *testing.T) {
	for _, c := range []struct{ dir, place, want string }{
		{".", "./m", "./m"}, {"conf", "./m", "./conf/m"}, {"conf", "../m", "./m"}, {"/etc/x", "./m", "/etc/x/m"},
		{"..", "./m", "../m"}, {"conf", "/srv/m", "/srv/m"}, {"conf", "mem://x", "mem://x"}, {"conf", "ghcr.io/org", "ghcr.io/org"}, {"conf", ".", "./conf"},
	} {
		if got := placeBelow(c.dir, c.place); got != c.want {
			t.Errorf("%s in %s: %s, want %s", c.place, c.dir, got, c.want)
		}
	}
}

// TestWhoMayReachTheServerIsWarnedOf: each line for what it says, and none where it is not so.
func TestWhoMayReachTheServerIsWarnedOf(t *testing.T) {
	tcp := func(s string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(s), Port: 5000} }
	const nobody, plain = "there are no users", "without TLS"
	for name, c := range map[string]struct {
		addr   net.Addr
		change func(*serveConfig)
		want   []string
	}{
		"this machine":             {tcp("127.0.0.1"), func(*serveConfig) {}, nil},
		"this machine, by IPv6":    {tcp("::1"), func(*serveConfig) {}, nil},
		"everywhere":               {tcp("0.0.0.0"), func(*serveConfig) {}, []string{nobody + "", "may push and pull", plain, "can change what is pulled"}},
		"everywhere, by IPv6":      {tcp("::"), func(*serveConfig) {}, []string{nobody, plain}},
		"read only":                {tcp("192.0.2.1"), func(c *serveConfig) { c.ReadOnly = true }, []string{nobody, "may pull:", plain}},
		"users":                    {tcp("192.0.2.1"), func(c *serveConfig) { c.Auth.Htpasswd = []string{"f"} }, []string{plain, "can read passwords"}},
		"rules":                    {tcp("192.0.2.1"), func(c *serveConfig) { c.Rules = []ruleConfig{{}} }, []string{plain}},
		"a certificate":            {tcp("192.0.2.1"), func(c *serveConfig) { c.TLS.Cert = "f" }, []string{nobody}},
		"a proxy in front":         {tcp("192.0.2.1"), func(c *serveConfig) { c.TrustedProxies = []network{{}} }, []string{nobody}},
		"users and a certificate":  {tcp("192.0.2.1"), func(c *serveConfig) { c.TLS.Cert, c.Auth.Htpasswd = "f", []string{"f"} }, nil},
		"no port but a local file": {&net.UnixAddr{Name: "/s"}, func(*serveConfig) {}, nil},
	} {
		var said strings.Builder
		a := &app{console: &console{w: &said}}
		conf := newServeConfig()
		c.change(conf)
		a.warnOpen(conf, c.addr)
		for _, text := range c.want {
			if !strings.Contains(said.String(), text) {
				t.Errorf("%s: not warned of %q:\n%s", name, text, &said)
			}
		}
		lines := 0
		for _, text := range []string{nobody, plain} {
			if strings.Contains(strings.Join(c.want, ";"), text) {
				lines++
			}
		}
		if got := strings.Count(said.String(), "WARNING"); got != lines {
			t.Errorf("%s: %d warnings, want %d:\n%s", name, got, lines, &said)
		}
	}
}

// TestDirectoriesThatMayNotBeUsed: what serve says of permissions, as what root may do is not restricted.
func TestDirectoriesThatMayNotBeUsed(t *testing.T) {
	p, err := parseServedPlace(filepath.ToSlash(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	readOnly := p
	readOnly.ReadOnly = true
	place := &pinged{API: mem.New()} // its Ping says that nothing can be written
	conf := newServeConfig()
	err = openServed(t.Context(), place, []served{p}, conf)
	if exitCode(err) != exitNotAllowed || !strings.Contains(hintFor(err), "--read-only") {
		t.Errorf("a directory that cannot be written: %v, try %q", err, hintFor(err))
	}
	if err := openServed(t.Context(), place, []served{readOnly}, conf); err != nil {
		t.Errorf("one that is only read: %v", err)
	}
	conf.ReadOnly = true
	if err := openServed(t.Context(), place, []served{p}, conf); err != nil {
		t.Errorf("a server that only reads: %v", err)
	}
	place.answer(&errs.Error{Op: "ping", Ref: p.Root.String(), Err: errs.ErrDenied})
	if err := openServed(t.Context(), place, []served{p}, conf); exitCode(err) != exitNotAllowed {
		t.Errorf("a directory that cannot be read: %v", err)
	}
}

// TestByteSizes: what is printed is read again, and what is no size is refused.
func TestByteSizes(t *testing.T) {
	for text, want := range map[string]byteSize{"0": 0, "4096": 4096, "4MiB": 4 << 20, "1.5GiB": 3 << 29, "20 GB": 20e9, "1kB": 1000, "7B": 7, "2TiB": 2 << 40} {
		var b byteSize
		if err := b.Set(text); err != nil || b != want {
			t.Errorf("%s: %d, %v; want %d", text, b, err, want)
		}
		var again byteSize
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%s is printed as %s, which is %d: %v", text, b.String(), again, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1e30", "NaN", "inf", "4 miles", "4mb", "4M", "9999999TiB"} {
		var b byteSize
		if err := b.Set(text); err == nil {
			t.Errorf("%q is %d", text, b)
		}
	}
}

// FuzzServeConfig: no file of a server does harm, and what is taken makes options.
func FuzzServeConfig(f *testing.F) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "server.md"))
	if err != nil {
		f.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	f.Add(example)
	for _, s := range []string{"places: [a=./b, {place: mem://}]", "limits: {rate: 0.5, burst: 3, memory: 1kB}", "names: '['", "rules: [{networks: [10.0.0.1]}]", "auth: {users: [{name: a, hash: b}]}", "warnings: [\"\\\"\"]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := newServeConfig()
		if err := yamlfile.Decode("f", []byte(s), c); err != nil {
			if exitCode(err) != exitUsage {
				t.Fatalf("exit code %d: %v", exitCode(err), err)
			}
			return
		}
		c.Auth = authConfig{} // users are files, and secrets of the environment
		if _, err := c.options(slog.New(slog.DiscardHandler)); err != nil {
			t.Fatalf("what was taken cannot be used: %v", err)
		}
	})
}
