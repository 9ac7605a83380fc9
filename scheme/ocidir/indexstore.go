package ocidir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var _ scheme.IndexStore = (*OCIDir)(nil)

// IndexGet implements scheme.IndexStore.
func (o *OCIDir) IndexGet(ctx context.Context, r ref.Ref) ([]byte, error) {
	const op = "index get"
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return nil, err
	}
	defer end()
	c, err := l.current(ctx)
	if err != nil {
		return nil, failRead(op, r, "", err)
	}
	if c.f == nil { // somebody is making the layout
		return nil, fail(op, r, "", fmt.Errorf("%w: there is no %s yet", errs.ErrNotFound, indexName))
	}
	return bytes.Clone(c.ix.raw), nil
}

// IndexPut implements scheme.IndexStore. What it drops was dropped on purpose, and is not reported as lost; the files
// stay. An index.json that is damaged is not replaced: that is errs.ErrCorrupt.
func (o *OCIDir) IndexPut(ctx context.Context, r ref.Ref, old, next []byte) error {
	const op = "index put"
	ix, err := parseNext(next)
	if err != nil {
		return fail(op, r, "", err)
	}
	if err := o.refuseUnusable(ctx, op, r, ix); err != nil {
		return err
	}
	if old != nil { // a compare makes nothing that is not there
		_, end, err := o.begin(ctx, op, r)
		if errors.Is(err, errs.ErrNotFound) {
			err = fail(op, r, "", fmt.Errorf("%w: there is no such layout", errs.ErrConflict))
		}
		if err != nil {
			return err
		}
		defer end()
	}
	l, end, err := o.beginWrite(ctx, op, r)
	if err != nil {
		return err
	}
	defer end()
	if err := l.replaceIndex(ctx, old, ix); err != nil {
		return failWrite(op, r, "", err)
	}
	return nil
}

// parseNext reads an index that is to be stored. It is as tolerant as the reading of what is stored.
func parseNext(raw []byte) (*index, error) {
	if len(raw) > maxIndexSize {
		return nil, fmt.Errorf("%w: an index of %d bytes, more than %d", errs.ErrSizeInvalid, len(raw), int64(maxIndexSize))
	}
	raw = bytes.Clone(raw)
	ix, err := parseIndex(raw, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: it is no image index: %w", errs.ErrInvalid, err)
	}
	s := &scanner{b: raw}
	err = s.object(func(key string) error {
		if key != "mediaType" {
			_, err := s.skip(0)
			return err
		}
		mt, err := s.str()
		if err == nil && mt != "" && !types.IsIndex(mt) {
			err = fmt.Errorf("its mediaType is %q", mt)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: it is no image index: %w", errs.ErrInvalid, err)
	}
	return ix, nil
}

// refuseUnusable refuses entries that name nothing, as their digest is none, but those that are there already: what
// other tools wrote stays.
func (o *OCIDir) refuseUnusable(ctx context.Context, op string, r ref.Ref, next *index) error {
	usable := func(e *entry) bool { return e.digest != "" }
	odd := slices.DeleteFunc(slices.Clone(next.entries), usable)
	if len(odd) == 0 {
		return nil
	}
	l, end, err := o.begin(ctx, op, r)
	if err == nil {
		defer end()
		now, err := l.index(ctx)
		if err != nil {
			return failRead(op, r, "", err)
		}
		odd = without(odd, now.entries)
	} else if !errors.Is(err, errs.ErrNotFound) {
		return err
	}
	if len(odd) == 0 {
		return nil
	}
	return fail(op, r, "", fmt.Errorf("%w: it is no image index: an entry has no valid digest: %.200s", errs.ErrInvalid, odd[0].raw))
}

// replaceIndex puts next in the place of old, or of whatever there is if that is nil.
func (l *layout) replaceIndex(ctx context.Context, old []byte, next *index) error {
	if err := l.settle(ctx); err != nil {
		return err
	}
	if old != nil { // who lost already need not sync
		now, err := l.index(ctx)
		if err != nil {
			return err
		}
		if !bytes.Equal(now.raw, old) {
			return errNotOld
		}
	}
	if err := l.reachDurable(ctx, next); err != nil {
		return err
	}
	return l.commits.do(ctx, &change{apply: func(_ context.Context, d *draft) ([]namedFile, error) {
		if old != nil && !bytes.Equal(d.raw(), old) {
			return nil, errNotOld
		}
		d.replaceAll(next)
		return nil, nil
	}})
}

var errNotOld = &errs.Error{Err: errs.ErrConflict, Message: "the index is another one by now", Hint: "read it again, and repeat the change"}

// replaceAll makes next the index, byte by byte.
func (d *draft) replaceAll(next *index) {
	if bytes.Equal(d.raw(), next.raw) {
		return
	}
	d.next, d.verbatim = next, true
	d.dropped, d.added = without(d.base.entries, next.entries), without(next.entries, d.base.entries)
}

// without returns those of all that are not in others, an entry as often as it is there more often.
func without(all, others []*entry) (left []*entry) {
	there := make(map[string]int, len(others))
	for _, e := range others {
		there[string(e.raw)]++
	}
	for _, e := range all {
		if there[string(e.raw)]--; there[string(e.raw)] < 0 {
			left = append(left, e)
		}
	}
	return left
}

// raw is the index as it would be written now.
func (d *draft) raw() []byte {
	if d.next == nil {
		return d.base.raw
	}
	return d.encode().raw
}

// encode returns the index to be written. One that replaced the whole is written as it is.
func (d *draft) encode() *index {
	if d.verbatim {
		return d.next
	}
	next := d.next.encode()
	next.reorder(d.base, d.added, d.dropped)
	return next
}

// reachDurable makes durable what is there of what an index names and reaches. Where that is much it is not looked at one
// by one: everything in the layout becomes durable, and so it does when a damaged manifest does not tell what it names.
func (l *layout) reachDurable(ctx context.Context, ix *index) error {
	if !l.o.durability.commits() {
		return nil
	}
	var files []namedFile
	for i, e := range ix.entries {
		if i+len(files) >= manyFiles {
			return l.flush(ctx)
		}
		more, err := l.reachedBy(ctx, e)
		if unreadable(err) {
			return l.flush(ctx)
		}
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	return l.durable(ctx, files...)
}

// reachedBy returns the files that an entry names and reaches.
func (l *layout) reachedBy(ctx context.Context, e *entry) ([]namedFile, error) {
	name, err := blobPath(e.digest)
	if err != nil {
		return nil, nil // it is kept, and names nothing
	}
	id, err := l.vol.stat(name)
	if absent(err) || notAFile(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	files := []namedFile{{name, id}}
	if e.mediaType != "" && !types.IsIndex(e.mediaType) && !types.IsImage(e.mediaType) {
		return files, nil
	}
	m, err := l.readManifest(ctx, e.digest, e.mediaType)
	if err != nil {
		return nil, err
	}
	v, err := m.View()
	if err != nil {
		return files, nil // it names nothing
	}
	more, err := l.closure(ctx, v)
	return append(files, more...), err
}
