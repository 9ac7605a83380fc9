package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/testdata"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// verifyDirectory computes the digest of every file below a layout's blobs, with nothing but the standard library's
// hash, and checks that all content of the demo image is among them. It returns the number of files.
func verifyDirectory(dir string) (n int, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	have, err := blobNames(root.FS())
	if err != nil {
		return 0, err
	}
	for _, d := range have {
		if err := verifyFile(root, d); err != nil {
			return n, err
		}
		n++
	}
	want, err := blobNames(testdata.Demo())
	if err != nil {
		return n, err
	}
	there := map[digest.Digest]bool{}
	for _, d := range have {
		there[d] = true
	}
	for _, d := range want {
		if !there[d] {
			return n, &errs.Error{Op: "verify", Digest: d, Err: errs.ErrBlobUnknown}
		}
	}
	return n, nil
}

// blobNames returns the digests that the files below a layout's blobs are named after.
func blobNames(layout fs.FS) ([]digest.Digest, error) {
	files, err := fs.Glob(layout, "blobs/*/*")
	if err != nil {
		return nil, err
	}
	var all []digest.Digest
	for _, f := range files {
		alg, hex := path.Base(path.Dir(f)), path.Base(f)
		d := digest.Digest(alg + ":" + hex)
		if err := types.ValidDigest(d); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		all = append(all, d)
	}
	return all, nil
}

func verifyFile(root *os.Root, d digest.Digest) error {
	f, err := root.Open(path.Join("blobs", string(d.Algorithm()), d.Encoded()))
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := d.Algorithm().FromReader(f)
	if err != nil {
		return err
	}
	if got != d {
		return &errs.Error{Op: "verify", Digest: d, Err: errs.ErrDigestMismatch, Message: "it has " + string(got)}
	}
	return nil
}

// verifyRepository pulls everything that the tags of got reach, and compares the tags with those of want. It returns
// the number of manifests and blobs.
func verifyRepository(ctx context.Context, api scheme.API, want, got ref.Ref) (int, error) {
	tags, err := api.TagList(ctx, want)
	if err != nil {
		return 0, err
	}
	w := &puller{api: api, r: got, seen: map[digest.Digest]bool{}}
	for _, tag := range tags.Tags {
		original, err := api.ManifestHead(ctx, want.WithTag(tag))
		if err != nil {
			return len(w.seen), err
		}
		copied, err := api.ManifestHead(ctx, got.WithTag(tag))
		if err != nil {
			return len(w.seen), err
		}
		if copied.Digest != original.Digest {
			return len(w.seen), fmt.Errorf("tag %s: %w: %s there, %s here", tag, errs.ErrDigestMismatch, original.Digest, copied.Digest)
		}
		if err := w.manifest(ctx, copied); err != nil {
			return len(w.seen), err
		}
	}
	return len(w.seen), nil
}

// puller reads a tree of manifests and blobs; what it reads is verified by the places it reads from.
type puller struct {
	api  scheme.API
	r    ref.Ref
	seen map[digest.Digest]bool
}

func (w *puller) manifest(ctx context.Context, d types.Descriptor) error {
	if w.seen[d.Digest] {
		return nil
	}
	w.seen[d.Digest] = true
	m, err := w.api.ManifestGet(ctx, w.r.WithDigest(d.Digest))
	if err != nil {
		return err
	}
	v, err := m.View()
	if err != nil {
		return err
	}
	for _, child := range v.Manifests {
		if err := w.manifest(ctx, child); err != nil {
			return err
		}
	}
	blobs := v.Layers
	if v.Config != nil {
		blobs = append([]types.Descriptor{*v.Config}, blobs...)
	}
	for _, b := range blobs {
		if err := w.blob(ctx, b); err != nil {
			return err
		}
	}
	list, err := w.api.ReferrerList(ctx, w.r.WithDigest(d.Digest))
	if err != nil {
		return err
	}
	for _, referrer := range list.Descriptors {
		if err := w.manifest(ctx, referrer); err != nil {
			return err
		}
	}
	return nil
}

func (w *puller) blob(ctx context.Context, d types.Descriptor) error {
	if w.seen[d.Digest] {
		return nil
	}
	w.seen[d.Digest] = true
	rdr, err := w.api.BlobGet(ctx, w.r, d)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, rdr)
	if cerr := rdr.Close(); err == nil {
		err = cerr
	}
	return err
}
