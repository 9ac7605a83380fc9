package ocidir

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Leases keep blobs from being collected that no index reaches yet. Each layout that is open for writing has a file in
// leases, which it holds locked, and appends a record to for every blob that it puts, finds present or mounts. What
// makes them right is the order: who wants a blob to stay leases it first, and then looks whether it is there. The
// collector takes a blob away first, and then reads the leases again. So either the look finds nothing, and the blob
// is put again, or the collector finds the lease, and puts the blob back.
//
// Nothing here is synced: after a power loss nobody lives who had a lease.
const leaseDir = stateDir + "/leases"

const (
	seenSuffix = ".seen" // of files whose leases were taken by the way; they count for leaseTime
	heldSuffix = ".held" // of files whose leases were asked for; they count until they are taken back

	// leaseTime is how long a lease counts that was taken by the way, at least; it is half of that in a layout that goes
	// on taking others. A server that never ends would keep everything that was ever pushed to it.
	leaseTime = 24 * time.Hour
	// maxSeen bounds the size of a file, and the memory, to 16 MiB each. Above it everything counts as leased.
	maxSeen = 1 << 20
)

// leaseKey is a record: the algorithm and the beginning of a digest. Two digests with one key keep each other, which does no harm.
type leaseKey [16]byte

// The first byte of a record. Those of algorithms are algorithmKey.
const (
	recordAll    = 'a' // everything is leased
	recordParked = 'p' // at the end of a file: it counts although nobody has it locked, until it is as old as leaseTime
	recordEnd    = '-' // the lease of the key that follows is taken back
)

var algorithmKey = map[digest.Algorithm]byte{digest.SHA256: '2', digest.SHA384: '3', digest.SHA512: '5'}

// keyOf returns the record of a digest, which was checked to be valid.
func keyOf(d digest.Digest) (k leaseKey) {
	k[0] = algorithmKey[d.Algorithm()]
	if _, err := hex.Decode(k[1:], []byte(d.Encoded()[:2*len(k)-2])); err != nil {
		panic("ocidir: a digest that was not checked: " + string(d))
	}
	return k
}

// leaseFile is a file of leases that this process has locked. It is for one goroutine at a time.
type leaseFile struct {
	f     *os.File
	name  string
	born  time.Time
	size  int64 // bytes that are records
	known map[leaseKey]struct{}
}

// newLeaseFile makes a file that nobody takes for that of a dead process.
func (v *volume) newLeaseFile(suffix string) (*leaseFile, error) {
	for range 100 {
		name := join(leaseDir, rand.Text()+suffix)
		f, err := v.create(name)
		if errors.Is(err, fs.ErrNotExist) { // .ocisync was deleted, or nobody leased anything yet
			for _, dir := range []string{stateDir, leaseDir, trashDir} { // the last for a collector that finds the disk full
				if err = v.mkdir(dir); err != nil {
					break
				}
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		ours, err := lockNew(v, f, name)
		if ours {
			return &leaseFile{f: f, name: name, born: time.Now(), known: map[leaseKey]struct{}{}}, nil
		}
		if err = errors.Join(err, f.Close(), v.remove(name)); err != nil {
			return nil, err
		}
	}
	return nil, &fs.PathError{Op: "create", Path: leaseDir, Err: errors.New("new files disappear again and again")}
}

// lockNew locks a file that was just opened, and reports whether nobody removed it before it was locked.
func lockNew(v *volume, f *os.File, name string) (bool, error) {
	if err := lockFile(f, false); err != nil {
		if errors.Is(err, errLocked) {
			err = nil
		}
		return false, err
	}
	return sameFile(v, f, name)
}

// add appends records. One that was written in part is written over by the next.
func (lf *leaseFile) add(v *volume, records ...leaseKey) error {
	p := make([]byte, 0, len(records)*len(leaseKey{}))
	for _, k := range records {
		p = append(p, k[:]...)
	}
	if _, err := v.writeAt(lf.f, lf.name, p, lf.size); err != nil {
		return v.full(err, int64(len(p)))
	}
	lf.size += int64(len(p))
	return nil
}

// gone reports whether somebody deleted the file, as .ocisync may be deleted at any time: then it says nothing to anybody.
func (lf *leaseFile) gone() bool { return links(lf.f) == 0 }

// drop takes all leases of the file back.
func (lf *leaseFile) drop(v *volume) error {
	if lf == nil {
		return nil
	}
	return errors.Join(v.remove(lf.name), lf.f.Close())
}

// leases are those of one open layout.
type leases struct {
	vol *volume

	mu      sync.Mutex // held while 16 bytes are written: that is what makes them one record
	recent  *leaseFile // leases taken by the way
	older   *leaseFile // those of the time before
	parked  []string   // files of the last time that this process had the layout open (see park)
	held    *leaseFile // leases that were asked for
	count   map[leaseKey]int
	refused bool // a reader may not write here
}

// take leases the blob d until leaseTime has passed, the layout is closed, or the process ends. fresh reports that it
// was not leased before: what was known of the blob until now may not hold any more.
func (ls *leases) take(d digest.Digest) (fresh bool, err error) {
	k := keyOf(d)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if err := ls.renew(); err != nil {
		return false, err
	}
	if _, known := ls.recent.known[k]; known {
		return false, nil
	}
	all := leaseKey{recordAll}
	if _, full := ls.recent.known[all]; full {
		return false, nil
	}
	if len(ls.recent.known) >= maxSeen {
		k = all
	}
	if err := ls.recent.add(ls.vol, k); err != nil {
		return false, err
	}
	ls.recent.known[k] = struct{}{}
	return true, nil
}

// renew makes sure that recent is a file that counts: it is there, and not so old that what it says is about to expire.
// The caller holds mu.
func (ls *leases) renew() error {
	if ls.recent == nil && len(ls.parked) > 0 {
		if err := ls.unpark(); err != nil {
			return err
		}
	}
	if ls.recent != nil {
		switch {
		case ls.recent.gone():
			return ls.again()
		case time.Since(ls.recent.born) < leaseTime/2:
			return nil
		}
	}
	fresh, err := ls.vol.newLeaseFile(seenSuffix)
	if err != nil {
		return err
	}
	err = ls.older.drop(ls.vol)
	ls.recent, ls.older = fresh, ls.recent
	return err
}

// again writes into a new file what those said that somebody deleted.
func (ls *leases) again() error {
	fresh, err := ls.vol.newLeaseFile(seenSuffix)
	if err != nil {
		return err
	}
	var all []leaseKey
	for _, lf := range []*leaseFile{ls.recent, ls.older} {
		if lf != nil {
			for k := range lf.known {
				fresh.known[k] = struct{}{}
				all = append(all, k)
			}
		}
	}
	if err := fresh.add(ls.vol, all...); err != nil {
		return errors.Join(err, fresh.drop(ls.vol))
	}
	fresh.born = ls.recent.born
	err = ls.recent.f.Close()
	if ls.older != nil {
		err = errors.Join(err, ls.older.f.Close())
	}
	ls.recent, ls.older = fresh, nil
	return err
}

// started reports whether anything was leased.
func (ls *leases) started() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.recent != nil
}

// look is take for a reader, who leases only where that costs nothing and is possible: where others write, too.
// A reader that may not write, or finds the disk full, reads all the same, and what it found may be collected.
func (ls *leases) look(d digest.Digest) (fresh bool, err error) {
	ls.mu.Lock()
	idle, refused := ls.recent == nil, ls.refused
	ls.mu.Unlock()
	if refused {
		return false, nil
	}
	if idle {
		if _, err := ls.vol.root.Stat(stateDir); err != nil {
			return false, nil // nobody has written here, and reading makes no files
		}
	}
	fresh, err = ls.take(d)
	switch {
	case err == nil:
		return fresh, nil
	case isReadOnly(err):
		ls.mu.Lock()
		ls.refused = true
		ls.mu.Unlock()
		return false, nil
	case isFull(err):
		return false, nil
	}
	return false, err
}

// hold leases blobs until let is called as often.
func (ls *leases) hold(keys []leaseKey) (err error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if err := ls.reopen(); err != nil {
		return err
	}
	if err := ls.held.add(ls.vol, keys...); err != nil {
		return err
	}
	for _, k := range keys {
		ls.count[k]++
	}
	return nil
}

// reopen makes sure that held is a file that counts, with what it says. Its records are those of count, and few others:
// a file that has more is written anew.
func (ls *leases) reopen() error {
	old := ls.held
	if old != nil && !old.gone() && old.size < int64(len(leaseKey{}))*int64(4*len(ls.count)+4096) {
		return nil
	}
	fresh, err := ls.vol.newLeaseFile(heldSuffix)
	if err != nil {
		return err
	}
	var all []leaseKey
	for k, n := range ls.count {
		for range n {
			all = append(all, k)
		}
	}
	if err := fresh.add(ls.vol, all...); err != nil {
		return errors.Join(err, fresh.drop(ls.vol))
	}
	if ls.count == nil {
		ls.count = map[leaseKey]int{}
	}
	ls.held = fresh
	return old.drop(ls.vol)
}

// let takes leases back. When the disk refuses the record the leases stay until the layout is closed.
func (ls *leases) let(keys []leaseKey) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.held == nil {
		return nil
	}
	var ends []leaseKey
	for _, k := range keys {
		if ls.count[k]--; ls.count[k] <= 0 {
			delete(ls.count, k)
		}
		ends = append(ends, leaseKey{recordEnd}, k)
	}
	if len(ls.count) > 0 {
		return ls.held.add(ls.vol, ends...)
	}
	last := ls.held
	ls.held = nil
	return last.drop(ls.vol)
}

// close takes all leases back.
func (ls *leases) close() error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	err := errors.Join(ls.recent.drop(ls.vol), ls.older.drop(ls.vol), ls.held.drop(ls.vol))
	for _, name := range ls.parked {
		err = errors.Join(err, ls.vol.remove(name))
	}
	ls.recent, ls.older, ls.held, ls.count, ls.parked = nil, nil, nil, nil, nil
	return err
}
