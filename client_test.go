package ocisync_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/internal/memdir"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

func TestMain(m *testing.M) {
	if os.Getenv(memdir.Env) == "" {
		// Random operations take most of the time where there is HTTP between: 20 sequences, and not 100, unless
		// -rapid.checks says otherwise or all is asked for.
		if err := flag.Set("rapid.checks", "20"); err != nil {
			panic(err)
		}
		fmt.Printf("20 sequences of random operations; %s=1 or -rapid.checks=100 for more\n", memdir.Env)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(memdir.After(memdir.Use())))
}

// registry is a registry over memory that counts the requests it gets; those to /v2/ itself are outside of budgets.
type registry struct {
	*httptest.Server
	mem *mem.Mem

	mu       sync.Mutex
	requests []string
}

func newRegistry(t testing.TB) *registry {
	r := &registry{mem: mem.New()}
	srv, err := serve.New(r.mem, ref.Ref{Scheme: "mem", Root: "store"})
	if err != nil {
		t.Fatal(err)
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/v2/" {
			r.mu.Lock()
			r.requests = append(r.requests, req.Method+" "+req.URL.RequestURI())
			r.mu.Unlock()
		}
		srv.ServeHTTP(w, req)
	}))
	t.Cleanup(func() {
		r.Close()
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// host is the registry's name in references.
func (r *registry) host() string { return strings.TrimPrefix(r.URL, "http://") }

// ref names a repository, with a tag or without.
func (r *registry) ref(s string) ref.Ref { return ref.MustParse(r.host() + "/" + s) }

// take returns the requests since the last time.
func (r *registry) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.requests
	r.requests = nil
	return all
}

// image puts an image of that many layers into a repository, behind the registry's back.
func (r *registry) image(t testing.TB, repo string, layers int, tags ...string) types.Descriptor {
	t.Helper()
	ctx, at := context.Background(), ref.Ref{Scheme: "mem", Root: "store", Repo: repo}
	blob := func(text, mt string) types.Descriptor {
		d, err := r.mem.BlobPut(ctx, at, types.Descriptor{MediaType: mt, Digest: digest.FromString(text)}, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	m := ocispec.Manifest{MediaType: types.MediaTypeImageManifest, Config: blob(fmt.Sprintf(`{"of":%d}`, layers), types.MediaTypeImageConfig)}
	m.SchemaVersion = 2
	for i := range layers {
		m.Layers = append(m.Layers, blob(fmt.Sprintf("layer %d", i), ocispec.MediaTypeImageLayer))
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	mf, err := manifest.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.mem.ManifestPut(ctx, at.WithDigest(mf.Digest()), mf, scheme.WithTags(tags...)); err != nil {
		t.Fatal(err)
	}
	return mf.Descriptor()
}

// client returns a client that speaks plain HTTP to these registries.
func client(t testing.TB, hosts ...*registry) *ocisync.Client {
	var opts []reg.Option
	for _, h := range hosts {
		opts = append(opts, reg.WithHost(h.host(), reg.Host{TLS: reg.TLSDisabled}))
	}
	c := ocisync.New(ocisync.WithRegistry(opts...))
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestRequestBudget counts what crosses the wire, as DESIGN promises it: the numbers are the point.
func TestRequestBudget(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.image(t, "app", 10, "1", "2")
	src.image(t, "app", 3, "3")
	src.image(t, "one", 10, "only")
	all, one := []ocisync.CopyOption{ocisync.WithAllTags(), ocisync.WithoutReferrers()}, []ocisync.CopyOption{ocisync.WithoutReferrers()}
	last := client(t, src, dst)
	for _, step := range []struct {
		name           string
		client         *ocisync.Client
		from, to       string
		opts           []ocisync.CopyOption
		source, target int
	}{
		{"a repository of one tag, 11 blobs, to nothing: list, manifest, blobs; list, two requests a blob, manifest", nil, "one", "one", all, 13, 24},
		{"the same again, as a mirror: both lists, a HEAD on each side", nil, "one", "one", all, 2, 2},
		{"the same again, one image: a HEAD on each side", nil, "one:only", "one:only", one, 1, 1},
		{"one image to nothing: the tag and its digest are asked for first", nil, "app:1", "alone", one, 13, 2 + 22 + 1},
		{"its digest under another tag, in a new run: HEAD; HEAD, GET, PUT", nil, "app:2", "alone", one, 1, 3},
		{"two tags of one digest in one run: a GET and a PUT more", last, "app", "fresh", []ocisync.CopyOption{ocisync.WithTags("1", "2"), ocisync.WithoutReferrers()}, 13 + 1, 24 + 1},
		{"what this client has put elsewhere is mounted: a POST a blob, and nothing is read", last, "app:1", "mounted", one, 2, 2 + 11 + 1},
		{"another image with what is there: a HEAD a blob, and two requests for each that is missing", nil, "app:3", "alone", one, 3, 2 + 4 + 2 + 1},
	} {
		c := step.client
		if c == nil { // one that remembers nothing
			c = client(t, src, dst)
		}
		src.take()
		dst.take()
		report, err := c.Copy(context.Background(), src.ref(step.from), dst.ref(step.to), step.opts...)
		if err != nil || report.Failed != 0 {
			t.Fatalf("%s: %v", step.name, err)
		}
		if s, d := src.take(), dst.take(); len(s) != step.source || len(d) != step.target {
			t.Errorf("%s: want %d + %d, got %d + %d\nsource:\n  %s\ntarget:\n  %s", step.name, step.source, step.target, len(s), len(d), strings.Join(s, "\n  "), strings.Join(d, "\n  "))
		}
	}
}

func TestRequestBudgetWithReferrers(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.image(t, "app", 10, "1")
	c := client(t, src, dst)
	for _, step := range []struct {
		name           string
		source, target int
	}{
		{"one referrers GET a manifest, and one list of tags for cosign's", 13 + 2, 25},
		{"again: unchanged, and nobody signed it meanwhile", 1 + 2, 1},
	} {
		src.take()
		dst.take()
		if _, err := c.Copy(context.Background(), src.ref("app:1"), dst.ref("app:1")); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if s, d := src.take(), dst.take(); len(s) != step.source || len(d) != step.target {
			t.Errorf("%s: want %d + %d, got %d + %d\nsource:\n  %s\ntarget:\n  %s", step.name, step.source, step.target, len(s), len(d), strings.Join(s, "\n  "), strings.Join(d, "\n  "))
		}
	}
}

// TestTheSameAnswerThroughEveryPlace copies the demo image from a directory to a registry, to a directory, and back to
// another registry, and looks at what arrives.
func TestTheSameAnswerThroughEveryPlace(t *testing.T) {
	ctx := context.Background()
	first, second := newRegistry(t), newRegistry(t)
	c := client(t, first, second)
	demo := ref.MustParse("ocidir://./testdata/demo")
	dir := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir() + "/layout"}
	linked := ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir.Root + "-linked"}
	steps := []ref.Ref{demo, first.ref("demo"), dir, linked, second.ref("demo")}
	want := tree(t, c, demo)
	for i, to := range steps[1:] {
		report, err := c.Copy(ctx, steps[i], to, ocisync.WithAllTags())
		if err != nil {
			t.Fatalf("%s to %s: %v", steps[i], to, err)
		}
		if report.Copied == 0 {
			t.Errorf("%s to %s: %+v", steps[i], to, report)
		}
		if to == linked && (report.Mounted == 0 || report.Blobs != 0) {
			t.Errorf("two directories did not share files: %+v", report)
		}
		if got := tree(t, c, to); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", to, got, want)
		}
		again, err := c.Copy(ctx, steps[i], to, ocisync.WithAllTags(), ocisync.WithVerify())
		if err != nil || again.Copied != 0 || again.Unchanged != report.Copied || again.Bytes != 0 {
			t.Errorf("%s to %s again: %+v, %v", steps[i], to, again, err)
		}
	}
}

// TestSHA512CopiesLikeSHA256 copies an index that is named by sha512, as are its image and a layer of that.
func TestSHA512CopiesLikeSHA256(t *testing.T) {
	ctx := context.Background()
	first, second := newRegistry(t), newRegistry(t)
	c := client(t, first, second)
	data := schemetest.Blob("layer", 100_000)
	layer := types.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.SHA512.FromBytes(data), Size: int64(len(data))}
	child := schemetest.Image("child", schemetest.SHA512Digest, schemetest.Layer(layer))
	whole := schemetest.Index([]*schemetest.Item{child}, schemetest.SHA512Digest)
	source := ref.Ref{Scheme: "mem", Root: "store", Repo: "a"}
	if _, err := first.mem.BlobPut(ctx, source, layer, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if err := whole.Push(ctx, first.mem, source.WithTag("1")); err != nil {
		t.Fatal(err)
	}
	dir := ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir() + "/layout"}
	linked := ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir.Root + "-linked"}
	steps := []ref.Ref{first.ref("a"), dir, linked, second.ref("a")}
	for i, to := range steps[1:] {
		if _, err := c.Copy(ctx, steps[i].WithTag("1"), to.WithTag("1")); err != nil {
			t.Fatalf("%s to %s: %v", steps[i], to, err)
		}
		got, err := c.API().ManifestGet(ctx, to.WithTag("1"))
		if err != nil {
			t.Fatal(err)
		}
		if got.Digest() != whole.Descriptor().Digest || got.Digest().Algorithm() != digest.SHA512 || !bytes.Equal(got.Raw(), whole.Manifest.Raw()) {
			t.Errorf("%s: got %s, want %s", to, got.Digest(), whole.Descriptor().Digest)
		}
		rdr, err := c.API().BlobGet(ctx, to, layer)
		if err != nil {
			t.Fatal(err)
		}
		if stored, err := io.ReadAll(rdr); err != nil || !bytes.Equal(stored, data) {
			t.Errorf("%s: layer of %d bytes: %v", to, len(stored), err)
		}
		if err := rdr.Close(); err != nil {
			t.Error(err)
		}
	}
}

// tree prints every tag of a place with what belongs to it, without where it is.
func tree(t *testing.T, c *ocisync.Client, at ref.Ref) string {
	t.Helper()
	list, err := c.API().TagList(context.Background(), at)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, tag := range list.Tags {
		n, err := c.Inspect(context.Background(), at.WithTag(tag))
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		fmt.Fprintln(&b, tag)
		printNode(&b, n, "  ")
	}
	return b.String()
}

func printNode(b *strings.Builder, n *ocisync.Node, indent string) {
	fmt.Fprintln(b, indent, n.Descriptor.Digest, n.Size, len(n.Layers), n.ArtifactType)
	for _, sub := range n.Manifests {
		printNode(b, sub, indent+"  ")
	}
	for _, sub := range n.Referrers {
		printNode(b, sub, indent+"  <- ")
	}
}

func TestWithLayoutReachesTheBuiltInScheme(t *testing.T) {
	applied := 0
	c := ocisync.New(ocisync.WithLayout(ocidir.WithDurability(ocidir.None), func(*ocidir.OCIDir) { applied++ }))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if applied != 1 {
		t.Errorf("the option was applied %d times", applied)
	}
}

func TestWithScheme(t *testing.T) {
	store := mem.New()
	c := ocisync.New(ocisync.WithScheme("mem", store), ocisync.WithConcurrency(1))
	defer c.Close()
	to := ref.MustParse("mem://a/demo")
	if _, err := c.Copy(context.Background(), ref.MustParse("ocidir://./testdata/demo"), to, ocisync.WithAllTags()); err != nil {
		t.Fatal(err)
	}
	list, err := store.TagList(context.Background(), to)
	if err != nil || len(list.Tags) == 0 {
		t.Errorf("%v %v", list, err)
	}
	if _, err := c.Copy(context.Background(), to, ref.MustParse("s3://bucket/x")); !errors.Is(err, errs.ErrUnknownScheme) || errs.Hint(err) == "" {
		t.Errorf("an unknown scheme: %v", err)
	}
}
