package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// beginWrite takes r's layout into use for writing. It makes the directory and what a writer needs in it, but no layout
// yet: settle does that once there is something to store. end must be called.
func (o *OCIDir) beginWrite(ctx context.Context, op string, r ref.Ref) (l *layout, end func(), err error) {
	path, err := o.locate(ctx, op, r)
	if err != nil {
		return nil, nil, err
	}
	if err := o.makeRepo(r, path); err != nil {
		return nil, nil, failWrite(op, r, "", err)
	}
	if l, err = o.use(r, path); err != nil {
		return nil, nil, failWrite(op, r, "", err)
	}
	if err := l.prepare(ctx); err != nil {
		o.release(l)
		return nil, nil, failWrite(op, r, "", err)
	}
	return l, func() { o.release(l) }, nil
}

// makeRepo makes the directory path of r's layout, and those above it, within r's tree.
func (o *OCIDir) makeRepo(r ref.Ref, path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := inside(treeOf(r), path); err != nil {
			return err
		}
	}
	return o.makeDirs(path)
}

// makeDirs makes the directory path and those above it. settle makes them durable.
func (o *OCIDir) makeDirs(path string) error {
	fi, err := os.Stat(path)
	switch {
	case err == nil && fi.IsDir():
		return nil
	case err == nil:
		return clobber(path, "a file is there")
	case errors.Is(err, errNoDir):
		return clobber(path, "a part of the path is a file")
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if parent := filepath.Dir(path); parent != path {
		if err := o.makeDirs(parent); err != nil {
			return err
		}
	}
	if o.hook != nil {
		if err := o.hook(stepMkdir, path); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// prepare makes the directory ready for writing, if it may be written to: it is a layout, or empty, or holds nothing
// but layouts. What dead writers left is removed once.
func (l *layout) prepare(ctx context.Context) error {
	err := l.check(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		err = usable(l.vol.root.FS(), l.path)
	}
	if err != nil || l.prepared.Load() {
		return err
	}
	for _, dir := range []string{stateDir, ingestDir} {
		if err := l.vol.mkdir(dir); err != nil {
			return err
		}
	}
	if err := l.vol.watchWrites(); err != nil {
		return err
	}
	if _, _, err := l.vol.sweep(); err != nil {
		return err
	}
	if err := l.sweepIngests(ctx); err != nil {
		return err
	}
	if _, _, err := l.vol.sweepLeases(ingestAge); err != nil && !isReadOnly(err) { // those of other users are theirs
		return err
	}
	l.prepared.Store(true)
	return nil
}

// usable reports what forbids to make a layout of a directory that is none: files of somebody else.
func usable(dir fs.FS, path string) error {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return err
	}
	ours := made(entries)
	var found []string
	for _, e := range entries {
		if e.Name() == markerName {
			return nil // somebody was faster
		}
		if ours[e.Name()] || e.Name() == "lost+found" {
			continue
		}
		if !e.IsDir() || reserved[e.Name()] || !holdsLayouts(dir, e.Name(), 0) {
			found = append(found, e.Name())
		}
	}
	if len(found) == 0 {
		return nil
	}
	slices.Sort(found)
	what := strings.Join(found[:min(3, len(found))], ", ")
	if more := len(found) - 3; more > 0 {
		what += fmt.Sprintf(" and %d more", more)
	}
	return clobber(path, "it is no image layout, and has "+what)
}

// made returns the names that belong to a layout whose making was interrupted. It is known by .ocisync, which comes
// first; oci-layout comes last.
func made(entries []fs.DirEntry) map[string]bool {
	for _, e := range entries {
		if e.Name() == stateDir {
			return map[string]bool{stateDir: true, blobsDir: true, indexName: true}
		}
	}
	return nil
}

// holdsLayouts reports whether a directory is a layout, or has nothing but such directories in it.
func holdsLayouts(dir fs.FS, name string, depth int) bool {
	if _, err := fs.Stat(dir, join(name, markerName)); err == nil {
		return true
	}
	entries, err := fs.ReadDir(dir, name)
	if err != nil || depth > 64 {
		return false
	}
	ours := made(entries)
	for _, e := range entries {
		if e.Name() == markerName {
			return true // it was finished since it was looked for
		}
	}
	for _, e := range entries {
		if !ours[e.Name()] && (!e.IsDir() || !holdsLayouts(dir, join(name, e.Name()), depth+1)) {
			return false
		}
	}
	return true
}

func clobber(path, what string) error {
	return &errs.Error{
		Op: "use directory", Ref: path, Err: errs.ErrClobber, Message: what,
		Hint: "choose an empty or new directory",
	}
}

// settle makes the directory a layout if it is none, and the way to it durable, once in the life of l.
func (l *layout) settle(ctx context.Context) error {
	if l.settled.Load() {
		if _, err := l.vol.stat(markerName); err == nil {
			return nil
		}
		l.settled.Store(false)
	}
	return l.commits.do(ctx, &change{})
}

// establish does what settle promises, under the file lock. The order makes a crash harmless: without oci-layout there
// is no layout, and with it there is an index.
func (l *layout) establish() error {
	if l.settled.Load() {
		return nil
	}
	for _, dir := range []string{blobsDir, join(blobsDir, "sha256")} {
		if err := l.vol.mkdir(dir); err != nil {
			return err
		}
	}
	for _, file := range []struct{ name, text string }{{indexName, emptyIndex}, {markerName, markerText}} {
		_, err := l.vol.stat(file.name)
		if err == nil && l.o.durability.commits() {
			err = l.vol.syncName(file.name) // who wrote it may not have done so
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if file.name == indexName {
			if _, err := l.loadMissing(); err != nil {
				return err
			}
		}
		if err := l.replace(file.name, []byte(file.text)); err != nil {
			return err
		}
	}
	if l.o.durability.commits() {
		if err := l.syncWay(); err != nil {
			return err
		}
	}
	l.settled.Store(true)
	return nil
}

// replace writes a small file whole, and durably but for its name.
func (l *layout) replace(name string, text []byte) error {
	t, err := l.vol.newTemp()
	if err != nil {
		return l.vol.full(err, int64(len(text)))
	}
	defer t.discard()
	if _, err := t.Write(text); err != nil {
		return l.vol.full(err, int64(len(text)))
	}
	if l.o.durability.commits() {
		if err := l.vol.sync(t.f, name); err != nil {
			return l.vol.full(err, int64(len(text)))
		}
	}
	return t.rename(name)
}

// syncWay makes durable the names of a layout's parts and of every directory on the way to it. Who made them may have
// died before it did so.
func (l *layout) syncWay() error {
	for _, dir := range []string{join(blobsDir, "sha256"), blobsDir, "."} {
		if err := l.vol.syncDir(dir); err != nil {
			return err
		}
	}
	return l.syncParents()
}

// syncParents makes durable the names of the directories on the way to the layout, and its own.
func (l *layout) syncParents() error {
	for path := l.path; filepath.Dir(path) != path; {
		path = filepath.Dir(path)
		f, err := os.Open(path)
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		if err != nil {
			return nil // who may not read a directory has not made one in it that is new
		}
		err = syncDirFile(f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil && !isReadOnly(err) {
			return err
		}
	}
	return nil
}
