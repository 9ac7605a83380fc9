package ocidir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/errs"
)

// quarantineDir is where damaged files are kept, for whoever wants to know what happened to them, or rescue something.
const quarantineDir = stateDir + "/quarantine"

const (
	// quietAge is how long a file must not have been written to before it is set aside. A program that writes a blob in
	// place, and pauses, would go on writing in the quarantine.
	quietAge = 5 * time.Minute
	// maxQuarantine is how many files are kept there. The one that came first makes room.
	maxQuarantine = 64
)

var (
	errYoung = errors.New("it was written to in the last minutes, and may still be")
	errGone  = errors.New("another file has its name by now")
)

// setAside moves a damaged file from its place into the quarantine, and returns its name there. f is the open file,
// id what it was when its bytes were found to be wrong.
//
// A good file must never be moved in its stead. Whoever takes a blob's name from a file, here and in publish, has
// that file's lock: so while f is locked and has the name, nobody can put a good file there. The lock is not waited for.
// Commits need not be kept out: that they find a damaged blob to be there would be no better than to find it missing.
func (l *layout) setAside(f *os.File, id fileID, name string, d digest.Digest) (string, error) {
	if age := time.Since(time.Unix(0, id.mtime)); age < quietAge {
		return "", errYoung
	}
	if err := lockFile(f, false); err != nil {
		return "", err
	}
	defer unlockFile(f) // closing f would do it as well
	now, err := l.vol.stat(name)
	if err != nil {
		return "", err
	}
	if now != id {
		return "", errGone
	}
	return l.quarantine(name, d)
}

// quarantine moves whatever has a blob's name.
func (l *layout) quarantine(name string, d digest.Digest) (string, error) {
	for _, dir := range []string{stateDir, quarantineDir} {
		if err := l.vol.mkdir(dir); err != nil {
			return "", err
		}
	}
	if err := l.boundQuarantine(); err != nil {
		return "", err
	}
	to, err := l.vol.freeName(d.Algorithm().String() + "-" + d.Encoded())
	if err != nil {
		return "", err
	}
	if err := l.vol.rename(name, to); err != nil {
		return "", err
	}
	if l.o.durability == None {
		return to, nil
	}
	return to, errors.Join(l.vol.syncDir(quarantineDir), l.vol.syncDir(path.Dir(name)))
}

// freeName is a name in the quarantine that nothing has. Only who holds the lock of what is to get it asks.
func (v *volume) freeName(base string) (string, error) {
	for n := 1; n <= 4*maxQuarantine; n++ {
		name := join(quarantineDir, fmt.Sprintf("%s-%d", base, n))
		if _, err := v.root.Lstat(name); absent(err) {
			return name, nil
		} else if err != nil {
			return "", err
		}
	}
	return "", errors.New("the quarantine is full")
}

// kept is a file in the quarantine.
type kept struct {
	name string
	id   fileID
}

// quarantined lists the files in the quarantine, the one that came first in front. A directory that had a blob's name
// is not among them: nobody but its owner knows what is in it.
func (v *volume) quarantined() ([]kept, error) {
	entries, err := fs.ReadDir(v.root.FS(), quarantineDir)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []kept
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		name := join(quarantineDir, e.Name())
		id, err := v.stat(name)
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, kept{name, id})
	}
	slices.SortFunc(all, func(a, b kept) int { return int(min(max(a.id.ctime-b.id.ctime, -1), 1)) })
	return all, nil
}

// boundQuarantine makes room for one more file.
func (l *layout) boundQuarantine() error {
	all, err := l.vol.quarantined()
	if err != nil {
		return err
	}
	for len(all) >= maxQuarantine {
		if err := l.vol.remove(all[0].name); err != nil {
			return err
		}
		all = all[1:]
	}
	return nil
}

// cleanQuarantine removes the files that came into the quarantine age ago or earlier.
func (l *layout) cleanQuarantine(age time.Duration) (files int, bytes int64, err error) {
	all, err := l.vol.quarantined()
	if err != nil {
		return 0, 0, err
	}
	for _, k := range all {
		if time.Since(time.Unix(0, k.id.ctime)) < age {
			continue
		}
		if err := l.vol.remove(k.name); err != nil {
			return files, bytes, err
		}
		files, bytes = files+1, bytes+k.id.size
	}
	return files, bytes, nil
}

// installBlob gives t the name of a blob. A file that has it is locked meanwhile, so that who has found it to be damaged
// does not move the new one away; a directory, which no rename replaces, goes into the quarantine.
func (l *layout) installBlob(t *temp, name string, d digest.Digest) error {
	old, err := l.vol.hold(name)
	if err != nil {
		return err
	}
	if old != nil {
		defer old.Close()
	}
	err = t.rename(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if fi, serr := l.vol.root.Lstat(name); serr != nil || !fi.IsDir() {
		return err
	}
	if _, err := l.quarantine(name, d); err != nil {
		return err
	}
	return t.rename(name)
}

// holdWait is how long the lock of a file is waited for, which is never held for longer than a rename takes.
const holdWait = 10 * time.Second

// holdFile locks a blob's file. Where it has no locks nothing is set aside, and nothing need be waited for.
func holdFile(f *os.File) error {
	deadline := time.Now().Add(holdWait)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if err := lockFile(f, false); !errors.Is(err, errLocked) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: another program holds a lock on %s, which is to be replaced", errs.ErrLocked, f.Name())
		}
		time.Sleep(wait)
	}
}

// hold locks the file that has a name, if one has it.
func (v *volume) hold(name string) (*os.File, error) {
	for range 100 {
		f, _, err := v.openFile(name)
		if err != nil {
			return nil, nil // it is not there, or no file, or cannot be read: then nobody finds it to be damaged
		}
		if err := holdFile(f); err != nil {
			f.Close()
			return nil, err
		}
		same, err := sameFile(v, f, name)
		if same {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, &fs.PathError{Op: "lock", Path: name, Err: errors.New("it is replaced again and again")}
}
