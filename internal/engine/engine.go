// Package engine copies images from one place to another, and looks into them. It knows places only as scheme.API.
//
// A copy is a run. A run lists its images (resolve.go), and several of them are worked on at once (schedule.go). For
// each, the source's tag is pinned to a digest (image.go); the manifests below it are walked, children before parents
// (walk.go, blob.go, manifest.go); the tag is put last; then comes what refers to any of the manifests (referrer.go).
// Whatever several images need is brought by the first and awaited by the others (flight.go). What happens is told
// to one recorder (event.go), which makes the caller's events and the report of it.
package engine

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

// defaultConcurrency is how many blobs of size are moved at once when nobody says otherwise: enough to fill a line
// with HTTP/1.1 connections, few enough for registries that count requests.
const defaultConcurrency = 8

// Engine copies between the places of one API. It is safe for concurrent use.
type Engine struct {
	api         scheme.API
	concurrency int
	mounts      *mounts
}

// New returns an Engine that moves concurrency blobs at once in each copy; less than one is the default, 8.
func New(api scheme.API, concurrency int) *Engine {
	if concurrency < 1 {
		concurrency = defaultConcurrency
	}
	return &Engine{api: api, concurrency: concurrency, mounts: newMounts()}
}

// Options are the settings of one copy. The zero value copies one image, all platforms, with referrers.
type Options struct {
	AllTags     bool
	Tags        []string // patterns, with AllTags
	Platforms   []types.Platform
	Rewrite     bool // of indexes, to the wanted platforms
	NoReferrers bool
	Verify      bool
	Events      func(transfer.Event)
}

// Copy makes dst have what src names. The report is never nil.
func (e *Engine) Copy(ctx context.Context, src, dst ref.Ref, o Options) (*transfer.Report, error) {
	return e.copy(ctx, e.api, src, dst, o, false)
}

// copy is Copy and Plan.
func (e *Engine) copy(ctx context.Context, api scheme.API, src, dst ref.Ref, o Options, dry bool) (*transfer.Report, error) {
	r := &run{
		api: api, src: src.Place(), dst: dst.Place(), opts: o, dry: dry,
		sched: newScheduler(e.concurrency), rec: newRecorder(o.Events, dry), mounts: e.mounts,
	}
	images, err := r.resolve(ctx, src, dst)
	if err != nil {
		return r.rec.done(), err
	}
	r.rec.report.Images = make([]transfer.Image, len(images))
	r.srcSlots, r.dstSlots = slotsOf(api, src), slotsOf(api, dst)
	r.sched.first(len(images), func(i int) { r.image(ctx, images[i]) })
	report := r.rec.done()
	return report, join(ctx, report.Errs())
}

// run is one copy, from one repository to one other.
type run struct {
	api                scheme.API
	src, dst           ref.Ref // the repositories
	srcSlots, dstSlots *scheme.Slots
	opts               Options
	dry                bool
	sched              *scheduler
	rec                *recorder
	mounts             *mounts
	target             atomic.Int32 // what is known of the target repository: one of the constants below

	listed    map[string]bool // with AllTags: the tags that are copied; fixed before the images begin
	manifests cache
	rewritten rewrites
	nested    sync.Map // bool by the digest of an index in an index: whether anything in it is wanted
	reduced   sync.Map // *manifest.Manifest by the digest of the nested index it was made of; nil if all of it is wanted
	completed sync.Map // nodeKey of indexes that the target was found to have complete
	nodes     flights[nodeKey, placed]
	blobs     flights[blobKey, brought]
	attached  flights[digest.Digest, attachments]           // by subject
	tags      flights[string, pinned]                       // cosign's
	cosign    flights[struct{}, map[digest.Digest][]string] // the source's tags of cosign's form, by subject
}

// What is known of the target repository. A repository that was absent when the run began holds nothing but what the
// run puts there: nothing needs to be looked for.
const (
	targetUnknown int32 = iota
	targetAbsent
	targetExists
)

// absent reports that the target repository was not there when the run began.
func (r *run) absent() bool { return r.target.Load() == targetAbsent }

// learn records what an answer said of the target repository. The first answer counts: later ones may speak of what
// this run has made.
func (r *run) learn(state int32) { r.target.CompareAndSwap(targetUnknown, state) }

// retag reports that source and target are one repository, where all content is already.
func (r *run) retag() bool { return ref.SamePlace(r.src, r.dst) }

// pruned reports that only some platforms are wanted.
func (r *run) pruned() bool { return len(r.opts.Platforms) > 0 }
