package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ocisync/ocisync/internal/spell"
)

// usageError is a command line that cannot be carried out, whatever the world looks like. Nothing was done.
type usageError struct {
	text string
	hint string
	err  error // the cause, if it is more than text
}

func (e *usageError) Error() string { return e.text }
func (e *usageError) Unwrap() error { return e.err }

func usagef(hint, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &usageError{text: err.Error(), hint: hint, err: errors.Unwrap(err)}
}

// asUsage makes err a usageError if it is none: what cobra reports before a command runs.
func asUsage(err error) error {
	var u *usageError
	if errors.As(err, &u) {
		return err
	}
	return &usageError{text: err.Error(), err: err}
}

// arguments checks the number of a command's arguments, and names the one that is missing or too many.
func arguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		usage := "usage: " + cmd.UseLine()
		switch {
		case len(args) < len(names):
			missing, are := names[len(args):], "is"
			if len(missing) > 1 {
				are = "are"
			}
			return usagef(usage, "%s: %s %s missing", cmd.CommandPath(), strings.Join(missing, " and "), are)
		case len(args) > len(names) && len(names) == 0:
			return usagef(usage, "%s takes no arguments, and got %q", cmd.CommandPath(), args[0])
		case len(args) > len(names):
			return usagef(usage, "%s: %q is one argument too many", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// commandExpected reports an unknown command, with those that are spelled alike.
func commandExpected(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	hint := "one of " + strings.Join(names, ", ")
	if near := spell.Nearest(args[0], names, 1); len(near) > 0 {
		hint = "ocisync " + near[0]
	}
	return usagef(hint, "%q is not a command", args[0])
}

// flagError reports what is wrong with a flag, and the flag that may have been meant.
func flagError(cmd *cobra.Command, err error) error {
	hint := cmd.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := spell.Nearest(unknown.GetSpecifiedName(), names, 1); len(near) > 0 {
			hint = "--" + near[0]
		}
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) && invalid.GetFlag().Value.Type() == "duration" {
		hint = fmt.Sprintf("--%s with a number and a unit, as in 90s, 15m or 48h", invalid.GetFlag().Name)
	}
	return usagef(hint, "%s: %w", cmd.CommandPath(), err)
}

// enum is a flag that has one of a few values.
type enum struct {
	value  string
	values []string
}

func (e *enum) String() string { return e.value }
func (e *enum) Type() string   { return strings.Join(e.values, "|") }

func (e *enum) Set(s string) error {
	if !slices.Contains(e.values, s) {
		return fmt.Errorf("want %s", orList(e.values))
	}
	e.value = s
	return nil
}

// complete offers the values to the shell.
func (e *enum) complete(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return e.values, cobra.ShellCompDirectiveNoFileComp
}

// orList joins words as a sentence does: a, b or c.
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
