package mem_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var capabilities = []schemetest.Capability{
	schemetest.BlobOpener, schemetest.BlobLister, schemetest.RepoLister, schemetest.BlobFinder, schemetest.BlobStater, schemetest.Labeler,
	schemetest.Ingester, schemetest.IngestManager, schemetest.Truncater, schemetest.Leaser, schemetest.Collector,
}

func TestContract(t *testing.T) {
	schemetest.Run(t, schemetest.Harness{
		New: func(*testing.T) (scheme.API, ref.Ref) {
			return mem.New(), ref.MustParse("mem://test").WithRepo("group/repo")
		},
		Reopen:       func(_ *testing.T, api scheme.API, _ ref.Ref) scheme.API { return api.(*mem.Mem).Share() },
		Capabilities: capabilities,
	})
}

func TestContractThroughMux(t *testing.T) {
	schemetest.Run(t, schemetest.Harness{
		New: func(*testing.T) (scheme.API, ref.Ref) {
			other := mem.New()
			return scheme.NewMux(map[string]scheme.API{"mem": mem.New(), "other": other}), ref.MustParse("mem://test").WithRepo("repo")
		},
		Reopen: func(t *testing.T, api scheme.API, r ref.Ref) scheme.API {
			var shared interface{ Share() *mem.Mem }
			if !scheme.As(api, r, &shared) {
				t.Fatal("the Mux does not show what the API can do beyond the known capabilities")
			}
			return scheme.NewMux(map[string]scheme.API{"mem": shared.Share()})
		},
		Capabilities: capabilities,
		Steps:        3,
	})
}

func TestContractOfARootWithoutRepositories(t *testing.T) {
	schemetest.Run(t, schemetest.Harness{
		New:          func(*testing.T) (scheme.API, ref.Ref) { return mem.New(), ref.MustParse("mem://single") },
		Capabilities: capabilities,
		Steps:        3,
	})
}

func put(t *testing.T, m *mem.Mem, r ref.Ref, data []byte) types.Descriptor {
	t.Helper()
	d, err := m.BlobPut(t.Context(), r, types.Descriptor{}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestLimitBoundsWhatIsStored(t *testing.T) {
	m, r := mem.New(mem.WithLimit(100)), ref.MustParse("mem://test/a")
	a := put(t, m, r, make([]byte, 60))
	for _, d := range []types.Descriptor{{}, {Size: 41}, {Digest: digest.FromBytes(bytes.Repeat([]byte("x"), 41))}} {
		_, err := m.BlobPut(t.Context(), r, d, bytes.NewReader(bytes.Repeat([]byte("x"), 41)))
		if !errors.Is(err, errs.ErrNoSpace) {
			t.Fatalf("41 bytes more: got %v, want ErrNoSpace", err)
		}
	}
	if _, err := m.BlobHead(t.Context(), r, types.Descriptor{Digest: digest.FromBytes(bytes.Repeat([]byte("x"), 41))}); !errors.Is(err, errs.ErrNotFound) {
		t.Fatalf("what there was no room for: got %v, want ErrNotFound", err)
	}
	put(t, m, r, bytes.Repeat([]byte("y"), 40)) // the failures left nothing reserved
	it := schemetest.Opaque("too much")
	if _, err := m.ManifestPut(t.Context(), r, it.Manifest); !errors.Is(err, errs.ErrNoSpace) {
		t.Fatalf("a manifest more: got %v, want ErrNoSpace", err)
	}
	if err := m.BlobDelete(t.Context(), r, a); err != nil {
		t.Fatal(err)
	}
	for range 3 { // the same manifest again needs no more room
		if _, err := m.ManifestPut(t.Context(), r, it.Manifest); err != nil {
			t.Fatalf("a manifest after a delete: %v", err)
		}
	}
	if err := m.ManifestDelete(t.Context(), r.WithDigest(it.Manifest.Digest())); err != nil {
		t.Fatal(err)
	}
	put(t, m, r, bytes.Repeat([]byte("z"), 60)) // exactly what is left
}

func TestLimitCountsContentOnce(t *testing.T) {
	m, a, b := mem.New(mem.WithLimit(1500)), ref.MustParse("mem://test/a"), ref.MustParse("mem://test/b")
	data := schemetest.Blob("shared", 700)
	d := put(t, m, a, data)
	put(t, m, b, data)
	if err := m.BlobMount(t.Context(), a, ref.MustParse("mem://test/c"), d); err != nil {
		t.Fatal(err)
	}
	put(t, m, a, schemetest.Blob("more", 800))
	for _, r := range []ref.Ref{a, b} {
		if err := m.BlobDelete(t.Context(), r, d); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.BlobPut(t.Context(), a, types.Descriptor{}, bytes.NewReader(make([]byte, 10))); !errors.Is(err, errs.ErrNoSpace) {
		t.Fatalf("one repository still has the blob: got %v, want ErrNoSpace", err)
	}
	if err := m.BlobDelete(t.Context(), ref.MustParse("mem://test/c"), d); err != nil {
		t.Fatal(err)
	}
	put(t, m, a, schemetest.Blob("in its place", 700))
}

func TestLimitHoldsForPutsUnderWay(t *testing.T) {
	m, r := mem.New(mem.WithLimit(1000)), ref.MustParse("mem://test/a")
	pr, pw := io.Pipe()
	var first errgroup.Group
	first.Go(func() error {
		_, err := m.BlobPut(t.Context(), r, types.Descriptor{}, pr)
		return err
	})
	if _, err := pw.Write(make([]byte, 600)); err != nil {
		t.Fatal(err)
	}
	if _, err := pw.Write([]byte{1}); err != nil { // taken only after the 600 were reserved
		t.Fatal(err)
	}
	if _, err := m.BlobPut(t.Context(), r, types.Descriptor{}, bytes.NewReader(make([]byte, 500))); !errors.Is(err, errs.ErrNoSpace) {
		t.Fatalf("500 bytes beside the 601 of a put under way: got %v, want ErrNoSpace", err)
	}
	broken := errors.New("broken")
	pw.CloseWithError(broken)
	if err := first.Wait(); !errors.Is(err, broken) {
		t.Fatalf("the first put: got %v, want its reader's error", err)
	}
	put(t, m, r, make([]byte, 1000))
}

func TestReadersOfDeletedContentGoOn(t *testing.T) {
	m, r := mem.New(), ref.MustParse("mem://test/a")
	data := schemetest.Blob("deleted", 100_000)
	d := put(t, m, r, data)
	rdr, err := m.BlobGet(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	defer rdr.Close()
	ra, err := m.BlobOpen(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	defer ra.Close()
	if err := m.BlobDelete(t.Context(), r, d); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(rdr); err != nil || !bytes.Equal(got, data) {
		t.Errorf("stream: got %d bytes and %v", len(got), err)
	}
	p := make([]byte, len(data))
	if _, err := ra.ReadAt(p, 0); err != nil || !bytes.Equal(p, data) {
		t.Errorf("random access: %v", err)
	}
}

func TestOnePlaceHasOneContentHoweverItIsNamed(t *testing.T) {
	m := mem.New()
	root := ref.MustParse("mem://srv")
	it := schemetest.Image("x")
	if err := it.Push(t.Context(), m, root.WithRepo("a/b").WithTag("v1")); err != nil {
		t.Fatal(err)
	}
	for _, r := range []ref.Ref{ref.MustParse("mem://srv/a/b:v1"), ref.MustParse("mem://srv/a").WithRepo("b").WithTag("v1")} {
		if d, err := m.ManifestHead(t.Context(), r); err != nil || d.Digest != it.Manifest.Digest() {
			t.Errorf("%s: got %s and %v", r, d.Digest, err)
		}
	}
	for root, want := range map[string][]string{"mem://srv": {"a/b"}, "mem://srv/a": {"b"}, "mem://srv/a/b": {""}} {
		got, err := scheme.ListRepos(t.Context(), m, ref.MustParse(root))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("repositories below %s: got %q and %v, want %q", root, got, err, want)
		}
	}
	if _, err := scheme.ListRepos(t.Context(), m, ref.MustParse("mem://sr")); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("repositories below mem://sr: got %v, want ErrNotFound", err)
	}
}

func TestMountFromAnotherSchemeIsUnsupported(t *testing.T) {
	m := mem.New()
	d := put(t, m, ref.MustParse("mem://a"), []byte("x"))
	err := m.BlobMount(t.Context(), ref.MustParse("s3://a"), ref.MustParse("mem://b"), d)
	if !errors.Is(err, errs.ErrUnsupported) {
		t.Fatalf("got %v, want ErrUnsupported", err)
	}
}

func TestReaderThatNeverReadsIsNoProgress(t *testing.T) {
	_, err := mem.New().BlobPut(t.Context(), ref.MustParse("mem://a"), types.Descriptor{}, idle{})
	if !errors.Is(err, io.ErrNoProgress) {
		t.Fatalf("got %v, want io.ErrNoProgress", err)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// TestCallbacksMayUseTheAPI holds that no lock is held while the caller's code runs.
func TestCallbacksMayUseTheAPI(t *testing.T) {
	m, r := mem.New(), ref.MustParse("mem://srv").WithRepo("a")
	d := put(t, m, r, []byte("x"))
	err := m.BlobList(t.Context(), r, func(blob.Info) error { return m.BlobDelete(t.Context(), r, d) })
	if err != nil {
		t.Fatal(err)
	}
	err = m.RepoList(t.Context(), r, "", func(repo string) error {
		_, err := m.BlobPut(t.Context(), r.WithRepo(repo+"/b"), types.Descriptor{}, callback(func() error {
			_, err := m.BlobPut(t.Context(), r, types.Descriptor{}, bytes.NewReader([]byte("y")))
			return err
		}))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// callback is a reader of nothing that calls a function first.
type callback func() error

func (c callback) Read([]byte) (int, error) {
	if err := c(); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

func Example() {
	ctx := context.Background()
	m := mem.New()
	r := ref.MustParse("mem://demo/hello:v1")
	if err := schemetest.Image("hello").Push(ctx, m, r); err != nil {
		fmt.Println(err)
	}
	tags, err := m.TagList(ctx, r)
	fmt.Println(tags.Tags, err)
	// Output: [v1] <nil>
}
