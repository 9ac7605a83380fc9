package ocidir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// leased is what a collector knows of all processes' leases. It only grows but for those that are taken back.
type leased struct {
	vol  *volume
	now  time.Time     // by the clock of the file system
	age  time.Duration // how old the file of a dead process may be and still count
	seen map[leaseKey]struct{}
	read map[string]int64 // how much of a file is in seen
	held map[leaseKey]struct{}
	all  bool // some process leased more than it could write down

	timeless bool // the clock cannot be trusted: leases do not expire

	dir   fs.FileInfo // of leases, by the time of the last refresh
	sure  bool        // who makes or removes a file there after that gives dir another time
	ended bool        // some file has leases that do not count
	still bool        // nobody did between the last refresh and the one before: no leases have ended that were not read
}

func newLeased(v *volume, now time.Time, grace time.Duration) *leased {
	return &leased{vol: v, now: now, age: grace, seen: map[leaseKey]struct{}{}, read: map[string]int64{}}
}

// has reports whether anybody leased d by the time of the last refresh.
func (s *leased) has(d digest.Digest) bool {
	if s.all {
		return true
	}
	k := keyOf(d)
	if _, ok := s.seen[k]; ok {
		return true
	}
	_, ok := s.held[k]
	return ok
}

// refresh reads what was leased since the last time.
func (s *leased) refresh(ctx context.Context) error {
	for range 100 {
		names, err := s.vol.names(leaseDir)
		if err != nil {
			return err
		}
		s.held = map[leaseKey]struct{}{}
		s.ended = false
		moved := false
		for _, n := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := s.file(join(leaseDir, n))
			if errors.Is(err, fs.ErrNotExist) { // its owner ended, or goes on in another file
				moved = true
				continue
			}
			if err != nil {
				return err
			}
		}
		if !moved {
			return s.compare()
		}
	}
	return &fs.PathError{Op: "read", Path: leaseDir, Err: errors.New("files disappear again and again")}
}

// compare finds out whether files of leases came or went. It comes after they were read.
func (s *leased) compare() error {
	now, err := s.vol.root.Stat(leaseDir)
	if err != nil {
		s.dir, s.sure, s.still = nil, false, false
		return ignoreGone(err)
	}
	s.still = s.sure && !s.ended && os.SameFile(now, s.dir) && now.ModTime().Equal(s.dir.ModTime())
	id := fileID{mtime: cutTime(now.ModTime().UnixNano())}
	id.ctime = id.mtime
	s.dir, s.sure = now, id.distinct(time.Now())
	return nil
}

// file reads one file, if it counts.
func (s *leased) file(name string) error {
	held := strings.HasSuffix(name, heldSuffix)
	if !held && !strings.HasSuffix(name, seenSuffix) {
		return nil
	}
	lf, err := s.vol.openLease(name)
	if err != nil || lf == nil {
		return err
	}
	defer lf.f.Close()
	from := s.read[name]
	if held {
		from = 0
	}
	raw, err := io.ReadAll(io.NewSectionReader(lf.f, from, maxLeaseFile-from))
	if err != nil {
		return err
	}
	if !s.counts(lf, raw) {
		s.ended = s.ended || len(raw) > 0
		return nil
	}
	if held {
		s.hold(raw)
		return nil
	}
	for k := range records(raw) {
		switch k[0] {
		case recordAll:
			s.all = true
		case recordParked:
		default:
			s.seen[k] = struct{}{}
		}
		from += int64(len(k))
	}
	s.read[name] = from
	return nil
}

// maxLeaseFile bounds what is read into memory; ours are smaller.
const maxLeaseFile = 256 << 20

// hold enters the leases of a file that were not taken back.
func (s *leased) hold(raw []byte) {
	count := map[leaseKey]int{}
	step := 1
	for k := range records(raw) {
		if k[0] == recordEnd {
			step = -1
			continue
		}
		count[k] += step
		step = 1
	}
	for k, n := range count {
		if n > 0 {
			s.held[k] = struct{}{}
		}
	}
}

// records are the whole records of a file; half of one is being written by somebody who has not looked yet.
func records(raw []byte) iter.Seq[leaseKey] {
	return func(yield func(leaseKey) bool) {
		for ; len(raw) >= len(leaseKey{}); raw = raw[len(leaseKey{}):] {
			if !yield(leaseKey(raw)) {
				return
			}
		}
	}
}

// openedLease is a file of leases that a collector reads.
type openedLease struct {
	f    *os.File
	held bool
	size int64
	time time.Time // of the last record
	dead bool      // nobody has it locked
}

// openLease opens a file of leases and finds out whether its owner lives. What is no file is nobody's: nil.
func (v *volume) openLease(name string) (*openedLease, error) {
	fi, err := v.root.Lstat(name)
	if err != nil || !fi.Mode().IsRegular() {
		return nil, err
	}
	f, err := v.root.Open(name)
	if err != nil {
		return nil, err
	}
	if fi, err = f.Stat(); err != nil {
		f.Close()
		return nil, err
	}
	lf := &openedLease{f: f, held: strings.HasSuffix(name, heldSuffix), size: fi.Size(), time: fi.ModTime()}
	switch err := lockFile(f, false); {
	case err == nil:
		lf.dead = true
	case !errors.Is(err, errLocked):
		f.Close()
		return nil, err
	}
	return lf, nil
}

// counts reports whether the leases of a file are in force. raw is the end of the file. That of a dead process counts
// for the grace period, as what it put does; one that was parked as long as if its process had it locked.
func (s *leased) counts(lf *openedLease, raw []byte) bool {
	age := s.now.Sub(lf.time)
	switch {
	case !lf.dead && (lf.held || age < leaseTime || s.timeless):
		return true
	case lf.dead && age < s.age:
		return true
	}
	return lf.dead && parked(raw) && (age < leaseTime || s.timeless)
}

// parked reports whether the last record of a file says that it was parked.
func parked(raw []byte) bool {
	n := len(raw) / len(leaseKey{}) * len(leaseKey{})
	return n > 0 && raw[n-len(leaseKey{})] == recordParked
}

// names lists a directory of ours; one that is not there is empty.
func (v *volume) names(dir string) ([]string, error) {
	f, err := v.root.Open(dir)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
