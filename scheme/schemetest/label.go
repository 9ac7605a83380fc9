package schemetest

import (
	"fmt"
	"maps"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var statCases = []testCase{
	{
		name: "blob",
		rule: "BlobStat says a blob's size and when it was stored; ErrNotFound when it, or its repository, is not there; ErrInvalid for a malformed digest",
		has:  []Capability{BlobStater},
		run: func(e *env) {
			stater := find[scheme.BlobStater](e, e.r)
			for range 2 {
				_, err := stater.BlobStat(e.ctx, e.r, digest.FromString("absent"))
				e.refused("BlobStat", err, errs.ErrNotFound)
				e.begin()
			}
			for _, size := range []int{0, 1, 5000} {
				before := wall()
				d := e.put(e.r, Blob("described", size))
				after := wall()
				for name, o := range e.twice() {
					info := o.stat(e.r, d.Digest)
					e.same("digest, seen by "+name, info.Digest, d.Digest)
					e.same("size", info.Size, int64(size))
					e.same("labels", len(info.Labels), 0)
					e.between("Created", info.Created, before, after)
					e.between("Updated", info.Updated, before, after)
				}
				_, err := stater.BlobStat(e.ctx, e.other, d.Digest)
				e.refused("BlobStat in another repository", err, errs.ErrNotFound)
			}
			for _, d := range append([]digest.Digest{""}, badDigests...) {
				_, err := stater.BlobStat(e.ctx, e.r, d)
				e.refused("BlobStat of "+string(d), err, errs.ErrInvalid)
			}
		},
	}, {
		name: "all",
		rule: "BlobStat describes everything that BlobList names, manifests included, as it does",
		has:  []Capability{BlobStater, BlobLister},
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Index([]*Item{Image("a"), Image("b")}))
			n := 0
			e.must("BlobList", e.list(e.r, func(info blob.Info) error {
				n++
				e.same("BlobList", info, e.stat(e.r, info.Digest))
				return nil
			}))
			e.same("blobs and manifests", n, 1+2*4)
			e.same("size of an index", e.stat(e.r, it.Manifest.Digest()).Size, it.Descriptor().Size)
		},
	}, {
		name:  "after a delete",
		rule:  "BlobStat of a blob that was deleted is ErrNotFound",
		has:   []Capability{BlobStater},
		needs: []Feature{BlobDelete},
		run: func(e *env) {
			d := e.put(e.r, Blob("deleted", 10))
			e.must("BlobDelete", e.api.BlobDelete(e.ctx, e.r, d))
			for _, o := range e.twice() {
				_, err := find[scheme.BlobStater](o, e.r).BlobStat(e.ctx, e.r, d.Digest)
				e.refused("BlobStat", err, errs.ErrNotFound)
			}
		},
	},
}

var labelCases = []testCase{
	{
		name: "fields",
		rule: "without fields, and with labels, all labels are replaced; with labels.KEY one is set, or removed when it is absent or empty; nothing else of the blob changes",
		has:  []Capability{Labeler, BlobStater},
		run: func(e *env) {
			type labels = map[string]string
			d := e.put(e.r, Blob("labelled", 100)).Digest
			for i, c := range []struct {
				fields []string
				set    labels
				want   labels
			}{
				{nil, labels{"a": "1", "b": "2"}, labels{"a": "1", "b": "2"}},
				{[]string{"labels.c"}, labels{"a": "not this", "c": "3"}, labels{"a": "1", "b": "2", "c": "3"}},
				{[]string{"labels.b"}, labels{"a": "not this"}, labels{"a": "1", "c": "3"}},
				{[]string{"labels.a"}, labels{"a": ""}, labels{"c": "3"}},
				{[]string{"labels.absent"}, nil, labels{"c": "3"}},
				{[]string{"labels.x", "labels.c", "labels.y"}, labels{"x": "4", "y": "5"}, labels{"x": "4", "y": "5"}},
				{[]string{"labels.containerd.io/gc.ref.content.l.0"}, labels{"containerd.io/gc.ref.content.l.0": "sha256:…"}, labels{"x": "4", "y": "5", "containerd.io/gc.ref.content.l.0": "sha256:…"}},
				{[]string{"labels"}, labels{"é \n\x00\"\\": "\x01é \n"}, labels{"é \n\x00\"\\": "\x01é \n"}},
				{[]string{"labels"}, nil, nil},
				{nil, labels{"z": "6"}, labels{"z": "6"}},
				{nil, labels{}, nil},
			} {
				e.another()
				was := e.stat(e.r, d)
				before := wall()
				info := blob.Info{Digest: d, Size: 7, Created: was.Created.AddDate(-9, 0, 0), Updated: was.Created.AddDate(-9, 0, 0), Labels: c.set}
				got, err := find[scheme.Labeler](e, e.r).BlobLabel(e.ctx, e.r, info, c.fields...)
				e.must("BlobLabel", err)
				after := wall()
				what := fmt.Sprintf("step %d, fields %q", i, c.fields)
				for name, o := range e.twice() {
					now := o.stat(e.r, d)
					e.sameLabels(what+", seen by "+name, now.Labels, c.want)
					e.same("size", now.Size, int64(100))
					if !now.Created.Equal(was.Created) {
						e.errorf("%s: Created changed from %s to %s", what, was.Created, now.Created)
					}
					e.between("Updated", now.Updated, before, after)
					e.sameLabels(what+": BlobLabel", got.Labels, now.Labels)
					got.Labels = now.Labels
					e.same("BlobLabel", got, now)
				}
			}
		},
	}, {
		name: "wrong fields",
		rule: "a field other than labels and labels.KEY, and labels above MaxLabel, are ErrInvalid and change nothing; what is not there is ErrNotFound",
		has:  []Capability{Labeler, BlobStater},
		run: func(e *env) {
			labeler := find[scheme.Labeler](e, e.r)
			info := blob.Info{Digest: digest.FromString("absent"), Labels: map[string]string{"a": "1"}}
			for range 2 {
				_, err := labeler.BlobLabel(e.ctx, e.r, info)
				e.refused("BlobLabel of what is absent", err, errs.ErrNotFound)
				_, err = labeler.BlobLabel(e.ctx, e.r, info, "labels.a")
				e.refused("BlobLabel of what is absent", err, errs.ErrNotFound)
				e.begin()
			}
			d := e.put(e.r, Blob("labelled", 100)).Digest
			e.put(e.other, Blob("labelled", 100))
			full := map[string]string{"a": "1", "key": strings.Repeat("v", scheme.MaxLabel-3)}
			e.labels(e.r, d, full)
			info = blob.Info{Digest: d, Size: 1, Labels: map[string]string{"a": "2"}}
			for _, field := range []string{"size", "digest", "created", "", "label", "Labels", "labels.", "labels-a", "labelsa"} {
				_, err := labeler.BlobLabel(e.ctx, e.r, info, field)
				e.refused("BlobLabel of the field "+field, err, errs.ErrInvalid)
				_, err = labeler.BlobLabel(e.ctx, e.r, info, "labels.a", field)
				e.refused("BlobLabel of the fields labels.a and "+field, err, errs.ErrInvalid)
			}
			info.Labels = map[string]string{"a": "2", "key": strings.Repeat("v", scheme.MaxLabel-2)}
			for _, fields := range [][]string{nil, {"labels"}, {"labels.a", "labels.key"}} {
				_, err := labeler.BlobLabel(e.ctx, e.r, info, fields...)
				e.refused("BlobLabel with too long a label", err, errs.ErrInvalid)
			}
			for _, bad := range append([]digest.Digest{""}, badDigests...) {
				_, err := labeler.BlobLabel(e.ctx, e.r, blob.Info{Digest: bad})
				e.refused("BlobLabel of "+string(bad), err, errs.ErrInvalid)
			}
			e.sameLabels("labels afterwards", e.stat(e.r, d).Labels, full)
			e.sameLabels("labels in another repository", e.stat(e.other, d).Labels, nil)
		},
	}, {
		name: "at once",
		rule: "labels that several set at once on one blob, here and through another API, all take effect",
		has:  []Capability{Labeler, BlobStater},
		run: func(e *env) {
			d := e.put(e.r, Blob("labelled", 100)).Digest
			want := map[string]string{}
			all := []*env{e}
			for _, o := range e.twice() {
				all = append(all, o)
			}
			var writers errgroup.Group
			for i := range 2 * e.h.Writers {
				key, labeler := fmt.Sprint("k", i), find[scheme.Labeler](all[i%len(all)], e.r)
				want[key] = "set"
				writers.Go(func() error {
					_, err := labeler.BlobLabel(e.ctx, e.r, blob.Info{Digest: d, Labels: map[string]string{key: "set"}}, "labels."+key)
					return err
				})
			}
			e.must("BlobLabel", writers.Wait())
			e.another()
			e.sameLabels("labels", e.stat(e.r, d).Labels, want)
		},
	}, {
		name: "kept by a put",
		rule: "a blob that is put again keeps its labels; its content is what it was",
		has:  []Capability{Labeler, BlobStater},
		run: func(e *env) {
			d := e.put(e.r, Blob("labelled", 100)).Digest
			want := e.labels(e.r, d, map[string]string{"a": "1"})
			e.put(e.r, Blob("labelled", 100))
			e.sameLabels("labels", e.stat(e.r, d).Labels, want)
			e.holds(e.r, d, Blob("labelled", 100))
		},
	}, {
		name:  "of what was deleted",
		rule:  "labels go with the blob: when it is put again, by whichever way, it has none",
		has:   []Capability{Labeler, BlobStater},
		needs: []Feature{BlobDelete},
		run: func(e *env) {
			data := Blob("labelled", 100)
			for _, again := range []string{"BlobPut", "BlobMount", "Commit"} {
				d := e.put(e.r, data)
				e.labels(e.r, d.Digest, map[string]string{"a": "1"})
				e.must("BlobDelete", e.api.BlobDelete(e.ctx, e.r, d))
				e.another()
				switch {
				case again == "BlobMount" && e.h.can(Mount):
					e.put(e.other, data)
					e.must("BlobMount", e.api.BlobMount(e.ctx, e.other, e.r, d))
				case again == "Commit" && e.h.has(Ingester):
					u := e.ingest(e.r, "again")
					e.write(u, data)
					_, err := u.Commit(e.ctx, d, map[string]string{"b": "2"})
					e.must("Commit", err)
				default:
					e.put(e.r, data)
				}
				want := map[string]string{}
				if again == "Commit" && e.h.has(Ingester) {
					want["b"] = "2"
				}
				for name, o := range e.twice() {
					e.sameLabels("labels after "+again+", seen by "+name, o.stat(e.r, d.Digest).Labels, want)
				}
				e.must("BlobDelete", e.api.BlobDelete(e.ctx, e.r, d))
			}
		},
	}, {
		name:  "of another repository",
		rule:  "labels belong to a repository's blob: a mount does not bring them along, nor does a delete elsewhere take them",
		has:   []Capability{Labeler, BlobStater},
		needs: []Feature{Mount, BlobDelete},
		run: func(e *env) {
			d := e.put(e.r, Blob("labelled", 100))
			want := e.labels(e.r, d.Digest, map[string]string{"a": "1"})
			e.must("BlobMount", e.api.BlobMount(e.ctx, e.r, e.other, d))
			e.sameLabels("labels in the other repository", e.stat(e.other, d.Digest).Labels, nil)
			e.labels(e.other, d.Digest, map[string]string{"b": "2"})
			e.sameLabels("labels", e.stat(e.r, d.Digest).Labels, want)
			e.must("BlobDelete", e.api.BlobDelete(e.ctx, e.other, d))
			e.sameLabels("labels", e.stat(e.r, d.Digest).Labels, want)
		},
	}, {
		name:  "of a manifest",
		rule:  "manifests have labels like any blob; putting one again keeps them, deleting it takes them away",
		has:   []Capability{Labeler, BlobStater},
		needs: []Feature{ManifestDelete},
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("labelled"))
			d := it.Manifest.Digest()
			want := e.labels(e.r, d, map[string]string{"a": "1"})
			e.push(e.r.WithTag("v2"), it)
			e.another()
			e.sameLabels("labels after another put", e.stat(e.r, d).Labels, want)
			e.shows(e.r.WithTag("v1"), it)
			e.must("ManifestDelete", e.api.ManifestDelete(e.ctx, e.r.WithDigest(d)))
			e.another()
			e.push(e.r.WithTag("v1"), it)
			e.sameLabels("labels after a delete", e.stat(e.r, d).Labels, nil)
		},
	},
}

// stat is BlobStat.
func (e *env) stat(r ref.Ref, d digest.Digest) blob.Info {
	e.t.Helper()
	info, err := find[scheme.BlobStater](e, r).BlobStat(e.ctx, r, d)
	e.must("BlobStat", err)
	return info
}

// labels sets all labels of a blob, unless they are nil, and returns those it then has; where the place keeps none it
// does nothing.
func (e *env) labels(r ref.Ref, d digest.Digest, set map[string]string) map[string]string {
	e.t.Helper()
	var labeler scheme.Labeler
	if !scheme.As(e.api, r, &labeler) || !e.h.has(BlobStater) {
		return nil
	}
	if set != nil {
		_, err := labeler.BlobLabel(e.ctx, r, blob.Info{Digest: d, Labels: set})
		e.must("BlobLabel", err)
	}
	return e.stat(r, d).Labels
}

// sameLabels compares labels; no map is an empty one.
func (e *env) sameLabels(what string, got, want map[string]string) {
	e.t.Helper()
	if !maps.Equal(got, want) {
		e.same(what, got, want)
	}
}
