package ocidir

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
)

func TestFilesThatMayNotBeRead(t *testing.T) {
	r := place(t.TempDir())
	it := schemetest.Image("unreadable")
	must(t, it.Push(t.Context(), open(t), r.WithTag("v1")))
	must(t, filepath.WalkDir(filepath.Dir(r.Root), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = os.Chmod(path, 0o777)
		}
		return err
	}))
	d := it.Manifest.Descriptor()
	must(t, os.Chmod(blobFileOf(r, d.Digest), 0))
	var all []scheme.Problem
	var err error
	asNobody(func() {
		_, err = open(t).Check(t.Context(), r, func(p scheme.Problem) error { all = append(all, p); return nil })
	})
	if err != nil || len(all) != 1 || all[0].Kind != scheme.ProblemUnread || !errors.Is(all[0].Err, errs.ErrDenied) || len(all[0].Tags) != 1 {
		t.Errorf("check: %v, %v, want the manifest to be unreadable", all, err)
	}
	asNobody(func() {
		o := open(t)
		if _, err := readBlob(o, r, d); !errors.Is(err, errs.ErrDenied) {
			t.Errorf("read: %v, want ErrDenied", err)
		}
		if _, err := o.BlobPut(t.Context(), r, d, bytes.NewReader(it.Manifest.Raw())); err != nil {
			t.Errorf("put: %v", err)
		}
		if got, err := readBlob(o, r, d); err != nil || !bytes.Equal(got, it.Manifest.Raw()) {
			t.Errorf("after a put: %v", err)
		}
	})
	if names := inQuarantine(t, r); len(names) > 0 {
		t.Errorf("%q were set aside", names)
	}
}

func TestAPipeInTheFilesPlace(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	data := schemetest.Blob("pipe", 5000)
	d := putBlob(t, o, r, data)
	path := blobFileOf(r, d.Digest)
	must(t, errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644)))
	if _, err := readBlob(o, r, d); err == nil {
		t.Error("it was read")
	}
	it := schemetest.Image("i")
	must(t, it.Push(t.Context(), o, r.WithTag("v1")))
	must(t, errors.Join(os.Remove(blobFileOf(r, it.Manifest.Digest())), unix.Mkfifo(blobFileOf(r, it.Manifest.Digest()), 0o644)))
	all, _ := check(t, o, r, scheme.WithDeep())
	kinds := map[scheme.ProblemKind]int{}
	for _, p := range all {
		kinds[p.Kind]++
	}
	if kinds[scheme.ProblemNoFile] != 1 || kinds[scheme.ProblemForeign] != 1 {
		t.Errorf("check: %v, want one pipe that is needed, and one that is not", all)
	}
	putBlob(t, o, r, data)
	if got, err := readBlob(o, r, d); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after a put: %v", err)
	}
}
