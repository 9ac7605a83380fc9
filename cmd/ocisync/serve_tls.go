package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is the server's, and the files it is from. They are looked at again while clients connect, at most once
// in certEvery, so that a renewed certificate needs no restart.
type certificate struct {
	files tlsConfig
	log   *slog.Logger
	every time.Duration

	mu      sync.Mutex // guards what follows; held while the files are read, which is rare and short
	current *tls.Certificate
	looked  time.Time
	state   [2]fileState
}

// fileState tells one version of a file from another.
type fileState struct {
	size int64
	time time.Time
}

const certEvery = time.Second

// load reads the certificate and returns how to use it: nil without one.
func (c *tlsConfig) load(log *slog.Logger) (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	cert := &certificate{files: *c, log: log, every: certEvery}
	if err := cert.read(); err != nil {
		hint := "the certificate and its key as PEM files that belong together"
		var path *fs.PathError
		if errors.As(err, &path) { // nothing is known of what is in them
			hint = "files that are there, and that this user may read"
		}
		return nil, usagef(hint, "TLS: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.get}, nil
}

// read reads both files. What was there before stays when they cannot be used.
func (c *certificate) read() error {
	state, err := c.stat()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", c.files.Cert, c.files.Key, err)
	}
	c.current, c.state, c.looked = &pair, state, time.Now()
	c.warnDates(pair.Leaf, c.looked)
	return nil
}

// warnDates says what clients will not: that they refuse the certificate because of its dates.
func (c *certificate) warnDates(leaf *x509.Certificate, now time.Time) {
	switch {
	case leaf == nil: // GODEBUG=x509keypairleaf=0
	case now.After(leaf.NotAfter):
		c.log.Warn("the certificate has expired: clients will refuse it", "file", c.files.Cert, "expired", leaf.NotAfter)
	case now.Before(leaf.NotBefore):
		c.log.Warn("the certificate is not valid yet: clients will refuse it", "file", c.files.Cert, "from", leaf.NotBefore)
	}
}

func (c *certificate) stat() (state [2]fileState, err error) {
	for i, name := range []string{c.files.Cert, c.files.Key} {
		fi, err := os.Stat(name)
		if err != nil {
			return state, err
		}
		state[i] = fileState{fi.Size(), fi.ModTime()}
	}
	return state, nil
}

// get returns the certificate for a connection. A pair that is just being replaced, one file after the other, does not
// match for a moment: the old one is used meanwhile.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < c.every {
		return c.current, nil
	}
	c.looked = time.Now()
	state, err := c.stat()
	if err == nil && state == c.state {
		return c.current, nil
	}
	if err == nil {
		err = c.read()
	}
	if err != nil {
		c.log.Error("the certificate has changed and cannot be read: the old one is used", "error", err)
	} else {
		c.log.Info("the certificate has changed, and was read again")
	}
	return c.current, nil
}
