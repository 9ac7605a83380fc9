// Package spool keeps uploads that arrive in parts for places that cannot keep them themselves: registries, and what a
// third party serves without scheme.Ingester.
//
// It is one directory that scheme/ocidir writes as the ingests of a layout which never comes into being, as nothing is
// ever committed there. So what docs/layout.md promises of ingests (who dies when, two processes, a full disk) holds of
// these uploads, too. It is a package of its own because places do not import each other: here a server takes one as a
// part.
package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types/ref"
)

// Spool is a place of ingests.
type Spool struct {
	scheme.Ingester
	scheme.IngestManager

	Ref ref.Ref // of the one repository there is

	api  *ocidir.OCIDir
	temp string // the folder that Close removes; "" for one that is kept
}

// Open opens the spool in dir, which is made if need be and kept. With an empty dir it is a new folder among the
// system's temporary files, which Close removes. Several processes can use one dir.
func Open(dir string) (*Spool, error) {
	s := &Spool{}
	if dir == "" {
		temp, err := os.MkdirTemp("", "ocisync-uploads-")
		if err != nil {
			return nil, fmt.Errorf("folder for uploads: %w", err)
		}
		dir, s.temp = temp, temp
	}
	path, err := filepath.Abs(filepath.Join(dir, "uploads"))
	if err == nil {
		err = os.MkdirAll(path, 0o700) // other users have no business with blobs whose repository may be private
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("folder for uploads: %w", err), s.Close())
	}
	s.api = ocidir.New()
	s.Ingester, s.IngestManager = s.api, s.api
	s.Ref = ref.Ref{Scheme: ref.SchemeOCIDir, Root: filepath.ToSlash(path)}
	return s, nil
}

// Close ends the use of the spool. Uploads that are open then fail.
func (s *Spool) Close() error {
	var all []error
	if s.api != nil {
		all = append(all, s.api.Close())
	}
	if s.temp != "" {
		all = append(all, os.RemoveAll(s.temp))
	}
	return errors.Join(all...)
}
