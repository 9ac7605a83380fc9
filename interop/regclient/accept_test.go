package regclient_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	rc "github.com/regclient/regclient"
	rcscheme "github.com/regclient/regclient/scheme"
	rcocidir "github.com/regclient/regclient/scheme/ocidir"
	rcdescriptor "github.com/regclient/regclient/types/descriptor"
	rcref "github.com/regclient/regclient/types/ref"

	"github.com/ocisync/ocisync/interop/regclient"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// content is what a layout of ours can hold that regclient knows.
type content struct {
	tagged    map[string]*schemetest.Item
	referrers []*schemetest.Item // of tagged["index"]
}

func made() content {
	index := schemetest.Index([]*schemetest.Item{
		schemetest.Image("amd64"), schemetest.Image("docker", schemetest.Docker), schemetest.Index([]*schemetest.Item{schemetest.Image("nested")}),
	})
	return content{
		tagged: map[string]*schemetest.Item{
			"image": schemetest.Image("image", schemetest.Indented), "index": index, "docker": schemetest.Image("docker", schemetest.Docker),
			"list": schemetest.Index([]*schemetest.Item{schemetest.Image("docker", schemetest.Docker)}, schemetest.Docker), "empty": schemetest.Index(nil),
			"sha512": schemetest.Image("sha512", schemetest.SHA512Digest),
		},
		referrers: []*schemetest.Item{
			schemetest.Image("signature", schemetest.Subject(index.Descriptor()), schemetest.ArtifactType("application/x-sig"), schemetest.Annotation("k", "v")),
			schemetest.Image("sbom", schemetest.Subject(index.Descriptor()), schemetest.ArtifactType("application/x-sbom")),
		},
	}
}

// write puts it all into a layout with our code.
func (c content) write(t *testing.T, api scheme.API, r ref.Ref) {
	t.Helper()
	for tag, it := range c.tagged {
		push(t, api, r.WithTag(tag), it)
	}
	for _, it := range c.referrers {
		push(t, api, r.WithDigest(it.Manifest.Digest()), it)
	}
}

// readByTheirs expects a scheme of regclient's to give everything, byte by byte.
func (c content) readByTheirs(t *testing.T, s rcscheme.API, r rcref.Ref) {
	t.Helper()
	for tag, it := range c.tagged {
		theirsHas(t, s, r.SetTag(tag), it)
	}
	l, err := s.ReferrerList(t.Context(), r.SetDigest(string(c.tagged["index"].Manifest.Digest())), rcscheme.WithReferrerSlowSearch())
	if err != nil {
		t.Fatal(err)
	}
	var got, want []digest.Digest
	for _, d := range l.Descriptors {
		got = append(got, d.Digest)
	}
	for _, it := range c.referrers {
		want = append(want, it.Manifest.Digest())
		theirsHas(t, s, r.SetDigest(string(it.Manifest.Digest())), it)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("referrers: got %v, want %v", got, want)
	}
}

func theirsHas(t *testing.T, s rcscheme.API, r rcref.Ref, it *schemetest.Item) {
	t.Helper()
	m, err := s.ManifestGet(t.Context(), r)
	if err != nil {
		t.Errorf("%s: %v", r.CommonName(), err)
		return
	}
	if raw, err := m.RawBody(); err != nil || !bytes.Equal(raw, it.Manifest.Raw()) || m.GetDescriptor().Digest != it.Manifest.Digest() {
		t.Errorf("%s: other bytes or another digest (%s), error %v", r.CommonName(), m.GetDescriptor().Digest, err)
	}
	for _, b := range it.Blobs {
		rdr, err := s.BlobGet(t.Context(), r, rcdescriptor.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))})
		if err != nil {
			t.Errorf("%s: %v", r.CommonName(), err)
			continue
		}
		if data, err := rdr.RawBody(); err != nil || !bytes.Equal(data, b) {
			t.Errorf("%s: blob of %d other bytes, error %v", r.CommonName(), len(data), err)
		}
		rdr.Close()
	}
	for _, c := range it.Children {
		theirsHas(t, s, r.SetDigest(string(c.Manifest.Digest())), c)
	}
}

// readByOurs expects our code to give everything.
func (c content) readByOurs(t *testing.T, api scheme.API, r ref.Ref) {
	t.Helper()
	for tag, it := range c.tagged {
		oursHas(t, api, r.WithTag(tag), it)
	}
	l, err := api.ReferrerList(t.Context(), r.WithTag("index"))
	if err != nil || len(l.Descriptors) != len(c.referrers) {
		t.Errorf("referrers: got %v and %v, want %d", l.Descriptors, err, len(c.referrers))
	}
	for _, it := range c.referrers {
		oursHas(t, api, r.WithDigest(it.Manifest.Digest()), it)
	}
}

func oursHas(t *testing.T, api scheme.API, r ref.Ref, it *schemetest.Item) {
	t.Helper()
	m, err := api.ManifestGet(t.Context(), r)
	if err != nil || !bytes.Equal(m.Raw(), it.Manifest.Raw()) {
		t.Errorf("%s: other bytes, or %v", r, err)
		return
	}
	for _, b := range it.Blobs {
		if d, err := api.BlobHead(t.Context(), r, types.Descriptor{Digest: digest.FromBytes(b)}); err != nil || d.Size != int64(len(b)) {
			t.Errorf("%s: blob of %d bytes, want %d; error %v", r, d.Size, len(b), err)
		}
	}
	for _, c := range it.Children {
		oursHas(t, api, r.WithDigest(c.Manifest.Digest()), c)
	}
}

func directory(t *testing.T) (*ocidir.OCIDir, ref.Ref) {
	t.Helper()
	o := ocidir.New(ocidir.WithDurability(ocidir.None))
	t.Cleanup(func() { o.Close() })
	return o, ref.Ref{Scheme: ref.SchemeOCIDir, Root: filepath.Join(t.TempDir(), "layout")}
}

// TestRegclientReadsExtendsAndCleansWhatWeWrite has regclient's own scheme read a layout of ours, add to it, and run its
// garbage collection, which must find nothing of ours to be garbage.
func TestRegclientReadsExtendsAndCleansWhatWeWrite(t *testing.T) {
	o, r := directory(t)
	all := made()
	all.write(t, o, r)
	theirs := rcocidir.New() // with garbage collection
	at := regclient.ToRef(r)
	all.readByTheirs(t, theirs, at)
	tags, err := theirs.TagList(t.Context(), at)
	if err != nil || !slices.Equal(tags.Tags, []string{"docker", "empty", "image", "index", "list", "sha512"}) {
		t.Errorf("tags: got %v and %v", tags, err)
	}

	l, err := regclient.NewAPI(theirs).ReferrerList(t.Context(), r.WithTag("index"))
	if err != nil || len(l.Descriptors) != len(all.referrers) {
		t.Errorf("referrers through both: got %v and %v, want %d", l.Descriptors, err, len(all.referrers))
	}

	more := schemetest.Image("of regclient")
	push(t, regclient.NewAPI(theirs), r.WithTag("theirs"), more)
	signed := schemetest.Image("signature of regclient", schemetest.Subject(more.Descriptor()))
	push(t, regclient.NewAPI(theirs), r.WithDigest(signed.Manifest.Digest()), signed)
	ours, err := regclient.NewAPI(theirs).TagList(t.Context(), r)
	if err != nil || !slices.Equal(ours.Tags, []string{"docker", "empty", "image", "index", "list", "sha512", "theirs"}) {
		t.Errorf("tags through both, without those that stand in for referrers: got %q and %v", ours.Tags, err)
	}
	if err := theirs.Close(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	all.readByTheirs(t, theirs, at)
	again, _ := directory(t) // which has seen nothing of it
	all.readByOurs(t, again, r)
	all.readByOurs(t, o, r)
	oursHas(t, o, r.WithTag("theirs"), more)
	l, err = o.ReferrerList(t.Context(), r.WithTag("theirs"))
	if err != nil || len(l.Descriptors) != 1 || l.Descriptors[0].Digest != signed.Manifest.Digest() {
		t.Errorf("referrers that regclient put: got %v and %v", l.Descriptors, err)
	}
	push(t, o, r.WithTag("ours"), schemetest.Image("ours again"))
	theirsHas(t, theirs, at.SetTag("ours"), schemetest.Image("ours again"))
	theirsHas(t, theirs, at.SetTag("theirs"), more)
	problems := 0
	if _, err := o.Check(t.Context(), r, func(p scheme.Problem) error {
		problems++
		t.Errorf("Check: %s %s %v", p.Kind, p.Digest, p.Err)
		return nil
	}, scheme.WithDeep()); err != nil {
		t.Error(err)
	}
}

// TestRegclientCopiesWhatWeWrite has regclient's client copy images and their referrers out of a layout of ours into
// one of its own, which ours then reads. ImageCopy itself looks for referrers under fallback tags only (it does not
// hand WithReferrerSlowSearch on), so that who copies from a layout of ours, or of oras-go, asks for the list.
func TestRegclientCopiesWhatWeWrite(t *testing.T) {
	o, r := directory(t)
	all := made()
	all.write(t, o, r)
	client := rc.New()
	_, to := directory(t)
	copied := func(src, tgt rcref.Ref) {
		t.Helper()
		if err := client.ImageCopy(t.Context(), src, tgt); err != nil {
			t.Fatalf("%s: %v", src.CommonName(), err)
		}
		for _, end := range []rcref.Ref{src, tgt} {
			if err := client.Close(t.Context(), end); err != nil {
				t.Fatal(err)
			}
		}
	}
	for tag := range all.tagged {
		copied(regclient.ToRef(r.WithTag(tag)), regclient.ToRef(to.WithTag(tag)))
	}
	l, err := client.ReferrerList(t.Context(), regclient.ToRef(r.WithTag("index")), rcscheme.WithReferrerSlowSearch())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range l.Descriptors {
		copied(regclient.ToRef(r.WithDigest(d.Digest)), regclient.ToRef(to.WithDigest(d.Digest)))
	}
	all.readByOurs(t, o, r)
	all.readByOurs(t, o, to)
}
