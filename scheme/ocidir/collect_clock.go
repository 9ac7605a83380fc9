package ocidir

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"time"
)

// clockName has what the last collector saw of the clock. Ages say nothing after somebody set it.
const clockName = stateDir + "/clock"

// clockSlack is by how much the clock may have moved against the time since the start of the system: NTP slews it.
const clockSlack = time.Minute

// clock is the time as a collector sees it. Tests have their own.
type clock struct {
	// wall is the time now, where real is what the file system says.
	wall func(real time.Time) time.Time
	// boot names the start of the system, and says how long ago that was. Without a name nothing is known.
	boot func() (id string, since time.Duration)
}

var systemClock = clock{wall: func(real time.Time) time.Time { return real }, boot: bootTime}

// withClock lets tests set the clock.
func withClock(c clock) Option { return func(o *OCIDir) { o.clock = c } }

// clockRecord is the content of clockName.
type clockRecord struct {
	Boot   string        `json:"boot"`
	Offset time.Duration `json:"offset"` // of the clock from the time since the start, in nanoseconds
	Set    time.Duration `json:"set"`    // when the clock was seen to have been set, by the time since the start
}

// probe returns the time by the clock of the file system, which need not be this computer's. A full disk must not keep a
// collector from making room: then this computer's has to do.
func (l *layout) probe() (time.Time, error) {
	t, err := l.vol.newTemp()
	if isFull(err) {
		return l.o.clock.wall(time.Now()), nil
	}
	if err != nil {
		return time.Time{}, err
	}
	defer t.discard()
	id, err := identify(t.f)
	return l.o.clock.wall(time.Unix(0, max(id.mtime, id.ctime))), err
}

// clockMoved reports whether somebody set the clock within the grace period, as far as collectors have noticed. After a
// start of the system nothing is known of the time before.
func (l *layout) clockMoved(now time.Time, grace time.Duration) (bool, error) {
	_, moved, err := l.compareClock(now, grace)
	return moved, err
}

// noteClock is clockMoved that writes down what it saw, if there is room for that.
func (l *layout) noteClock(now time.Time, grace time.Duration) (bool, error) {
	next, moved, err := l.compareClock(now, grace)
	if err != nil || next == nil {
		return moved, err
	}
	raw, err := json.Marshal(next)
	if err != nil {
		return moved, err
	}
	if err := l.replace(clockName, raw); err != nil && !isFull(err) {
		return moved, err
	}
	return moved, nil
}

// compareClock returns the record to be written, nil when there is none to be.
func (l *layout) compareClock(now time.Time, grace time.Duration) (next *clockRecord, moved bool, err error) {
	boot, since := l.o.clock.boot()
	if boot == "" {
		return nil, false, nil
	}
	next = &clockRecord{Boot: boot, Offset: time.Duration(now.UnixNano()) - since}
	last, err := l.readClock()
	if err != nil || last == nil || last.Boot != boot {
		return next, false, err
	}
	next.Set = last.Set
	if by := (next.Offset - last.Offset).Abs(); by > clockSlack {
		next.Set = since
	} else if by < time.Second {
		next.Offset = last.Offset
	}
	moved = next.Set > 0 && since-next.Set < grace
	if *next == *last {
		next = nil
	}
	return next, moved, nil
}

// readClock returns nil when nothing is known. A record that does not parse says nothing.
func (l *layout) readClock() (*clockRecord, error) {
	f, _, err := l.vol.openFile(clockName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, err
	}
	var rec clockRecord
	if json.Unmarshal(raw, &rec) != nil {
		return nil, nil
	}
	return &rec, nil
}
