package ocidir

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// ingest is an ingest that this process has open. It is for one goroutine at a time, and ends with close or drop, or when
// finish has made a blob of it.
type ingest struct {
	l     *layout
	claim *claim
	meta  *ingestMeta
	data  *temp // open for writing at its end
	size  int64 // bytes in data

	alg    digest.Algorithm
	hash   hash.Hash // of all of data; nil when it is unknown
	stored bool      // hash began with a stored state rather than with the bytes
	over   bool      // the files are closed
	saved  bool      // nothing changed since it was closed, with a hash that is stored
}

// openIngest opens the ingest key, or makes it. One that is open already is errs.ErrLocked.
func (l *layout) openIngest(ctx context.Context, key string, opt scheme.IngestOptions) (*ingest, error) {
	dir := join(ingestDir, nameOfKey(key))
	c, err := l.vol.claim(ctx, dir)
	if err != nil {
		return nil, err
	}
	in := &ingest{l: l, claim: c}
	if err := in.open(ctx, key, opt); err != nil {
		in.letGo()
		return nil, err
	}
	c.sign()
	return in, nil
}

// open opens data and learns what is known of it.
func (in *ingest) open(ctx context.Context, key string, opt scheme.IngestOptions) error {
	name := join(in.claim.dir, ingestData)
	f, err := in.l.vol.openOwn(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return in.create(ctx, key, opt)
	}
	if err != nil {
		return err
	}
	in.data = &temp{vol: in.l.vol, f: f, name: name}
	meta, err := in.l.readMeta(in.claim.dir)
	if err != nil && !errors.Is(err, errs.ErrCorrupt) {
		return err
	}
	if err != nil { // the bytes may be anything
		return in.restart(ctx, newMeta(key, opt))
	}
	in.meta = meta
	id, err := identify(f)
	if err != nil {
		return err
	}
	if meta.isOther(opt.Expected, id.size) {
		return in.restart(ctx, meta.anew(opt))
	}
	changed := meta.merge(opt)
	rebooted := in.rebooted()
	if rebooted && id.size > meta.Closed && !isPut(key) { // the end of a put is compared with its digest
		if err := in.l.vol.truncate(f, name, meta.Closed); err != nil {
			return err
		}
	}
	if changed || rebooted {
		if err := in.writeMeta(false); err != nil {
			return err
		}
	}
	if err := in.resume(ctx); err != nil {
		return err
	}
	in.saved = in.stored && !changed
	return nil
}

// rebooted reports that the system was started since meta was written: after a power loss, what was not made durable may
// be zeros. Where that is not known it is the caller who finds out, by the digest.
func (in *ingest) rebooted() bool {
	boot, _ := in.l.o.clock.boot()
	return boot != "" && in.meta.Boot != "" && boot != in.meta.Boot
}

// create makes an ingest that is not there. data comes last: with it the ingest exists, and whatever lies here without
// it is of one that was removed or became a blob.
func (in *ingest) create(ctx context.Context, key string, opt scheme.IngestOptions) error {
	in.meta = newMeta(key, opt)
	if err := in.writeMeta(false); err != nil {
		in.claim.clear()
		return err
	}
	name := join(in.claim.dir, ingestData)
	f, err := in.l.vol.openOwn(name, true)
	if err != nil {
		in.claim.clear()
		return in.l.vol.full(err, 0)
	}
	in.data = &temp{vol: in.l.vol, f: f, name: name}
	return in.resume(ctx)
}

// restart empties the ingest, and describes it anew. The bytes are gone, also from the disk, before anything says that
// they were to be another blob.
func (in *ingest) restart(ctx context.Context, meta *ingestMeta) error {
	if err := in.l.vol.truncate(in.data.f, in.data.name, 0); err != nil {
		return err
	}
	if in.l.o.durability.puts() {
		if err := in.l.vol.sync(in.data.f, in.data.name); err != nil {
			return err
		}
	}
	in.meta = meta
	if err := in.renewMeta(); err != nil {
		return err
	}
	return in.resume(ctx)
}

// resume goes to the end of data, with the hash of what is there: the stored one if it is that of this file, or made of
// the bytes.
func (in *ingest) resume(ctx context.Context) error {
	id, err := identify(in.data.f)
	if err != nil {
		return err
	}
	if _, err := in.data.f.Seek(id.size, io.SeekStart); err != nil {
		return err
	}
	in.size, in.alg = id.size, in.meta.algorithm()
	if in.hash = in.meta.Hash.restore(in.alg, id); in.hash != nil {
		in.stored = true
		return nil
	}
	return in.rehash(ctx, id.size)
}

// rehash makes the hash of the first size bytes anew, of what is on the disk.
func (in *ingest) rehash(ctx context.Context, size int64) error {
	h, err := in.digestOf(ctx, in.alg, size)
	if err == nil {
		in.hash, in.stored = h, false
	}
	return err
}

func (in *ingest) digestOf(ctx context.Context, alg digest.Algorithm, size int64) (hash.Hash, error) {
	h := alg.Hash()
	n, err := copyTo(ctx, h, io.NewSectionReader(in.data.f, 0, size), -1)
	if err == nil && n != size {
		err = fmt.Errorf("%s: %w", in.data.name, io.ErrUnexpectedEOF)
	}
	return h, err
}

// sum is the digest of all bytes so far.
func (in *ingest) sum() digest.Digest { return digest.NewDigest(in.alg, in.hash) }

// write appends p. The ingest then has what fitted, and errors are what they are for a put. Without a hash none is made.
func (in *ingest) write(p []byte) (int, error) {
	n, err := in.data.Write(p)
	if n > 0 {
		in.size += int64(n)
		in.saved = false
		if in.hash != nil {
			in.hash.Write(p[:n])
		}
		in.meta.Updated = now()
	}
	if err != nil {
		return n, in.l.vol.full(err, int64(len(p)))
	}
	return n, nil
}

// truncate cuts the ingest to size bytes. The hash is made first: when that fails nothing was changed.
func (in *ingest) truncate(ctx context.Context, size int64) error {
	h, err := in.digestOf(ctx, in.alg, size)
	if err != nil {
		return err
	}
	if size < in.meta.Closed {
		if err := in.forgetClosed(size); err != nil {
			return err
		}
	}
	if err := in.l.vol.truncate(in.data.f, in.data.name, size); err != nil {
		return err
	}
	in.hash, in.stored, in.saved, in.size, in.meta.Updated = h, false, false, size, now()
	_, err = in.data.f.Seek(size, io.SeekStart)
	return err
}

// newMeta describes a new ingest.
func newMeta(key string, opt scheme.IngestOptions) *ingestMeta {
	at := now()
	m := &ingestMeta{Version: 1, Key: []byte(key), Started: at, Updated: at, Owner: opt.Owner, Labels: maps.Clone(opt.Labels)}
	m.Algorithm = opt.Algorithm
	m.Expected = ingestExpected{MediaType: opt.Expected.MediaType, Digest: opt.Expected.Digest, Size: opt.Expected.Size}
	if m.Owner == "" {
		m.Owner = whoami()
	}
	return m
}

// isOther reports whether the ingest, which has size bytes, was begun for another blob than d, or has too much for it.
// What one of both leaves open fits.
func (m *ingestMeta) isOther(d types.Descriptor, size int64) bool {
	e := m.Expected
	return d.Digest != "" && e.Digest != "" && d.Digest != e.Digest ||
		types.SizeKnown(d) && (types.SizeKnown(e.descriptor()) && d.Size != e.Size || size > d.Size)
}

// anew is what is said of an ingest that starts over.
func (m *ingestMeta) anew(opt scheme.IngestOptions) *ingestMeta {
	if opt.Owner == "" {
		opt.Owner = m.Owner
	}
	if opt.Labels == nil {
		opt.Labels = m.Labels
	}
	if opt.Algorithm == "" {
		opt.Algorithm = m.Algorithm
	}
	return newMeta(string(m.Key), opt)
}

// merge adds what the caller says to what is known, and reports whether that changed anything.
func (m *ingestMeta) merge(opt scheme.IngestOptions) (changed bool) {
	set := func(p *string, s string) {
		if s != "" && *p != s {
			*p, changed = s, true
		}
	}
	set(&m.Expected.MediaType, opt.Expected.MediaType)
	if opt.Algorithm != "" && m.Algorithm != opt.Algorithm {
		m.Algorithm, changed = opt.Algorithm, true
	}
	if opt.Expected.Digest != "" && m.Expected.Digest == "" {
		m.Expected.Digest, changed = opt.Expected.Digest, true
	}
	if opt.Expected.Size > 0 && m.Expected.Size != opt.Expected.Size {
		m.Expected.Size, changed = opt.Expected.Size, true
	}
	if opt.Labels != nil && !maps.Equal(opt.Labels, m.Labels) {
		m.Labels, changed = maps.Clone(opt.Labels), true
	}
	return changed
}

// now is the time as it is stored.
func now() time.Time { return time.Now().UTC() }
