package ocidir

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// An OCIDir keeps few layouts open. The leases of one that it closes stay in force until it is closed itself: their
// files say at their end that they count although nobody has them locked. When the layout is opened again they go on.

// park closes the files, and leaves what was leased by the way in force. It returns the files' names.
func (ls *leases) park() (names []string, err error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	names = ls.parked
	for _, lf := range []*leaseFile{ls.recent, ls.older} {
		if lf == nil {
			continue
		}
		if aerr := lf.add(ls.vol, leaseKey{recordParked}); aerr != nil {
			err = errors.Join(err, fmt.Errorf("keep the leases of a layout that is closed: %w", aerr))
		}
		names = append(names, lf.name)
		err = errors.Join(err, lf.f.Close())
	}
	ls.recent, ls.older, ls.parked = nil, nil, nil
	return names, err
}

// unpark goes on with the newest file that was parked. The others, which expire, are removed by close. The caller
// holds mu.
func (ls *leases) unpark() error {
	name := ls.parked[0]
	f, err := ls.vol.root.OpenFile(name, os.O_RDWR, 0)
	if absent(err) {
		ls.parked = ls.parked[1:] // it expired, or .ocisync was deleted
		return nil
	}
	if err != nil {
		return err
	}
	ours, err := lockNew(ls.vol, f, name)
	if err != nil || !ours {
		return errors.Join(err, f.Close()) // somebody looks whether it is locked: a new file does as well
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxSeen*int64(len(leaseKey{}))))
	if err != nil {
		return errors.Join(err, f.Close())
	}
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	lf := &leaseFile{f: f, name: name, born: fi.ModTime(), known: map[leaseKey]struct{}{}}
	for k := range records(raw) {
		lf.known[k] = struct{}{}
		lf.size += int64(len(k))
	}
	delete(lf.known, leaseKey{recordParked})
	ls.recent, ls.parked = lf, ls.parked[1:]
	return nil
}
