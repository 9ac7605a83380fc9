package ocidir

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var (
	_ scheme.IngestManager = (*OCIDir)(nil)
	_ scheme.IngestFinder  = (*OCIDir)(nil)
)

// beginIngests takes the directory of r into use for its ingests, whether or not it is a layout already. Without a
// directory l is nil: there are none.
func (o *OCIDir) beginIngests(ctx context.Context, op string, r ref.Ref) (l *layout, end func(), err error) {
	path, err := o.locate(ctx, op, r)
	if err != nil {
		return nil, nil, err
	}
	l, err = o.use(r, path)
	if absent(err) {
		return nil, func() {}, nil
	}
	if err != nil {
		return nil, nil, failRead(op, r, "", err)
	}
	return l, func() { o.release(l) }, nil
}

// IngestStat implements scheme.IngestManager. It does not wait for a writer, and does not disturb one.
func (o *OCIDir) IngestStat(ctx context.Context, r ref.Ref, key string) (blob.Ingest, error) {
	const op = "ingest stat"
	l, end, err := o.beginIngests(ctx, op, r)
	if err != nil {
		return blob.Ingest{}, err
	}
	defer end()
	if l == nil || key == "" {
		return blob.Ingest{}, fail(op, r, "", errs.ErrUploadUnknown)
	}
	info, err := l.statIngest(nameOfKey(key))
	if err != nil {
		return blob.Ingest{}, failRead(op, r, "", err)
	}
	info.Key = key // also of one whose meta cannot be read
	return info, nil
}

// statIngest describes the ingest whose directory has that name: errs.ErrUploadUnknown without data. When meta is damaged
// or absent only offset, time and whether it is open are known.
func (l *layout) statIngest(name string) (blob.Ingest, error) {
	dir := join(ingestDir, name)
	held, err := l.vol.isHeld(dir)
	if err != nil {
		return blob.Ingest{}, err
	}
	fi, err := l.vol.root.Lstat(join(dir, ingestData))
	if absent(err) {
		return blob.Ingest{}, errs.ErrUploadUnknown
	}
	if err != nil {
		return blob.Ingest{}, err
	}
	info := blob.Ingest{}
	meta, err := l.readMeta(dir)
	switch {
	case err == nil:
		info = meta.info(fi.Size())
	case errors.Is(err, errs.ErrCorrupt):
		info.Offset = fi.Size()
	default:
		return blob.Ingest{}, err
	}
	if m := fi.ModTime().UTC(); m.After(info.Updated) {
		info.Updated = m
	}
	info.Active = held
	return info, nil
}

// ingestName is an ingest that was found: what its key is and where.
type ingestName struct{ key, name string }

// ingests lists all ingests in byte order of their keys. Those whose key cannot be read come first.
func (l *layout) ingests(ctx context.Context) ([]ingestName, error) {
	var all []ingestName
	err := l.eachIngestDir(ctx, func(name string) error {
		_, err := l.vol.root.Lstat(join(ingestDir, name, ingestData))
		if absent(err) {
			return nil
		}
		if err != nil {
			return err
		}
		found := ingestName{name: name}
		meta, err := l.readMeta(join(ingestDir, name))
		if err == nil {
			found.key = string(meta.Key)
		} else if !errors.Is(err, errs.ErrCorrupt) {
			return err
		}
		all = append(all, found)
		return nil
	})
	slices.SortFunc(all, func(a, b ingestName) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.name, b.name))
	})
	return all, err
}

// eachIngestDir calls fn with every name that an ingest's directory could have.
func (l *layout) eachIngestDir(ctx context.Context, fn func(name string) error) error {
	dir, err := l.vol.root.Open(ingestDir)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if absent(err) { // a file has its name
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !isIngest(name) {
			continue
		}
		if err := fn(name); err != nil {
			return err
		}
	}
	return nil
}

// IngestList implements scheme.IngestManager. An ingest whose meta is damaged has no key: Ingest starts it over, and
// IngestExpire removes it.
func (o *OCIDir) IngestList(ctx context.Context, r ref.Ref, fn func(blob.Ingest) error) error {
	const op = "ingest list"
	l, end, err := o.beginIngests(ctx, op, r)
	if err != nil || l == nil {
		return err
	}
	defer end()
	all, err := l.ingests(ctx)
	if err != nil {
		return failRead(op, r, "", err)
	}
	for _, in := range all {
		if err := ctx.Err(); err != nil {
			return fail(op, r, "", err)
		}
		info, err := l.statIngest(in.name)
		if errors.Is(err, errs.ErrUploadUnknown) {
			continue // removed meanwhile
		}
		if err != nil {
			return failRead(op, r, "", err)
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// IngestFind implements scheme.IngestFinder: it looks into one directory after the other.
func (o *OCIDir) IngestFind(ctx context.Context, r ref.Ref, fn func(repo string) error) error {
	const op = "ingest find"
	path, err := o.locate(ctx, op, r.Base())
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(path)
	if absent(err) {
		return nil
	}
	if err != nil {
		return failRead(op, r, "", err)
	}
	defer root.Close()
	w := &walker{tree: root.FS(), fn: fn, is: hasIngests}
	err = w.walk(ctx)
	if err == nil || w.err != nil {
		return w.err
	}
	return failRead(op, r, "", err)
}

// hasIngests reports whether the directory repo of a tree has something in it that may be an ingest.
func hasIngests(tree fs.FS, repo string) (bool, error) {
	entries, err := fs.ReadDir(tree, join(".", repo, ingestDir))
	if absent(err) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return isIngest(e.Name()) }), err
}

// IngestAbort implements scheme.IngestManager.
func (o *OCIDir) IngestAbort(ctx context.Context, r ref.Ref, key string) error {
	const op = "ingest abort"
	l, end, err := o.beginIngests(ctx, op, r)
	if err != nil {
		return err
	}
	defer end()
	if l == nil || key == "" {
		return fail(op, r, "", errs.ErrUploadUnknown)
	}
	_, err = l.removeIngest(ctx, nameOfKey(key), func(blob.Ingest) bool { return true })
	if err != nil {
		return failWrite(op, r, "", err)
	}
	return nil
}

// removeIngest removes an ingest if nobody has it open and it still is to be removed then: errs.ErrLocked or
// errs.ErrUploadUnknown otherwise.
func (l *layout) removeIngest(ctx context.Context, name string, remove func(blob.Ingest) bool) (blob.Ingest, error) {
	if _, err := l.statIngest(name); err != nil {
		return blob.Ingest{}, err // and not make one to lock it
	}
	c, err := l.vol.claim(ctx, join(ingestDir, name))
	if err != nil {
		return blob.Ingest{}, err
	}
	defer c.release()
	info, err := l.statIngest(name)
	info.Active = false // it is us who have it
	switch {
	case errors.Is(err, errs.ErrUploadUnknown):
		c.clear()
		return info, err
	case err != nil:
		return info, err
	case !remove(info):
		return info, errs.ErrLocked
	}
	return info, c.remove()
}

// IngestExpire implements scheme.IngestManager. Age is measured with this machine's clock.
func (o *OCIDir) IngestExpire(ctx context.Context, r ref.Ref, age time.Duration) ([]blob.Ingest, error) {
	const op = "ingest expire"
	l, end, err := o.beginIngests(ctx, op, r)
	if err != nil || l == nil {
		return nil, err
	}
	defer end()
	gone, err := l.expireIngests(ctx, age)
	if err != nil {
		return gone, failWrite(op, r, "", err)
	}
	return gone, nil
}

// expireIngests removes the ingests that nobody has open and that were not written to for age, and returns them.
func (l *layout) expireIngests(ctx context.Context, age time.Duration) ([]blob.Ingest, error) {
	old := func(info blob.Ingest) bool {
		return !info.Active && (age <= 0 || time.Since(info.Updated) >= age)
	}
	all, err := l.ingests(ctx)
	if err != nil {
		return nil, err
	}
	var gone []blob.Ingest
	for _, in := range all {
		info, err := l.expireIngest(ctx, in.name, old)
		switch {
		case err == nil:
			gone = append(gone, info)
		case !errors.Is(err, errs.ErrLocked) && !errors.Is(err, errs.ErrUploadUnknown):
			return gone, err
		}
	}
	return gone, nil
}

// expireIngest is removeIngest, but looks before it locks: one that is not to be removed is not disturbed.
func (l *layout) expireIngest(ctx context.Context, name string, old func(blob.Ingest) bool) (blob.Ingest, error) {
	info, err := l.statIngest(name)
	if err != nil {
		return info, err
	}
	if !old(info) {
		return info, errs.ErrLocked
	}
	return l.removeIngest(ctx, name, old)
}

// sweepIngests removes what interrupted commits and aborts left, and what isAbandoned says. Other
// ingests belong to who began them, who may take any time.
func (l *layout) sweepIngests(ctx context.Context) error {
	return l.eachIngestDir(ctx, func(name string) error {
		dir := join(ingestDir, name)
		fi, err := l.vol.root.Lstat(join(dir, ingestData))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = l.sweepIngest(ctx, dir)
		case err == nil && time.Since(fi.ModTime()) >= putAge:
			_, err = l.expireIngest(ctx, name, isAbandoned)
		}
		if absent(err) || errors.Is(err, errs.ErrLocked) || errors.Is(err, errs.ErrUploadUnknown) || isReadOnly(err) {
			return nil // it is in use, gone, or another user's
		}
		return err
	})
}

// sweepIngest removes a directory that has no data, unless somebody is about to make some.
func (l *layout) sweepIngest(ctx context.Context, dir string) error {
	if held, err := l.vol.isHeld(dir); held || err != nil {
		return err
	}
	c, err := l.vol.claim(ctx, dir)
	if err != nil {
		return err
	}
	defer c.release()
	if _, err := l.vol.root.Lstat(join(dir, ingestData)); errors.Is(err, fs.ErrNotExist) {
		c.clear()
	}
	return nil
}
