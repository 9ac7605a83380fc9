package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// listing is ls's result with --output json: either tags or repositories.
type listing struct {
	Place        string   `json:"place"`
	Tags         []string `json:"tags,omitempty"`
	Repositories []string `json:"repositories,omitempty"`
}

func (a *app) lsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls PLACE",
		Short: "List the tags of a repository, or the repositories of a registry",
		Long: `ls lists what is in PLACE, one name a line: the tags of a repository or of a directory in OCI
image layout, or the repositories of a registry or of a folder that has layouts below it.`,
		Example: `  ocisync ls ghcr.io/org/app     tags
  ocisync ls ./mirror            tags, or the layouts below a folder
  ocisync ls localhost:5000      repositories`,
		Args: arguments("PLACE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ls(cmd.Context(), args[0])
		},
	}
}

func (a *app) ls(ctx context.Context, arg string) (err error) {
	r, err := parsePlace(arg)
	if err != nil {
		return err
	}
	if r.Tag != "" || r.Digest != "" {
		return usagef("ocisync ls "+display(r.Place())+", or ocisync inspect "+arg, "%s has a tag or digest: ls lists places", arg)
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	found, err := list(ctx, client, r)
	if err != nil {
		return adviseMissing(ctx, client.API(), r, arg, err)
	}
	if a.json() {
		return a.out.json(found)
	}
	names := append(found.Tags, found.Repositories...)
	for _, name := range names {
		a.out.printf("%s\n", printable(name))
	}
	if len(names) == 0 && !a.quiet {
		a.console.note("%s", whyEmpty(ctx, client.API(), r))
	}
	return a.out.err
}

// whyEmpty says why nothing was listed of r.
func whyEmpty(ctx context.Context, api scheme.API, r ref.Ref) string {
	if why := whyNoLayout(r); why != "" {
		return why
	}
	if why := whyNothing(r); why != "" {
		return why
	}
	if untagged, err := onlyUntagged(ctx, api, r); err == nil && len(untagged) > 0 {
		return fmt.Sprintf("%s has no tags. What is there: %s", display(r), strings.Join(untagged[:min(len(untagged), 8)], ", "))
	}
	return display(r) + " is there, and has nothing in it"
}

// list finds out what r is, and what it holds.
func list(ctx context.Context, client *ocisync.Client, r ref.Ref) (listing, error) {
	out := listing{Place: display(r)}
	if r.Repo == "" {
		repos, err := repositories(ctx, client.API(), r)
		switch {
		case err == nil && repos != nil:
			out.Repositories = repos
			return out, nil
		case err != nil && (r.Scheme == ref.SchemeReg || !errors.Is(err, errs.ErrUnsupported)):
			return out, err
		}
	}
	tags, err := client.API().TagList(ctx, r)
	out.Tags = tags.Tags
	return out, err
}

// repositories lists what is below r, or returns nil if r is a single layout.
func repositories(ctx context.Context, api scheme.API, r ref.Ref) ([]string, error) {
	var lister scheme.RepoLister
	if !scheme.As(api, r, &lister) {
		return nil, &errs.Error{Op: "repository list", Ref: r.String(), Err: errs.ErrUnsupported}
	}
	single := false
	names := []string{}
	err := lister.RepoList(ctx, r, "", func(repo string) error {
		if repo == "" {
			single = true
			return io.EOF
		}
		names = append(names, repo)
		return nil
	})
	if single {
		return nil, err
	}
	return names, err
}
