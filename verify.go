package ocisync

import (
	"context"
	"errors"
	"path"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// Finding is one problem of one repository.
type Finding struct {
	Ref ref.Ref // the repository, without tag and digest
	scheme.Problem
	Repaired  bool  // by Repair: it is as it should be now
	RepairErr error // why Repair could not put it right
}

// VerifyReport says what Verify or Repair checked and found. The counts are those of all repositories together; with
// Repair, those of the first look.
type VerifyReport struct {
	Repositories int
	scheme.CheckReport
	Findings []Finding // in the order in which they were found
}

// Bad returns the findings that are loss or damage and were not repaired. The others are notes: see
// scheme.ProblemKind.Bad.
func (r *VerifyReport) Bad() []Finding {
	var all []Finding
	for _, f := range r.Findings {
		if f.Kind.Bad() && !f.Repaired {
			all = append(all, f)
		}
	}
	return all
}

// verifyOptions are the settings of Verify and Repair.
type verifyOptions struct {
	deep     bool
	finding  func(Finding)
	progress func(blob.Info)
}

// VerifyOption is a setting of Verify and Repair.
type VerifyOption func(*verifyOptions)

// VerifyDeep reads and hashes every blob. Without it only manifests are read, and the sizes of blobs compared.
func VerifyDeep() VerifyOption { return func(o *verifyOptions) { o.deep = true } }

// VerifyFindings calls fn with every problem as soon as it is found, one at a time.
func VerifyFindings(fn func(Finding)) VerifyOption {
	return func(o *verifyOptions) { o.finding = fn }
}

// VerifyProgress calls fn for every blob and manifest that was checked, one at a time.
func VerifyProgress(fn func(blob.Info)) VerifyOption {
	return func(o *verifyOptions) { o.progress = fn }
}

func collectVerify(opts []VerifyOption) verifyOptions {
	var o verifyOptions
	for _, set := range opts {
		set(&o)
	}
	return o
}

// Verify looks whether everything is there and whole that r says it has: a repository, one tag or digest of it, or all
// repositories below a directory or registry. A directory is looked at file by file (see scheme.Checker); of any other
// place what its tags and their referrers reach is asked for. Verify changes nothing. What is damaged is in the report
// and no error; an error is what kept it from going on, and the report then says what was found before.
//
// Errors: errs.ErrNotFound; what the places answer.
func (c *Client) Verify(ctx context.Context, r ref.Ref, opts ...VerifyOption) (*VerifyReport, error) {
	o := collectVerify(opts)
	report := &VerifyReport{}
	places, err := c.placesBelow(ctx, r)
	if err != nil {
		return report, err
	}
	var failed []error
	for _, at := range places {
		err := c.verify(ctx, at, o, report)
		if ctx.Err() != nil {
			return report, err
		}
		failed = append(failed, err)
	}
	return report, errors.Join(failed...)
}

// verify checks one repository, and adds what it finds to the report.
func (c *Client) verify(ctx context.Context, r ref.Ref, o verifyOptions, report *VerifyReport) error {
	found := func(p scheme.Problem) error {
		f := Finding{Ref: r.Place(), Problem: p}
		report.Findings = append(report.Findings, f)
		if o.finding != nil {
			o.finding(f)
		}
		return nil
	}
	var rep scheme.CheckReport
	var checker scheme.Checker
	err := error(errs.ErrUnsupported)
	if scheme.As(c.API(), r, &checker) {
		copts := []scheme.CheckOption{scheme.WithCheckProgress(o.progress)}
		if o.deep {
			copts = append(copts, scheme.WithDeep())
		}
		rep, err = checker.Check(ctx, r, found, copts...)
	}
	if errors.Is(err, errs.ErrUnsupported) && rep == (scheme.CheckReport{}) {
		rep, err = verifyByReading(ctx, c.API(), r, o, found)
	}
	report.Repositories++
	sum := &report.CheckReport
	sum.Manifests += rep.Manifests
	sum.Blobs += rep.Blobs
	sum.Bytes += rep.Bytes
	sum.Unneeded += rep.Unneeded
	sum.Sparse += rep.Sparse
	sum.Problems += rep.Problems
	return err
}

// placesBelow returns the repositories that r names: itself, or all below a root.
func (c *Client) placesBelow(ctx context.Context, r ref.Ref) ([]ref.Ref, error) {
	if r.Repo != "" || r.Tag != "" || r.Digest != "" {
		return []ref.Ref{r}, nil
	}
	names, err := scheme.ListRepos(ctx, c.API(), r)
	switch {
	case ctx.Err() != nil:
		return nil, err
	case err != nil && r.Scheme == ref.SchemeReg:
		return nil, err
	case err != nil, len(names) == 0:
		return []ref.Ref{r}, nil // which says what is wrong with it
	}
	var all []ref.Ref
	for _, name := range names {
		all = append(all, r.WithRepo(name))
	}
	return all, nil
}

// counterpart returns the repository of from that stands for at, which is below root.
func counterpart(root, at, from ref.Ref) ref.Ref {
	if root.Repo == at.Repo {
		return from.Place()
	}
	return from.Place().WithRepo(path.Join(from.Repo, at.Repo))
}
