package ocidir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// Further kinds of facts.
const (
	factIngest = "ingest" // by key: how many bytes of ingestBytes it has, or gone
	factLabel  = "label"  // by digest and key: the label, or gone
	spoiled    = "spoiled"
	collected  = "collected" // gone; but garbage may be back after a power loss, to be collected again
)

// ingestBytes is what the ingest key becomes.
func ingestBytes(key string) []byte { return schemetest.Blob(key, 20_000) }

func number(n int) string { return fmt.Sprint(n) }

// ingests: begun, gone on with, committed, aborted.
func ingests() *script {
	sc := &script{name: "ingests"}
	const repo, key, other = "a", "ingests key", "ingests other"
	data := ingestBytes(key)
	desc := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	part := func(key string, to int) {
		sc.add(fmt.Sprint("ingest up to ", to), set(factIngest, repo, key, number(to)), func(ctx context.Context, s *stage) error {
			u, err := s.o.Ingest(ctx, s.ref(repo), key)
			if err != nil {
				return err
			}
			if have := u.Status().Offset; have < int64(to) {
				_, err = u.Write(ingestBytes(key)[have:to])
			}
			return errors.Join(err, u.Close())
		})
	}
	part(key, 7000)
	part(key, 12_000)
	part(other, 100)
	sc.add("abort", set(factIngest, repo, other, gone), func(ctx context.Context, s *stage) error {
		return s.o.IngestAbort(ctx, s.ref(repo), other)
	})
	done := join2(set(factIngest, repo, key, gone), set(factBlob, repo, string(desc.Digest), there), set(factLabel, repo, string(desc.Digest)+" from", "ingest"))
	sc.add("commit", done, func(ctx context.Context, s *stage) error {
		u, err := s.o.Ingest(ctx, s.ref(repo), key)
		if err != nil {
			return err
		}
		if have := u.Status().Offset; have < int64(len(data)) {
			if _, err := u.Write(data[have:]); err != nil {
				return errors.Join(err, u.Close())
			}
		}
		_, err = u.Commit(ctx, desc, map[string]string{"from": "ingest"})
		if errors.Is(err, errs.ErrExists) { // the second time
			err = nil
		}
		return err
	})
	return sc
}

// labels: set, changed, removed with their blob, and not back with it.
func labels() *script {
	sc := &script{name: "labels"}
	const repo = "a"
	data := sc.blob(repo, "labels blob", 800)
	d := digest.FromBytes(data)
	label := func(key, value string) {
		f := value
		if f == "" {
			f = gone
		}
		sc.add("label "+key+"="+value, set(factLabel, repo, string(d)+" "+key, f), func(ctx context.Context, s *stage) error {
			_, err := s.o.BlobLabel(ctx, s.ref(repo), blob.Info{Digest: d, Labels: map[string]string{key: value}}, "labels."+key)
			return err
		})
	}
	label("one", "1")
	label("two", "2")
	label("one", "uno")
	label("two", "")
	none := set(factLabel, repo, string(d)+" one", gone)
	sc.add("blob delete", join2(none, set(factBlob, repo, string(d), gone)), func(ctx context.Context, s *stage) error {
		return s.o.BlobDelete(ctx, s.ref(repo), types.Descriptor{Digest: d})
	})
	sc.blob(repo, "labels blob", 800)
	return sc
}

// indexes: index.json replaced as a whole.
func indexes() *script {
	sc := &script{name: "indexes"}
	const repo = "indexes"
	a, b := schemetest.Image("indexes a"), schemetest.Image("indexes b")
	sc.push(repo, a, "indexes-v1")
	sc.push(repo, b, "indexes-v2")
	replace := func(name string, f facts, change func(string) string) {
		sc.add(name, f, func(ctx context.Context, s *stage) error {
			old, err := s.o.IndexGet(ctx, s.ref(repo))
			if err != nil {
				return err
			}
			return s.o.IndexPut(ctx, s.ref(repo), old, []byte(change(string(old))))
		})
	}
	v3 := set(factTag, repo, "indexes-v3", string(b.Descriptor().Digest))
	replace("rename a tag", join2(v3, set(factTag, repo, "indexes-v2", gone)), func(ix string) string {
		return strings.Replace(ix, `"indexes-v2"`, `"indexes-v3"`, 1)
	})
	unlisted := join2(set(factManifest, repo, string(a.Descriptor().Digest), gone), set(factManifest, repo, string(b.Descriptor().Digest), gone))
	replace("an empty index", join2(unlisted, set(factTag, repo, "indexes-v1", gone), set(factTag, repo, "indexes-v3", gone)), func(string) string { return emptyIndex })
	sc.push(repo, b, "indexes-v1")
	return sc
}

// collections: what nothing needs any more goes, and nothing else.
func collections() *script {
	sc := &script{name: "garbage"}
	const repo = "garbage"
	keep, drop := schemetest.Image("garbage keep"), schemetest.Image("garbage drop")
	for i, it := range []*schemetest.Item{keep, drop} {
		tag := []string{"garbage-keep", "garbage-drop"}[i]
		f := join2(holds(repo, it), set(factTag, repo, tag, string(it.Descriptor().Digest)))
		sc.add("push "+tag, f, func(ctx context.Context, s *stage) error {
			o := New(s.opts...) // its leases end with it
			return errors.Join(it.Push(ctx, o, s.ref(repo).WithTag(tag)), o.Close())
		})
	}
	sc.add("tag delete", set(factTag, repo, "garbage-drop", gone), func(ctx context.Context, s *stage) error {
		o := New(s.opts...)
		return errors.Join(o.TagDelete(ctx, s.ref(repo).WithTag("garbage-drop")), o.Close())
	})
	dropped := facts{}
	for f := range holds(repo, drop) {
		dropped[f] = gone
		if f.kind == factBlob {
			dropped[f] = collected
		}
	}
	collect := func(repo string, f facts, opts ...scheme.CollectOption) {
		sc.add("collect "+repo, f, func(ctx context.Context, s *stage) error {
			o := New(s.opts...)
			_, err := o.Collect(ctx, s.ref(repo), opts...)
			return errors.Join(err, o.Close())
		})
	}
	collect(repo, dropped, scheme.WithGrace(0), scheme.WithUntagged())
	sc.add("tag delete", set(factTag, repo, "garbage-keep", gone), func(ctx context.Context, s *stage) error {
		return s.o.TagDelete(ctx, s.ref(repo).WithTag("garbage-keep"))
	})
	sc.push(repo, drop, "garbage-drop")
	sc.push("a", keep, "garbage-keep")
	collect("a", nil, scheme.WithGrace(0))
	return sc
}

// damagedBlobs: a blob that is damaged on the disk is found, set aside, and put again.
func damagedBlobs() *script {
	sc := &script{name: "damages"}
	const repo = "a"
	data := sc.blob(repo, "damages blob", 600)
	d := digest.FromBytes(data)
	sc.add("damage", set(factBlob, repo, string(d), spoiled), func(ctx context.Context, s *stage) error {
		name, err := blobPath(d)
		if err != nil {
			return err
		}
		path := filepath.Join(s.dir, repo, name)
		if err := os.Remove(path); err != nil {
			return err
		}
		bad := bytes.Clone(data)
		bad[100] ^= 1
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			return err
		}
		if err := serves(ctx, s.o, s.ref(repo), d); !errors.Is(err, errs.ErrDigestMismatch) && !errors.Is(err, errs.ErrNotFound) {
			return fmt.Errorf("a damaged blob is served: %w", err)
		}
		return nil
	})
	sc.blob(repo, "damages blob", 600)
	return sc
}
