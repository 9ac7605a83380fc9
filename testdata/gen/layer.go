package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A file is one entry of a layer. A name that ends in a slash is a directory.
type file struct {
	name string
	mode int64
	data []byte
}

// A layer is a packed filesystem change: gz is the blob, diffID the digest of
// the tar inside it, which the image config lists.
type layer struct {
	gz     []byte
	diffID digest.Digest
}

func packLayer(files ...file) (layer, error) {
	t, err := tarball(files)
	if err != nil {
		return layer{}, err
	}
	gz, err := gzipStored(t)
	if err != nil {
		return layer{}, err
	}
	return layer{gz: gz, diffID: digest.FromBytes(t)}, nil
}

func tarball(files []file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{
			Typeflag: tar.TypeReg,
			Name:     f.name,
			Mode:     f.mode,
			Size:     int64(len(f.data)),
			ModTime:  created,
			Format:   tar.FormatUSTAR,
		}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("tar %s: %w", f.name, err)
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, fmt.Errorf("tar %s: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// gzipStored wraps data in a gzip member (RFC 1952) of a single stored deflate
// block. Compressing would save a few kilobytes, but compressors are free to
// change their output, and Go's has: the digests of the demo image must not
// depend on who runs the generator.
func gzipStored(data []byte) ([]byte, error) {
	if len(data) > math.MaxUint16 {
		return nil, fmt.Errorf("layer of %d bytes does not fit one stored block", len(data))
	}
	var b bytes.Buffer
	b.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}) // deflate, no name, no mtime, unknown OS
	b.WriteByte(1)                                         // last block, stored
	n := uint16(len(data))
	put(&b, binary.LittleEndian, n, ^n)
	b.Write(data)
	put(&b, binary.LittleEndian, crc32.ChecksumIEEE(data), uint32(len(data)))
	return b.Bytes(), nil
}
