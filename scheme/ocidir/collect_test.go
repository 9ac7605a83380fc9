package ocidir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// collect collects with an API of its own, as another process would, and without a grace period unless opts say one.
func collect(t *testing.T, r ref.Ref, opts ...scheme.CollectOption) (scheme.CollectReport, error) {
	t.Helper()
	return collectWith(t, r, nil, opts...)
}

func collectWith(t *testing.T, r ref.Ref, with []Option, opts ...scheme.CollectOption) (scheme.CollectReport, error) {
	t.Helper()
	o := New(with...)
	rep, err := o.Collect(t.Context(), r, append([]scheme.CollectOption{scheme.WithGrace(0)}, opts...)...)
	if cerr := o.Close(); cerr != nil {
		t.Error(cerr)
	}
	return rep, err
}

// alone makes something with an API that ends, so that nothing is leased any more.
func alone(t *testing.T, do func(o *OCIDir) error) {
	t.Helper()
	o := New(WithDurability(None))
	if err := errors.Join(do(o), o.Close()); err != nil {
		t.Fatal(err)
	}
}

func litter(t *testing.T, r ref.Ref, all ...string) {
	t.Helper()
	alone(t, func(o *OCIDir) error {
		for _, s := range all {
			if _, err := o.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader(s)); err != nil {
				return err
			}
		}
		return nil
	})
}

// pushWithChildren pushes an index whose children have no entries of their own.
func pushWithChildren(t *testing.T, o *OCIDir, r ref.Ref, ix *schemetest.Item) error {
	for _, c := range ix.Children {
		if err := c.PushContent(t.Context(), o, r); err != nil {
			return err
		}
		at := r.Place().WithDigest(c.Manifest.Digest())
		if _, err := o.ManifestPut(t.Context(), at, c.Manifest, scheme.WithChild()); err != nil {
			return err
		}
	}
	_, err := o.ManifestPut(t.Context(), r, ix.Manifest)
	return err
}

// blobNames lists the files in blobs, and that there is nothing in the trash.
func blobNames(t *testing.T, r ref.Ref) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(filepath.Join(r.Path(), blobsDir), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, filepath.Base(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(r.Path(), trashDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(entries) > 0 {
		t.Errorf("in the trash: %v, %v", entries, err)
	}
	slices.Sort(names)
	return names
}

func removedOf(rep scheme.CollectReport) (all []string) {
	for _, g := range rep.Removed {
		all = append(all, g.Digest.Encoded())
	}
	return all
}

// writeBlob makes a blob's file as another tool does.
func writeBlob(t testing.TB, r ref.Ref, alg digest.Algorithm, data string) types.Descriptor {
	t.Helper()
	d := alg.FromString(data)
	path := blobFileOf(r, d)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return types.Descriptor{Digest: d, Size: int64(len(data))}
}

// foreignIndex writes index.json as another tool does.
func foreignIndex(t testing.TB, r ref.Ref, entries ...types.Descriptor) {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": append([]types.Descriptor{}, entries...)})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{markerName: markerText, indexName: string(raw)} {
		if err := os.WriteFile(filepath.Join(r.Path(), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func as(d types.Descriptor, mediaType, tag string) types.Descriptor {
	d.MediaType = mediaType
	if tag != "" {
		d.Annotations = map[string]string{types.AnnotationRefName: tag}
	}
	return d
}

// A layout that another tool wrote, with all that we do not write ourselves.
func TestCollectOfALayoutOfAnotherTool(t *testing.T) {
	r := place(t.TempDir())
	var keep, garbage []string
	blob := func(alg digest.Algorithm, data string) types.Descriptor {
		d := writeBlob(t, r, alg, data)
		keep = append(keep, d.Digest.Encoded())
		return d
	}
	layer := func(name string) types.Descriptor { return blob(digest.SHA256, "layer "+name) }
	schema1 := blob(digest.SHA256, `{"schemaVersion":1,"fsLayers":[{"blobSum":"`+string(layer("of schema 1").Digest)+`"}]}`)
	docker := blob(digest.SHA256, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`,
		types.MediaTypeDockerManifest, asJSON(layer("config")), asJSON(layer("docker"))))
	long := blob(digest.SHA512, fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s]}`,
		asJSON(blob(digest.SHA384, "config")), asJSON(blob(digest.SHA512, "layer"))))
	cache := blob(digest.SHA256, fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s,%s,%s]}`,
		asJSON(as(layer("in an index"), "application/vnd.oci.image.layer.v1.tar+gzip", "")),
		asJSON(as(blob(digest.SHA256, `{"new":"`+string(layer("below a new type").Digest)+`"}`), "application/vnd.new.manifest.v9+json", "")),
		asJSON(as(types.Descriptor{Digest: digest.FromString("sparse"), Size: 6}, types.MediaTypeImageManifest, ""))))
	nested := blob(digest.SHA256, `{"schemaVersion":2,"manifests":[`+asJSON(as(cache, types.MediaTypeImageIndex, ""))+`]}`)
	wrong := blob(digest.SHA256, `{"schemaVersion":2,"layers":[`+asJSON(layer("of an image without a config"))+`]}`)
	subject := blob(digest.SHA256, `{"schemaVersion":2,"config":`+asJSON(layer("config of the subject"))+`,"layers":[]}`)
	referrer := blob(digest.SHA256, fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[],"subject":%s}`,
		asJSON(layer("empty")), asJSON(as(subject, types.MediaTypeImageManifest, ""))))
	fallback := blob(digest.SHA256, `{"schemaVersion":2,"manifests":[`+asJSON(as(referrer, types.MediaTypeImageManifest, ""))+`]}`)
	foreignIndex(t, r,
		as(schema1, types.MediaTypeDockerSchema1JWS, "s1"), as(docker, types.MediaTypeDockerManifest, "docker"), as(long, "", "long"),
		as(nested, types.MediaTypeImageIndex, "docker.io/library/x:1"), as(wrong, types.MediaTypeImageManifest, ""),
		as(fallback, types.MediaTypeImageIndex, "sha256-"+digest.FromString("gone").Encoded()),
		as(layer("that a tag names"), "application/octet-stream", "raw"))
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		garbage = append(garbage, writeBlob(t, r, alg, "garbage").Digest.Encoded())
	}
	slices.Sort(garbage)
	foreign := []string{"blobs/sha256/README", "blobs/sha256/" + digest.FromString("x").Encoded() + ".tmp", "blobs/md5/0123", "blobs/x"}
	for _, name := range foreign {
		path := filepath.Join(r.Path(), filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		keep = append(keep, filepath.Base(path))
	}
	if runtime.GOOS != "windows" {
		link := digest.FromString("a link").Encoded()
		if err := os.Symlink("README", filepath.Join(r.Path(), "blobs", "sha256", link)); err != nil {
			t.Fatal(err)
		}
		keep = append(keep, link)
	}
	rep, err := collect(t, r)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keep)
	if diff := cmp.Diff(keep, blobNames(t, r)); diff != "" {
		t.Errorf("left in blobs (-want +got):\n%s", diff)
	}
	got := removedOf(rep)
	slices.Sort(got)
	if diff := cmp.Diff(garbage, got); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	if rep.Freed != int64(3*len("garbage")) {
		t.Errorf("%d bytes became free", rep.Freed)
	}
}

func asJSON(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// Whatever decides what is garbage and cannot be read: nothing is removed, again and again.
func TestCollectRemovesNothingWhenItCannotDecide(t *testing.T) {
	child, other := schemetest.Image("child"), schemetest.Image("other")
	ix := schemetest.Index([]*schemetest.Item{child, other})
	flip := func(r ref.Ref, d digest.Digest) error {
		path := blobFileOf(r, d)
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		raw[len(raw)/2] ^= 1
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			return err
		}
		old := time.Now().Add(-time.Hour)
		return os.Chtimes(path, old, old) // so old that it is set aside
	}
	for name, c := range map[string]struct {
		hurt func(r ref.Ref) error
		kind error
		says string
	}{
		"a damaged index": {func(r ref.Ref) error { return flip(r, ix.Manifest.Digest()) }, errs.ErrCorrupt, ix.Manifest.Digest().Encoded()},
		"a lost index":    {func(r ref.Ref) error { return os.Remove(blobFileOf(r, ix.Manifest.Digest())) }, errs.ErrCorrupt, "index.json lists"},
		"a damaged child": {func(r ref.Ref) error { return flip(r, child.Manifest.Digest()) }, errs.ErrCorrupt, child.Manifest.Digest().Encoded()},
		"a lost child":    {func(r ref.Ref) error { return os.Remove(blobFileOf(r, child.Manifest.Digest())) }, errs.ErrCorrupt, "was when"},
		"a directory": {func(r ref.Ref) error {
			path := blobFileOf(r, child.Manifest.Digest())
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o755))
		}, errs.ErrCorrupt, "not a regular file"},
		"index.json that is empty": {func(r ref.Ref) error { return os.WriteFile(filepath.Join(r.Path(), indexName), nil, 0o644) }, errs.ErrCorrupt, indexName},
		"index.json that is lost":  {func(r ref.Ref) error { return os.Remove(filepath.Join(r.Path(), indexName)) }, errs.ErrCorrupt, indexName},
		"an entry without a digest": {func(r ref.Ref) error {
			raw := `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"blake3:00","size":1}]}`
			return os.WriteFile(filepath.Join(r.Path(), indexName), []byte(raw), 0o644)
		}, errs.ErrCorrupt, "cannot be verified"},
		"a list of dropped roots that is garbage": {func(r ref.Ref) error {
			return os.WriteFile(filepath.Join(r.Path(), vanishedName), []byte("["), 0o644)
		}, errs.ErrCorrupt, "vanished"},
	} {
		t.Run(name, func(t *testing.T) {
			r := place(t.TempDir())
			alone(t, func(o *OCIDir) error { return pushWithChildren(t, o, r.WithTag("v1"), ix) })
			litter(t, r, "garbage")
			if err := c.hurt(r); err != nil {
				t.Fatal(err)
			}
			before := blobNames(t, r)
			for round := range 3 {
				_, err := collect(t, r, scheme.WithUntagged())
				if !errors.Is(err, c.kind) && !errors.Is(err, errs.ErrDigestMismatch) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("round %d: got %v, want %v with %q", round, err, c.kind, c.says)
				}
				_, err = collect(t, r, scheme.WithDryRun())
				if err == nil {
					t.Error("a dry run finds nothing wrong")
				}
			}
			after := blobNames(t, r)
			for _, n := range before {
				if !slices.Contains(after, n) && !strings.Contains(name, "damaged") {
					t.Errorf("%s is gone", n)
				}
			}
			for _, it := range []*schemetest.Item{child, other} {
				for _, b := range it.Blobs {
					if _, err := os.Stat(blobFileOf(r, digest.FromBytes(b))); err != nil {
						t.Error(err)
					}
				}
			}
			if _, err := os.Stat(blobFileOf(r, digest.FromString("garbage"))); err != nil {
				t.Error("garbage was removed although it was not known to be some")
			}
		})
	}
}

func TestAgesByTheFilesOwnClock(t *testing.T) {
	later := func(d time.Duration) []Option {
		return []Option{withClock(clock{wall: func(real time.Time) time.Time { return real.Add(d) }, boot: func() (string, time.Duration) { return "", 0 }})}
	}
	dir := t.TempDir()
	r, src := place(dir+"/tgt"), place(dir+"/src")
	litter(t, r, "put")
	litter(t, src, "mounted")
	long := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	mounted := types.Descriptor{Digest: digest.FromString("mounted")}
	if err := os.Chtimes(blobFileOf(src, mounted.Digest), long, long); err != nil {
		t.Fatal(err)
	}
	alone(t, func(o *OCIDir) error { return o.BlobMount(t.Context(), src, r, mounted) })
	for _, c := range []struct {
		name  string
		later time.Duration
		grace time.Duration
		young int
		gone  int
	}{
		{"at once", 0, time.Hour, 2, 0},
		{"a clock that was set back by a year", -365 * 24 * time.Hour, time.Hour, 2, 0},
		{"within the period", 50 * time.Minute, time.Hour, 2, 0},
		{"after the period", 2 * time.Hour, time.Hour, 0, 2},
	} {
		rep, err := collectWith(t, r, later(c.later), scheme.WithGrace(c.grace))
		if err != nil || rep.Young != c.young || len(rep.Removed) != c.gone {
			t.Errorf("%s: %d young, %d removed, %v", c.name, rep.Young, len(rep.Removed), err)
		}
	}
	if _, err := os.Stat(blobFileOf(src, mounted.Digest)); err != nil {
		t.Error(err)
	}
}

func TestClockThatWasSet(t *testing.T) {
	r := place(t.TempDir())
	litter(t, r, "garbage")
	start := time.Now()
	boot, up, off := "boot 1", time.Hour, time.Duration(0)
	run := func(opts ...scheme.CollectOption) scheme.CollectReport {
		t.Helper()
		at := clock{
			wall: func(time.Time) time.Time { return start.Add(up + off) },
			boot: func() (string, time.Duration) { return boot, up },
		}
		rep, err := collectWith(t, r, []Option{withClock(at)}, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	expect := func(when string, rep scheme.CollectReport, moved bool, young, gone int) {
		t.Helper()
		if rep.ClockMoved != moved || rep.Young != young || len(rep.Removed) != gone {
			t.Errorf("%s: moved %v, %d young, %d removed", when, rep.ClockMoved, rep.Young, len(rep.Removed))
		}
	}
	day := scheme.WithGrace(24 * time.Hour)
	expect("at first", run(day), false, 1, 0)
	off = 365 * 24 * time.Hour
	expect("set a year ahead, dry", run(day, scheme.WithDryRun()), true, 1, 0)
	expect("set a year ahead", run(day), true, 1, 0)
	up += 23 * time.Hour
	expect("within the period after that", run(day), true, 1, 0)
	if rep := run(scheme.WithDryRun()); rep.ClockMoved || len(rep.Removed) != 1 {
		t.Errorf("without a grace period the clock does not matter: %+v", rep)
	}
	up += 2 * time.Hour
	expect("after the period", run(day, scheme.WithDryRun()), false, 0, 1)
	off -= 2 * time.Minute
	expect("set back by two minutes", run(day, scheme.WithDryRun()), true, 1, 0)
	boot, up = "boot 2", time.Minute
	expect("after a start nothing is known", run(day), false, 0, 1)
	if err := os.WriteFile(filepath.Join(r.Path(), clockName), []byte("garbage"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect("a record that is garbage", run(day), false, 0, 0)
}

func TestOpenReadersGoOn(t *testing.T) {
	r := place(t.TempDir())
	data := schemetest.Blob("read", 300_000)
	litter(t, r, string(data))
	o := open(t)
	d := types.Descriptor{Digest: digest.FromBytes(data)}
	ra, err := o.BlobOpen(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	defer ra.Close()
	rdr, err := o.BlobGet(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	defer rdr.Close()
	if _, err := io.ReadFull(rdr, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if rep, err := collect(t, r); err != nil || len(rep.Removed) != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	rest, err := io.ReadAll(rdr)
	if err != nil || string(rest) != string(data[1000:]) {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
	buf := make([]byte, 100)
	if _, err := ra.ReadAt(buf, 200_000); err != nil || string(buf) != string(data[200_000:200_100]) {
		t.Error(err)
	}
	if _, err := o.BlobHead(t.Context(), r, d); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
}

func TestHostileGraphsAreWalkedOnce(t *testing.T) {
	r := place(t.TempDir())
	below := as(writeBlob(t, r, digest.SHA256, `{"schemaVersion":2,"manifests":[]}`), types.MediaTypeImageIndex, "")
	const depth, width = 3000, 200
	for i := range depth {
		n := 1
		if i < 30 {
			n = width // the next one many times: 200^30 ways
		}
		below = as(writeBlob(t, r, digest.SHA256, fmt.Sprintf(`{"schemaVersion":2,"n":%d,"manifests":[%s]}`,
			i, strings.TrimSuffix(strings.Repeat(asJSON(below)+",", n), ","))), types.MediaTypeImageIndex, "")
	}
	foreignIndex(t, r, as(below, types.MediaTypeImageIndex, "deep"))
	o := open(t)
	l := openedLayout(t, o, r)
	m := newMarker(l)
	ix, err := l.index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.entries(t.Context(), ix, nil); err != nil {
		t.Fatal(err)
	}
	if len(m.need) != depth+1 || len(m.seen) != depth+1 {
		t.Errorf("%d documents were read, %d are needed; there are %d", len(m.seen), len(m.need), depth+1)
	}
	litter(t, r, "garbage")
	if rep, err := collect(t, r, scheme.WithUntagged()); err != nil || len(rep.Removed) != 1 {
		t.Errorf("%d removed, %v", len(rep.Removed), err)
	}
}

func TestSharedFilesFreeNothing(t *testing.T) {
	dir := t.TempDir()
	r, other := place(dir+"/a"), place(dir+"/b")
	litter(t, other, "shared")
	d := types.Descriptor{Digest: digest.FromString("shared")}
	alone(t, func(o *OCIDir) error { return o.BlobMount(t.Context(), other, r, d) })
	litter(t, r, "own")
	for _, opts := range [][]scheme.CollectOption{{scheme.WithDryRun()}, nil} {
		rep, err := collect(t, r, opts...)
		if err != nil || len(rep.Removed) != 2 || rep.Freed != int64(len("own")) {
			t.Errorf("%+v, %v", rep, err)
		}
	}
	if got, err := os.ReadFile(blobFileOf(other, d.Digest)); err != nil || string(got) != "shared" {
		t.Errorf("the other layout has %q, %v", got, err)
	}
}

func TestVanishedRootsAreSpared(t *testing.T) {
	r := place(t.TempDir())
	a, b := schemetest.Image("a"), schemetest.Image("b")
	alone(t, func(o *OCIDir) error {
		return errors.Join(a.Push(t.Context(), o, r.WithTag("a")), b.Push(t.Context(), o, r.WithTag("b")))
	})
	foreignIndex(t, r, as(b.Descriptor(), b.Descriptor().MediaType, "b")) // a tool that saves what it knew
	before := blobNames(t, r)
	for range 2 {
		rep, err := collect(t, r)
		if err != nil || len(rep.Removed) > 0 || len(rep.Vanished) != 1 || rep.Vanished[0].Digest != a.Manifest.Digest() {
			t.Errorf("%+v, %v", rep, err)
		}
	}
	if diff := cmp.Diff(before, blobNames(t, r)); diff != "" {
		t.Error(diff)
	}
	rep, err := collect(t, r, scheme.WithVanished())
	if err != nil || len(rep.Removed) != 4 || len(rep.Vanished) > 0 {
		t.Errorf("given up: %+v, %v", rep, err)
	}
	if rep, err := collect(t, r); err != nil || len(rep.Vanished) > 0 {
		t.Errorf("they are still missed: %+v, %v", rep, err)
	}
	valid(t, r)
}

// What nothing lists any more may be damaged, as after a power loss. Then somebody has to decide.
func TestDamagedVanishedRootIsGivenUpWhenAsked(t *testing.T) {
	r := place(t.TempDir())
	a, b := schemetest.Image("a"), schemetest.Image("b")
	alone(t, func(o *OCIDir) error {
		return errors.Join(a.Push(t.Context(), o, r.WithTag("a")), b.Push(t.Context(), o, r.WithTag("b")))
	})
	foreignIndex(t, r, as(b.Descriptor(), b.Descriptor().MediaType, "b"))
	if err := os.WriteFile(blobFileOf(r, a.Manifest.Digest()), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	before := blobNames(t, r)
	rep, err := collect(t, r)
	if !errors.Is(err, errs.ErrDigestMismatch) || !strings.Contains(err.Error(), "the tag a") || !strings.Contains(errs.Hint(err), "--vanished") {
		t.Errorf("%v, hint %q", err, errs.Hint(err))
	}
	if diff := cmp.Diff(before, blobNames(t, r)); diff != "" || len(rep.Removed) > 0 {
		t.Error(rep.Removed, diff)
	}
	if rep, err := collect(t, r, scheme.WithVanished()); err != nil || len(rep.Removed) != 4 {
		t.Errorf("given up: %+v, %v", rep, err)
	}
	valid(t, r)
}

func TestDryRunMakesNoFile(t *testing.T) {
	r := place(t.TempDir())
	d := writeBlob(t, r, digest.SHA256, "raw")
	writeBlob(t, r, digest.SHA256, "garbage")
	foreignIndex(t, r, as(d, "application/x", "v1"))
	s := &steps{}
	rep, err := collectWith(t, r, []Option{withHook(s.hook)}, scheme.WithDryRun(), scheme.WithUntagged(), scheme.WithVanished())
	if err != nil || len(rep.Removed) != 1 || len(s.seen) > 0 {
		t.Errorf("%+v, %v; it did %q", rep, err, s.seen)
	}
	if _, err := os.Stat(filepath.Join(r.Path(), stateDir)); err == nil {
		t.Error("it made " + stateDir)
	}
}

func TestClean(t *testing.T) {
	r := place(t.TempDir())
	litter(t, r, "kept")
	dead := []string{ingestDir + "/dead" + tempSuffix, leaseDir + "/dead" + seenSuffix, leaseDir + "/dead" + heldSuffix}
	for _, name := range dead {
		if err := os.WriteFile(filepath.Join(r.Path(), name), make([]byte, 16), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := open(t)
	putBlob(t, o, r, []byte("leased")) // its file of leases is alive; and dead.tmp goes with the first write
	u, err := o.Ingest(t.Context(), r, "idle")
	if err == nil {
		_, err = u.Write([]byte("12345"))
	}
	if err = errors.Join(err, u.Close()); err != nil {
		t.Fatal(err)
	}
	rep, err := o.Clean(t.Context(), r, time.Hour)
	if err != nil || rep.Files != 0 || len(rep.Ingests) != 0 {
		t.Errorf("what is young: %+v, %v", rep, err)
	}
	rep, err = o.Clean(t.Context(), r, 0)
	if err != nil || rep.Files != 2 || len(rep.Ingests) != 1 || rep.Bytes != 2*16+5 {
		t.Errorf("%+v, %v", rep, err)
	}
	if names, _ := leaseFiles(t, r); len(names) != 1 {
		t.Errorf("leases: %q", names)
	}
	if len(blobNames(t, r)) != 2 {
		t.Error("a blob is gone")
	}
	if _, err := o.Clean(t.Context(), place(t.TempDir()+"/absent"), 0); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
}

func TestCollectLeavesNoFileOpen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc/self/fd")
	}
	r := place(t.TempDir())
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	round := func(i int) {
		litter(t, r, fmt.Sprint("a", i), fmt.Sprint("b", i))
		if rep, err := collect(t, r, scheme.WithUntagged()); err != nil || len(rep.Removed) != 2 {
			t.Errorf("%+v, %v", rep, err)
		}
	}
	round(0)
	before := count()
	for i := range 20 {
		round(i + 1)
	}
	if after := count(); after > before {
		t.Errorf("%d files are open, %d were", after, before)
	}
}

func TestCollectOnAFullDisk(t *testing.T) {
	s := newLitterScene(t)
	if err := s.holder.Close(); err != nil {
		t.Fatal(err)
	}
	r := s.r
	full := &steps{}
	reserve := map[string]bool{} // has its room
	full.set(func(step, name string) error {
		if step == stepRename {
			reserve[name] = true
		}
		if step == stepWrite && reserve[name] {
			return nil
		}
		if step == stepCreate || step == stepWrite || step == stepMkdir || step == stepLink {
			return fmt.Errorf("no room: %w", syscall.ENOSPC)
		}
		return nil
	})
	rep, err := collectWith(t, r, []Option{withHook(full.hook)}, scheme.WithUntagged())
	if err != nil || len(rep.Untagged) != 1 || len(rep.Removed) == 0 {
		t.Errorf("%d entries, %d blobs, %v; it did %q", len(rep.Untagged), len(rep.Removed), err, full.seen)
	}
	if n := len(blobNames(t, r)); n != 4 {
		t.Errorf("%d blobs are left, want one image", n)
	}
	valid(t, r)
}

func TestStatLeases(t *testing.T) {
	r := place(t.TempDir())
	litter(t, r, "found")
	o := open(t)
	if _, err := o.BlobStat(t.Context(), r, digest.FromString("found")); err != nil {
		t.Fatal(err)
	}
	if rep, err := collect(t, r); err != nil || rep.Leased != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
}
