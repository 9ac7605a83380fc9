package access

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

const (
	// maxFile bounds an htpasswd file, in bytes.
	maxFile = 16 << 20

	// settle is how old a change must be to be seen by the time of change alone: two of them may have the same time.
	settle = 2 * time.Second
)

// file is an htpasswd file, and what it said when it was last read. Guarded by Basic.reading.
type file struct {
	path     string
	accounts map[string]*account // what counts, also after it was found broken or gone

	info    fs.FileInfo // when it was last read; nil when it could not be
	settled bool        // info will tell the next change
	sum     [sha256.Size]byte
	failure string // the last that was reported, so that it is not reported every second
}

// readAll reads the files for the first time.
func (b *Basic) readAll() error {
	b.reading.Lock()
	defer b.reading.Unlock()
	for _, f := range b.files {
		if _, err := f.read(b.now()); err != nil {
			return err
		}
	}
	t, err := b.merge()
	if err != nil {
		return err
	}
	b.table.Store(t)
	return nil
}

// refresh reads the files that have changed. One request in a second does so, the others go on with what is known,
// also while a file takes its time.
func (b *Basic) refresh() {
	if len(b.files) == 0 {
		return
	}
	now, last := b.now(), b.checked.Load()
	if since := now.UnixNano() - last; since >= 0 && since < int64(statEvery) || !b.checked.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	if !b.reading.TryLock() {
		return
	}
	defer b.reading.Unlock()
	for _, f := range b.files {
		b.refreshFile(f, now)
	}
}

// refreshFile reads a file, and goes on with the users that there were if it is broken or cannot be read.
func (b *Basic) refreshFile(f *file, now time.Time) {
	before := f.accounts
	changed, err := f.read(now)
	if err == nil && changed {
		var t *table
		if t, err = b.merge(); err == nil {
			b.table.Store(t)
			b.log.Info("users were read again", "file", f.path, "users", len(f.accounts))
		} else {
			f.accounts, f.info = before, nil // what the other place says may change, so that this file is good after all
		}
	}
	switch {
	case err == nil && changed:
		f.failure = ""
	case err != nil && err.Error() != f.failure:
		f.failure = err.Error()
		b.log.Error("users cannot be read again: those that were known before still count", "file", f.path, "error", err)
	}
}

// merge puts all users into one table. A user that is in two places is an error. Whose hash has not changed need not
// prove the password again.
func (b *Basic) merge() (*table, error) {
	all := map[string]*account{}
	for name, a := range b.static {
		all[name] = a
	}
	old := b.table.Load()
	if old == nil {
		old = newTable(nil)
	}
	for _, f := range b.files {
		for name, a := range f.accounts {
			if all[name] != nil {
				return nil, fmt.Errorf("%w: %s: user %q is in another file or in the configuration, too", errs.ErrInvalid, f.path, name)
			}
			all[name] = a
			before := old.accounts[name]
			if before == a { // of a file that has not changed
				continue
			}
			a.groups = b.groups[name]
			if before != nil && before.hash == a.hash {
				a.proven.Store(before.proven.Load())
			}
		}
	}
	return newTable(all), nil
}

// read reads the file if it seems to have changed, and sets accounts if what it says has. A failure leaves accounts
// as they were.
func (f *file) read(now time.Time) (changed bool, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		f.info = nil
		return false, err
	}
	if !info.Mode().IsRegular() { // a pipe would keep the request waiting
		return false, fmt.Errorf("%w: %s is no file", errs.ErrInvalid, f.path)
	}
	if f.info != nil && f.settled && os.SameFile(f.info, info) && info.Size() == f.info.Size() && info.ModTime().Equal(f.info.ModTime()) {
		return false, nil
	}
	h, err := os.Open(f.path)
	if err != nil {
		f.info = nil
		return false, err
	}
	defer h.Close()
	if info, err = h.Stat(); err != nil {
		return false, err
	}
	raw, err := io.ReadAll(io.LimitReader(h, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("%w: %s has more than %d bytes", errs.ErrInvalid, f.path, maxFile)
	}
	if err != nil {
		return false, err
	}
	again := f.info != nil && sha256.Sum256(raw) == f.sum
	f.info, f.settled, f.sum = info, now.Sub(info.ModTime()) > settle, sha256.Sum256(raw)
	if again {
		return false, nil
	}
	accounts, err := parseHtpasswd(raw)
	if err != nil {
		return false, fmt.Errorf("%s:%w", f.path, err)
	}
	f.accounts = accounts
	return true, nil
}

// parseHtpasswd reads NAME:HASH lines. Empty lines and those that begin with "#" say nothing. An error begins with the
// number of the line, and has nothing of it but the name: what is behind that, or is there in its place, may be secret.
func parseHtpasswd(raw []byte) (map[string]*account, error) {
	accounts := map[string]*account{}
	n := 0
	for line := range bytes.Lines(raw) {
		n++
		text := strings.TrimSpace(string(line))
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff") // editors of Windows begin files so
		}
		if text == "" || text[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(text, ":")
		if !ok {
			return nil, fmt.Errorf("%d: %w: the line is not NAME:HASH; make it with \"htpasswd -B\"", n, errs.ErrInvalid)
		}
		if err := validName(name); err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
		if accounts[name] != nil {
			return nil, fmt.Errorf("%d: %w: user %q is in an earlier line, too; remove one of them", n, errs.ErrInvalid, name)
		}
		cost, err := validHash(hash)
		if err != nil {
			return nil, fmt.Errorf("%d: user %q: %w", n, name, err)
		}
		accounts[name] = &account{hash: hash, cost: cost}
	}
	return accounts, nil
}
