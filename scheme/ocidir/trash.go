package ocidir

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
)

// trashDir is where a collector moves blobs before it looks once more whether somebody needs them. It is empty but
// while a collector has the lock, and after one died: then whoever needs a blob takes it back, and the next collector
// takes back the rest before it decides anew.
const trashDir = stateDir + "/trash"

// trashName is where a blob is that was buried. d was checked to be valid.
func trashName(d digest.Digest) string {
	return join(trashDir, d.Algorithm().String()+"-"+d.Encoded())
}

// trashed is the inverse of trashName, for names from the disk.
func trashed(base string) (digest.Digest, bool) {
	alg, hex, ok := strings.Cut(base, "-")
	d := digest.NewDigestFromEncoded(digest.Algorithm(alg), hex)
	return d, ok && types.ValidDigest(d) == nil
}

// buried is a blob in the trash.
type buried struct {
	id     fileID
	shared bool // the file has other names
}

// bury moves a blob to the trash, if it still is the file that want says and nobody is at work on it. Whoever takes a
// blob's name from a file has the file's lock; see setAside.
func (l *layout) bury(d digest.Digest, want func(id fileID) bool) (b buried, ok bool, err error) {
	name, err := blobPath(d)
	if err != nil {
		return b, false, err
	}
	if fi, err := l.vol.root.Lstat(name); absent(err) || err == nil && !fi.Mode().IsRegular() {
		return b, false, nil
	} else if err != nil {
		return b, false, err
	}
	f, id, err := l.vol.openFile(name)
	if absent(err) {
		return b, false, nil
	}
	if err != nil {
		return b, false, err
	}
	defer f.Close()
	if err := lockFile(f, false); errors.Is(err, errLocked) {
		return b, false, nil
	} else if err != nil {
		return b, false, err
	}
	if now, err := l.vol.stat(name); err != nil || now != id || !want(id) {
		if absent(err) {
			err = nil
		}
		return b, false, err
	}
	b = buried{id: id, shared: links(f) > 1}
	err = l.vol.rename(name, trashName(d))
	if errors.Is(err, fs.ErrNotExist) {
		for _, dir := range []string{stateDir, trashDir} {
			if err := l.vol.mkdir(dir); err != nil {
				return b, false, err
			}
		}
		err = l.vol.rename(name, trashName(d))
	}
	return b, err == nil, err
}

// unbury gives a blob back that is in the trash, if it is, and nobody put it anew. It may be called without the lock: a
// link is there or not, whatever the collector does at the same time.
func (l *layout) unbury(d digest.Digest) error {
	from := trashName(d)
	if _, err := l.vol.root.Lstat(from); err != nil {
		if absent(err) {
			err = nil
		}
		return err
	}
	to, err := blobPath(d)
	if err != nil {
		return err
	}
	err = l.vol.link(l.vol, from, to)
	switch {
	case err == nil, errors.Is(err, fs.ErrExist):
		return l.vol.remove(from)
	case absent(err):
		return nil // the collector, or somebody else, was faster
	case !noLink(err):
		return err
	}
	if _, err := l.vol.root.Lstat(to); err == nil {
		return l.vol.remove(from)
	}
	if err := l.vol.rename(from, to); err != nil && !absent(err) {
		return err
	}
	return nil
}

// statBlob is volume.stat for a blob, which a collector may just have in hand.
func (l *layout) statBlob(d digest.Digest, name string) (fileID, error) {
	id, err := l.vol.stat(name)
	if !absent(err) {
		return id, err
	}
	if err := l.unbury(d); err != nil && !isReadOnly(err) {
		return id, err
	}
	return l.vol.stat(name)
}

// lookAt is statBlob for who is told that the blob is there, and may rely on it: it was leased before.
func (l *layout) lookAt(d digest.Digest, name string) (fileID, error) {
	id, err := l.statBlob(d, name)
	if err != nil {
		return id, err
	}
	fresh, err := l.leases.look(d)
	if fresh {
		return l.statBlob(d, name) // what was seen before the lease may be gone
	}
	return id, err
}

// openBlobFile is volume.openFile for a blob, which a collector may just have in hand.
func (l *layout) openBlobFile(d digest.Digest, name string) (*os.File, fileID, error) {
	f, id, err := l.vol.openFile(name)
	if !absent(err) {
		return f, id, err
	}
	if err := l.unbury(d); err != nil && !isReadOnly(err) {
		return nil, id, err
	}
	return l.vol.openFile(name)
}

// emptyTrash gives back what a collector left that died. It runs under the lock.
func (l *layout) emptyTrash() error {
	names, err := l.vol.names(trashDir)
	if err != nil {
		return err
	}
	for _, n := range names {
		d, ok := trashed(n)
		if !ok {
			continue // none of ours
		}
		if err := l.unbury(d); err != nil {
			return err
		}
	}
	return nil
}
