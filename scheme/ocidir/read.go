package ocidir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

const (
	// tornWait is how long a file that does not parse may take to become whole: other tools write in place.
	tornWait = time.Second
	// tornQuiet is how long it must stay as it is before nobody is believed to be writing it.
	tornQuiet = 250 * time.Millisecond
	// maxIndexSize bounds what is read into memory.
	maxIndexSize = 256 << 20
)

// cached is the index as it was read. Its file stays open, so that no other file can get its inode number: while the
// file under that name has the same identity it is the same file.
type cached struct {
	ix   *index
	f    *os.File
	id   fileID
	sure bool // a later change of its bytes would show in id
}

func (c *cached) close() error {
	if c.f == nil {
		return nil
	}
	return c.f.Close()
}

// tick is how coarse the file's times may be: 4 ms before Linux 6.13, whole seconds on some file systems.
func (id fileID) tick() time.Duration {
	if id.ctime%int64(time.Second) == 0 {
		return 2 * time.Second
	}
	return 20 * time.Millisecond
}

// distinct reports whether whoever writes into the file after read gives it another modification time, however coarse
// those are: it is not of about now.
func (id fileID) distinct(read time.Time) bool {
	return read.Sub(time.Unix(0, id.mtime)).Abs() > id.tick()
}

// fresh reports whether c can be used for a file of that identity. While somebody may write in place without that it shows
// the bytes are compared each time.
func (c *cached) fresh(id fileID) bool {
	return c != nil && c.id == id && c.sure
}

// predate gives the next index a modification time that no later write can give it, and that is later than base's where
// times are fine enough for both.
func (l *layout) predate(t *temp, base *cached) error {
	id, err := identify(t.f)
	if err != nil {
		return err
	}
	to := time.Now().Add(-2 * id.tick())
	if last := time.Unix(0, base.id.mtime); !to.After(last) && id.tick() < time.Second {
		to = last.Add(time.Microsecond)
	}
	err = l.vol.setTime(t.name, to)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		return nil // then the bytes are compared
	}
	return err
}

// index returns the current state of index.json.
func (l *layout) index(ctx context.Context) (*index, error) {
	c, err := l.current(ctx)
	if err != nil {
		return nil, err
	}
	return c.ix, nil
}

// current returns the index as it is now, from memory if the file did not change. Of several who find that it did one
// reads it.
func (l *layout) current(ctx context.Context) (*cached, error) {
	id, err := l.vol.stat(indexName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if c := l.cache.Load(); c.fresh(id) {
		return c, nil
	}
	select {
	case l.loading <- struct{}{}:
		defer func() { <-l.loading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return l.load(ctx)
}

// load reads index.json if it changed. The caller has the loading token.
func (l *layout) load(ctx context.Context) (*cached, error) {
	old := l.cache.Load()
	id, err := l.vol.stat(indexName)
	if errors.Is(err, fs.ErrNotExist) {
		return l.loadMissing()
	}
	if err != nil {
		return nil, err
	}
	if old.fresh(id) {
		return old, nil
	}
	var prev *index
	if old != nil {
		prev = old.ix
	}
	read := time.Now()
	got, err := stable(ctx, l, indexName, func(raw []byte) (*index, error) {
		if prev != nil && bytes.Equal(raw, prev.raw) {
			return prev, nil
		}
		return parseIndex(raw, prev)
	})
	if err != nil {
		return nil, err
	}
	c := &cached{ix: got.doc, f: got.f, id: got.id, sure: got.id.distinct(read)}
	return c, l.setCache(c)
}

func (l *layout) setCache(c *cached) error {
	if old := l.cache.Swap(c); old != nil && old.f != c.f {
		return old.close()
	}
	return nil
}

// loadMissing takes a layout without index.json for empty if it has no blob either: somebody is making it. With blobs
// something is lost, and going on would lose the rest.
func (l *layout) loadMissing() (*cached, error) {
	isNew, err := l.isNew()
	if err != nil {
		return nil, err
	}
	if !isNew {
		return nil, l.corrupt(indexName, errors.New("it is missing"))
	}
	ix, err := parseIndex([]byte(emptyIndex), nil)
	if err != nil {
		return nil, err
	}
	return &cached{ix: ix}, nil
}

// whole is a file that was read and made sense.
type whole[T any] struct {
	doc T
	f   *os.File // open; the caller closes it
	id  fileID
}

// stable reads a file until it makes sense, or stays as it is without making any: then it is errs.ErrCorrupt.
func stable[T any](ctx context.Context, l *layout, name string, parse func([]byte) (T, error)) (whole[T], error) {
	var quiet time.Time
	var seen fileID
	if id, err := l.vol.stat(name); err == nil {
		if why := l.brokenAs(name, id); why != nil {
			return whole[T]{}, l.corrupt(name, why) // it was waited for before
		}
	}
	deadline := time.Now().Add(tornWait)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		got, moved, err := readWhole(l, name, parse)
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			return got, err
		case errors.Is(err, errs.ErrUnsupported):
			return got, l.corrupt(name, err)
		}
		now := time.Now()
		if moved || got.id != seen || quiet.IsZero() {
			quiet, seen = now.Add(tornQuiet), got.id
		}
		if now.After(deadline) || now.After(quiet) {
			l.broken.Store(name, brokenFile{got.id, err})
			return got, l.corrupt(name, err)
		}
		select {
		case <-ctx.Done():
			return got, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// brokenFile is a file that stayed as it was without making sense.
type brokenFile struct {
	id  fileID
	why error
}

// brokenAs returns what is known to be wrong with this state of a file.
func (l *layout) brokenAs(name string, id fileID) error {
	if b, ok := l.broken.Load(name); ok && b.(brokenFile).id == id {
		return b.(brokenFile).why
	}
	return nil
}

// readWhole reads a file once. moved reports that it changed meanwhile.
func readWhole[T any](l *layout, name string, parse func([]byte) (T, error)) (got whole[T], moved bool, err error) {
	f, id, err := l.vol.openFile(name)
	if err != nil {
		return got, false, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	got.id = id
	if id.size > maxIndexSize {
		return got, false, fmt.Errorf("%d bytes are more than %d", id.size, int64(maxIndexSize))
	}
	raw := make([]byte, id.size)
	if _, err := io.ReadFull(f, raw); err != nil {
		return got, true, err
	}
	after, err := identify(f)
	if err != nil {
		return got, false, err
	}
	if after != id && (after.size != id.size || after.mtime != id.mtime) { // a rename meanwhile changes ctime only
		return got, true, errors.New("it is being written")
	}
	got.id = after
	if got.doc, err = parse(raw); err != nil {
		return got, false, err
	}
	got.f = f
	return got, false, nil
}

// corrupt is the error for a file of the layout that cannot be used. It is left as it is.
func (l *layout) corrupt(name string, why error) error {
	if errors.Is(why, errs.ErrUnsupported) {
		return &errs.Error{Op: "read", Ref: l.file(name), Err: why}
	}
	cure := "ocisync verify DIRECTORY --restore-index brings back what our last commit left; else restore it from a copy, or move the directory away and copy the images again"
	if name == markerName {
		cure = "write " + markerText + " into it"
	}
	return &errs.Error{Op: "read", Ref: l.file(name), Err: fmt.Errorf("%w: %w", errs.ErrCorrupt, why), Hint: cure}
}
