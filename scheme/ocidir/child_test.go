package ocidir

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// childEnv makes the test binary another process of a test: it does what children has under the variable's first word,
// with the other words as arguments, and ends.
const childEnv = "OCIDIR_TEST_CHILD"

var children = map[string]func(args []string) error{
	"damage": childDamage,
	"index":  childIndex,
	"label":  childLabels,
	"swap":   childSwap,
}

// init comes before TestMain, which belongs to the parent.
func init() {
	words := strings.Split(os.Getenv(childEnv), "\x1f")
	if words[0] == "" {
		return
	}
	if err := children[words[0]](words[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// startAs returns a process, not yet started, that does what children has under name.
func startAs(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+strings.Join(append([]string{name}, args...), "\x1f"))
	cmd.Stderr = os.Stderr
	return cmd
}
