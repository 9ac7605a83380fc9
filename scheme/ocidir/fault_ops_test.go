package ocidir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// The fault tests run one workload, stop it at some step, and compare what is on the disk with what was acknowledged.
// The workload is a list of scripts, each a list of operations on names of its own, so that scripts can run at the same
// time. Every operation says what holds once it is acknowledged.

// fact is one thing that can be looked up in a layout: a tag, a blob, a manifest, an ingest, a label.
type fact struct {
	kind, repo, name string
}

// The kinds of facts, and their values.
const (
	factTag      = "tag"      // the digest, or gone
	factBlob     = "blob"     // there (with the right bytes) or gone
	factManifest = "manifest" // there or gone: what a HEAD by digest says
	there        = "there"
	gone         = "gone"
	damaged      = "damaged" // never expected; found under what was not acknowledged when the power went
)

// facts is what is known to hold. Of a fact that is missing nothing is known, except that a tag nobody put is gone.
type facts map[fact]string

// op is one operation of a script.
type op struct {
	name  string
	do    func(ctx context.Context, s *stage) error
	facts facts // what it changes
}

// script is a list of operations that run one after another.
type script struct {
	name string
	ops  []op
}

// stage is where scripts run.
type stage struct {
	dir    string
	opts   []Option
	o      *OCIDir // ours
	theirs *OCIDir // a writer that makes nothing durable, as other tools do
}

// newStage has a hook for every step that ours or theirs take, if any.
func newStage(dir string, hooks ...Option) *stage {
	return &stage{dir: dir, opts: hooks, o: New(hooks...), theirs: New(append(slices.Clone(hooks), WithDurability(None))...)}
}

func (s *stage) close() error { return errors.Join(s.o.Close(), s.theirs.Close()) }

func (s *stage) ref(repo string) ref.Ref { return place(s.dir).WithRepo(repo) }

// after returns what holds when the first n operations are acknowledged.
func (sc *script) after(n int) facts {
	all := facts{}
	for _, o := range sc.ops[:min(n, len(sc.ops))] {
		maps.Copy(all, o.facts)
	}
	return all
}

func (sc *script) add(name string, f facts, do func(ctx context.Context, s *stage) error) {
	sc.ops = append(sc.ops, op{name: name, do: do, facts: f})
}

// set is a fact of its own.
func set(kind, repo, name, value string) facts { return facts{{kind, repo, name}: value} }

func join2(all ...facts) facts {
	sum := facts{}
	for _, f := range all {
		maps.Copy(sum, f)
	}
	return sum
}

// holds lists the facts of an item that is stored: its blobs, itself and those of its children.
func holds(repo string, it *schemetest.Item) facts {
	d := string(it.Descriptor().Digest)
	f := join2(set(factManifest, repo, d, there), set(factBlob, repo, d, there))
	for _, b := range it.Blobs {
		maps.Copy(f, set(factBlob, repo, string(digest.FromBytes(b)), there))
	}
	for _, c := range it.Children {
		maps.Copy(f, holds(repo, c))
	}
	return f
}

// push stores an item under tags, which the script owns.
func (sc *script) push(repo string, it *schemetest.Item, tags ...string) {
	f := holds(repo, it)
	for _, t := range tags {
		maps.Copy(f, set(factTag, repo, t, string(it.Descriptor().Digest)))
	}
	sc.add("push "+strings.Join(tags, " "), f, func(ctx context.Context, s *stage) error {
		r := s.ref(repo)
		if len(tags) == 0 {
			return it.Push(ctx, s.o, r.WithDigest(it.Descriptor().Digest))
		}
		return it.Push(ctx, s.o, r.WithTag(tags[0]), scheme.WithTags(tags[1:]...))
	})
}

// pushDeferred stores an image's blobs without waiting for the disk, as a copy does, and then its manifest.
func (sc *script) pushDeferred(repo string, it *schemetest.Item, tag string) {
	for i, data := range it.Blobs {
		sc.add(fmt.Sprint("deferred blob ", i), nil, func(ctx context.Context, s *stage) error {
			return putData(ctx, s.o, s.ref(repo), data, scheme.WithDeferredSync())
		})
	}
	f := join2(holds(repo, it), set(factTag, repo, tag, string(it.Descriptor().Digest)))
	sc.add("manifest of deferred blobs", f, func(ctx context.Context, s *stage) error {
		_, err := s.o.ManifestPut(ctx, s.ref(repo).WithTag(tag), it.Manifest)
		return err
	})
}

// pushChildren stores an index as a copy does: its manifests have no entries of their own.
func (sc *script) pushChildren(repo string, ix *schemetest.Item, tag string) {
	for _, c := range ix.Children {
		sc.add("child of "+tag, nil, func(ctx context.Context, s *stage) error {
			return c.Push(ctx, s.o, s.ref(repo).WithDigest(c.Descriptor().Digest), scheme.WithChild())
		})
	}
	f := join2(holds(repo, ix), set(factTag, repo, tag, string(ix.Descriptor().Digest)))
	sc.add("index "+tag, f, func(ctx context.Context, s *stage) error {
		_, err := s.o.ManifestPut(ctx, s.ref(repo).WithTag(tag), ix.Manifest)
		return err
	})
}

func (sc *script) blob(repo, name string, size int) []byte {
	data := schemetest.Blob(name, size)
	sc.add("blob "+name, set(factBlob, repo, string(digest.FromBytes(data)), there), func(ctx context.Context, s *stage) error {
		return putData(ctx, s.o, s.ref(repo), data)
	})
	return data
}

func putData(ctx context.Context, o *OCIDir, r ref.Ref, data []byte, opts ...scheme.BlobPutOption) error {
	_, err := o.BlobPut(ctx, r, types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}, bytes.NewReader(data), opts...)
	return err
}

// workload is all scripts. Each owns the tags and blobs that it names; layers of mounts are shared.
func workload() []*script {
	return []*script{images(), blobs(), mounts(), dedup(), deletes(), ingests(), labels(), indexes(), collections(), damagedBlobs(), levels()}
}

// images: tags that come, move and go, indexes, referrers, several tags at once.
func images() *script {
	sc := &script{name: "images"}
	a, b := schemetest.Image("images a"), schemetest.Image("images b")
	sc.push("a", a, "images-v1")
	sc.push("a", b, "images-v1")
	sc.push("a", a, "images-v2", "images-v3", "images-v4")
	sc.pushChildren("a", schemetest.Index([]*schemetest.Item{schemetest.Image("images c"), schemetest.Image("images d")}), "images-multi")
	sc.push("a", schemetest.Image("images sig", schemetest.Subject(a.Descriptor()), schemetest.ArtifactType("application/vnd.example.sig")))
	sc.push("new/deep/repo", a, "images-v1")
	return sc
}

// blobs: small and large, of a rare algorithm, one by one and together.
func blobs() *script {
	sc := &script{name: "blobs"}
	sc.blob("a", "blobs small", 700)
	sc.blob("a", "blobs large", largeFile+100)
	data := schemetest.Blob("blobs sha512", 3000)
	d := types.Descriptor{Digest: digest.SHA512.FromBytes(data), Size: int64(len(data))}
	sc.add("blob sha512", set(factBlob, "a", string(d.Digest), there), func(ctx context.Context, s *stage) error {
		_, err := s.o.BlobPut(ctx, s.ref("a"), d, bytes.NewReader(data))
		return err
	})
	sc.pushDeferred("a", schemetest.Image("blobs few"), "blobs-few")
	sc.pushDeferred("a", manyLayers("blobs many"), "blobs-many")
	return sc
}

// manyLayers is an image of so many files that they become durable by one sync of the file system.
func manyLayers(name string) *schemetest.Item {
	var layers []func(*schemetest.Doc)
	var data [][]byte
	for i := range manyFiles {
		b := schemetest.Blob(fmt.Sprint(name, " layer ", i), 5000)
		data = append(data, b)
		layers = append(layers, schemetest.Layer(types.Descriptor{MediaType: types.MediaTypeOctetStream, Digest: digest.FromBytes(b), Size: int64(len(b))}))
	}
	it := schemetest.Image(name, layers...)
	it.Blobs = append(slices.Clone(it.Blobs), data...)
	return it
}

// mounts: blobs that two layouts share.
func mounts() *script {
	sc := &script{name: "mounts"}
	it := schemetest.Image("mounts")
	sc.push("b", it, "mounts-v1")
	for i, data := range it.Blobs {
		d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
		sc.add(fmt.Sprint("mount ", i), set(factBlob, "a", string(d.Digest), there), func(ctx context.Context, s *stage) error {
			return s.o.BlobMount(ctx, s.ref("b"), s.ref("a"), d)
		})
	}
	sc.push("a", it, "mounts-v1")
	return sc
}

// dedup: blobs that somebody else wrote, and did not make durable, which ours count on.
func dedup() *script {
	sc := &script{name: "dedup"}
	few, many := schemetest.Image("dedup few"), manyLayers("dedup many")
	for i, it := range []*schemetest.Item{few, many} {
		sc.add(fmt.Sprint("theirs ", i), nil, func(ctx context.Context, s *stage) error {
			return it.PushContent(ctx, s.theirs, s.ref("a"))
		})
		f := join2(holds("a", it), set(factTag, "a", fmt.Sprint("dedup-", i), string(it.Descriptor().Digest)))
		sc.add(fmt.Sprint("manifest of theirs ", i), f, func(ctx context.Context, s *stage) error {
			_, err := s.o.ManifestPut(ctx, s.ref("a").WithTag(fmt.Sprint("dedup-", i)), it.Manifest)
			return err
		})
	}
	data := schemetest.Blob("dedup blob", 2000)
	sc.add("their blob", nil, func(ctx context.Context, s *stage) error { return putData(ctx, s.theirs, s.ref("a"), data) })
	sc.add("a hit of their blob", set(factBlob, "a", string(digest.FromBytes(data)), there), func(ctx context.Context, s *stage) error {
		return putData(ctx, s.o, s.ref("a"), data)
	})
	return sc
}

// deletes: of tags, manifests, indexes and blobs, and puts of what was deleted.
func deletes() *script {
	sc := &script{name: "deletes"}
	one, two := schemetest.Image("deletes one"), schemetest.Image("deletes two")
	ix := schemetest.Index([]*schemetest.Item{two})
	sc.push("a", one, "deletes-one", "deletes-too")
	sc.add("tag delete", set(factTag, "a", "deletes-too", gone), func(ctx context.Context, s *stage) error {
		return s.o.TagDelete(ctx, s.ref("a").WithTag("deletes-too"))
	})
	sc.pushChildren("a", ix, "deletes-ix")
	sc.remove("a", ix, "deletes-ix")
	sc.remove("a", one, "deletes-one")
	data := sc.blob("a", "deletes blob", 900)
	d := digest.FromBytes(data)
	sc.add("blob delete", set(factBlob, "a", string(d), gone), func(ctx context.Context, s *stage) error {
		return s.o.BlobDelete(ctx, s.ref("a"), types.Descriptor{Digest: d})
	})
	sc.blob("a", "deletes blob", 900)
	sc.push("a", one, "deletes-one")
	return sc
}

// remove deletes a manifest, and with it the tag.
func (sc *script) remove(repo string, it *schemetest.Item, tag string) {
	d := it.Descriptor().Digest
	f := join2(set(factTag, repo, tag, gone), set(factManifest, repo, string(d), gone), set(factBlob, repo, string(d), gone))
	sc.add("manifest delete "+tag, f, func(ctx context.Context, s *stage) error {
		return s.o.ManifestDelete(ctx, s.ref(repo).WithDigest(d))
	})
}
