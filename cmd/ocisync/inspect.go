package main

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/spf13/cobra"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/platform"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

func (a *app) inspectCommand() *cobra.Command {
	var noReferrers bool
	cmd := &cobra.Command{
		Use:   "inspect REF [flags]",
		Short: "Show what an image is made of",
		Long: `inspect shows the tree of an image: its index, the platforms, their configs and layers with
sizes, and what refers to them (signatures, SBOMs). Nothing but manifests is read.`,
		Example: `  ocisync inspect alpine:3
  ocisync inspect ./mirror:3 --output json`,
		Args: arguments("REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inspect(cmd.Context(), args[0], noReferrers)
		},
	}
	cmd.Flags().BoolVar(&noReferrers, "no-referrers", false, "do not ask for signatures, SBOMs and whatever else refers to the image")
	return cmd
}

func (a *app) inspect(ctx context.Context, arg string, noReferrers bool) (err error) {
	r, err := parsePlace(arg)
	if err != nil {
		return err
	}
	if r.Scheme == ref.SchemeReg && r.Repo == "" {
		return usagef("ocisync ls "+arg, "%s is a whole registry: inspect needs an image", arg)
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	var opts []ocisync.InspectOption
	if noReferrers {
		opts = append(opts, ocisync.InspectWithoutReferrers())
	}
	node, err := client.Inspect(ctx, r, opts...)
	if err != nil {
		return adviseMissing(ctx, client.API(), r, arg, err)
	}
	if a.json() {
		return a.out.json(node)
	}
	a.out.printf("%s  %s\n", printable(display(r.OrLatest())), size(node.Size))
	t := tree{out: a.out}
	t.node(node, "", "")
	return a.out.err
}

// tree prints nodes with lines from each to what is below it.
type tree struct{ out *output }

// node prints n behind the text of the branch that leads to it, and what is below it behind prefix.
func (t *tree) node(n *ocisync.Node, branch, prefix string) {
	t.out.printf("%s%s\n", branch, printable(nodeLine(n)))
	var below []func(branch, prefix string)
	if n.Config != nil {
		below = append(below, func(branch, _ string) { t.leaf(branch, "config", *n.Config) })
	}
	for _, l := range n.Layers {
		below = append(below, func(branch, _ string) { t.leaf(branch, "layer", l) })
	}
	for _, child := range n.Manifests {
		below = append(below, func(branch, prefix string) { t.node(child, branch, prefix) })
	}
	for _, child := range n.Referrers {
		below = append(below, func(branch, prefix string) { t.node(child, branch+"referrer ", prefix) })
	}
	for i, draw := range below {
		if i == len(below)-1 {
			draw(prefix+"└── ", prefix+"    ")
		} else {
			draw(prefix+"├── ", prefix+"│   ")
		}
	}
}

func (t *tree) leaf(branch, what string, d types.Descriptor) {
	t.out.printf("%s%s\n", branch, printable(fmt.Sprintf("%-6s %s  %8s  %s", what, d.Digest, size(d.Size), d.MediaType)))
}

// nodeLine says what a manifest is: an index, an image for a platform, or an artifact by its type.
func nodeLine(n *ocisync.Node) string {
	d := n.Descriptor
	what := d.MediaType
	at, _ := ref.Parse(n.Ref) // a node that is not there has no place
	_, signature := referrer.CosignSubject(at.Tag)
	switch {
	case signature:
		what = "cosign" + path.Ext(at.Tag)
	case n.ArtifactType != "" && !types.IsIndex(d.MediaType) && d.Platform == nil && n.ArtifactType != types.MediaTypeImageConfig &&
		n.ArtifactType != types.MediaTypeDockerConfig:
		what = "artifact " + n.ArtifactType
	case types.IsIndex(d.MediaType):
		what = "index"
	case types.IsImage(d.MediaType):
		what = "image"
	}
	if d.Platform != nil && d.Platform.OS != "" {
		what += " " + platform.String(*d.Platform)
	}
	return fmt.Sprintf("%s  %s  %s", what, d.Digest, size(n.Size))
}
