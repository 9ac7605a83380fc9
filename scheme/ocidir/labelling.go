package ocidir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// labelling is one change of one blob's labels. Those that wait for the lock are made together.
type labelling struct {
	digest digest.Digest
	edit   func(old map[string]string) map[string]string // nil: drop the labels if their blob is gone
	info   blob.Info                                     // what the blob then is
}

// label changes the labels of the blob d, which must be there, and returns what it then is. The layout must be prepared.
func (l *layout) label(ctx context.Context, d digest.Digest, edit func(old map[string]string) map[string]string) (blob.Info, error) {
	c := &labelling{digest: d, edit: edit}
	err := l.labels.do(ctx, c)
	return c.info, err
}

// dropLabels removes the labels of blobs that are not there any more. It is called after they were removed: a crash in
// between leaves labels that belong to no blob (see labelRecord). Holding the index lock meanwhile is legal.
func (l *layout) dropLabels(ctx context.Context, blobs ...digest.Digest) error {
	for _, d := range blobs {
		_, err := l.vol.root.Lstat(labelsPath(d))
		if absent(err) {
			continue
		}
		if err == nil {
			err = l.labels.do(ctx, &labelling{digest: d})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// runLabels makes the changes that wait by the time the lock is there.
func (l *layout) runLabels(take func() []*call[*labelling]) {
	var calls []*call[*labelling]
	var err error
	for range 10 {
		var lock *fileLock
		if lock, err = l.vol.lockAs(labelsLock); err != nil {
			break
		}
		calls = append(calls, take()...)
		err = l.relabel(lock, calls)
		lock.unlock()
		if !errors.Is(err, errLockLost) {
			break
		}
	}
	if err != nil {
		calls = append(calls, take()...)
	}
	for _, c := range calls {
		if c.err == nil {
			c.err = err
		}
		c.finish(c.err)
	}
	time.Sleep(fairness)
}

// labelFile is the file of one blob's labels while it is changed.
type labelFile struct {
	digest   digest.Digest
	calls    []*call[*labelling]
	old, rec labelRecord
	next     *temp // nil when nothing changes
}

// fail gives everybody who changes the file an error.
func (f *labelFile) fail(err error) {
	for _, c := range f.calls {
		if c.err == nil {
			c.err = err
		}
	}
}

// relabel makes the changes of calls. An error of one blob is in its calls; one that is returned is everybody's.
func (l *layout) relabel(lock *fileLock, calls []*call[*labelling]) error {
	files := map[digest.Digest]*labelFile{}
	for _, c := range calls {
		c.err = nil
		f := files[c.arg.digest]
		if f == nil {
			f = &labelFile{digest: c.arg.digest}
			files[f.digest] = f
		}
		f.calls = append(f.calls, c)
	}
	var changed []*labelFile
	defer func() {
		for _, f := range changed {
			f.next.discard()
		}
	}()
	for _, f := range files {
		f.fail(l.editLabels(f))
		if f.next != nil {
			changed = append(changed, f)
		}
	}
	if l.o.durability.puts() {
		err := parallel(changed, func(f *labelFile) error { return l.files.do(context.Background(), f.next) })
		if err != nil {
			return l.vol.full(err, 0)
		}
	}
	if ours, err := lock.valid(); err != nil || !ours {
		return errors.Join(err, errLockLost)
	}
	for _, f := range changed {
		f.fail(l.installLabels(f))
	}
	return nil
}

// editLabels makes the next state of one blob's labels, or removes them if the blob is gone.
func (l *layout) editLabels(f *labelFile) error {
	name, err := blobPath(f.digest)
	if err != nil {
		return err
	}
	id, err := l.vol.stat(name)
	if absent(err) || notAFile(err) {
		return l.forgetLabels(f)
	}
	if err != nil {
		return err
	}
	if f.old, err = l.readLabels(f.digest, id); err != nil {
		return err
	}
	f.rec = f.old
	var raw []byte
	for _, c := range f.calls {
		if c.arg.edit == nil {
			continue
		}
		next := labelRecord{Created: id.mtime, Updated: max(time.Now().UnixNano(), f.rec.Updated+1), Labels: c.arg.edit(f.rec.Labels)}
		b, err := json.Marshal(next)
		if err == nil && len(b) > maxLabels {
			err = fmt.Errorf("%w: the labels of one blob take %d bytes, more than %d", errs.ErrInvalid, len(b), maxLabels)
		}
		if err != nil {
			c.err = err
			continue
		}
		f.rec, raw = next, b
		c.arg.info = next.info(f.digest, id)
	}
	if raw != nil {
		f.next, err = l.writeTemp(raw)
	}
	return err
}

// forgetLabels removes the labels of a blob that is not there.
func (l *layout) forgetLabels(f *labelFile) error {
	for _, c := range f.calls {
		if c.arg.edit != nil {
			c.err = errs.ErrBlobUnknown
		}
	}
	return l.vol.remove(labelsPath(f.digest))
}

// installLabels puts the next labels in their place. If they cannot be made durable there the old ones are put back.
func (l *layout) installLabels(f *labelFile) error {
	to := labelsPath(f.digest)
	err := f.next.rename(to)
	if errors.Is(err, fs.ErrNotExist) {
		if err = l.makeLabelDir(path.Dir(to)); err == nil {
			err = f.next.rename(to)
		}
	}
	if err != nil || !l.o.durability.puts() {
		return l.vol.full(err, 0)
	}
	if err := l.dirs.do(context.Background(), path.Dir(to)); err != nil {
		return errors.Join(err, l.restoreLabels(f))
	}
	return nil
}

// makeLabelDir makes a directory of labels, and durably so.
func (l *layout) makeLabelDir(dir string) error {
	for _, d := range []string{stateDir, labelsDir, dir} {
		if err := l.vol.mkdir(d); err != nil {
			return err
		}
	}
	if !l.o.durability.puts() {
		return nil
	}
	return errors.Join(l.vol.syncDir(labelsDir), l.vol.syncDir(stateDir), l.vol.syncDir("."))
}

// restoreLabels undoes installLabels: what failed must not be seen.
func (l *layout) restoreLabels(f *labelFile) error {
	to := labelsPath(f.digest)
	if f.old.Created == 0 {
		return l.vol.remove(to)
	}
	raw, err := json.Marshal(f.old)
	if err != nil {
		return err
	}
	t, err := l.writeTemp(raw)
	if err != nil {
		return err
	}
	defer t.discard()
	return t.rename(to)
}

// writeTemp makes a file of raw that lacks its name and is not durable yet.
func (l *layout) writeTemp(raw []byte) (*temp, error) {
	t, err := l.vol.newTemp()
	if err != nil {
		return nil, l.vol.full(err, int64(len(raw)))
	}
	if _, err := t.Write(raw); err != nil {
		t.discard()
		return nil, l.vol.full(err, int64(len(raw)))
	}
	return t, nil
}

// keepLabels makes t, which is about to become the blob d, as old as the damaged file that it replaces, if that has
// labels: to them it stays the same blob.
func (l *layout) keepLabels(t *temp, name string, d digest.Digest, deferred bool) error {
	created, err := l.labelledAt(name, d)
	if err != nil || created == 0 {
		return err
	}
	if err := l.vol.setTime(t.name, time.Unix(0, created)); err != nil {
		return err
	}
	if deferred || !l.o.durability.puts() {
		return nil
	}
	return l.vol.sync(t.f, t.name)
}

// labelledAt returns the time of a file that has labels and was, or still is, the blob d: under the blob's name, or in the
// quarantine. 0 is none.
func (l *layout) labelledAt(name string, d digest.Digest) (created int64, err error) {
	if _, err := l.vol.root.Lstat(labelsPath(d)); absent(err) {
		return 0, nil
	}
	ids, err := l.damagedAs(name, d)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		rec, err := l.readLabels(d, id)
		if err != nil {
			return 0, err
		}
		if rec.Created != 0 {
			return id.mtime, nil
		}
	}
	return 0, nil
}

// damagedAs returns the files that were, or still are, the blob d.
func (l *layout) damagedAs(name string, d digest.Digest) (ids []fileID, err error) {
	if id, err := l.vol.stat(name); err == nil {
		ids = append(ids, id)
	}
	aside, err := l.vol.quarantined()
	for _, k := range aside {
		if strings.HasPrefix(path.Base(k.name), string(d.Algorithm())+"-"+d.Encoded()+"-") {
			ids = append(ids, k.id)
		}
	}
	return ids, err
}
