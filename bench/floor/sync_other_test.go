//go:build !linux

package floor_test

import (
	"errors"
	"os"
	"path/filepath"
)

// finish makes every blob durable, then the index that names them.
func finish(dir string, index []byte) error {
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
	if err != nil {
		return err
	}
	name := filepath.Join(dir, "index.json")
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(index)
	return errors.Join(err, f.Sync(), f.Close())
}
