package floor_test

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// finish makes the blobs durable with one syncfs, then the index that names them.
func finish(dir string, index []byte) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return err
	}
	name := filepath.Join(dir, "index.json")
	f, err := os.Create(name + ".tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(index)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return err
	}
	return d.Sync()
}
