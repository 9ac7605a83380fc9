package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo is version's result with --output json.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Date     string `json:"date,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program",
		Args:  arguments(),
		RunE: func(*cobra.Command, []string) error {
			v := versionOf(readBuild())
			if a.json() {
				return a.out.json(v)
			}
			a.out.printf("ocisync %s\n", v.Version)
			if v.Commit != "" {
				changed := ""
				if v.Modified {
					changed = ", with changes"
				}
				a.out.printf("commit %s of %s%s\n", v.Commit, v.Date, changed)
			}
			a.out.printf("%s %s\n", v.Go, v.Platform)
			return a.out.err
		},
	}
}

// readBuild returns what the linker recorded; nil for a program that was built without modules.
func readBuild() *debug.BuildInfo {
	info, _ := debug.ReadBuildInfo()
	return info
}

// versionOf takes the version from the module, and the commit from the checkout it was built in.
func versionOf(info *debug.BuildInfo) versionInfo {
	v := versionInfo{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info == nil {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.Date = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
