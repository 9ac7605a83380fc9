package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/errs"
)

// removed reports that somebody deleted data, who did not ask for the claim. It costs one look at an open file.
func (in *ingest) removed() bool { return links(in.data.f) == 0 }

// check is errs.ErrUploadUnknown when somebody deleted or replaced any file that makes the ingest this one's.
func (in *ingest) check() error {
	for f, name := range map[*os.File]string{in.claim.f: join(in.claim.dir, ingestLock), in.data.f: in.data.name} {
		if same, err := sameFile(in.l.vol, f, name); err != nil || !same {
			return errors.Join(errs.ErrUploadUnknown, err)
		}
	}
	return nil
}

// forgetClosed says, before some of what was closed is replaced, that only size bytes are sure to outlive a power loss.
func (in *ingest) forgetClosed(size int64) error {
	in.meta.Closed, in.meta.Hash, in.saved = size, nil, false
	return in.renewMeta()
}

// renewMeta makes it sure that a meta file which says too much does not come back with a power loss.
func (in *ingest) renewMeta() error {
	durable := in.l.o.durability.puts()
	if err := in.writeMeta(durable); err != nil || !durable {
		return err
	}
	return in.l.vol.syncDir(in.claim.dir)
}

// close keeps the ingest for later. With durable, and when the layout makes all puts durable, its bytes and all that is
// known of it survive a power loss, the state of its hash included.
func (in *ingest) close(durable bool) error {
	defer in.letGo()
	if err := in.check(); err != nil {
		return err
	}
	if in.size == 0 && in.meta.Closed == 0 { // there is nothing that a power loss could take, and meta says all there is
		return nil
	}
	durable = durable && in.l.o.durability.puts()
	if !in.saved {
		if err := in.save(durable); err != nil {
			return err
		}
	}
	if !durable {
		return nil
	}
	return in.syncWay()
}

// leave keeps the ingest as it is.
func (in *ingest) leave() error {
	defer in.letGo()
	return in.check()
}

// flush is what close does, for an ingest that stays open: who asks for it wants more than the level Commit gives.
func (in *ingest) flush() error {
	if err := in.check(); err != nil {
		return err
	}
	if !in.l.o.durability.commits() {
		return nil
	}
	if err := in.save(true); err != nil {
		return err
	}
	return in.syncWay()
}

// save writes meta for who comes next. A hash that is stored is one of bytes that are on the disk.
func (in *ingest) save(durable bool) error {
	in.meta.Hash = nil
	if durable {
		if err := in.renew(); err != nil {
			return err
		}
		if err := in.l.vol.sync(in.data.f, in.data.name); err != nil {
			return errors.Join(err, in.suspect())
		}
		id, err := identify(in.data.f)
		if err != nil {
			return err
		}
		if in.hash != nil && id.size == in.size {
			in.meta.Hash = stateOf(in.alg, in.hash, id)
		}
	}
	in.meta.Closed = in.size
	return in.writeMeta(durable)
}

// suspect notes, for later processes as well, that a sync of data failed.
func (in *ingest) suspect() error {
	in.meta.Suspect, in.meta.Hash, in.saved = true, nil, false
	return in.writeMeta(false)
}

// renew makes a new file of data after a sync of it failed: its bytes may be in memory only, where another sync would
// report success. Bytes that are lost already are noticed, unless this process has not seen them all.
func (in *ingest) renew() error {
	if !in.meta.Suspect {
		return nil
	}
	t, err := in.l.vol.newTemp()
	if err != nil {
		return in.l.vol.full(err, in.size)
	}
	defer func() {
		if t != in.data {
			t.discard()
		}
	}()
	h := in.alg.Hash()
	n, err := copyTo(context.Background(), io.MultiWriter(t, h), io.NewSectionReader(in.data.f, 0, in.size), -1)
	if err == nil && (n != in.size || in.hash != nil && !in.stored && digest.NewDigest(in.alg, h) != in.sum()) {
		err = fmt.Errorf("%w: what was written to %s is lost", errs.ErrCorrupt, in.l.file(in.data.name))
	}
	if err == nil {
		err = in.l.vol.sync(t.f, t.name)
	}
	if err == nil {
		err = t.rename(in.data.name)
	}
	if err != nil {
		return in.l.vol.full(err, in.size)
	}
	in.data.f.Close()
	t.name, t.done = in.data.name, false
	in.data, in.hash, in.stored, in.meta.Suspect = t, h, false, false
	return nil
}

// syncWay makes durable that the ingest is there.
func (in *ingest) syncWay() error {
	l := in.l
	for _, dir := range []string{in.claim.dir, ingestDir, stateDir, "."} {
		if err := l.vol.syncDir(dir); err != nil {
			return err
		}
	}
	if l.settled.Load() || l.reachable.Load() {
		return nil
	}
	if err := l.syncParents(); err != nil {
		return err
	}
	l.reachable.Store(true)
	return nil
}

// drop removes the ingest.
func (in *ingest) drop() error {
	defer in.letGo()
	if err := in.check(); err != nil {
		return err
	}
	return in.claim.remove()
}

// letGo closes the files. It changes nothing on the disk.
func (in *ingest) letGo() {
	in.over = true
	if in.data != nil {
		in.data.f.Close()
	}
	in.claim.release()
}

// writeMeta replaces the meta file.
func (in *ingest) writeMeta(durable bool) error {
	in.meta.Boot, _ = in.l.o.clock.boot()
	text, err := in.meta.encode()
	if err != nil {
		return err
	}
	t, err := in.l.writeTemp(text)
	if err != nil {
		return err
	}
	defer t.discard()
	if durable {
		err = in.l.vol.sync(t.f, t.name)
	}
	if err == nil {
		err = t.rename(join(in.claim.dir, ingestInfo))
	}
	return in.l.vol.full(err, int64(len(text)))
}

// readMeta reads the meta file of the ingest in dir. One that is absent, torn or not ours is errs.ErrCorrupt.
func (l *layout) readMeta(dir string) (*ingestMeta, error) {
	name := join(dir, ingestInfo)
	f, id, err := l.vol.openFile(name)
	if absent(err) {
		return nil, fmt.Errorf("%w: %w", errs.ErrCorrupt, err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if id.size > maxMeta {
		return nil, fmt.Errorf("%w: %s has %d bytes", errs.ErrCorrupt, l.file(name), id.size)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxMeta))
	if err != nil {
		return nil, err
	}
	m, err := parseMeta(raw, dir[len(ingestDir)+1:])
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errs.ErrCorrupt, l.file(name), err)
	}
	return m, nil
}
