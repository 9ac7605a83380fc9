package main

import (
	"github.com/spf13/cobra"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config COMMAND",
		Short: "Look at configuration files",
		Long:  `config looks at configuration files: config check says whether one is right.`,
		Args:  commandExpected,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.configCheckCommand())
	return cmd
}

func (a *app) configCheckCommand() *cobra.Command {
	kind := enum{value: "serve", values: []string{"serve"}}
	cmd := &cobra.Command{
		Use:   "check FILE [flags]",
		Short: "Check a configuration file, and do nothing",
		Long: `check reads FILE as ocisync serve --config does, and says what is wrong with it, and where. It
connects to nothing and starts nothing, and it does not look at what the file names: certificates,
htpasswd files, environment variables and directories may be on another machine.`,
		Example: "  ocisync config check serve.yaml",
		Args:    arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := readServeConfig(args[0])
			if err != nil {
				return err
			}
			if a.json() {
				return a.out.json(map[string]any{"file": args[0], "kind": kind.value, "places": len(c.Places)})
			}
			if !a.quiet {
				a.out.printf("%s: nothing is wrong with it\n", args[0])
			}
			return a.out.err
		},
	}
	cmd.Flags().Var(&kind, "kind", "what the file is for")
	return cmd
}
