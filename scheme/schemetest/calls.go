package schemetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// call is one method of scheme.API, with arguments that make sense in any repository.
type call struct {
	name   string
	writes bool
	needs  Feature // "" when every place has it
	do     func(ctx context.Context, api scheme.API, r ref.Ref) error
}

// blobCalls are the methods that take a blob's digest, for d, whose content is data.
func blobCalls(d types.Descriptor, data []byte) []call {
	return []call{
		{name: "BlobGet", do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			_, err := readBlob(ctx, api, r, d)
			return err
		}},
		{name: "BlobHead", do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			_, err := api.BlobHead(ctx, r, d)
			return err
		}},
		{name: "BlobPut", writes: true, do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			_, err := api.BlobPut(ctx, r, d, bytes.NewReader(data))
			return err
		}},
		{name: "BlobDelete", writes: true, needs: BlobDelete, do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			return api.BlobDelete(ctx, r, d)
		}},
		{name: "BlobMount", writes: true, needs: Mount, do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			return api.BlobMount(ctx, r, r, d)
		}},
	}
}

// manifestCalls are the methods that take a reference to a manifest; it is what they put.
func manifestCalls(it *Item) []call {
	return []call{
		{name: "ManifestGet", do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			_, err := api.ManifestGet(ctx, r)
			return err
		}},
		{name: "ManifestHead", do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			_, err := api.ManifestHead(ctx, r)
			return err
		}},
		{name: "ManifestPut", writes: true, do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			_, err := api.ManifestPut(ctx, r, it.Manifest)
			return err
		}},
		{name: "ManifestDelete", writes: true, needs: ManifestDelete, do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			return api.ManifestDelete(ctx, r)
		}},
		{name: "TagDelete", writes: true, needs: TagDelete, do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			return api.TagDelete(ctx, r)
		}},
		{name: "ReferrerList", do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			_, err := api.ReferrerList(ctx, r)
			return err
		}},
	}
}

// allCalls are all methods, for an image that may be there or not.
func allCalls(it *Item) []call {
	return slices.Concat(blobCalls(describe("", it.Blobs[1]), it.Blobs[1]), manifestCalls(it), []call{
		{name: "TagList", do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			_, err := api.TagList(ctx, r)
			return err
		}},
		{name: "Ping", do: func(ctx context.Context, api scheme.API, r ref.Ref) error {
			_, err := api.Ping(ctx, r)
			return err
		}},
	})
}

// observe asks api for everything that can be seen of the repository: its tags, items, their blobs and referrers, and
// the errors where there is nothing. Two places with the same content give the same answers.
func observe(ctx context.Context, api scheme.API, r ref.Ref, tags []string, items []*Item) map[string]string {
	seen := map[string]string{}
	l, err := api.TagList(ctx, r)
	seen["tags"] = fmt.Sprint(l.Tags, l.More, kind(err))
	look := func(question string, r ref.Ref) {
		m, err := api.ManifestGet(ctx, r)
		if err != nil {
			seen[question] = kind(err)
		} else {
			seen[question] = fmt.Sprintf("%s %s %q", m.MediaType(), m.Digest(), m.Raw())
		}
		d, err := api.ManifestHead(ctx, r)
		seen[question+" head"] = fmt.Sprint(d.MediaType, d.Digest, d.Size, kind(err))
	}
	for _, t := range tags {
		look("tag "+t, r.WithTag(t))
	}
	for _, it := range items {
		d := it.Manifest.Digest()
		look("manifest "+string(d), r.WithDigest(d))
		l, err := api.ReferrerList(ctx, r.WithDigest(d))
		var names []string
		for _, d := range sorted(l.Descriptors) {
			names = append(names, fmt.Sprint(d.MediaType, d.Digest, d.Size, d.ArtifactType, d.Annotations))
		}
		seen["referrers of "+string(d)] = fmt.Sprint(names, kind(err))
		for _, b := range it.Blobs {
			d := digest.FromBytes(b)
			desc, err := api.BlobHead(ctx, r, types.Descriptor{Digest: d})
			seen["blob "+string(d)] = fmt.Sprint(desc.Size, kind(err))
			data, err := readBlob(ctx, api, r, types.Descriptor{Digest: d})
			seen["content of "+string(d)] = fmt.Sprint(digest.FromBytes(data), kind(err))
		}
	}
	return seen
}

// kind names the sentinel that err is, as coarsely as all places can tell. Of two that fit it takes the finer.
func kind(err error) string {
	if err == nil {
		return ""
	}
	for _, k := range []error{
		errs.ErrManifestBlobUnknown, errs.ErrDigestMismatch, errs.ErrNotFound, errs.ErrInvalid, errs.ErrReadOnly, errs.ErrUnsupported,
		errReader, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, k) {
			var detail *errs.Error
			if k == errs.ErrManifestBlobUnknown && errors.As(err, &detail) {
				missing := slices.Clone(detail.Missing)
				slices.SortFunc(missing, func(a, b digest.Digest) int { return cmp.Compare(a, b) })
				return fmt.Sprint(k, missing)
			}
			return k.Error()
		}
	}
	return "an error of no known kind: " + strings.TrimSpace(err.Error())
}
