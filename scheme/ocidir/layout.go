package ocidir

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// errNoDir is what makes a path absent on every system.
const errNoDir = syscall.ENOTDIR

// layout is one open directory. Its fields are safe for concurrent use; users and idle belong to OCIDir and its lock.
type layout struct {
	o    *OCIDir
	at   ref.Ref // as it was opened; only its place counts
	path string
	dir  dirInfo
	vol  *volume
	mem  *memory

	users int
	idle  *list.Element

	marker  atomic.Pointer[fileID]    // of the oci-layout file that was read and found good
	placed  atomic.Pointer[time.Time] // when it was last seen to be at its path, with its oci-layout
	cache   atomic.Pointer[cached]
	broken  sync.Map      // by name: brokenFile
	loading chan struct{} // holds one token, of who reads the index
	graph   *graph
	leases  *leases

	noSwap   atomic.Bool // the file system cannot exchange two files
	journal  journal     // what roots says; for who has the lock
	hasty    bool        // who has index.json open for writing is not waited for any more; for who has the lock
	spending bool        // the disk is full, and what was set aside is used; for who has the lock

	anchored  sync.Map    // the directories in blobs whose names are durable
	prepared  atomic.Bool // leftovers were removed
	settled   atomic.Bool // the directories are complete and durable
	reachable atomic.Bool // the way to the directory is durable

	commits group[*change]
	files   group[*temp]       // contents, before they get their name
	dirs    group[string]      // names, after that
	names   group[[]namedFile] // files that have their name but may not be durable
	flushes group[struct{}]    // everything
	labels  group[*labelling]
}

func openLayout(o *OCIDir, r ref.Ref, path string) (*layout, error) {
	root, err := openBelow(treeOf(r), path)
	if err != nil {
		return nil, err
	}
	fi, err := root.Stat(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	l := &layout{
		o: o, at: r, path: path, dir: dirInfo{fi}, mem: o.mem, vol: &volume{root: root, hook: o.hook, eager: o.durability.commits()},
		loading: make(chan struct{}, 1), graph: newGraph(),
	}
	l.leases = &leases{vol: l.vol}
	l.commits.run, l.labels.run = l.runCommits, l.runLabels
	l.files.run, l.files.detached = l.runFiles, true
	l.dirs.run, l.dirs.detached = l.runDirs, true
	l.names.run, l.names.detached = l.runNames, true
	l.flushes.run, l.flushes.detached = l.runFlushes, true
	return l, nil
}

func (l *layout) close() error {
	all := []error{l.leases.close()}
	if c := l.cache.Swap(nil); c != nil {
		all = append(all, c.close())
	}
	return errors.Join(append(all, l.vol.close())...)
}

// file names a file of the layout as a user would, in messages.
func (l *layout) file(name string) string { return l.path + string(os.PathSeparator) + name }

// check reports whether the directory is a layout: fs.ErrNotExist when it is none, errs.ErrCorrupt when it was one.
func (l *layout) check(ctx context.Context) error {
	id, err := l.vol.stat(markerName)
	if err != nil {
		return err
	}
	if known := l.marker.Load(); known != nil && *known == id {
		return nil
	}
	got, err := stable(ctx, l, markerName, parseMarker)
	if err != nil {
		return err
	}
	defer got.f.Close()
	l.marker.Store(&got.id)
	return nil
}

// markerText is our oci-layout file.
const markerText = `{"imageLayoutVersion":"1.0.0"}`

func parseMarker(raw []byte) (string, error) {
	var doc struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		var at *json.SyntaxError
		if errors.As(err, &at) {
			err = fmt.Errorf("byte %d: %w", at.Offset, err)
		}
		return "", err
	}
	switch major, _, _ := strings.Cut(doc.Version, "."); major {
	case "1":
		return doc.Version, nil
	case "":
		return "", errors.New("it has no imageLayoutVersion")
	default:
		return "", fmt.Errorf("%w: version %s of image layouts is not known", errs.ErrUnsupported, doc.Version)
	}
}

// isNew reports whether the layout has nothing yet that an index could be lost from: no blob.
func (l *layout) isNew() (bool, error) {
	entries, err := fs.ReadDir(l.vol.root.FS(), blobsDir)
	if absent(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			return false, nil
		}
		sub, err := fs.ReadDir(l.vol.root.FS(), join(blobsDir, e.Name()))
		if err != nil || len(sub) > 0 {
			return false, err
		}
	}
	return true, nil
}
