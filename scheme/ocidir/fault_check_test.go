package ocidir

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// disaster says what the workload met: it decides what may be left.
type disaster struct {
	power bool // the power failed: a deferred blob that nothing reaches may be damaged
}

// inspect compares the layouts in dir with what was acknowledged: acked is how many operations of each script were. It
// returns everything that is wrong. It writes: a later writer must be able to.
func inspect(ctx context.Context, dir string, acked map[string]int, d disaster) (wrong []string) {
	ex := &examiner{ctx: ctx, dir: dir, d: d, ours: map[string]bool{}, lost: map[string]bool{}, spoiled: map[string]bool{}}
	for _, sc := range workload() {
		for f := range sc.after(acked[sc.name]) {
			ex.ours[f.repo] = ex.ours[f.repo] || f.kind != factIngest // which makes no layout
		}
		for _, n := range []int{0, 1} {
			for f, v := range sc.after(acked[sc.name] + n) {
				ex.spoiled[f.name] = ex.spoiled[f.name] || v == spoiled
			}
		}
	}
	ex.layouts()
	ex.scripts(acked)
	if len(ex.wrong) == 0 {
		ex.laterWriter()
	}
	return ex.wrong
}

type examiner struct {
	ctx   context.Context
	dir   string
	d     disaster
	repos []string // with an oci-layout
	raw   map[string]*rawLayout
	ours  map[string]bool // by repository: something durable was acknowledged that is in the layout
	lost  map[string]bool // by repository: only a writer that syncs nothing had written there when the power went
	wrong []string

	spoiled map[string]bool // by digest: the workload damaged it
}

func (ex *examiner) say(format string, args ...any) {
	ex.wrong = append(ex.wrong, fmt.Sprintf(format, args...))
}

// rawLayout is what is on the disk, read with nothing of ocidir's.
type rawLayout struct {
	tags    map[string]string // by tag: digest
	entries []rawDescriptor
	sound   map[string]bool // by digest: blobs that have it
	broken  []string        // digests of files that have another
}

type rawDescriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

// layouts reads every layout below dir.
func (ex *examiner) layouts() {
	ex.raw = map[string]*rawLayout{}
	err := filepath.WalkDir(ex.dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == ex.dir {
			return nil
		}
		if err != nil || e.Name() != markerName {
			return err
		}
		repo, err := filepath.Rel(ex.dir, filepath.Dir(path))
		if err != nil {
			return err
		}
		repo = filepath.ToSlash(repo)
		raw, err := readRaw(filepath.Dir(path))
		switch {
		case err == nil:
			ex.repos = append(ex.repos, repo)
			ex.raw[repo] = raw
		case ex.d.power && !ex.ours[repo]:
			ex.lost[repo] = true
		default:
			ex.say("%s: %v", repo, err)
		}
		return nil
	})
	if err != nil {
		ex.say("reading %s: %v", ex.dir, err)
	}
	for repo, raw := range ex.raw {
		for _, e := range raw.entries {
			for _, problem := range raw.reach(filepath.Join(ex.dir, repo), e) {
				ex.say("%s: the entry of %s (%q): %s", repo, e.Digest, e.Annotations, problem)
			}
		}
		ex.strays(repo, raw)
	}
}

func readRaw(dir string) (*rawLayout, error) {
	var marker struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := readJSON(filepath.Join(dir, markerName), &marker); err != nil || marker.Version != "1.0.0" {
		return nil, fmt.Errorf("oci-layout has version %q: %w", marker.Version, err)
	}
	var ix struct {
		Manifests []rawDescriptor `json:"manifests"`
	}
	if err := readJSON(filepath.Join(dir, indexName), &ix); err != nil {
		return nil, err
	}
	raw := &rawLayout{tags: map[string]string{}, entries: ix.Manifests, sound: map[string]bool{}}
	for _, e := range ix.Manifests {
		if tag := e.Annotations["org.opencontainers.image.ref.name"]; tag != "" {
			if old, twice := raw.tags[tag]; twice {
				return nil, fmt.Errorf("tag %s is there twice: %s and %s", tag, old, e.Digest)
			}
			raw.tags[tag] = e.Digest
		}
	}
	return raw, raw.readBlobs(dir)
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s, %d bytes: %w", path, len(data), err)
	}
	return nil
}

// readBlobs hashes every file in blobs.
func (raw *rawLayout) readBlobs(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, blobsDir, "*", "*"))
	if err != nil {
		return err
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		d := digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(filepath.Dir(path))), filepath.Base(path))
		if err := d.Validate(); err != nil {
			return fmt.Errorf("%s is no blob's name: %w", path, err)
		}
		if d.Algorithm().FromBytes(data) == d {
			raw.sound[string(d)] = true
		} else {
			raw.broken = append(raw.broken, string(d))
		}
	}
	return nil
}

// reach says what is wrong with what an entry leads to.
func (raw *rawLayout) reach(dir string, e rawDescriptor) (wrong []string) {
	if !raw.sound[e.Digest] {
		return []string{e.Digest + " is missing or damaged"}
	}
	alg, hex, _ := strings.Cut(e.Digest, ":")
	data, err := os.ReadFile(filepath.Join(dir, blobsDir, alg, hex))
	if err != nil {
		return []string{err.Error()}
	}
	if int64(len(data)) != e.Size {
		wrong = append(wrong, fmt.Sprintf("%s has %d bytes, not %d", e.Digest, len(data), e.Size))
	}
	var doc struct {
		Config    *rawDescriptor  `json:"config"`
		Layers    []rawDescriptor `json:"layers"`
		Manifests []rawDescriptor `json:"manifests"`
	}
	if !strings.Contains(e.MediaType, "image.") {
		return wrong // of a kind that refers to nothing
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return append(wrong, err.Error())
	}
	if doc.Config != nil {
		doc.Layers = append(doc.Layers, *doc.Config)
	}
	for _, l := range doc.Layers {
		if !raw.sound[l.Digest] {
			wrong = append(wrong, "it needs "+l.Digest+", which is missing or damaged")
		}
	}
	for _, m := range doc.Manifests {
		wrong = append(wrong, raw.reach(dir, m)...)
	}
	return wrong
}

// strays looks at damaged files that nothing reaches. They are not to be there, but after a power loss; and are never
// served as good.
func (ex *examiner) strays(repo string, raw *rawLayout) {
	for _, d := range raw.broken {
		if !ex.d.power && !ex.spoiled[d] {
			ex.say("%s: without a power loss there is a partial blob: %s", repo, d)
		}
	}
	o := New()
	defer o.Close()
	for _, d := range raw.broken {
		if err := serves(ex.ctx, o, place(ex.dir).WithRepo(repo), digest.Digest(d)); err == nil {
			ex.say("%s: %s is damaged, and is served", repo, d)
		}
	}
}

// serves returns an error unless the blob can be read, in both ways, with the right bytes.
func serves(ctx context.Context, o *OCIDir, r ref.Ref, d digest.Digest) error {
	ra, err := o.BlobOpen(ctx, r, types.Descriptor{Digest: d})
	if err != nil {
		return err
	}
	if err := ra.Close(); err != nil {
		return err
	}
	rd, err := o.BlobGet(ctx, r, types.Descriptor{Digest: d})
	if err != nil {
		return err
	}
	defer rd.Close()
	_, err = io.Copy(io.Discard, rd)
	return err
}

// scripts compares what is there with what each script was told.
func (ex *examiner) scripts(acked map[string]int) {
	o := New()
	defer o.Close()
	for _, sc := range workload() {
		k := acked[sc.name]
		before, after := sc.after(k), sc.after(k+1)
		where := "at the end"
		if k < len(sc.ops) {
			where = "at " + sc.ops[k].name
		}
		say := func(format string, args ...any) {
			ex.say("%s, %d acknowledged, %s: %s", sc.name, k, where, fmt.Sprintf(format, args...))
		}
		if err := ex.tags(sc, before); err != nil {
			if other := ex.tags(sc, after); other != nil {
				say("%v", err)
			}
		}
		for f, value := range before {
			if ex.lost[f.repo] {
				continue
			}
			value, next := ex.meant(value), ex.meant(after[f])
			got := ex.look(o, f, value)
			halfway := got == damaged && value != next && ex.d.power // it is not acknowledged, and was not synced yet
			if f.kind == factIngest && (between(value, got, next) || ex.back(got, value)) {
				continue
			}
			if !halfway && !agrees(f, got, value) && !agrees(f, got, next) {
				say("%s %s in %s: is %s, must be %s (or, if what is under way is done, %s)", f.kind, f.name, f.repo, got, value, next)
			}
		}
	}
}

// tags compares all tags of a script at once: what changes together must be seen together.
func (ex *examiner) tags(sc *script, want facts) error {
	var bad []string
	for f, d := range want {
		if f.kind == factTag && ex.tag(f.repo, f.name) != d {
			bad = append(bad, fmt.Sprintf("tag %s in %s is %s, not %s", f.name, f.repo, ex.tag(f.repo, f.name), d))
		}
	}
	for repo, raw := range ex.raw {
		for tag := range raw.tags {
			if _, known := want[fact{factTag, repo, tag}]; !known && strings.HasPrefix(tag, sc.name+"-") {
				bad = append(bad, fmt.Sprintf("tag %s in %s was not put yet", tag, repo))
			}
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return errors.New(strings.Join(bad, "; "))
}

func (ex *examiner) tag(repo, name string) string {
	if raw := ex.raw[repo]; raw != nil && raw.tags[name] != "" {
		return raw.tags[name]
	}
	return gone
}

// meant is the value that a fact must have.
func (ex *examiner) meant(value string) string {
	switch {
	case value != collected:
		return value
	case ex.d.power:
		return ""
	}
	return gone
}

// back reports whether an ingest that was aborted or committed is there again: the power may bring it back, whole, and it
// expires as any other.
func (ex *examiner) back(got, want string) bool {
	_, err := strconv.Atoi(got)
	return ex.d.power && want == gone && err == nil
}

// between reports whether an ingest has a part of what is being written.
func between(value, got, next string) bool {
	from, err1 := strconv.Atoi(value)
	n, err2 := strconv.Atoi(got)
	to, err3 := strconv.Atoi(next)
	if next == gone { // it is being committed, after the rest was written
		to, err3 = len(ingestBytes("")), nil
	}
	return errors.Join(err1, err2, err3) == nil && from <= n && n <= to
}

// agrees reports whether what is there fits a fact. Of a fact without a value anything does.
func agrees(f fact, got, want string) bool {
	if f.kind == factTag { // compared together
		return true
	}
	return want == "" || want == spoiled || got == want
}

// look asks ocidir, and for blobs also the disk.
func (ex *examiner) look(o *OCIDir, f fact, value string) string {
	r := place(ex.dir).WithRepo(f.repo)
	d := digest.Digest(f.name)
	switch f.kind {
	case factBlob:
		err := serves(ex.ctx, o, r, d)
		raw := ex.raw[f.repo]
		if raw != nil && slices.Contains(raw.broken, f.name) && err != nil {
			return damaged
		}
		if raw != nil && !raw.sound[f.name] && err == nil { // a collection that was cut short is taken back by who comes next
			if now, rerr := readRaw(filepath.Join(ex.dir, filepath.FromSlash(f.repo))); rerr == nil {
				raw = now
			}
		}
		if raw != nil && raw.sound[f.name] != (err == nil) {
			return fmt.Sprintf("on the disk whole: %v; served: %v", raw.sound[f.name], err)
		}
		return presence(err)
	case factManifest:
		_, err := o.ManifestHead(ex.ctx, r.WithDigest(d))
		return presence(err)
	}
	if f.kind == factIngest {
		acked, _ := strconv.Atoi(value) // 0 when it is to be gone
		return ex.ingested(o, r, f.name, acked)
	}
	if f.kind == factLabel {
		d, key, _ := strings.Cut(f.name, " ")
		info, err := o.BlobStat(ex.ctx, r, digest.Digest(d))
		if err == nil && info.Labels[key] != "" {
			return info.Labels[key]
		}
		return presence(cmp.Or(err, error(errs.ErrNotFound)))
	}
	return "a fact of a kind nobody knows: " + f.kind
}

// ingested returns how many bytes an ingest has, which must be those that were written. After a power loss what was
// written after the last Close, at acked bytes, may be wrong: it is taken back then, and what was closed must be right.
func (ex *examiner) ingested(o *OCIDir, r ref.Ref, key string, acked int) string {
	if _, err := o.IngestStat(ex.ctx, r, key); err != nil {
		if errors.Is(err, errs.ErrUploadUnknown) {
			return gone
		}
		return err.Error()
	}
	u, err := o.Ingest(ex.ctx, r, key)
	if err != nil {
		return err.Error()
	}
	defer u.Close()
	n, data := int(u.Status().Offset), ingestBytes(key)
	right := func() bool { return n <= len(data) && u.Digest() == digest.FromBytes(data[:n]) }
	if !right() && ex.d.power && n > acked {
		if err := u.(scheme.Truncater).Truncate(ex.ctx, int64(acked)); err != nil {
			return err.Error()
		}
		n = acked
	}
	if !right() {
		return fmt.Sprintf("%d bytes with %s, which were not written", n, u.Digest())
	}
	return number(n)
}

func presence(err error) string {
	switch {
	case err == nil:
		return there
	case errors.Is(err, errs.ErrDigestMismatch):
		return damaged
	case errors.Is(err, errs.ErrNotFound):
		return gone
	}
	return err.Error()
}

// laterWriter expects that somebody who comes later can go on, that it sees the same, and cleans up.
func (ex *examiner) laterWriter() {
	o := New()
	defer o.Close()
	it, damaged := schemetest.Image("later"), false
	for _, repo := range []string{"a", "b", "new/deep/repo", "indexes", "garbage"} {
		if ex.lost[repo] {
			continue
		}
		r := place(ex.dir).WithRepo(repo)
		err := it.Push(ex.ctx, o, r.WithTag("later"))
		if errors.Is(err, errs.ErrCorrupt) && ex.d.power && !ex.ours[repo] {
			continue // an index.json that a writer made who syncs nothing
		}
		if err != nil {
			ex.say("%s: a later push: %v", repo, err)
			continue
		}
		raw, err := readRaw(filepath.Join(ex.dir, filepath.FromSlash(repo)))
		if err != nil {
			ex.say("%s: after a later push: %v", repo, err)
			continue
		}
		if raw.tags["later"] != string(it.Descriptor().Digest) {
			ex.say("%s: after a later push its tag is %q", repo, raw.tags["later"])
		}
		if before := ex.raw[repo]; before != nil {
			for tag, d := range before.tags {
				if raw.tags[tag] != d {
					ex.say("%s: a later push changed tag %s from %s to %q", repo, tag, d, raw.tags[tag])
				}
			}
		}
		ex.clean(repo)
		damaged = damaged || len(raw.broken) > 0
	}
	ex.upkeep(o)
	if damaged {
		ex.again()
	}
}

// clean expects no leftover of the writers that died, and, as nobody else wrote, no entry that somebody dropped.
func (ex *examiner) clean(repo string) {
	l, err := openLayout(New(), ref.Ref{}, filepath.Join(ex.dir, filepath.FromSlash(repo)))
	if err != nil {
		ex.say("%s: %v", repo, err)
		return
	}
	defer l.close()
	if gone, err := l.vanished(ex.ctx); err != nil || len(gone) > 0 && !ex.d.power {
		ex.say("%s: nobody else wrote, and vanished are %v, %v", repo, gone, err)
	}
	if left, err := filepath.Glob(filepath.Join(l.path, swapPrefix+"*")); err != nil || len(left) > 0 {
		ex.say("%s: a later writer left %q, %v", repo, left, err)
	}
	left, err := filepath.Glob(filepath.Join(ex.dir, filepath.FromSlash(repo), ingestDir, "*"+tempSuffix))
	if err != nil || len(left) > 0 {
		ex.say("%s: a later writer left %q, %v", repo, left, err)
	}
}

// upkeep: fsck finds nothing bad, and a garbage collection takes nothing away that the index reaches.
func (ex *examiner) upkeep(o *OCIDir) {
	for _, repo := range ex.repos {
		r := place(ex.dir).WithRepo(repo)
		_, err := o.Check(ex.ctx, r, func(p scheme.Problem) error {
			known := len(p.Needed) == 0 && slices.Contains(ex.raw[repo].broken, string(p.Digest))
			if p.Kind.Bad() && !known && !ex.spoiled[string(p.Digest)] {
				ex.say("%s: fsck finds %+v", repo, p)
			}
			return nil
		})
		if err != nil {
			ex.say("%s: fsck: %v", repo, err)
		}
		_, err = o.Collect(ex.ctx, r, scheme.WithGrace(0))
		if err != nil && ex.d.power && len(ex.raw[repo].broken) > 0 { // see docs/faults.md: it may take a damaged one for vanished
			_, err = o.Collect(ex.ctx, r, scheme.WithGrace(0), scheme.WithVanished())
		}
		if err != nil {
			ex.say("%s: garbage collection: %v", repo, err)
		}
		raw, err := readRaw(filepath.Join(ex.dir, filepath.FromSlash(repo)))
		if err != nil {
			ex.say("%s: after a garbage collection: %v", repo, err)
			continue
		}
		for _, e := range raw.entries {
			for _, problem := range raw.reach(filepath.Join(ex.dir, filepath.FromSlash(repo)), e) {
				ex.say("%s: after a garbage collection the entry of %s (%q): %s", repo, e.Digest, e.Annotations, problem)
			}
		}
	}
}

// again runs the whole workload once more: whatever is damaged is healed by putting it again.
func (ex *examiner) again() {
	s := newStage(ex.dir)
	defer s.close()
	for _, sc := range workload() {
		for _, op := range sc.ops {
			if err := op.do(ex.ctx, s); err != nil {
				ex.say("%s, once more: %s: %v", sc.name, op.name, err)
				return
			}
		}
	}
	for _, repo := range ex.repos {
		raw, err := readRaw(filepath.Join(ex.dir, filepath.FromSlash(repo)))
		if err != nil {
			ex.say("%s: after everything was put again: %v", repo, err)
			continue
		}
		if len(raw.broken) > 0 {
			ex.say("%s: after everything was put again %q are still damaged", repo, raw.broken)
		}
	}
}
