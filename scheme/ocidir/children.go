package ocidir

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
)

// childrenDir has a file for each index that was put here, which lists those of its manifests that were there then. An
// index may lack manifests because a sparse copy left them out, and no other file says which: without this a lost one
// could not be told from one that never was.
const childrenDir = stateDir + "/children"

// maxChildren bounds what is read of such a file: a manifest cannot list more.
const maxChildren = types.MaxManifestSize

func childrenName(d digest.Digest) string {
	return join(childrenDir, d.Algorithm().String()+"-"+d.Encoded())
}

// noteChildren writes down which manifests of an index are there. Those that were noted before stay noted.
func (l *layout) noteChildren(index digest.Digest, v *manifest.View) error {
	if len(v.Manifests) == 0 {
		return nil
	}
	known, err := l.children(index)
	if err != nil {
		return err
	}
	all, noted := slices.Clone(known), map[digest.Digest]bool{}
	for _, d := range known {
		noted[d] = true
	}
	for _, d := range v.Manifests {
		name, err := blobPath(d.Digest)
		if err != nil {
			return err
		}
		if _, err := l.vol.stat(name); err == nil && !noted[d.Digest] {
			noted[d.Digest] = true
			all = append(all, d.Digest)
		}
	}
	if len(all) == len(known) {
		return nil
	}
	return l.writeChildren(index, all)
}

// children reads which manifests of an index were there when it was put. Nobody may have noted any.
func (l *layout) children(index digest.Digest) ([]digest.Digest, error) {
	f, _, err := l.vol.openFile(childrenName(index))
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []digest.Digest
	lines := bufio.NewScanner(io.LimitReader(f, maxChildren))
	for lines.Scan() {
		if d := digest.Digest(lines.Text()); types.ValidDigest(d) == nil {
			all = append(all, d)
		}
	}
	if err := lines.Err(); !errors.Is(err, bufio.ErrTooLong) { // as after a power loss: the rest is no list either
		return all, err
	}
	return all, nil
}

func (l *layout) writeChildren(index digest.Digest, all []digest.Digest) error {
	if len(all) == 0 {
		return l.vol.remove(childrenName(index))
	}
	for _, dir := range []string{stateDir, childrenDir} {
		if err := l.vol.mkdir(dir); err != nil {
			return err
		}
	}
	var text bytes.Buffer
	for _, d := range all {
		fmt.Fprintln(&text, d)
	}
	t, err := l.vol.newTemp()
	if err != nil {
		return l.vol.full(err, int64(text.Len()))
	}
	defer t.discard()
	if _, err := t.Write(text.Bytes()); err != nil { // not synced: what a power loss leaves of it is read line by line
		return l.vol.full(err, int64(text.Len()))
	}
	return t.rename(childrenName(index))
}

// forgetChild is for a manifest that was deleted on purpose: indexes that list it do not miss it.
func (l *layout) forgetChild(ctx context.Context, d digest.Digest) error {
	if _, err := l.vol.root.Lstat(childrenDir); err != nil {
		return nil
	}
	ix, err := l.index(ctx)
	if err != nil {
		return err
	}
	if _, err := l.explore(ctx, ix, false); err != nil {
		return err
	}
	all := []error{l.vol.remove(childrenName(d))}
	for p := range l.graph.above(d) {
		known, err := l.children(p)
		if i := slices.Index(known, d); i >= 0 {
			err = l.writeChildren(p, slices.Delete(known, i, i+1))
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}

// sweepChildren removes the notes of indexes that are not there any more.
func (l *layout) sweepChildren() (files int, bytes int64, err error) {
	names, err := l.vol.names(childrenDir)
	if err != nil {
		return 0, 0, err
	}
	for _, n := range names {
		d, ok := trashed(n) // it is called the same there
		if !ok {
			continue
		}
		if _, err := l.statBlob(d, mustPath(d)); !absent(err) {
			continue
		}
		id, err := l.vol.stat(childrenName(d))
		if err == nil {
			err = l.vol.remove(childrenName(d))
		}
		if err != nil && !absent(err) {
			return files, bytes, err
		}
		files, bytes = files+1, bytes+id.size
	}
	return files, bytes, nil
}

// absentees tells manifests that were lost from those that were left out.
type absentees struct {
	c           *checker
	quarantined map[digest.Digest]bool
	children    map[int32]map[digest.Digest]bool
}

func (c *checker) newAbsentees() (*absentees, error) {
	a := &absentees{c: c, quarantined: map[digest.Digest]bool{}, children: map[int32]map[digest.Digest]bool{}}
	all, err := c.l.vol.quarantined()
	for _, k := range all {
		if d, ok := quarantinedDigest(path.Base(k.name)); ok {
			a.quarantined[d] = true
		}
	}
	return a, err
}

// quarantinedDigest reads the name of a file in the quarantine.
func quarantinedDigest(name string) (digest.Digest, bool) {
	parts := strings.Split(name, "-")
	if len(parts) != 3 {
		return "", false
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(parts[0]), parts[1])
	return d, types.ValidDigest(d) == nil
}

// legal reports whether a manifest that is not there may be absent: nothing but indexes and referrers name it, and it
// was not here before, as far as anything says so. It counts those that an index lacks.
func (a *absentees) legal(i int32) bool {
	it := &a.c.net.items[i]
	if len(it.roots) > 0 {
		return false
	}
	sparse := false
	for _, e := range it.up {
		switch e.kind {
		case asWeak, asSubject:
			continue
		case asChild:
			sparse = true
		default:
			return false
		}
		if a.quarantined[it.digest] || a.of(e.from)[it.digest] {
			return false
		}
	}
	if sparse {
		a.c.mu.Lock()
		a.c.report.Sparse++
		a.c.mu.Unlock()
	}
	return true
}

// of is layout.children, read once. What cannot be read says nothing.
func (a *absentees) of(i int32) map[digest.Digest]bool {
	noted, known := a.children[i]
	if !known {
		noted = map[digest.Digest]bool{}
		all, err := a.c.l.children(a.c.net.items[i].digest)
		for _, d := range all {
			noted[d] = err == nil
		}
		a.children[i] = noted
	}
	return noted
}
