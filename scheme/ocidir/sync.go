package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/types/errs"
)

const (
	// manyFiles is from how many files on one sync of the whole file system is cheaper than one for each.
	manyFiles = 8
	// largeFile is the size in bytes from which on a file is always synced by itself: a sync of the whole file system
	// would make everybody wait for it.
	largeFile = 4 << 20
	// parallelSyncs is how many syncs are asked for at once; the disk joins them.
	parallelSyncs = 64
)

// namedFile is a file in its place, as it was when it was found.
type namedFile struct {
	name string
	id   fileID
}

// runFiles makes the contents of files durable that have no name yet.
func (l *layout) runFiles(take func() []*call[*temp]) {
	calls := take()
	if canSyncFS && len(calls) >= manyFiles {
		err := l.vol.syncAll()
		for _, c := range calls {
			c.finish(err)
		}
		return
	}
	parallel(calls, func(c *call[*temp]) error {
		c.finish(l.vol.sync(c.arg.f, c.arg.name))
		return nil
	})
}

// runDirs makes the names in directories durable, each directory once for all who ask.
func (l *layout) runDirs(take func() []*call[string]) {
	outcome := map[string]error{}
	for _, c := range take() {
		err, done := outcome[c.arg]
		if !done {
			err = l.vol.syncDir(c.arg)
			outcome[c.arg] = err
		}
		c.finish(err)
	}
}

// runNames makes files durable that have their name.
func (l *layout) runNames(take func() []*call[[]namedFile]) {
	calls := take()
	var all []namedFile
	for _, c := range calls {
		all = append(all, c.arg...)
	}
	err := l.syncNamed(all)
	for _, c := range calls {
		c.finish(err)
	}
}

// syncNamed makes files and their names durable, whoever wrote them.
func (l *layout) syncNamed(files []namedFile) error {
	pending := map[string]fileID{}
	for _, f := range files {
		if !l.mem.isDurable(f.id) {
			pending[f.name] = f.id
		}
	}
	if len(pending) == 0 || !l.o.durability.commits() {
		return nil
	}
	ids := make([]fileID, 0, len(pending))
	dirs := map[string]bool{blobsDir: true}
	each := make([]namedFile, 0, len(pending))
	for name, id := range pending {
		if l.mem.isSuspect(id) {
			return fmt.Errorf("%w: %s could not be made durable before; put it again", errs.ErrCorrupt, l.file(name))
		}
		ids, each, dirs[path.Dir(name)] = append(ids, id), append(each, namedFile{name, id}), true
	}
	if canSyncFS && len(pending) >= manyFiles {
		if err := l.vol.syncAll(); err != nil {
			return err
		}
		l.mem.setDurable(ids...)
		return nil
	}
	err := parallel(each, func(f namedFile) error {
		err := l.vol.syncName(f.name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.mem.setSuspect(f.id)
		}
		return err
	})
	if err != nil {
		return err
	}
	for dir := range dirs {
		if err := l.vol.syncDir(dir); err != nil {
			return err
		}
	}
	l.mem.setDurable(ids...)
	return nil
}

func parallel[T any](all []T, do func(T) error) error {
	var g errgroup.Group
	g.SetLimit(parallelSyncs)
	for _, v := range all {
		g.Go(func() error { return do(v) })
	}
	return g.Wait()
}

// durable makes a file durable that is in its place.
func (l *layout) durable(ctx context.Context, files ...namedFile) error {
	if !l.o.durability.commits() {
		return nil
	}
	for _, f := range files {
		if !l.mem.isDurable(f.id) {
			return l.names.do(ctx, files)
		}
	}
	return nil
}
