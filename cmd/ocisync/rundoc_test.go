package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// docCommand is a command of a documentation page, and what it should say.
type docCommand struct {
	line   string
	output []string // expected lines; nil where none are shown
	fails  string   // the expected exit code, if it is not 0
}

var docExit = regexp.MustCompile(`\s+# exit code (\d+)$`)

// docCommands returns the commands in a page's sh and console blocks.
func docCommands(page string) []docCommand {
	var all []docCommand
	kind := ""
	add := func(line string) {
		c := docCommand{line: line, fails: "0"}
		if m := docExit.FindStringSubmatch(line); m != nil {
			c.line, c.fails = strings.TrimSuffix(line, m[0]), m[1]
		}
		all = append(all, c)
	}
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			if kind == "" {
				kind = strings.TrimPrefix(line, "```")
			} else {
				kind = ""
			}
		case kind == "sh" && line != "":
			add(line)
		case kind == "console" && strings.HasPrefix(line, "$ "):
			add(strings.TrimPrefix(line, "$ "))
		case kind == "console":
			last := &all[len(all)-1]
			last.output = append(last.output, line)
		}
	}
	return all
}

// docPattern is what a command's output must match: … stands for anything in a line, and alone for any lines.
func docPattern(lines []string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, line := range lines {
		if line == "…" {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + `\n`)
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

// docServer is a server that a page starts with "ocisync serve … &" and stops with "kill %1". It listens on a port of
// its own, which stands for the port of the page.
type docServer struct {
	process *serverProcess
	port    string
}

const docPort = ":5000"

// local is a line of the page as it is run.
func (s *docServer) local(line string) string {
	if s == nil {
		return line
	}
	return strings.ReplaceAll(strings.ReplaceAll(line, "localhost"+docPort, "localhost:"+s.port), "127.0.0.1"+docPort, "127.0.0.1:"+s.port)
}

// startDocServer runs a line "ocisync serve … &", and compares what it says with the page.
func startDocServer(ts *testscript.TestScript, c docCommand) *docServer {
	ts.Check(ts.Exec("sh", "-c", "printf '%s\\n' "+strings.TrimSuffix(strings.TrimPrefix(c.line, "ocisync serve "), " &")))
	args := strings.Split(strings.TrimSuffix(ts.ReadFile("stdout"), "\n"), "\n")
	p, err := startServer(ts.MkAbs("."), scriptEnv(ts), nowhere{}, args)
	ts.Check(err)
	ts.Defer(p.kill)
	host, err := p.host()
	ts.Check(err)
	ts.Check(p.await(func(line string) bool { return strings.HasPrefix(line, "  try: ") }))
	_, port, _ := strings.Cut(host, ":")
	s := &docServer{process: p, port: port}
	said := strings.Join(p.first(len(c.output)), "\n") + "\n"
	if want := docPattern(strings.Split(s.local(strings.Join(c.output, "\n")), "\n")); c.output != nil && !want.MatchString(said) {
		ts.Fatalf("%s: it says\n%s\nwant\n%s", c.line, said, strings.Join(c.output, "\n"))
	}
	return s
}

// scriptRunDoc runs every command of a page, and fails where one does not do what the page says. Commands of the go
// tool that build or install are not run; the package they name must exist.
func scriptRunDoc(ts *testscript.TestScript, _ bool, args []string) {
	n := 0
	var server *docServer
	for _, c := range docCommands(ts.ReadFile(args[0])) {
		n++
		line := strings.Replace(c.line, "go run ./cmd/ocisync", "ocisync", 1)
		if strings.HasPrefix(line, "go ") {
			words := strings.Fields(line)
			checkGoCommand(ts, words[1], strings.TrimSuffix(words[len(words)-1], "@latest"))
			continue
		}
		switch {
		case strings.HasPrefix(line, "ocisync serve ") && strings.HasSuffix(line, " &"):
			server = startDocServer(ts, c)
			continue
		case line == "kill %1":
			server.process.end(ts, "INT", 0)
			server = nil
			continue
		}
		line = server.local(line)
		for i := range c.output {
			c.output[i] = server.local(c.output[i])
		}
		if err := ts.Exec("sh", "-c", "{ "+line+"\n} 2>&1; echo exit code $?"); err != nil {
			ts.Fatalf("%s: %v", c.line, err)
		}
		out := ts.ReadFile("stdout")
		out, code, _ := strings.Cut(strings.TrimSuffix(out, "\n"), "exit code ")
		if code != c.fails {
			ts.Fatalf("%s: %s: exit code %s, want %s\n%s", args[0], c.line, code, c.fails, out)
		}
		if c.output != nil && !docPattern(c.output).MatchString(out) {
			ts.Fatalf("%s: %s: the output is not as the page says:\n%s\nwant\n%s", args[0], c.line, out, strings.Join(c.output, "\n"))
		}
	}
	if n < 5 {
		ts.Fatalf("%s: only %d commands were found", args[0], n)
	}
}

func checkGoCommand(ts *testscript.TestScript, verb, pkg string) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	ts.Check(err)
	switch verb {
	case "build", "install", "test":
	default:
		ts.Fatalf("go %s: this test does not know what it does", verb)
	}
	cmd := exec.Command("go", "list", "-find", pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("go %s %s: %v\n%s", verb, pkg, err, out)
	}
}

func TestDocCommandsAreFoundAndCompared(t *testing.T) {
	page := "a\n```sh\nls -l\nfalse # exit code 1\n```\n```text\nno\n```\n```console\n$ x\na…z\n…\nend\n$ y\n```\n"
	got := docCommands(page)
	if len(got) != 4 || got[0].line != "ls -l" || got[1].line != "false" || got[1].fails != "1" || got[2].line != "x" || got[3].output != nil {
		t.Fatalf("%+v", got)
	}
	p := docPattern(got[2].output)
	for out, want := range map[string]bool{
		"abcz\nend\n": true, "az\n1\n2\nend\n": true, "az\n": false, "end\n": false, "az\nend\nmore\n": false, "0az\nend\n": false,
	} {
		if p.MatchString(out) != want {
			t.Errorf("%q: match is %t", out, !want)
		}
	}
}
