package ocidir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/ping"
	"github.com/ocisync/ocisync/types/ref"
)

// Ping implements scheme.API. A directory exists when it is a layout or has layouts in it; one that is neither, but
// could become a layout, does not. Its errors are errs.ErrClobber for one with files of somebody else in it, and
// errs.ErrCorrupt for a layout that cannot be read.
func (o *OCIDir) Ping(ctx context.Context, r ref.Ref, _ ...scheme.PingOption) (ping.Result, error) {
	const op = "ping"
	path, err := o.locate(ctx, op, r)
	if err != nil {
		return ping.Result{}, err
	}
	fi, err := os.Stat(path)
	switch {
	case absent(err):
		return o.pingAbsent(op, r, path)
	case err != nil:
		return ping.Result{}, failRead(op, r, "", err)
	case !fi.IsDir():
		return ping.Result{}, fail(op, r, "", clobber(path, "a file is there"))
	}
	l, err := o.use(r, path)
	if err != nil {
		return ping.Result{}, failRead(op, r, "", err)
	}
	defer o.release(l)
	res := ping.Result{Writable: writable(path)}
	err = l.check(ctx)
	switch {
	case err == nil:
		res.Exists = true
		_, err = l.index(ctx)
	case errors.Is(err, fs.ErrNotExist):
		if err = usable(l.vol.root.FS(), path); err == nil {
			res.Exists, err = isTree(ctx, l.vol.root)
		}
	}
	if err != nil {
		return ping.Result{}, failRead(op, r, "", err)
	}
	return res, nil
}

// pingAbsent says whether a directory that is not there could be made.
func (o *OCIDir) pingAbsent(op string, r ref.Ref, path string) (ping.Result, error) {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		switch {
		case err == nil && fi.IsDir():
			return ping.Result{Writable: writable(dir)}, nil
		case err == nil:
			return ping.Result{}, fail(op, r, "", clobber(path, dir+" is a file"))
		case !absent(err) || filepath.Dir(dir) == dir:
			return ping.Result{}, failRead(op, r, "", err)
		}
	}
}
