package schemetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// Cases of Ingester: what an ingest is, and what becomes of it. Those of two who want the same one are in
// ingestlock.go, those of one that was left in ingestresume.go.

var ingestCases = []testCase{
	{
		name: "roundtrip",
		rule: "an ingest that is committed is the blob that was written to it in pieces, of any size, whatever of digest and size Commit is told",
		has:  []Capability{Ingester},
		run: func(e *env) {
			for i, size := range []int{0, 1, 4096, e.h.BlobSize} {
				for j, known := range []string{"nothing", "digest", "size", "both"} {
					data := Blob(fmt.Sprint("ingest ", i, j), size)
					whole := describe("", data)
					want := types.Descriptor{MediaType: "application/x-test"}
					if known == "digest" || known == "both" {
						want.Digest = whole.Digest
					}
					if known == "size" || known == "both" {
						want.Size = whole.Size
					}
					u := e.ingest(e.r, "roundtrip")
					for part := range slices.Chunk(data, 1+size/3) {
						e.write(u, part)
					}
					e.same("Digest", u.Digest(), whole.Digest)
					d, err := u.Commit(e.ctx, want, nil)
					if size > 0 || i+j == 0 {
						e.must("Commit knowing "+known, err)
					} else { // no bytes are a blob already
						e.refused("Commit of what is there", err, errs.ErrExists)
					}
					e.same("Commit", types.Descriptor{Digest: d.Digest, Size: d.Size}, types.Descriptor{Digest: whole.Digest, Size: whole.Size})
					e.holds(e.r, whole.Digest, data)
					e.gone(e.r, "roundtrip")
				}
			}
		},
	}, {
		name:  "other algorithms",
		rule:  "Digest is of the expected digest's algorithm; Commit checks and stores under a digest of any algorithm, whatever was expected",
		has:   []Capability{Ingester},
		needs: []Feature{SHA512},
		run: func(e *env) {
			for i, expected := range []digest.Algorithm{"", digest.SHA256, digest.SHA512} {
				for j, committed := range []digest.Algorithm{"", digest.SHA256, digest.SHA512, digest.SHA384} {
					data := Blob(fmt.Sprint("algorithms ", i, j), 3000)
					running, stored := digest.SHA256, committed
					var opts []scheme.IngestOption
					if expected != "" {
						running = expected
						opts = append(opts, scheme.WithExpectedBlob(types.Descriptor{Digest: expected.FromBytes(data)}))
					}
					var want types.Descriptor
					if committed == "" {
						stored = running
					} else {
						want.Digest = committed.FromBytes(data)
					}
					u := e.ingest(e.r, "algorithms", opts...)
					e.write(u, data)
					e.same("Digest", u.Digest(), running.FromBytes(data))
					d, err := u.Commit(e.ctx, want, nil)
					e.must("Commit", err)
					e.same("Commit: digest", d.Digest, stored.FromBytes(data))
					e.holds(e.r, stored.FromBytes(data), data)
				}
			}
			wrong := Blob("another's", 10)
			u := e.ingest(e.r, "algorithms")
			e.write(u, wrong)
			_, err := u.Commit(e.ctx, types.Descriptor{Digest: digest.SHA512.FromString("x"), Size: 10}, nil)
			e.refused("Commit under a wrong sha512", err, errs.ErrDigestMismatch)
			e.lacks(e.r, digest.FromBytes(wrong))
			e.lacks(e.r, digest.SHA512.FromString("x"))
		},
	}, {
		name: "invisible",
		rule: "opening creates no repository, and no other method sees the bytes before Commit, which creates it",
		has:  []Capability{Ingester},
		run: func(e *env) {
			data := Blob("invisible", 5000)
			d := describe("", data)
			u := e.ingest(e.r, "invisible", scheme.WithExpectedBlob(d))
			e.untouched()
			e.write(u, data)
			e.untouched()
			e.lacks(e.r, d.Digest)
			e.must("Close", u.Close())
			e.untouched()
			e.lacks(e.r, d.Digest)
			u = e.ingest(e.r, "invisible")
			_, err := u.Commit(e.ctx, d, nil)
			e.must("Commit", err)
			e.holds(e.r, d.Digest, data)
			e.tags(e.r)
			u = e.ingest(e.r, "invisible again")
			e.write(u, data[1:])
			e.lacks(e.r, digest.FromBytes(data[1:]))
			e.must("Abort", u.Abort(e.ctx))
			e.lacks(e.r, digest.FromBytes(data[1:]))
		},
	}, {
		name: "wrong content",
		rule: "a Commit that fails stores nothing, frees the ingest and keeps what was written, for another Commit",
		has:  []Capability{Ingester},
		run: func(e *env) {
			data := Blob("wrong content", 5000)
			d := describe("", data)
			for _, c := range []struct {
				what string
				want types.Descriptor
				err  error
			}{
				{"another digest", types.Descriptor{Digest: digest.FromString("another"), Size: d.Size}, errs.ErrDigestMismatch},
				{"another digest alone", types.Descriptor{Digest: digest.FromString("another")}, errs.ErrDigestMismatch},
				{"the digest of nothing", types.Descriptor{Digest: digest.FromString("")}, errs.ErrSizeMismatch},
				{"a smaller size", types.Descriptor{Digest: d.Digest, Size: d.Size - 1}, errs.ErrSizeMismatch},
				{"a larger size", types.Descriptor{Digest: d.Digest, Size: d.Size + 1}, errs.ErrSizeMismatch},
				{"a smaller size alone", types.Descriptor{Size: d.Size - 1}, errs.ErrSizeMismatch},
				{"a larger size alone", types.Descriptor{Size: d.Size + 1}, errs.ErrSizeMismatch},
				{"a malformed digest", types.Descriptor{Digest: "sha256:../../x"}, errs.ErrInvalid},
				{"an unknown algorithm", types.Descriptor{Digest: digest.Digest("md5:" + strings.Repeat("a", 32))}, errs.ErrInvalid},
			} {
				u := e.ingest(e.r, "wrong")
				if u.Status().Offset == 0 {
					e.write(u, data)
				}
				_, err := u.Commit(e.ctx, c.want, nil)
				e.refused("Commit with "+c.what, err, c.err)
				e.lacks(e.r, d.Digest)
				e.untouched()
				e.same("Offset after Commit with "+c.what, e.left(e.r, "wrong").Offset, d.Size)
			}
			u := e.ingest(e.r, "wrong")
			e.write(u, data[:10])
			_, err := u.Commit(e.ctx, d, nil)
			e.refused("Commit with too much", err, errs.ErrSizeMismatch)
			e.finish(e.r, "wrong", slices.Concat(data, data[:10]), nil)
		},
	}, {
		name: "exists at the end",
		rule: "Commit of a blob that the repository has answers ErrExists with its descriptor, leaves it and its labels as they are, and removes the ingest",
		has:  []Capability{Ingester},
		run: func(e *env) {
			data := Blob("exists", 5000)
			d := e.put(e.r, data)
			before := e.labels(e.r, d.Digest, map[string]string{"kept": "yes"})
			for _, want := range []types.Descriptor{{}, {Digest: d.Digest}, {Size: d.Size}, d} {
				u := e.ingest(e.r, "exists", scheme.WithIngestLabels(map[string]string{"of": "the ingest"}))
				e.write(u, data)
				got, err := u.Commit(e.ctx, want, map[string]string{"kept": "no", "more": "yes"})
				e.refused("Commit", err, errs.ErrExists)
				e.same("Commit: digest", got.Digest, d.Digest)
				e.same("Commit: size", got.Size, d.Size)
				e.holds(e.r, d.Digest, data)
				e.gone(e.r, "exists")
			}
			e.same("labels", e.labels(e.r, d.Digest, nil), before)
		},
	}, {
		name: "exists at the beginning",
		rule: "Ingest of an expected blob that the repository has is ErrExists, leaves no ingest behind, and locks no key",
		has:  []Capability{Ingester},
		run: func(e *env) {
			data := Blob("exists", 5000)
			d := e.put(e.r, data)
			ing := find[scheme.Ingester](e, e.r)
			for _, expected := range []types.Descriptor{d, {Digest: d.Digest}} {
				_, err := ing.Ingest(e.ctx, e.r, "exists", scheme.WithExpectedBlob(expected))
				e.refused("Ingest", err, errs.ErrExists)
				e.gone(e.r, "exists")
			}
			u := e.ingest(e.r, "exists", scheme.WithExpectedBlob(types.Descriptor{Size: d.Size}))
			e.must("Abort", u.Abort(e.ctx))
			u = e.ingest(e.other, "exists", scheme.WithExpectedBlob(d)) // another repository has it, or has it not
			e.write(u, data)
			_, err := u.Commit(e.ctx, d, nil)
			e.must("Commit in another repository", err)
			e.holds(e.other, d.Digest, data)
		},
	}, {
		name: "more than expected",
		rule: "writing more than the expected size is ErrSizeMismatch; what was taken counts, and the ingest is neither lost nor blocked",
		has:  []Capability{Ingester},
		run: func(e *env) {
			data := Blob("more", 100)
			for _, first := range []int{0, 60, 100} {
				u := e.ingest(e.r, "more", scheme.WithExpectedBlob(types.Descriptor{Size: 100}))
				e.write(u, data[:first])
				n, err := u.Write(slices.Concat(data[first:], []byte("x")))
				e.refused("Write", err, errs.ErrSizeMismatch)
				if n < 0 || n > 100-first {
					e.fatalf("Write says that it took %d bytes of the %d there was room for", n, 100-first)
				}
				e.same("Offset", u.Status().Offset, int64(first+n))
				e.write(u, data[first+n:])
				_, err = u.Commit(e.ctx, describe("", data), nil)
				if first == 0 {
					e.must("Commit", err)
				} else {
					e.refused("Commit of what is there", err, errs.ErrExists)
				}
				e.holds(e.r, digest.FromBytes(data), data)
			}
		},
	}, {
		name: "loose size",
		rule: "with WithLooseSize more than the expected size can be written, and Commit checks what it is given",
		has:  []Capability{Ingester},
		run: func(e *env) {
			data := Blob("loose", 100)
			u := e.ingest(e.r, "loose", scheme.WithExpectedBlob(types.Descriptor{Size: 60}), scheme.WithLooseSize())
			e.write(u, data[:60])
			e.write(u, data[60:])
			e.same("Offset", u.Status().Offset, int64(100))
			e.same("expected size", u.Status().Expected.Size, int64(60))
			_, err := u.Commit(e.ctx, describe("", data), nil)
			e.must("Commit", err)
			e.holds(e.r, digest.FromBytes(data), data)
		},
	}, {
		name: "labels",
		rule: "the blob has the labels of the ingest, and over them those of Commit; opening again without WithIngestLabels keeps them",
		has:  []Capability{Ingester, BlobStater},
		run: func(e *env) {
			a, b := map[string]string{"a": "1", "b": "1", "x.y/z-0": "é \n\x00"}, map[string]string{"b": "2", "c": "2"}
			all := maps.Clone(a)
			maps.Copy(all, b)
			for _, c := range []struct {
				what                 string
				first, again, commit map[string]string
				want                 map[string]string
			}{
				{"none", nil, nil, nil, nil},
				{"of the ingest", a, nil, nil, a},
				{"of Commit", nil, nil, b, b},
				{"of both", a, nil, b, all},
				{"of the second opening", nil, a, nil, a},
				{"of the second opening in place of the first", a, b, nil, b},
			} {
				data := Blob("labelled "+c.what, 100)
				u := e.ingest(e.r, "labels", withLabels(c.first)...)
				e.same("Status: labels "+c.what, len(u.Status().Labels), len(c.first))
				e.write(u, data)
				e.must("Close", u.Close())
				e.another()
				u = e.ingest(e.r, "labels", withLabels(c.again)...)
				_, err := u.Commit(e.ctx, types.Descriptor{}, c.commit)
				e.must("Commit", err)
				info := e.stat(e.r, digest.FromBytes(data))
				if len(info.Labels)+len(c.want) > 0 {
					e.same("labels "+c.what, info.Labels, c.want)
				}
			}
		},
	}, {
		name: "labels that are too long",
		rule: "labels above MaxLabel are ErrInvalid, at Ingest, which leaves nothing behind, and at Commit, which keeps the ingest",
		has:  []Capability{Ingester},
		run: func(e *env) {
			long := map[string]string{"fine": "yes", "key": strings.Repeat("x", scheme.MaxLabel-2)}
			_, err := find[scheme.Ingester](e, e.r).Ingest(e.ctx, e.r, "long", scheme.WithIngestLabels(long))
			e.refused("Ingest", err, errs.ErrInvalid)
			e.gone(e.r, "long")
			data := Blob("long", 100)
			u := e.ingest(e.r, "long")
			e.write(u, data)
			_, err = u.Commit(e.ctx, types.Descriptor{}, long)
			e.refused("Commit", err, errs.ErrInvalid)
			e.lacks(e.r, digest.FromBytes(data))
			e.finish(e.r, "long", data, map[string]string{"key": strings.Repeat("x", scheme.MaxLabel-3)})
		},
	}, {
		name: "keys",
		rule: "any 1 to MaxKey bytes are a key, each of an ingest of its own; others are ErrInvalid",
		has:  []Capability{Ingester},
		run: func(e *env) {
			keys := []string{
				"a", "A", "a ", "..", ".", "../../etc/passwd", "/", "a/b", "a\\b", "a\x00b", "a\x00", "\xff\xfe", "é", "e\u0301", "lock", "data", "meta",
				"sha256:" + strings.Repeat("a", 64), strings.Repeat("k", scheme.MaxKey-1), strings.Repeat("k", scheme.MaxKey),
			}
			var all []scheme.Upload
			for _, key := range keys {
				u := e.ingest(e.r, key)
				e.write(u, []byte(key))
				e.same("Status: key", u.Status().Key, key)
				all = append(all, u)
			}
			for i, key := range keys {
				e.must("Close", all[i].Close())
				u := e.ingest(e.r, key)
				e.same("Offset", u.Status().Offset, int64(len(key)))
				d, err := u.Commit(e.ctx, types.Descriptor{}, nil)
				e.must("Commit", err)
				e.same("digest of what was written to the ingest "+key, d.Digest, digest.FromString(key))
			}
			for _, key := range []string{"", strings.Repeat("k", scheme.MaxKey+1)} {
				_, err := find[scheme.Ingester](e, e.r).Ingest(e.ctx, e.r, key)
				e.refused(fmt.Sprintf("Ingest of a key of %d bytes", len(key)), err, errs.ErrInvalid)
			}
		},
	}, {
		name: "invalid",
		rule: "Ingest with an expected digest or a repository that is malformed is ErrInvalid, and leaves nothing behind",
		has:  []Capability{Ingester},
		run: func(e *env) {
			ing := find[scheme.Ingester](e, e.r)
			for _, d := range badDigests {
				_, err := ing.Ingest(e.ctx, e.r, "invalid", scheme.WithExpectedBlob(types.Descriptor{Digest: d}))
				e.refused("Ingest expecting "+string(d), err, errs.ErrInvalid)
			}
			e.gone(e.r, "invalid")
			for _, name := range badRepos {
				_, err := ing.Ingest(e.ctx, e.r.WithRepo(name), "invalid")
				e.is("Ingest in "+name, err, errs.ErrInvalid)
			}
			e.untouched()
		},
	},
}
