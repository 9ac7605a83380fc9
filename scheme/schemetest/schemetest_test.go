package schemetest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
	"github.com/ocisync/ocisync/types/tag"
)

// A defect is an implementation that breaks one rule. The suite must find it in the group named.
type defect struct {
	name  string
	group string
	rule  string // part of the rule that must be printed
	make  func(m *mem.Mem) scheme.API
	dir   func(o *ocidir.OCIDir) scheme.API // in place of make, for what memory cannot do
	lacks []schemetest.Feature
	caps  []schemetest.Capability
}

var allCaps = []schemetest.Capability{
	schemetest.BlobOpener, schemetest.BlobLister, schemetest.RepoLister, schemetest.BlobFinder, schemetest.BlobStater, schemetest.Labeler,
	schemetest.Ingester, schemetest.IngestManager, schemetest.Truncater, schemetest.Leaser, schemetest.Collector,
}

var defects = slices.Concat(coreDefects, ingestDefects, knownDefects, collectDefects, dirDefects)

var coreDefects = []defect{
	{name: "head echoes the size", group: "Blob", rule: "never echoes", make: func(m *mem.Mem) scheme.API { return echo{m} }},
	{name: "get without verification of size", group: "Blob", rule: "must be the blob's", make: func(m *mem.Mem) scheme.API { return anySize{m} }},
	{name: "wrong content stored under its own digest", group: "BlobPut", rule: "stores nothing", make: func(m *mem.Mem) scheme.API { return keepsWrong{m} }},
	{name: "reader's error lost", group: "BlobPut", rule: "comes back as it is", make: func(m *mem.Mem) scheme.API { return vague{m} }},
	{name: "put goes on when cancelled", group: "BlobPut", rule: "ends it with the context's error", make: func(m *mem.Mem) scheme.API { return deaf{m} }},
	{name: "mount reads first", group: "BlobMount", rule: "before it reads", make: func(m *mem.Mem) scheme.API { return readsFirst{m} }},
	{name: "manifest printed again", group: "Manifest", rule: "byte by byte", make: func(m *mem.Mem) scheme.API { return compacts{m} }},
	{name: "one missing digest only", group: "ManifestPut", rule: "names every missing digest", make: func(m *mem.Mem) scheme.API { return firstMissing{m} }},
	{name: "sparse ignored", group: "ManifestPut", rule: "WithSparse stores", make: func(m *mem.Mem) scheme.API { return noOptions{m} }},
	{name: "preconditions ignored", group: "Swap", rule: "WithTagAt puts if", make: func(m *mem.Mem) scheme.API { return noOptions{m} }},
	{name: "looking and putting are two steps", group: "Swap", rule: "exactly one succeeds", make: func(m *mem.Mem) scheme.API { return twoSteps{m} }},
	{name: "sizes not looked at", group: "ManifestPut", rule: "wrong size", make: func(m *mem.Mem) scheme.API { return anySizes{m} }},
	{name: "deleting a tag deletes the manifest", group: "Delete", rule: "never the manifest", make: func(m *mem.Mem) scheme.API { return harshTags{m} }},
	{name: "delete by tag", group: "Delete", rule: "ManifestDelete is by digest", make: func(m *mem.Mem) scheme.API { return byTag{m} }},
	{name: "tags in another order", group: "Tag", rule: "byte order", make: func(m *mem.Mem) scheme.API { return folded{m} }},
	{name: "last must exist", group: "Tag", rule: "need not exist", make: func(m *mem.Mem) scheme.API { return strictLast{m} }},
	{name: "unknown repository is empty", group: "Tag", rule: "never an empty list", make: func(m *mem.Mem) scheme.API { return emptyTags{m} }},
	{name: "referrers not filtered", group: "Referrer", rule: "artifactType", make: func(m *mem.Mem) scheme.API { return unfiltered{m} }},
	{name: "error becomes an empty list", group: "Referrer", rule: "never an empty list", make: func(m *mem.Mem) scheme.API { return emptyReferrers{m} }},
	{name: "names are not checked", group: "Invalid", rule: "outside of the specification's grammar", make: func(m *mem.Mem) scheme.API { return lenient{m} }},
	{name: "stream outlives its context", group: "Context", rule: "stays in force", make: func(m *mem.Mem) scheme.API { return detached{m} }},
	{name: "puts of a tag are lost", group: "Concurrent", rule: "one after another", make: func(m *mem.Mem) scheme.API { return &late{Mem: m} }},
	{name: "capability not declared", group: "Capability", rule: "it does not find", make: func(m *mem.Mem) scheme.API { return m }, caps: allCaps[:2]},
	{name: "capability declared and absent", group: "Capability", rule: "As finds what", make: func(m *mem.Mem) scheme.API { return struct{ scheme.API }{m} }, caps: allCaps},
	{name: "ranges off by one", group: "Capability", rule: "reads any range", make: func(m *mem.Mem) scheme.API { return shortRanges{m} }},
	{name: "feature that works is declared lacking", group: "Lacking", rule: "take it out of Lacks", make: func(m *mem.Mem) scheme.API { return m }, lacks: []schemetest.Feature{schemetest.TagDelete}},
	{name: "errors without circumstances", group: "Manifest", rule: "ErrNotFound", make: func(m *mem.Mem) scheme.API { return bare{m} }},
	{name: "deleted tag comes back", group: "Model", rule: "any sequence of operations", make: func(m *mem.Mem) scheme.API { return forgetful{m} }},
}

const defectVar = "SCHEMETEST_DEFECT"

// TestDefect runs the suite over one defective implementation. It is run by TestSuiteFindsDefects in a process of
// its own, where it is expected to fail.
func TestDefect(t *testing.T) {
	name := os.Getenv(defectVar)
	if name == "" {
		t.Skip("it is run by TestSuiteFindsDefects, with " + defectVar)
	}
	d := defects[slices.IndexFunc(defects, func(d defect) bool { return d.name == name })]
	caps := d.caps
	if caps == nil {
		caps = allCaps
	}
	if d.dir != nil {
		runDir(t, d)
		return
	}
	schemetest.Run(t, schemetest.Harness{
		New: func(*testing.T) (scheme.API, ref.Ref) {
			return d.make(mem.New()), ref.MustParse("mem://test").WithRepo("repo")
		},
		Reopen: func(_ *testing.T, api scheme.API, _ ref.Ref) scheme.API {
			if m, ok := api.(interface{ Share() *mem.Mem }); ok {
				return d.make(m.Share())
			}
			return api
		},
		Lacks:        d.lacks,
		Capabilities: caps,
	})
}

// runDir runs the suite over a defective directory.
func runDir(t *testing.T, d defect) {
	open := func(t *testing.T) scheme.API {
		o := ocidir.New(ocidir.WithDurability(ocidir.None))
		t.Cleanup(func() { o.Close() })
		return d.dir(o)
	}
	schemetest.Run(t, schemetest.Harness{
		New: func(t *testing.T) (scheme.API, ref.Ref) {
			return open(t), ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir(), Repo: "repo"}
		},
		Reopen:       func(t *testing.T, _ scheme.API, _ ref.Ref) scheme.API { return open(t) },
		Capabilities: dirCaps,
	})
}

func TestSuiteFindsDefects(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range defects {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestDefect$/^"+d.group+"$", "-rapid.nofailfile", "-rapid.shrinktime=1s", "-rapid.checks=1000", "-rapid.seed=1") // the same sequences in every run
			cmd.Env = append(os.Environ(), defectVar+"="+d.name)
			cmd.Dir = t.TempDir()
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			switch {
			case err == nil:
				t.Fatalf("the suite found nothing wrong with it:\n%s", out)
			case !errors.As(err, &exit) || exit.ExitCode() != 1 || bytes.Contains(out, []byte("panic:")):
				t.Fatalf("the suite did not run: %v\n%s", err, out)
			case !printsRule(string(out), d.rule):
				t.Fatalf("no rule that says %q is printed:\n%s", d.rule, out)
			}
		})
	}
}

func printsRule(out, part string) bool {
	for line := range strings.Lines(out) {
		if strings.Contains(line, "rule: ") && strings.Contains(line, part) {
			return true
		}
	}
	return false
}

type echo struct{ *mem.Mem }

func (m echo) BlobHead(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...scheme.BlobHeadOption) (types.Descriptor, error) {
	got, err := m.Mem.BlobHead(ctx, r, d, opts...)
	if d.Size > 0 {
		got.Size = d.Size
	}
	return got, err
}

type anySize struct{ *mem.Mem }

func (m anySize) BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...scheme.BlobGetOption) (blob.Reader, error) {
	d.Size = 0
	return m.Mem.BlobGet(ctx, r, d, opts...)
}

type keepsWrong struct{ *mem.Mem }

func (m keepsWrong) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	data, err := io.ReadAll(rdr)
	if err != nil {
		return d, &errs.Error{Op: "blob put", Ref: r.String(), Err: err}
	}
	if got := digest.FromBytes(data); d.Digest != "" && d.Digest.Algorithm() == digest.SHA256 && got != d.Digest {
		if _, err := m.Mem.BlobPut(ctx, r, types.Descriptor{}, bytes.NewReader(data)); err != nil {
			return d, err
		}
	}
	return m.Mem.BlobPut(ctx, r, d, bytes.NewReader(data), opts...)
}

type vague struct{ *mem.Mem }

func (m vague) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	got, err := m.Mem.BlobPut(ctx, r, d, rdr, opts...)
	if err != nil && !errors.Is(err, errs.ErrDigestMismatch) {
		err = &errs.Error{Op: "blob put", Ref: r.String(), Err: errors.New(err.Error())}
	}
	return got, err
}

type deaf struct{ *mem.Mem }

func (m deaf) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	return m.Mem.BlobPut(context.WithoutCancel(ctx), r, d, rdr, opts...)
}

type readsFirst struct{ *mem.Mem }

func (m readsFirst) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, _ ...scheme.BlobPutOption) (types.Descriptor, error) {
	return m.Mem.BlobPut(ctx, r, d, rdr)
}

type compacts struct{ *mem.Mem }

func (m compacts) ManifestGet(ctx context.Context, r ref.Ref, opts ...scheme.ManifestGetOption) (*manifest.Manifest, error) {
	mf, err := m.Mem.ManifestGet(ctx, r, opts...)
	if err != nil {
		return nil, err
	}
	return manifest.New(bytes.TrimSpace(mf.Raw()), manifest.WithMediaType(mf.MediaType()))
}

type firstMissing struct{ *mem.Mem }

func (m firstMissing) ManifestPut(ctx context.Context, r ref.Ref, mf *manifest.Manifest, opts ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	res, err := m.Mem.ManifestPut(ctx, r, mf, opts...)
	var detail *errs.Error
	if errors.As(err, &detail) && len(detail.Missing) > 1 {
		detail.Missing = detail.Missing[:1]
	}
	return res, err
}

type noOptions struct{ *mem.Mem }

func (m noOptions) ManifestPut(ctx context.Context, r ref.Ref, mf *manifest.Manifest, _ ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	return m.Mem.ManifestPut(ctx, r, mf)
}

// twoSteps compares, and then puts.
type twoSteps struct{ *mem.Mem }

func (m twoSteps) ManifestPut(ctx context.Context, r ref.Ref, mf *manifest.Manifest, opts ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	o := scheme.Collect(opts)
	if err := o.Precondition.Valid(r); err != nil || !o.Precondition.Set {
		return m.Mem.ManifestPut(ctx, r, mf, opts...)
	}
	d, err := m.ManifestHead(ctx, r)
	if err != nil && !errors.Is(err, errs.ErrNotFound) {
		return manifest.PutResult{}, err
	}
	if err := o.Precondition.Check(d.Digest); err != nil {
		return manifest.PutResult{}, &errs.Error{Op: "manifest put", Ref: r.String(), Err: err}
	}
	runtime.Gosched()
	return m.Mem.ManifestPut(ctx, r, mf, scheme.WithTags(o.Tags...))
}

// anySizes takes a manifest that is wrong about a size for one without.
type anySizes struct{ *mem.Mem }

func (m anySizes) ManifestPut(ctx context.Context, r ref.Ref, mf *manifest.Manifest, opts ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	res, err := m.Mem.ManifestPut(ctx, r, mf, opts...)
	if wrong := (*manifest.SizeError)(nil); errors.As(err, &wrong) {
		return res, nil
	}
	return res, err
}

type harshTags struct{ *mem.Mem }

func (m harshTags) TagDelete(ctx context.Context, r ref.Ref, opts ...scheme.TagDeleteOption) error {
	d, err := m.Mem.ManifestHead(ctx, r)
	if err != nil || r.Tag == "" {
		return m.Mem.TagDelete(ctx, r, opts...)
	}
	return m.Mem.ManifestDelete(ctx, r.WithDigest(d.Digest))
}

type byTag struct{ *mem.Mem }

func (m byTag) ManifestDelete(ctx context.Context, r ref.Ref, opts ...scheme.ManifestDeleteOption) error {
	d, err := m.Mem.ManifestHead(ctx, r)
	if err != nil {
		return err
	}
	return m.Mem.ManifestDelete(ctx, r.WithDigest(d.Digest), opts...)
}

type folded struct{ *mem.Mem }

func (m folded) TagList(ctx context.Context, r ref.Ref, opts ...scheme.TagListOption) (tag.List, error) {
	l, err := m.Mem.TagList(ctx, r, opts...)
	slices.SortFunc(l.Tags, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	return l, err
}

type strictLast struct{ *mem.Mem }

func (m strictLast) TagList(ctx context.Context, r ref.Ref, opts ...scheme.TagListOption) (tag.List, error) {
	if last := scheme.Collect(opts).Last; last != "" {
		if _, err := m.Mem.ManifestHead(ctx, r.WithTag(last)); err != nil {
			return tag.List{}, err
		}
	}
	return m.Mem.TagList(ctx, r, opts...)
}

type emptyTags struct{ *mem.Mem }

func (m emptyTags) TagList(ctx context.Context, r ref.Ref, opts ...scheme.TagListOption) (tag.List, error) {
	l, err := m.Mem.TagList(ctx, r, opts...)
	if errors.Is(err, errs.ErrNotFound) {
		err = nil
	}
	return l, err
}

type unfiltered struct{ *mem.Mem }

func (m unfiltered) ReferrerList(ctx context.Context, r ref.Ref, _ ...scheme.ReferrerListOption) (referrer.List, error) {
	return m.Mem.ReferrerList(ctx, r)
}

type emptyReferrers struct{ *mem.Mem }

func (m emptyReferrers) ReferrerList(ctx context.Context, r ref.Ref, opts ...scheme.ReferrerListOption) (referrer.List, error) {
	l, err := m.Mem.ReferrerList(ctx, r, opts...)
	if errors.Is(err, errs.ErrNotFound) {
		l.Subject.Digest, err = r.Digest, nil
	}
	return l, err
}

// lenient takes any repository's name.
type lenient struct{ *mem.Mem }

func (m lenient) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	return m.Mem.BlobPut(ctx, ref.Ref{Scheme: r.Scheme, Root: r.Path()}, d, rdr, opts...)
}

type detached struct{ *mem.Mem }

func (m detached) BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...scheme.BlobGetOption) (blob.Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return m.Mem.BlobGet(context.WithoutCancel(ctx), r, d, opts...)
}

// late shows the tag as it was before the last put of it.
type late struct {
	*mem.Mem
	puts int
	last *manifest.Manifest
}

func (m *late) ManifestPut(ctx context.Context, r ref.Ref, mf *manifest.Manifest, opts ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	res, err := m.Mem.ManifestPut(ctx, r, mf, opts...)
	if r.Tag == "v" && err == nil {
		if m.puts++; m.puts%5 == 0 && m.last != nil {
			return m.Mem.ManifestPut(ctx, r, m.last, opts...)
		}
		m.last = mf
	}
	return res, err
}

type shortRanges struct{ *mem.Mem }

func (m shortRanges) BlobOpen(ctx context.Context, r ref.Ref, d types.Descriptor) (blob.ReaderAt, error) {
	ra, err := m.Mem.BlobOpen(ctx, r, d)
	if err != nil {
		return nil, err
	}
	return shortReaderAt{ra}, nil
}

type shortReaderAt struct{ blob.ReaderAt }

func (ra shortReaderAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := ra.ReaderAt.ReadAt(p, off)
	if n > 0 && off+int64(n) == ra.Size() {
		return n - 1, io.EOF
	}
	return n, err
}

type bare struct{ *mem.Mem }

func (m bare) ManifestGet(ctx context.Context, r ref.Ref, opts ...scheme.ManifestGetOption) (*manifest.Manifest, error) {
	mf, err := m.Mem.ManifestGet(ctx, r, opts...)
	if errors.Is(err, errs.ErrNotFound) {
		err = errs.ErrNotFound
	}
	return mf, err
}

// forgetful brings back a deleted tag with the next put of another.
type forgetful struct{ *mem.Mem }

func (m forgetful) TagDelete(ctx context.Context, r ref.Ref, opts ...scheme.TagDeleteOption) error {
	if l, err := m.Mem.TagList(ctx, r); err == nil && len(l.Tags) == 3 && slices.Contains(l.Tags, r.Tag) {
		return nil
	}
	return m.Mem.TagDelete(ctx, r, opts...)
}
