package ocisync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// Repair verifies r as Verify does, fetches everything that is missing or damaged from another place, and checks again:
// what a manifest names is known only once the manifest is there. from is a repository that has the same content,
// whatever its tags are, or, when r is a root with several, the root of repositories with the same names. What is put
// is verified on its way; no tag moves, and an index.json that cannot be used is not replaced.
//
// The report names everything that was ever found, and what became of it. Errors are those of Verify; that something
// could not be repaired is in the report.
func (c *Client) Repair(ctx context.Context, r, from ref.Ref, opts ...VerifyOption) (*VerifyReport, error) {
	o := collectVerify(opts)
	report := &VerifyReport{}
	places, err := c.placesBelow(ctx, r)
	if err != nil {
		return report, err
	}
	var failed []error
	for _, at := range places {
		err := c.repair(ctx, at, counterpart(r, at, from), o, report)
		if ctx.Err() != nil {
			return report, err
		}
		failed = append(failed, err)
	}
	return report, errors.Join(failed...)
}

// RestoreIndex brings back the index of a directory, when it is missing or makes no sense, as the last commit by ocisync
// left it. What other programs entered later is lost with the damaged one, which is kept aside; one that can be used is
// left as it is. See scheme.IndexRestorer.
//
// Errors: errs.ErrUnsupported for places that cannot do that; errs.ErrNotFound when nothing is known of the index.
func (c *Client) RestoreIndex(ctx context.Context, r ref.Ref) (scheme.IndexRestored, error) {
	var restorer scheme.IndexRestorer
	if !scheme.As(c.API(), r, &restorer) {
		return scheme.IndexRestored{}, &errs.Error{Op: "index restore", Ref: r.String(), Err: errs.ErrUnsupported}
	}
	return restorer.IndexRestore(ctx, r.Place())
}

// errByHand: the problem is none of content that another place has.
var errByHand = errors.New("no other place can have what is wrong here")

// checks reports whether a place can look at what it holds itself.
func (c *Client) checks(r ref.Ref) bool {
	var checker scheme.Checker
	return scheme.As(c.API(), r, &checker)
}

// repair puts one repository right. Every round but the last repairs something that was not known to be wrong before,
// so that there is an end. Rounds after the first do not read every blob again: what was put was verified.
func (c *Client) repair(ctx context.Context, at, from ref.Ref, o verifyOptions, report *VerifyReport) error {
	first := len(report.Findings)
	if err := c.verify(ctx, at, o, report); err != nil {
		return err
	}
	known := map[digest.Digest]bool{}
	var refused error // by the source, whatever it is asked for
	for begin := first; ; {
		put := 0
		end := len(report.Findings)
		for i := begin; i < end; i++ {
			f := &report.Findings[i]
			switch {
			case !f.Kind.Bad() || known[f.Digest]:
				continue
			case f.Digest == "":
				f.RepairErr = errByHand
				continue
			}
			known[f.Digest] = true
			if f.RepairErr = refused; refused != nil {
				continue
			}
			switch err := c.replace(ctx, f, from); {
			case err == nil:
				put++
			case ctx.Err() != nil:
				return err
			default:
				f.RepairErr = err
				if final(ctx, err) {
					refused = err
				}
			}
		}
		if put == 0 {
			return nil
		}
		again := &VerifyReport{}
		if err := c.verify(ctx, at, verifyOptions{deep: o.deep && !c.checks(at)}, again); err != nil {
			return err
		}
		begin = end
		for _, f := range again.settle(report.Findings[first:end]) {
			report.Findings = append(report.Findings, f)
			if o.finding != nil {
				o.finding(f)
			}
		}
		if len(report.Findings) == end {
			return nil
		}
	}
}

// settle says of former findings whether they are repaired, as they are not found any more, and returns what is new.
func (r *VerifyReport) settle(former []Finding) (fresh []Finding) {
	type key struct {
		d    digest.Digest
		path string
	}
	left, known := map[key]scheme.Problem{}, map[key]bool{}
	for _, f := range r.Findings {
		if f.Kind.Bad() { // a note may be about the same file
			left[key{f.Digest, f.Path}] = f.Problem
		}
	}
	for i := range former {
		f := &former[i]
		k := key{f.Digest, f.Path}
		known[k] = true
		if !f.Kind.Bad() {
			continue
		}
		now, still := left[k]
		f.Repaired = !still && f.RepairErr == nil
		if still && f.RepairErr == nil {
			f.RepairErr = fmt.Errorf("it is still wrong: %w", now.Err)
		}
	}
	for _, f := range r.Findings {
		if f.Kind.Bad() && !known[key{f.Digest, f.Path}] {
			fresh = append(fresh, f)
		}
	}
	return fresh
}

// replace fetches what is missing or damaged from another place, and puts it.
func (c *Client) replace(ctx context.Context, f *Finding, from ref.Ref) error {
	if types.ValidDigest(f.Digest) != nil {
		return fmt.Errorf("%w: no other place can have it", errs.ErrDigestInvalid)
	}
	if f.Manifest {
		m, err := c.API().ManifestGet(ctx, from.WithDigest(f.Digest))
		if err == nil {
			return c.putManifest(ctx, f.Ref, m)
		}
		if !errors.Is(err, errs.ErrNotFound) {
			return err
		}
	}
	rdr, err := c.API().BlobGet(ctx, from, types.Descriptor{Digest: f.Digest})
	if err != nil {
		return err
	}
	defer rdr.Close()
	return c.put(ctx, f.Ref, rdr.Descriptor(), rdr)
}

// putManifest puts a manifest by its digest. A directory knows manifests by what lists them, so that there its bytes
// are enough; a registry must be told that it is one.
func (c *Client) putManifest(ctx context.Context, r ref.Ref, m *manifest.Manifest) error {
	if c.checks(r) {
		return c.put(ctx, r, m.Descriptor(), bytes.NewReader(m.Raw()))
	}
	_, err := c.API().ManifestPut(ctx, r.WithDigest(m.Digest()), m, scheme.WithSparse())
	return err
}

// put puts a blob; the place replaces one that is damaged.
func (c *Client) put(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader) error {
	_, err := c.API().BlobPut(ctx, r, types.Descriptor{Digest: d.Digest, Size: d.Size}, rdr)
	return err
}
