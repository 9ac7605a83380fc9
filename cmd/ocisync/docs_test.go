package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ocisync/ocisync/internal/yamlfile"
)

// TestCLIReferenceIsUpToDate holds docs/cli.md to what the commands say about themselves. UPDATE=1 writes it anew.
func TestCLIReferenceIsUpToDate(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "cli.md")
	got := cliReference()
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/cli.md is out of date (UPDATE=1 go test ./cmd/ocisync writes it anew):\n%s", diff)
	}
}

// TestEveryCommandExplainsItself: what help and the reference are made of is there.
func TestEveryCommandExplainsItself(t *testing.T) {
	all := testRoot().Commands()
	for _, c := range all {
		all = append(all, c.Commands()...)
	}
	for _, c := range all {
		if c.Name() == "completion" || c.Name() == "help" || c.Parent().Name() == "completion" {
			continue // cobra's own
		}
		if c.Short == "" || (c.Long == "" && c.Name() != "version") {
			t.Errorf("%s has no description", c.Name())
		}
		if c.Runnable() && len(c.Long) > 0 && !strings.HasPrefix(c.Long, c.Name()+" ") {
			t.Errorf("%s: the description does not begin with its name", c.Name())
		}
		for line := range strings.Lines(c.Long) {
			if len([]rune(line)) > 110 {
				t.Errorf("%s: a line of %d columns: %s", c.Name(), len([]rune(line)), line)
			}
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s has no description", c.Name(), f.Name)
			}
		})
	}
}

func testRoot() *cobra.Command {
	a := &app{out: &output{w: &bytes.Buffer{}}, console: &console{w: &bytes.Buffer{}}}
	root := a.rootCommand()
	root.InitDefaultHelpFlag()
	root.InitDefaultCompletionCmd()
	return root
}

// cliReference is the text of docs/cli.md.
func cliReference() []byte {
	root := testRoot()
	var b bytes.Buffer
	b.WriteString("# ocisync: commands\n\n<!-- Made from the commands themselves by UPDATE=1 go test ./cmd/ocisync. Do not edit. -->\n\n")
	b.WriteString(root.Long + "\n\n")
	var topics []*cobra.Command
	for _, c := range root.Commands() {
		switch {
		case c.IsAdditionalHelpTopicCommand():
			topics = append(topics, c)
		case c.Name() != "completion" && c.Name() != "help" && !c.Hidden:
			commandReference(&b, c)
			for _, sub := range c.Commands() {
				commandReference(&b, sub)
			}
		}
	}
	b.WriteString("## ocisync completion\n\n`ocisync completion bash|zsh|fish|powershell` prints a script that completes commands, flags and their values;\n`ocisync completion SHELL --help` says where it goes.\n\n")
	b.WriteString("## Flags of every command\n\n")
	flagTable(&b, root.PersistentFlags())
	for _, c := range topics {
		fmt.Fprintf(&b, "## %s\n\n```text\n%s\n```\n\n", c.Short, c.Long)
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}

func commandReference(b *bytes.Buffer, c *cobra.Command) {
	fmt.Fprintf(b, "## %s\n\n%s.\n\n```text\n%s\n```\n\n", c.CommandPath(), c.Short, c.UseLine())
	if c.Long != "" {
		b.WriteString(c.Long + "\n\n")
	}
	if c.Example != "" {
		fmt.Fprintf(b, "```text\n%s\n```\n\n", c.Example)
	}
	if c.HasAvailableLocalFlags() {
		flagTable(b, c.NonInheritedFlags())
	}
}

func flagTable(b *bytes.Buffer, flags *pflag.FlagSet) {
	b.WriteString("| flag | meaning |\n|---|---|\n")
	flags.SortFlags = false
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		kind, usage := pflag.UnquoteUsage(f)
		if kind != "" {
			name += " " + kind
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		escape := strings.NewReplacer("|", `\|`, "*", `\*`, "<", "&lt;").Replace
		fmt.Fprintf(b, "| `%s` | %s |\n", strings.ReplaceAll(name, "|", `\|`), escape(usage))
	})
	b.WriteString("\n")
}

// TestServerGuide: every example of serve.yaml is right, and every key that there is has its line in the reference.
func TestServerGuide(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "server.md"))
	if err != nil {
		t.Fatal(err)
	}
	page, examples := string(raw), 0
	for rest := page; ; examples++ {
		_, after, found := strings.Cut(rest, "```yaml\n")
		if !found {
			break
		}
		block, after, _ := strings.Cut(after, "```")
		if err := yamlfile.Decode("docs/server.md", []byte(block), newServeConfig()); err != nil {
			t.Errorf("example %d: %v", examples+1, err)
		}
		rest = after
	}
	if examples == 0 {
		t.Error("the guide has no example")
	}
	reference := map[string]bool{}
	for line := range strings.Lines(page) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, key := range strings.Split(cells[1], ",") {
			reference[strings.Trim(key, " `")] = true
		}
	}
	inLine := map[string]bool{"auth.users": true, "places": true, "rules": true} // their keys are in one line
	var walk func(t reflect.Type, prefix string) []string
	walk = func(typ reflect.Type, prefix string) (keys []string) {
		for f := range typ.Fields() {
			key := prefix + f.Tag.Get("yaml")
			if f.Type.Kind() == reflect.Struct && !inLine[key] {
				keys = append(keys, walk(f.Type, key+".")...)
				continue
			}
			keys = append(keys, key)
		}
		return keys
	}
	for _, key := range walk(reflect.TypeFor[serveConfig](), "") {
		if !reference[key] {
			t.Errorf("docs/server.md has no line for the key %s", key)
		}
	}
}
