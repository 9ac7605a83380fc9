package ocidir

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var _ scheme.Checker = (*OCIDir)(nil)

// Check implements scheme.Checker. Manifests are read first, all of them, so that each problem can name every tag that
// it touches; blobs follow, a few at a time; what nothing needs comes last. A ref with a tag or digest narrows it to
// what that reaches: then only tags that lead there are named, and nothing is said of files that nothing needs.
//
// A child manifest that an index lists and that was never here, as a sparse copy leaves it out, is counted and no
// problem; see docs/layout.md, "Damage", for how it is told from a lost one.
func (o *OCIDir) Check(ctx context.Context, r ref.Ref, fn func(scheme.Problem) error, opts ...scheme.CheckOption) (scheme.CheckReport, error) {
	const op = "check"
	path, err := o.locate(ctx, op, r)
	if err != nil {
		return scheme.CheckReport{}, err
	}
	l, err := o.use(r, path)
	if err != nil {
		return scheme.CheckReport{}, missing(op, r, err)
	}
	defer o.release(l)
	c := &checker{o: o, l: l, r: r, opt: scheme.Collect(opts), fn: fn, net: newNet(), narrow: r.Tag != "" || r.Digest != ""}
	err = c.run(ctx)
	switch {
	case c.stopped != nil:
		err = c.stopped
	case absent(err):
		err = missing(op, r, err)
	case err != nil:
		err = failRead(op, r, "", err)
	}
	return c.report, err
}

// checker is one Check.
type checker struct {
	o      *OCIDir
	l      *layout
	r      ref.Ref
	opt    scheme.CheckOptions
	narrow bool
	indexJ fileID // index.json, as it was read
	net    *net

	mu      sync.Mutex // held while fn or Progress is called
	fn      func(scheme.Problem) error
	report  scheme.CheckReport
	stopped error // what fn returned
}

// errStopped ends a Check whose fn returned an error.
var errStopped = errors.New("the caller has seen enough")

func (c *checker) run(ctx context.Context) error {
	if err := c.marker(ctx); err != nil {
		return err
	}
	ix, err := c.index(ctx)
	if err != nil {
		return err
	}
	if err := c.roots(ctx, ix); err != nil {
		return err
	}
	if err := c.manifests(ctx); err != nil {
		return err
	}
	if err := c.blobs(ctx); err != nil || c.narrow {
		return err
	}
	if err := c.files(ctx); err != nil {
		return err
	}
	return c.leftovers(ctx, ix)
}

// emit tells the caller of a problem.
func (c *checker) emit(p scheme.Problem) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped != nil {
		return errStopped
	}
	c.report.Problems++
	if c.fn == nil {
		return nil
	}
	if err := c.fn(p); err != nil {
		c.stopped = err
		return errStopped
	}
	return nil
}

// checked counts what was looked at.
func (c *checker) checked(info blob.Info, count func(r *scheme.CheckReport)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	count(&c.report)
	if c.opt.Progress != nil && c.stopped == nil {
		c.opt.Progress(info)
	}
}

// marker looks at oci-layout. A directory without it is no layout, unless it has what a layout has.
func (c *checker) marker(ctx context.Context) error {
	got, err := stable(ctx, c.l, markerName, parseMarker)
	switch {
	case err == nil:
		return got.f.Close()
	case ctx.Err() != nil:
		return err
	case absent(err):
		if _, serr := c.l.vol.root.Lstat(indexName); serr != nil {
			return err
		}
		err = c.l.corrupt(markerName, errors.New("it is missing"))
	}
	return c.emit(scheme.Problem{Kind: scheme.ProblemIndex, Path: c.l.file(markerName), Err: err})
}

// index reads index.json, and not what this process remembers of it. It is nil when it cannot be used.
func (c *checker) index(ctx context.Context) (*index, error) {
	got, err := stable(ctx, c.l, indexName, func(raw []byte) (*index, error) { return parseIndex(raw, nil) })
	switch {
	case err == nil:
		c.indexJ = got.id
		return got.doc, got.f.Close()
	case ctx.Err() != nil:
		return nil, err
	case absent(err):
		var empty *cached
		if empty, err = c.l.loadMissing(); err == nil {
			return empty.ix, nil
		}
	}
	if ix, merr := c.l.remembered(); merr == nil && errors.Is(err, errs.ErrCorrupt) && !errors.Is(err, errs.ErrUnsupported) {
		err = &errs.Error{
			Op: "verify", Ref: c.l.file(indexName), Err: err,
			Hint: fmt.Sprintf("ocisync verify DIRECTORY --restore-index: %d entries are known, of the last commit by ocisync", len(ix.entries)),
		}
	}
	return nil, c.emit(scheme.Problem{Kind: scheme.ProblemIndex, Path: c.l.file(indexName), Err: err})
}

// roots enters what index.json lists into the net.
func (c *checker) roots(ctx context.Context, ix *index) error {
	if ix == nil {
		return nil
	}
	if c.r.Digest == "" && c.r.Tag != "" {
		e := ix.lookup(c.r.Tag)
		if e == nil {
			return errs.ErrManifestUnknown
		}
		c.net.root(e)
		return nil
	}
	found := false
	for i, e := range ix.entries {
		if c.narrow && e.digest != c.r.Digest {
			continue
		}
		found = true
		if e.digest != "" {
			c.net.root(e)
		} else if err := c.badEntry(ix, i); err != nil {
			return err
		}
	}
	if !c.narrow || found {
		return nil
	}
	mt, err := c.l.find(ctx, ix, c.r.Digest) // an index may list it
	if err != nil {
		return err
	}
	e := &entry{digest: c.r.Digest, mediaType: mt}
	if id, err := c.l.vol.stat(mustPath(e.digest)); err == nil {
		e.size = id.size
	}
	c.net.root(e)
	return nil
}

// readers is how many files are hashed at once: enough for hashing and disk to overlap, few enough for each file to be
// read in one go.
func readers() int { return max(2, min(4, runtime.GOMAXPROCS(0))) }

// manifests reads every manifest that index.json reaches. Their problems are told at the end, when all tags are known.
func (c *checker) manifests(ctx context.Context) error {
	seen := map[int32]found{}
	for at := int32(0); int(at) < len(c.net.todo); at++ {
		i := c.net.todo[at]
		f, err := c.manifest(ctx, i)
		if err != nil {
			return err
		}
		seen[i] = f
	}
	absent, err := c.newAbsentees()
	if err != nil {
		return err
	}
	for _, i := range c.net.todo {
		f := c.contradicted(i, seen[i])
		if f.kind == scheme.ProblemMissing && absent.legal(i) {
			continue
		}
		if f.kind == "" {
			continue
		}
		if err := c.problem(ctx, i, f); err != nil {
			return err
		}
	}
	return nil
}

// blobs looks at what manifests need that is none itself.
func (c *checker) blobs(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readers())
	for i := range c.net.items {
		if c.net.items[i].manifest {
			continue
		}
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			f, err := c.blob(gctx, int32(i))
			if err != nil || f.kind == "" {
				return err
			}
			return c.problem(gctx, int32(i), f)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}
