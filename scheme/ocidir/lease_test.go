package ocidir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// leasesOf reads a layout's leases as a collector does that looks now plus later.
func leasesOf(t *testing.T, r ref.Ref, later, grace time.Duration) *leased {
	t.Helper()
	root, err := os.OpenRoot(r.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	s := newLeased(&volume{root: root}, time.Now().Add(later), grace)
	if err := s.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// leaseFiles lists the files in leases, and how long they are together.
func leaseFiles(t *testing.T, r ref.Ref) (names []string, size int64) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(r.Path(), leaseDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		names, size = append(names, e.Name()), size+fi.Size()
	}
	return names, size
}

const record = int64(len(leaseKey{}))

func TestWhatIsPutFoundOrMountedIsLeasedOnce(t *testing.T) {
	dir := t.TempDir()
	r, src := place(dir+"/tgt"), place(dir+"/src")
	maker := New()
	old := putBlob(t, maker, r, []byte("old"))
	mounted := putBlob(t, maker, src, []byte("mounted"))
	via := putBlob(t, maker, src, []byte("mounted by a put"))
	it := schemetest.Opaque("a")
	if err := it.Push(t.Context(), maker, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	if err := maker.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := leaseFiles(t, r); len(names) > 0 {
		t.Fatalf("closing left %q", names)
	}
	for name, c := range map[string]struct {
		d  digest.Digest
		do func(o *OCIDir) error
	}{
		"a put of something new": {digest.FromString("new"), func(o *OCIDir) error {
			_, err := o.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader("new"))
			return err
		}},
		"a put of what is there": {old.Digest, func(o *OCIDir) error {
			_, err := o.BlobPut(t.Context(), r, old, errReader{})
			return err
		}},
		"a head": {old.Digest, func(o *OCIDir) error {
			_, err := o.BlobHead(t.Context(), r, old)
			return err
		}},
		"a manifest's head": {it.Manifest.Digest(), func(o *OCIDir) error {
			_, err := o.ManifestHead(t.Context(), r.WithTag("v1"))
			return err
		}},
		"a mount": {mounted.Digest, func(o *OCIDir) error { return o.BlobMount(t.Context(), src, r, mounted) }},
		"a mount by put": {via.Digest, func(o *OCIDir) error {
			_, err := o.BlobPut(t.Context(), r, via, errReader{}, scheme.WithMountFrom(src))
			return err
		}},
		"a manifest's put": {digest.FromBytes(it.Manifest.Raw()), func(o *OCIDir) error {
			_, err := o.ManifestPut(t.Context(), r.WithDigest(it.Manifest.Digest()), it.Manifest)
			return err
		}},
	} {
		o := New()
		if leasesOf(t, r, 0, 0).has(c.d) {
			t.Errorf("%s: it was leased before", name)
		}
		for range 3 {
			if err := c.do(o); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if !leasesOf(t, r, 0, 0).has(c.d) {
			t.Errorf("%s: it is not leased", name)
		}
		if names, size := leaseFiles(t, r); len(names) != 1 || size != record {
			t.Errorf("%s: %d bytes in %q, want one record", name, size, names)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadersMakeNoFiles(t *testing.T) {
	r := place(t.TempDir())
	maker := New()
	d := putBlob(t, maker, r, []byte("x"))
	if err := schemetest.Opaque("a").Push(t.Context(), maker, r.WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	maker.Close()
	s := &steps{}
	o := open(t, withHook(s.hook))
	look := func() {
		t.Helper()
		_, err := o.BlobHead(t.Context(), r, d)
		_, merr := o.ManifestHead(t.Context(), r.WithTag("v1"))
		_, gerr := o.ManifestGet(t.Context(), r.WithTag("v1"))
		if err := errors.Join(err, merr, gerr); err != nil {
			t.Error(err)
		}
	}
	if _, err := o.ManifestGet(t.Context(), r.WithTag("v1")); err != nil || len(s.seen) > 0 {
		t.Errorf("a read did %q, %v", s.seen, err)
	}
	for _, why := range []error{syscall.ENOSPC, syscall.EROFS} {
		s.set(func(string, string) error { return why })
		look()
		if len(s.seen) == 0 {
			t.Errorf("%v: no lease was tried where others write", why)
		}
	}
	s.set(nil)
	if look(); len(s.seen) > 0 {
		t.Errorf("where nothing can be written it was tried again: %q", s.seen)
	}
	if err := os.RemoveAll(filepath.Join(r.Root, stateDir)); err != nil {
		t.Fatal(err)
	}
	o = open(t, withHook(s.hook))
	if look(); len(s.seen) > 0 {
		t.Errorf("in a layout that nobody of ours wrote to: %q", s.seen)
	}
	if _, err := o.BlobHead(t.Context(), r, types.Descriptor{Digest: digest.FromString("absent")}); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
}

func TestHeadsOfWhatIsAbsentLeaseNothing(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	putBlob(t, o, r, []byte("x"))
	_, before := leaseFiles(t, r)
	for i := range 10 {
		if _, err := o.BlobHead(t.Context(), r, types.Descriptor{Digest: digest.FromString(fmt.Sprint(i))}); !errors.Is(err, errs.ErrNotFound) {
			t.Error(err)
		}
	}
	if _, after := leaseFiles(t, r); after != before {
		t.Errorf("somebody who guesses digests makes the file %d bytes longer", after-before)
	}
}

func TestHoldAndRelease(t *testing.T) {
	o, r := open(t), place(t.TempDir()+"/new")
	a, b, c := digest.FromString("a"), digest.SHA512.FromString("b"), digest.FromString("c")
	check := func(when string, want ...digest.Digest) {
		t.Helper()
		s := leasesOf(t, r, 365*24*time.Hour, 0)
		for _, d := range []digest.Digest{a, b, c} {
			wanted := false
			for _, w := range want {
				wanted = wanted || w == d
			}
			if s.has(d) != wanted {
				t.Errorf("%s: leased %s: %v, want %v", when, d, s.has(d), wanted)
			}
		}
	}
	lease := func(all ...digest.Digest) func() {
		t.Helper()
		release, err := o.Lease(t.Context(), r, all...)
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	ab, bc := lease(a, b), lease(b, c)
	check("two leases", a, b, c)
	ab()
	ab()
	check("one was released, twice", b, c)
	for range 3000 {
		lease(a)()
	}
	check("after many", b, c)
	if _, size := leaseFiles(t, r); size > 8192*record {
		t.Errorf("the file has %d bytes for two leases", size)
	}
	if err := os.RemoveAll(filepath.Join(r.Root, stateDir)); err != nil {
		t.Fatal(err)
	}
	again := lease(a)
	check(".ocisync was deleted", a, b, c)
	again()
	bc()
	check("all were released")
	if names, _ := leaseFiles(t, r); len(names) > 0 {
		t.Errorf("%q are left", names)
	}
	lease(a) // and never released
	if _, err := os.Stat(filepath.Join(r.Root, markerName)); err == nil {
		t.Error("a lease made a layout")
	}
	if _, err := o.Lease(t.Context(), r, "sha256:../../x"); !errors.Is(err, errs.ErrDigestInvalid) {
		t.Errorf("a digest that is none: %v", err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := leaseFiles(t, r); len(names) > 0 {
		t.Errorf("closing left %q", names)
	}
	if _, err := o.Lease(t.Context(), r, a); err == nil {
		t.Error("a closed API leases")
	}
}

func TestWhichLeasesCount(t *testing.T) {
	r := place(t.TempDir())
	o := open(t)
	d := putBlob(t, o, r, []byte("x")).Digest
	for name, c := range map[string]struct {
		later, grace time.Duration
		timeless     bool
		want         bool
	}{
		"of a live process":              {0, 0, false, true},
		"of a live process, hours later": {leaseTime - time.Hour, 0, false, true},
		"a day later":                    {leaseTime + time.Hour, 0, false, false},
		"a day later by a wrong clock":   {leaseTime + time.Hour, 0, true, true},
	} {
		s := leasesOf(t, r, c.later, c.grace)
		s.timeless, s.seen, s.read = c.timeless, map[leaseKey]struct{}{}, map[string]int64{}
		if err := s.refresh(t.Context()); err != nil || s.has(d) != c.want {
			t.Errorf("%s: %v, %v; want %v", name, s.has(d), err, c.want)
		}
	}
	killLeases(t, o, r)
	if !leasesOf(t, r, time.Minute, time.Hour).has(d) {
		t.Error("of a process that just died, in the grace period: it does not count")
	}
	if leasesOf(t, r, time.Minute, time.Second).has(d) {
		t.Error("of a process that died, after the grace period: it counts")
	}
}

// killLeases leaves the files as a process does that is killed.
func killLeases(t *testing.T, o *OCIDir, r ref.Ref) {
	t.Helper()
	ls := o.layouts[r.Path()].leases
	for _, lf := range []*leaseFile{ls.recent, ls.older, ls.held} {
		if lf != nil {
			if err := lf.f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	ls.recent, ls.older, ls.held = nil, nil, nil
}

func TestLeasesSurviveTheirDeletionAndAFailedWrite(t *testing.T) {
	s := &steps{}
	o, r := open(t, withHook(s.hook)), place(t.TempDir())
	a := putBlob(t, o, r, []byte("a")).Digest
	if err := os.RemoveAll(filepath.Join(r.Root, stateDir)); err != nil {
		t.Fatal(err)
	}
	b := putBlob(t, o, r, []byte("b")).Digest
	s.set(func(step, name string) error {
		if step == stepWrite && strings.HasPrefix(name, leaseDir) {
			return syscall.ENOSPC
		}
		return nil
	})
	if _, err := o.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader("c")); !errors.Is(err, errs.ErrNoSpace) {
		t.Errorf("a put that cannot be leased: %v", err)
	}
	s.set(nil)
	d := putBlob(t, o, r, []byte("d")).Digest
	l := leasesOf(t, r, 0, 0)
	if !l.has(a) || !l.has(b) || !l.has(d) {
		t.Errorf("leased: %v %v %v, want all", l.has(a), l.has(b), l.has(d))
	}
}

func TestLeaseFilesAreRenewedAndBounded(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	put := func(s string) digest.Digest { return putBlob(t, o, r, []byte(s)).Digest }
	a := put("a")
	ls := o.layouts[r.Path()].leases
	age := func() { ls.recent.born = ls.recent.born.Add(-leaseTime) }
	age()
	b := put("b")
	if l := leasesOf(t, r, 0, 0); !l.has(a) || !l.has(b) {
		t.Error("a lease ended before its time")
	}
	age()
	c := put("c")
	if l := leasesOf(t, r, 0, 0); l.has(a) || !l.has(b) || !l.has(c) {
		t.Errorf("leased: %v %v %v, want the last two", l.has(a), l.has(b), l.has(c))
	}
	for i := range maxSeen {
		ls.recent.known[leaseKey{'x', byte(i), byte(i >> 8), byte(i >> 16)}] = struct{}{}
	}
	put("d")
	put("e")
	if _, size := leaseFiles(t, r); size > 4*record {
		t.Errorf("the files grow above the limit: %d bytes", size)
	}
	if l := leasesOf(t, r, 0, 0); !l.has(digest.FromString("e")) || !l.has(digest.FromString("anything")) {
		t.Error("above the limit not everything counts as leased")
	}
}

func TestLeasesOfLayoutsThatAreClosedStay(t *testing.T) {
	o, root := open(t, WithDurability(None)), place(t.TempDir())
	const n = maxIdle + 10
	at := func(i int) ref.Ref { return root.WithRepo(fmt.Sprint("r", i)) }
	for round := range 3 {
		for i := range n {
			if _, err := o.BlobPut(t.Context(), at(i), types.Descriptor{}, strings.NewReader(fmt.Sprint(round))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range n {
		l := leasesOf(t, at(i), 0, 0)
		for round := range 3 {
			if !l.has(digest.FromString(fmt.Sprint(round))) {
				t.Errorf("%d: what was put in round %d is not leased", i, round)
			}
		}
		if names, size := leaseFiles(t, at(i)); len(names) != 1 || size > 6*record {
			t.Errorf("%d: %d bytes in %q", i, size, names)
		}
	}
	if leasesOf(t, at(0), leaseTime+time.Hour, 0).has(digest.FromString("0")) {
		t.Error("the leases of a layout that is closed never end")
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if names, _ := leaseFiles(t, at(i)); len(names) > 0 {
			t.Errorf("%d: closing left %q", i, names)
		}
	}
}

func TestWritersRemoveTheLeasesOfTheLongDead(t *testing.T) {
	r := place(t.TempDir())
	litter(t, r, "x")
	old := time.Now().Add(-ingestAge - time.Hour)
	for name, at := range map[string]time.Time{"dead": old, "fresh": time.Now()} {
		path := filepath.Join(r.Path(), leaseDir, name+seenSuffix)
		if err := errors.Join(os.WriteFile(path, make([]byte, record), 0o644), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	litter(t, r, "y")
	if names, _ := leaseFiles(t, r); len(names) != 1 || names[0] != "fresh"+seenSuffix {
		t.Errorf("left are %q", names)
	}
}
