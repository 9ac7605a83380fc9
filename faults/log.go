package faults

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
)

// kind is what reached the disk.
type kind int

const (
	write kind = iota
	flush      // everything written before is on the medium
	mark       // something was acknowledged; it is no matter of the disk
)

// record is one thing that reached the disk.
type record struct {
	kind kind
	off  int64
	data []byte
}

// Log is everything that reached a disk, in order, on top of what was on it before.
type Log struct {
	base    []byte
	records []record
}

// Len is how many things reached the disk.
func (l *Log) Len() int { return len(l.records) }

// Flushes returns the places right behind each flush.
func (l *Log) Flushes() (places []int) {
	for i, r := range l.records {
		if r.kind == flush {
			places = append(places, i+1)
		}
	}
	return places
}

// Marks returns the text of all marks before the place at.
func (l *Log) Marks(at int) string {
	var text strings.Builder
	for _, r := range l.records[:at] {
		if r.kind == mark {
			text.Write(r.data)
		}
	}
	return text.String()
}

// Replayer makes images. It goes forward only: each place must not be before the last one.
type Replayer struct {
	log  *Log
	disk []byte // what is on the medium for certain at place at
	at   int    // behind a flush
}

// Replay begins with what was there before anything was written.
func (l *Log) Replay() *Replayer {
	return &Replayer{log: l, disk: append([]byte(nil), l.base...)}
}

// Choice says what becomes of the writes after the last flush.
type Choice int

const (
	Nothing  Choice = iota // none of them is on the medium
	Anything               // each is there, or not, or in part: sectors are written whole, and so is the super block
	All                    // all of them are
)

const (
	sector     = 512  // what a disk writes whole
	superblock = 4096 // the end of ext4's first block, which has no second copy that a mount would look at
)

// Image writes into the file path what the disk has after losing power at the place at. It returns how many writes were
// in doubt.
func (r *Replayer) Image(path string, at int, choice Choice, rng *rand.Rand) (int, error) {
	last := r.at
	for i := r.at; i < at; i++ {
		if r.log.records[i].kind == flush {
			last = i + 1
		}
	}
	for ; r.at < last; r.at++ {
		if rec := r.log.records[r.at]; rec.kind == write {
			copy(r.disk[rec.off:], rec.data)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := sparse(f, r.disk); err != nil {
		return 0, err
	}
	doubt := 0
	for _, rec := range r.log.records[last:at] {
		if rec.kind != write {
			continue
		}
		doubt++
		data, off := rec.data, rec.off
		switch {
		case choice == Nothing, choice == Anything && rng.IntN(3) == 0:
			continue
		case choice == Anything && off >= superblock && rng.IntN(2) == 0: // torn
			from := rng.IntN(len(data)/sector+1) * sector
			to := from + rng.IntN((len(data)-from)/sector+1)*sector
			data, off = data[from:to], off+int64(from)
		}
		if _, err := f.WriteAt(data, off); err != nil {
			return doubt, err
		}
	}
	return doubt, f.Close()
}

// sparse writes disk into f, and leaves out what is zero.
func sparse(f *os.File, disk []byte) error {
	const chunk = 64 << 10
	if err := f.Truncate(int64(len(disk))); err != nil {
		return err
	}
	for off := 0; off < len(disk); off += chunk {
		part := disk[off:min(off+chunk, len(disk))]
		if zero(part) {
			continue
		}
		if _, err := f.WriteAt(part, int64(off)); err != nil {
			return fmt.Errorf("write image: %w", err)
		}
	}
	return nil
}

func zero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
