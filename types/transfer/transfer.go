// Package transfer has what a copy says about itself: events while it runs, and a report when it is done.
package transfer

import (
	"time"

	"github.com/ocisync/ocisync/types"
)

// Kind says what an Event is about.
type Kind string

// The kinds of events. One image is one source tag or digest that is copied to one target.
const (
	ImageStarted Kind = "image-started" // work on an image begins
	ImageDone    Kind = "image-done"    // an image is finished; Outcome, and Err when it failed
	Planned      Kind = "planned"       // a blob or manifest will have to be moved; Total is its size
	Started      Kind = "started"       // a blob or manifest begins to move
	Bytes        Kind = "bytes"         // Bytes more of it have moved
	Retried      Kind = "retried"       // it broke and goes on; Err says why
	Moved        Kind = "moved"         // all its bytes have moved
	Mounted      Kind = "mounted"       // the target has it now without moving bytes: a mount, or a link on disk
	Present      Kind = "present"       // the target had it already
	Failed       Kind = "failed"        // it could not be moved
)

// Event is one thing that happened. Events of one copy arrive one at a time, in order; a callback must not block.
type Event struct {
	Kind       Kind
	Time       time.Time
	Source     string           // the image's source, as ref.Ref prints it
	Target     string           // the image's target
	Descriptor types.Descriptor // the blob or manifest; the image's manifest in ImageDone
	Bytes      int64            // in Bytes: how many more
	Outcome    Outcome          // in ImageDone
	Err        error            // in Retried, Failed and ImageDone
}

// Outcome is how an image ended.
type Outcome string

// The outcomes. Planned ones stand in a dry run's report for what would have been done.
const (
	Copied    Outcome = "copied"    // the target now has it, and had not
	Unchanged Outcome = "unchanged" // the target had it
	Error     Outcome = "failed"
	WouldCopy Outcome = "would-copy" // dry run
)

// Image is the result for one image.
type Image struct {
	Source     string
	Target     string
	Descriptor types.Descriptor // the manifest; digest empty when it could not be resolved
	Outcome    Outcome
	Referrers  int // manifests that refer to it, or to what it contains, that are at the target now too
	Err        error
}

// Report is what a copy did. Counts are of distinct blobs and manifests.
type Report struct {
	Images []Image // in the order of the source's tags

	Copied, Unchanged, Failed int // images; in a dry run Copied counts what would be
	Blobs, Manifests          int // moved
	Mounted, Present          int // blobs that did not have to move
	Bytes                     int64
	Retries                   int
	Elapsed                   time.Duration
	DryRun                    bool
}

// Errs returns every image's error, in order.
func (r *Report) Errs() []error {
	var all []error
	for _, im := range r.Images {
		if im.Err != nil {
			all = append(all, im.Err)
		}
	}
	return all
}
