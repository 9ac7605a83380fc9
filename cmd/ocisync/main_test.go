package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain runs the command where a test started this binary under the command's name, and the tests otherwise.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ocisync": main})
}

// TestScripts runs testdata/script: the command as users meet it, against registries on the loopback interface. See
// registry_test.go for the commands that the scripts have beyond testscript's own. UPDATE=1 writes expected output
// anew.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		Cmds:                scriptCommands(),
		Setup:               scriptSetup,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// scriptSetup keeps the credentials and the settings of whoever runs the tests out of them.
func scriptSetup(env *testscript.Env) error {
	for _, name := range []string{"home", "docker"} {
		if err := os.Mkdir(filepath.Join(env.WorkDir, name), 0o755); err != nil {
			return err
		}
	}
	pages, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return err
	}
	env.Setenv("PAGES", pages)
	env.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector makes every process wait a second at its end
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, "docker"))
	env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "home"))
	env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "home"))
	return nil
}
