package ocidir

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var _ scheme.IndexRestorer = (*OCIDir)(nil)

// IndexRestore implements scheme.IndexRestorer. What is remembered is .ocisync/roots, the entries of the last commit of
// ours; what other tools entered after that is not in it. The unusable index.json is kept in the quarantine. An
// oci-layout that is missing or makes no sense is written anew; one of a version that is not known is left.
func (o *OCIDir) IndexRestore(ctx context.Context, r ref.Ref) (scheme.IndexRestored, error) {
	const op = "index restore"
	path, err := o.locate(ctx, op, r)
	if err != nil {
		return scheme.IndexRestored{}, err
	}
	l, err := o.use(r, path)
	if err != nil {
		return scheme.IndexRestored{}, missing(op, r, err)
	}
	defer o.release(l)
	if _, err := l.vol.root.Lstat(blobsDir); err != nil {
		return scheme.IndexRestored{}, missing(op, r, err)
	}
	lock, err := l.vol.lockUntil(ctx)
	if err != nil {
		return scheme.IndexRestored{}, failWrite(op, r, "", err)
	}
	defer lock.unlock()
	out, err := l.restore(ctx, lock)
	if err != nil {
		return out, failWrite(op, r, "", err)
	}
	return out, nil
}

// restore runs under the lock.
func (l *layout) restore(ctx context.Context, lock *fileLock) (out scheme.IndexRestored, err error) {
	if ours, err := lock.valid(); err != nil || !ours {
		return out, errors.Join(err, errLockLost)
	}
	bad, err := l.unusable(ctx, indexName, func(raw []byte) error { _, err := parseIndex(raw, nil); return err })
	if err != nil {
		return out, err
	}
	if bad {
		ix, err := l.remembered()
		if err != nil {
			return out, err
		}
		if out.Kept, err = l.keepAside(indexName); err != nil {
			return out, err
		}
		if err := l.replace(indexName, ix.raw); err != nil {
			return out, err
		}
		out.Index, out.Entries = true, len(ix.entries)
	}
	bad, err = l.unusable(ctx, markerName, func(raw []byte) error { _, err := parseMarker(raw); return err })
	if bad && err == nil {
		err = l.replace(markerName, []byte(markerText))
		out.Marker = err == nil
	}
	if err == nil && (out.Index || out.Marker) && l.o.durability.commits() {
		err = l.vol.syncDir(".")
	}
	return out, err
}

// unusable reports whether a file is missing or makes no sense. One of a kind that is not known is not ours to replace.
func (l *layout) unusable(ctx context.Context, name string, parse func([]byte) error) (bool, error) {
	got, err := stable(ctx, l, name, func(raw []byte) (struct{}, error) { return struct{}{}, parse(raw) })
	switch {
	case err == nil:
		return false, got.f.Close()
	case absent(err):
		return true, nil
	case errors.Is(err, errs.ErrUnsupported):
		return false, err
	case errors.Is(err, errs.ErrCorrupt):
		return true, nil
	}
	return false, err
}

// remembered returns the index as the last commit of ours left it.
func (l *layout) remembered() (*index, error) {
	f, id, err := l.vol.openFile(rootsName)
	if err != nil {
		return nil, l.forgotten(err)
	}
	defer f.Close()
	if id.size > maxRoots {
		return nil, l.forgotten(errTooLarge)
	}
	raw, err := readAt(f, 0, id.size)
	if err != nil {
		return nil, err
	}
	j, start, err := parseHead(raw, id.size)
	if err != nil {
		return nil, l.forgotten(err)
	}
	ix, err := parseIndex(raw[start:j.end-1], nil)
	if err != nil {
		return nil, l.forgotten(err)
	}
	var lines []rootsLine
	j.lines(raw[j.end:], func(line rootsLine, _ int64) { lines = append(lines, line) })
	left := replay(ix, lines)
	var entries []*entry
	for _, e := range ix.entries { // in their order, and those that nobody can use as well
		if e.digest == "" || left[e.key()] == e {
			entries = append(entries, e)
			delete(left, e.key())
		}
	}
	for _, line := range lines {
		for _, raw := range line.Add {
			e, err := (&scanner{b: raw}).entry()
			if err != nil || left[e.key()] == nil || string(left[e.key()].raw) != string(e.raw) {
				continue
			}
			entries = append(entries, e)
			delete(left, e.key())
		}
	}
	next := ix.clone()
	next.entries = entries
	return next.encode(), nil
}

func (l *layout) forgotten(why error) error {
	return &errs.Error{
		Op: "read", Ref: l.file(rootsName), Err: fmt.Errorf("%w: nothing is known of what index.json said: %s", errs.ErrNotFound, why.Error()),
		Hint: "move the directory away and copy the images again",
	}
}

// keepAside gives a file a second name in the quarantine, or moves it there where it can have but one.
func (l *layout) keepAside(name string) (string, error) {
	if _, err := l.vol.root.Lstat(name); absent(err) {
		return "", nil
	}
	for _, dir := range []string{stateDir, quarantineDir} {
		if err := l.vol.mkdir(dir); err != nil {
			return "", err
		}
	}
	to, err := l.vol.freeName(path.Base(name))
	if err != nil {
		return "", err
	}
	if err := l.vol.link(l.vol, name, to); err == nil {
		return l.file(to), nil
	}
	return l.file(to), l.vol.rename(name, to)
}
