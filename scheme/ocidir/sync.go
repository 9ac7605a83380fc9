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
	if len(calls) >= manyFiles && l.vol.syncAll() == nil {
		for _, c := range calls {
			c.finish(nil)
		}
		return
	} // else each file's own sync says whether it was that one which failed
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
	err := l.syncNamed(all, nil)
	for _, c := range calls {
		c.finish(err)
	}
}

// syncNamed makes files and their names durable, whoever wrote them, and with them the bytes of t, unless it is nil: what
// one commit needs becomes durable at once.
func (l *layout) syncNamed(files []namedFile, t *temp) error {
	if !l.o.durability.commits() {
		return nil
	}
	pending := map[string]fileID{}
	suspect := false
	for _, f := range files {
		if !l.mem.isDurable(f.id) {
			pending[f.name] = f.id
			suspect = suspect || l.mem.isSuspect(f.id)
		}
	}
	all := len(pending)
	if t != nil {
		all++
	}
	if all < manyFiles || suspect || l.vol.syncAll() != nil {
		if err := l.syncEach(pending, t); err != nil {
			return err
		}
	}
	for _, id := range pending {
		l.mem.setDurable(id)
	}
	return nil
}

// syncEach makes files, the directories they are in, and the bytes of t durable, all at the same time.
func (l *layout) syncEach(files map[string]fileID, t *temp) error {
	var all []func() error
	dirs := map[string]bool{}
	for name, id := range files {
		dirs[path.Dir(name)] = true
		all = append(all, func() error { return l.syncFile(namedFile{name, id}) })
	}
	if t != nil {
		all = append(all, func() error { return l.vol.sync(t.f, t.name) })
	}
	above := false
	for dir := range dirs {
		_, known := l.anchored.Load(dir)
		above = above || !known
		all = append(all, func() error { return l.vol.syncDir(dir) })
	}
	if above { // whoever made these directories may not have made their names durable
		all = append(all, func() error { return l.vol.syncDir(blobsDir) })
	}
	if err := parallel(all, func(sync func() error) error { return sync() }); err != nil {
		return err
	}
	for dir := range dirs {
		l.anchored.Store(dir, true)
	}
	return nil
}

// syncFile makes the content of a file durable that has its name. One that could not be is not trusted any more: the
// system may report the next sync of it as good.
func (l *layout) syncFile(file namedFile) error {
	if l.mem.isSuspect(file.id) {
		return fmt.Errorf("%w: %s could not be made durable before; put it again", errs.ErrCorrupt, l.file(file.name))
	}
	f, err := l.vol.root.Open(file.name)
	if d, ok := blobAt(file.name); ok && absent(err) { // a collector may just have it in hand
		if err := l.unbury(d); err != nil {
			return err
		}
		f, err = l.vol.root.Open(file.name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err = l.vol.sync(f, file.name); err != nil {
		l.mem.setSuspect(file.id)
		l.vol.distrust()
	}
	return err
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

// flush makes everything in the layout durable, whoever wrote it.
func (l *layout) flush(ctx context.Context) error { return l.flushes.do(ctx, struct{}{}) }

func (l *layout) runFlushes(take func() []*call[struct{}]) {
	calls := take()
	err := l.vol.syncAll()
	if err != nil {
		err = l.flushEach()
	}
	if err == nil {
		err = l.syncParents()
	}
	for _, c := range calls {
		c.finish(err)
	}
}

// flushEach is for where the file system cannot be synced as a whole.
func (l *layout) flushEach() error {
	var files []namedFile
	dirs := []string{"."}
	visit := func(name string, e fs.DirEntry, err error) error {
		switch {
		case absent(err):
			return nil // renamed or removed meanwhile: what has its name now is looked at, or was put later
		case err != nil:
			return err
		case e.IsDir():
			dirs = append(dirs, name)
		case e.Type().IsRegular():
			id, err := l.vol.stat(name)
			if err == nil && !l.mem.isDurable(id) {
				files = append(files, namedFile{name, id})
			}
			if err != nil && !absent(err) {
				return err
			}
		}
		return nil
	}
	for _, top := range []string{markerName, indexName, blobsDir, stateDir} {
		if err := fs.WalkDir(l.vol.root.FS(), top, visit); err != nil {
			return err
		}
	}
	err := parallel(files, func(f namedFile) error {
		if err := l.syncFile(f); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil // renamed or removed meanwhile
	})
	if err != nil {
		return err
	}
	return parallel(dirs, l.vol.syncDir)
}
