package ocidir

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
)

// at has an operation done by a value of its own, of another durability.
func (s *stage) at(d Durability, do func(o *OCIDir) error) error {
	o := New(append(slices.Clone(s.opts), WithDurability(d))...)
	if err := do(o); err != nil {
		o.Close()
		return err
	}
	return o.Close()
}

// levels: what holds with less than full durability: what an index reaches, and what Sync was called after.
func levels() *script {
	sc := &script{name: "levels"}
	const repo = "levels"
	add := func(name string, f facts, d Durability, do func(ctx context.Context, s *stage, o *OCIDir) error) {
		sc.add(name, f, func(ctx context.Context, s *stage) error {
			return s.at(d, func(o *OCIDir) error { return do(ctx, s, o) })
		})
	}
	push := func(it *schemetest.Item, tag string) {
		f := join2(holds(repo, it), set(factTag, repo, tag, string(it.Descriptor().Digest)))
		add("push "+tag+", level commit", f, Commit, func(ctx context.Context, s *stage, o *OCIDir) error {
			return it.Push(ctx, o, s.ref(repo).WithTag(tag))
		})
	}
	few := schemetest.Image("levels few")
	push(few, "levels-few")
	var layers []func(*schemetest.Doc)
	for i := range manyFiles {
		data := fmt.Append(nil, "levels layer ", i)
		layers = append(layers, schemetest.Layer(types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}))
		add(fmt.Sprint("layer ", i, ", level none"), nil, None, func(ctx context.Context, s *stage, o *OCIDir) error {
			return putData(ctx, o, s.ref(repo), data)
		})
	}
	many := schemetest.Image("levels many", layers...)
	push(many, "levels-many")
	add("tag delete, level commit", set(factTag, repo, "levels-few", gone), Commit, func(ctx context.Context, s *stage, o *OCIDir) error {
		return o.TagDelete(ctx, s.ref(repo).WithTag("levels-few"))
	})
	other := schemetest.Image("levels other")
	add("content, level none", nil, None, func(ctx context.Context, s *stage, o *OCIDir) error {
		return other.PushContent(ctx, o, s.ref(repo))
	})
	add("its manifest, level none", nil, None, func(ctx context.Context, s *stage, o *OCIDir) error {
		return putData(ctx, o, s.ref(repo), other.Manifest.Raw())
	})
	unlisted := join2(set(factManifest, repo, string(few.Descriptor().Digest), gone), set(factManifest, repo, string(many.Descriptor().Digest), gone))
	listed := join2(unlisted, holds(repo, other), set(factTag, repo, "levels-other", string(other.Descriptor().Digest)), set(factTag, repo, "levels-many", gone))
	add("index put, level commit", listed, Commit, func(ctx context.Context, s *stage, o *OCIDir) error {
		d := other.Descriptor()
		return o.IndexPut(ctx, s.ref(repo), nil, []byte(indexJSON(fmt.Sprintf(
			`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{%q:"levels-other"}}`, d.MediaType, d.Digest, d.Size, types.AnnotationRefName))))
	})
	for _, d := range []Durability{Commit, None} {
		data := fmt.Append(nil, "levels alone ", d)
		id := digest.FromBytes(data)
		add(fmt.Sprint("blob and label, level ", d), nil, d, func(ctx context.Context, s *stage, o *OCIDir) error {
			if err := putData(ctx, o, s.ref(repo), data); err != nil {
				return err
			}
			_, err := o.BlobLabel(ctx, s.ref(repo), blob.Info{Digest: id, Labels: map[string]string{"k": "v"}})
			return err
		})
		synced := join2(set(factBlob, repo, string(id), there), set(factLabel, repo, string(id)+" k", "v"))
		add(fmt.Sprint("sync, level ", d), synced, d, func(ctx context.Context, s *stage, o *OCIDir) error {
			return o.Sync(ctx, s.ref(repo))
		})
	}
	return sc
}
