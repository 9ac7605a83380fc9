package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// problem tells of a problem with something that is needed, unless it is none any more.
func (c *checker) problem(ctx context.Context, i int32, f found) error {
	f, err := c.stands(ctx, i, f)
	if err != nil || f.kind == "" {
		return err
	}
	c.mu.Lock()
	p := c.describe(i, f)
	c.mu.Unlock()
	return c.emit(p)
}

// stands looks again, as others may have written since index.json was read: whether something is still needed, and
// whether what was not there still is not.
func (c *checker) stands(ctx context.Context, i int32, f found) (found, error) {
	it := &c.net.items[i]
	if id, err := c.l.vol.stat(indexName); err == nil && id != c.indexJ && !c.narrow {
		ix, err := c.l.index(ctx)
		if err != nil {
			return f, ctx.Err() // what is wrong with the index now is another matter
		}
		listed := false
		c.net.above(i, true, func(it *item) {
			_, is := ix.digests.get(it.digest)
			listed = listed || is
		})
		if !listed {
			return found{}, nil
		}
	}
	switch f.kind {
	case scheme.ProblemMissing, scheme.ProblemNoFile, scheme.ProblemUnread:
		if _, err := c.l.vol.stat(mustPath(it.digest)); err == nil {
			again, err := c.look(ctx, it.digest, it.sizes(), true)
			if err != nil || again.kind == "" {
				return again, err
			}
		}
	}
	return f, nil
}

// badEntry tells of an entry whose digest no file can have.
func (c *checker) badEntry(ix *index, at int) error {
	e := ix.entries[at]
	p := scheme.Problem{
		Kind: scheme.ProblemEntry, Path: c.l.file(indexName), Want: types.Descriptor{MediaType: e.mediaType, Size: e.size},
		Err: &errs.Error{
			Op: "verify", Ref: c.l.file(indexName),
			Err: fmt.Errorf("%w: manifests[%d] at byte %d has no digest that can be verified", errs.ErrDigestInvalid, at, ix.spans[at].start),
		},
	}
	if ref.ValidTag(e.name) == nil {
		p.Tags = []string{e.name}
	}
	return c.emit(p)
}

// files looks at what else is in blobs: files that are no blob's, and blobs that nothing needs.
func (c *checker) files(ctx context.Context) error {
	return c.list(blobsDir, func(e fs.DirEntry) error {
		alg := digest.Algorithm(e.Name())
		if !e.IsDir() || !alg.Available() {
			return c.note(scheme.ProblemForeign, join(blobsDir, e.Name()), "", "it is no blob, and not the directory of a digest algorithm that is known")
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(readers())
		err := c.list(join(blobsDir, e.Name()), func(e fs.DirEntry) error {
			d := digest.NewDigestFromEncoded(alg, e.Name())
			if types.ValidDigest(d) != nil {
				return c.note(scheme.ProblemForeign, join(blobsDir, alg.String(), e.Name()), "", "its name is no digest")
			}
			if _, needed := c.net.at[d]; needed || gctx.Err() != nil {
				return gctx.Err()
			}
			g.Go(func() error { return c.unneeded(gctx, d) })
			return nil
		})
		if werr := g.Wait(); werr != nil {
			return werr
		}
		return err
	})
}

// unneeded looks at a blob that nothing needs.
func (c *checker) unneeded(ctx context.Context, d digest.Digest) error {
	f, err := c.look(ctx, d, nil, c.opt.Deep)
	if err != nil {
		return err
	}
	switch f.kind {
	case scheme.ProblemMissing: // removed meanwhile
		return nil
	case scheme.ProblemNoFile:
		return c.note(scheme.ProblemForeign, mustPath(d), d, "it is no file, and nothing needs a blob of that name")
	}
	c.checked(blob.Info{Digest: d, Size: f.id.size}, func(r *scheme.CheckReport) {
		r.Unneeded++
		r.Bytes += f.read
		if c.opt.Deep {
			r.Blobs++
		}
	})
	if f.kind == "" {
		return nil
	}
	return c.emit(scheme.Problem{Kind: f.kind, Digest: d, Path: c.l.file(mustPath(d)), Want: types.Descriptor{Digest: d}, Err: f.err})
}

// note tells of something untidy.
func (c *checker) note(kind scheme.ProblemKind, name string, d digest.Digest, words string) error {
	return c.emit(scheme.Problem{Kind: kind, Digest: d, Path: c.l.file(name), Err: &errs.Error{Op: "verify", Ref: c.l.file(name), Err: errors.New(words)}})
}

// list calls fn for everything in a directory, which may be large, and may be absent.
func (c *checker) list(name string, fn func(fs.DirEntry) error) error {
	dir, err := c.l.vol.root.Open(name)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		some, err := dir.ReadDir(1024)
		for _, e := range some {
			if err := fn(e); err != nil {
				return err
			}
		}
		if err == io.EOF || absent(err) { // a file has its name
			return nil
		}
		if err != nil {
			return err
		}
	}
}

const (
	// freshTemp is how old a temporary file must be to be called abandoned: a new one is locked only after it was made.
	freshTemp = time.Minute
	// idleIngest is for how long an ingest was not written to that is called abandoned.
	idleIngest = 24 * time.Hour
)

// leftovers tells of what is untidy: files of writers that died, what is in quarantine, and roots that other tools
// dropped.
func (c *checker) leftovers(ctx context.Context, ix *index) error {
	err := c.list(ingestDir, func(e fs.DirEntry) error {
		if name := join(ingestDir, e.Name()); strings.HasSuffix(name, tempSuffix) && c.abandoned(name) {
			return c.note(scheme.ProblemAbandoned, name, "", "a temporary file that nobody writes any more; the next process that writes removes it")
		}
		return nil
	})
	if err == nil {
		err = c.ingests(ctx)
	}
	if err == nil {
		err = c.quarantined()
	}
	if err != nil || ix == nil {
		return err
	}
	return c.vanished(ctx)
}

// abandoned reports whether a temporary file has no writer: its lock can be had.
func (c *checker) abandoned(name string) bool {
	f, err := c.l.vol.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	fi, err := f.Stat()
	return err == nil && time.Since(fi.ModTime()) > freshTemp && lockFile(f, false) == nil
}

// ingests tells of uploads that nobody goes on with.
func (c *checker) ingests(ctx context.Context) error {
	m, ok := any(c.o).(scheme.IngestManager)
	if !ok {
		return nil
	}
	return m.IngestList(ctx, c.r.Place(), func(in blob.Ingest) error {
		if in.Active || time.Since(in.Updated) < idleIngest {
			return nil
		}
		return c.note(scheme.ProblemAbandoned, ingestDir, in.Expected.Digest, fmt.Sprintf("the ingest %q of %s, %d bytes, was last written to at %s",
			in.Key, in.Owner, in.Offset, in.Updated.Format(time.RFC3339)))
	})
}

// quarantined tells of the damaged files that were set aside.
func (c *checker) quarantined() error {
	all, err := c.l.vol.quarantined()
	if err != nil {
		return err
	}
	for _, k := range all {
		d, _ := quarantinedDigest(path.Base(k.name))
		if err := c.note(scheme.ProblemAbandoned, k.name, d, "a damaged file that was set aside"); err != nil {
			return err
		}
	}
	return nil
}

// vanished tells of roots that other tools dropped from index.json.
func (c *checker) vanished(ctx context.Context) error {
	all, err := c.l.vanished(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return c.emit(scheme.Problem{Kind: scheme.ProblemAbandoned, Path: c.l.file(vanishedName), Err: err})
	}
	for _, v := range all {
		p := scheme.Problem{
			Kind: scheme.ProblemVanished, Digest: v.desc.Digest, Path: c.l.file(mustPath(v.desc.Digest)), Want: v.desc, Manifest: true,
			Err: &errs.Error{
				Op: "verify", Ref: c.l.file(indexName), Digest: v.desc.Digest, Err: errs.ErrManifestUnknown,
				Message: "another tool dropped its entry before " + v.when.Format(time.RFC3339),
				Hint:    "copy it again to list it, or give it up with: ocisync gc --vanished",
			},
		}
		if v.tag != "" {
			p.Tags = []string{v.tag}
		}
		if err := c.emit(p); err != nil {
			return err
		}
	}
	return nil
}
