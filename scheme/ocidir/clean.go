package ocidir

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/ref"
)

// ingestAge is how long Collect leaves an ingest alone that nobody writes to: an interrupted copy may go on with it. As old
// are the leases of dead processes that any writer removes.
const ingestAge = 7 * 24 * time.Hour

// Clean implements scheme.Cleaner. Temporary files are those in .ocisync/ingest, files of leases whose process died, and
// damaged files in the quarantine, the last two when they are as old as age, and notes of indexes that are gone.
func (o *OCIDir) Clean(ctx context.Context, r ref.Ref, age time.Duration) (scheme.CleanReport, error) {
	const op = "clean"
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return scheme.CleanReport{}, err
	}
	defer end()
	rep, err := l.clean(ctx, age, age)
	if err == nil {
		var n int
		var size int64
		n, size, err = l.cleanQuarantine(age)
		rep.Files, rep.Bytes = rep.Files+n, rep.Bytes+size
	}
	if err != nil {
		return rep, failWrite(op, r, "", err)
	}
	return rep, nil
}

// clean is Clean but for the quarantine: what is there is the only sign that a manifest was lost and not left out, and a
// collector must know that.
func (l *layout) clean(ctx context.Context, age, leaseAge time.Duration) (rep scheme.CleanReport, err error) {
	for _, sweep := range []func() (int, int64, error){
		l.vol.sweep,
		func() (int, int64, error) { return l.vol.sweepLeases(leaseAge) },
		l.sweepChildren,
	} {
		n, size, err := sweep()
		rep.Files, rep.Bytes = rep.Files+n, rep.Bytes+size
		if err != nil {
			return rep, err
		}
	}
	if err := l.sweepIngests(ctx); err != nil {
		return rep, err
	}
	rep.Ingests, err = l.expireIngests(ctx, age)
	for _, in := range rep.Ingests {
		rep.Bytes += in.Offset
	}
	return rep, err
}

// sweepLeases removes the files of leases that do not count any more: nobody has them locked, and nothing was written to
// them for age or longer, or, when they were parked, for leaseTime.
func (v *volume) sweepLeases(age time.Duration) (files int, bytes int64, err error) {
	names, err := v.names(leaseDir)
	if err != nil {
		return 0, 0, err
	}
	for _, n := range names {
		if !strings.HasSuffix(n, heldSuffix) && !strings.HasSuffix(n, seenSuffix) {
			continue
		}
		size, gone, err := v.sweepLease(join(leaseDir, n), age)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return files, bytes, err
		}
		if gone {
			files++
			bytes += size
		}
	}
	return files, bytes, nil
}

func (v *volume) sweepLease(name string, age time.Duration) (size int64, gone bool, err error) {
	lf, err := v.openLease(name)
	if err != nil || lf == nil {
		return 0, false, err
	}
	defer lf.f.Close()
	last := make([]byte, len(leaseKey{}))
	if at := lf.size/int64(len(last))*int64(len(last)) - int64(len(last)); at >= 0 {
		if _, err := lf.f.ReadAt(last, at); err != nil {
			return 0, false, err
		}
	}
	old := time.Since(lf.time)
	if !lf.dead || old < age || parked(last) && old < leaseTime {
		return 0, false, nil
	}
	return lf.size, true, v.remove(name)
}
