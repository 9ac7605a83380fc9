package schemetest

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// Cases of what an ingest offers to who does not know yet what it becomes: a server.

var ingestOfferCases = []testCase{
	{
		name:  "algorithm",
		rule:  "WithIngestAlgorithm decides what Digest is of, from the first byte or from a later opening on; opening without it changes nothing, and the expected digest goes before it",
		has:   []Capability{Ingester},
		needs: []Feature{SHA512},
		run: func(e *env) {
			data := Blob("algorithm", 3000)
			for name, o := range e.twice() {
				key, content := "algorithm "+name, slices.Concat(data, []byte(name))
				u := e.ingest(e.r, key, scheme.WithIngestAlgorithm(digest.SHA512))
				e.write(u, content[:1000])
				e.same("Digest", u.Digest(), digest.SHA512.FromBytes(content[:1000]))
				e.must("Close", u.Close())
				u = o.ingest(e.r, key)
				e.same("Digest of what was left", u.Digest(), digest.SHA512.FromBytes(content[:1000]))
				e.must("Close", u.Close())
				u = o.ingest(e.r, key, scheme.WithIngestAlgorithm(digest.SHA384))
				e.write(u, content[1000:])
				e.same("Digest with another algorithm", u.Digest(), digest.SHA384.FromBytes(content))
				e.must("Close", u.Close())
				u = e.ingest(e.r, key, scheme.WithIngestAlgorithm(digest.SHA512), scheme.WithExpectedBlob(types.Descriptor{Digest: digest.FromBytes(content)}))
				e.same("Digest with an expected digest", u.Digest(), digest.FromBytes(content))
				want := digest.SHA512.FromBytes(content)
				_, err := u.Commit(e.ctx, types.Descriptor{Digest: want}, nil)
				e.must("Commit", err)
				e.holds(e.r, want, content)
			}
			u := e.ingest(e.r, "named by it", scheme.WithIngestAlgorithm(digest.SHA512))
			e.write(u, data)
			d, err := u.Commit(e.ctx, types.Descriptor{}, nil)
			e.must("Commit", err)
			e.same("digest of what was committed without one", d.Digest, digest.SHA512.FromBytes(data))
			_, err = find[scheme.Ingester](e, e.r).Ingest(e.ctx, e.r, "unknown", scheme.WithIngestAlgorithm("sha1024"))
			e.refused("Ingest with an algorithm that is not known", err, errs.ErrDigestInvalid)
			e.gone(e.r, "unknown")
		},
	}, {
		name: "read again",
		rule: "an Upload that is a Rereader gives back what was written, at any offset, while it is open, also what was written before it was left",
		has:  []Capability{Ingester},
		run: func(e *env) {
			data := Blob("read again", 5000)
			for name, o := range e.twice() {
				u := e.ingest(e.r, "read "+name)
				e.write(u, data[:3000])
				e.must("Close", u.Close())
				u = o.ingest(e.r, "read "+name)
				e.write(u, data[3000:])
				ra, ok := u.(scheme.Rereader)
				if !ok {
					e.must("Abort", u.Abort(e.ctx))
					continue
				}
				for _, off := range []int{0, 1, 2999, 3000, 4999, 5000, 6000} {
					got, err := io.ReadAll(io.NewSectionReader(ra, int64(off), 1<<20))
					if want := data[min(off, len(data)):]; err != nil || !bytes.Equal(got, want) {
						e.errorf("read from %d: %d bytes and %v, want %d", off, len(got), err, len(want))
					}
				}
				e.write(u, []byte("more"))
				got := make([]byte, 5)
				n, err := ra.ReadAt(got, 4999)
				e.must("ReadAt after another Write", err)
				e.same("ReadAt", string(got[:n]), string(data[4999:])+"more")
				e.must("Abort", u.Abort(e.ctx))
				if n, err := ra.ReadAt(got, 0); n != 0 || err == nil || err == io.EOF {
					e.errorf("ReadAt after the end: %d bytes and %v", n, err)
				}
			}
		},
	}, {
		name: "leave",
		rule: "an Upload that is a Leaver can be left: what was written is there when it is opened again",
		has:  []Capability{Ingester},
		run: func(e *env) {
			for name, o := range e.twice() {
				data := slices.Concat(Blob("left", 5000), []byte(name))
				for i, part := range [][]byte{data[:1], data[1:2000], data[2000:]} {
					u := e.ingest(e.r, "left")
					e.write(u, part)
					l, ok := u.(scheme.Leaver)
					if !ok || i == 1 {
						e.must("Close", u.Close())
						continue
					}
					e.must("Leave", l.Leave())
					e.must("Leave again", l.Leave())
					e.closed(u)
				}
				o.finish(e.r, "left", data, nil)
			}
		},
	}, {
		name: "find",
		rule: "IngestFind names every repository that has an ingest, one that is none yet included, and no other; it ends with the callback's error",
		has:  []Capability{Ingester, IngestManager},
		run: func(e *env) {
			var finder scheme.IngestFinder
			if !scheme.As(e.api, e.r, &finder) {
				return
			}
			found := func(stop error) (names []string, err error) {
				err = finder.IngestFind(e.ctx, e.r, func(repo string) error {
					names = append(names, repo)
					return stop
				})
				slices.Sort(names)
				return names, err
			}
			names, err := found(nil)
			e.must("IngestFind of nothing", err)
			e.same("found", len(names), 0)
			var all []scheme.Upload
			var want []string
			for i := range 3 {
				r := e.r.WithRepo(fmt.Sprintf("find/x%d", i))
				u := e.ingest(r, "key")
				if i > 0 {
					e.must("Close", u.Close())
				}
				all, want = append(all, u), append(want, r.Repo)
			}
			e.begin() // which has none
			for name, o := range e.twice() {
				if !scheme.As(o.api, e.r, &finder) {
					e.errorf("%s has no IngestFinder", name)
					continue
				}
				names, err = found(nil)
				e.must("IngestFind", err)
				e.same("found", fmt.Sprint(names), fmt.Sprint(want))
			}
			names, err = found(io.EOF)
			e.must("IngestFind that was ended", err)
			e.same("names until io.EOF", len(names), 1)
			if _, err = found(errStop); err != errStop {
				e.errorf("the callback's error comes back as %v", err)
			}
			e.must("Abort", all[0].Abort(e.ctx))
			names, err = found(nil)
			e.must("IngestFind", err)
			e.same("found", fmt.Sprint(names), fmt.Sprint(want[1:]))
		},
	},
}
