package main

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/transfer"
)

// jsonReport is copy's result with --output json. Its fields are documented in docs/cli.md; they may grow, and never
// change.
type jsonReport struct {
	DryRun    bool        `json:"dryRun"`
	Copied    int         `json:"copied"`
	Unchanged int         `json:"unchanged"`
	Failed    int         `json:"failed"`
	Blobs     int         `json:"blobs"`
	Manifests int         `json:"manifests"`
	Mounted   int         `json:"mounted"`
	Present   int         `json:"present"`
	Bytes     int64       `json:"bytes"`
	Retries   int         `json:"retries"`
	Seconds   float64     `json:"seconds"`
	Images    []jsonImage `json:"images"`
}

type jsonImage struct {
	Source    string           `json:"source"`
	Target    string           `json:"target"`
	MediaType string           `json:"mediaType,omitempty"`
	Digest    digest.Digest    `json:"digest,omitempty"`
	Size      int64            `json:"size,omitempty"`
	Outcome   transfer.Outcome `json:"outcome"`
	Referrers int              `json:"referrers"`
	Error     string           `json:"error,omitempty"`
}

func jsonReportOf(r *transfer.Report) jsonReport {
	out := jsonReport{
		DryRun: r.DryRun, Copied: r.Copied, Unchanged: r.Unchanged, Failed: r.Failed,
		Blobs: r.Blobs, Manifests: r.Manifests, Mounted: r.Mounted, Present: r.Present,
		Bytes: r.Bytes, Retries: r.Retries, Seconds: r.Elapsed.Seconds(), Images: []jsonImage{},
	}
	for _, im := range r.Images {
		out.Images = append(out.Images, jsonImage{
			Source: im.Source, Target: im.Target, MediaType: im.Descriptor.MediaType, Digest: im.Descriptor.Digest,
			Size: im.Descriptor.Size, Outcome: im.Outcome, Referrers: im.Referrers, Error: errorText(im.Err),
		})
	}
	return out
}

// json prints v, indented: a result is read by people, too.
func (o *output) json(v any) error {
	e := json.NewEncoder(o)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
