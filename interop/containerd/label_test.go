package containerd_test

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

func TestUpdateByFieldPath(t *testing.T) {
	have := map[string]string{"a": "1", "b": "2", "dotted.name/x": "3"}
	for _, c := range []struct {
		name   string
		labels map[string]string
		fields []string
		want   map[string]string
	}{
		{"all, without fields", map[string]string{"c": "9"}, nil, map[string]string{"c": "9"}},
		{"all", map[string]string{"c": "9"}, []string{"labels"}, map[string]string{"c": "9"}},
		{"all, to none", nil, nil, nil},
		{"one is set", map[string]string{"c": "9", "d": "not named"}, []string{"labels.c"}, map[string]string{"a": "1", "b": "2", "dotted.name/x": "3", "c": "9"}},
		{"one is changed", map[string]string{"a": "9"}, []string{"labels.a"}, map[string]string{"a": "9", "b": "2", "dotted.name/x": "3"}},
		{"one with dots in its name", map[string]string{"dotted.name/x": "9"}, []string{"labels.dotted.name/x"}, map[string]string{"a": "1", "b": "2", "dotted.name/x": "9"}},
		{"an absent one is removed", nil, []string{"labels.a"}, map[string]string{"b": "2", "dotted.name/x": "3"}},
		{"an empty one is removed", map[string]string{"a": ""}, []string{"labels.a"}, map[string]string{"b": "2", "dotted.name/x": "3"}},
		{"several", map[string]string{"a": "9"}, []string{"labels.b", "labels.a"}, map[string]string{"a": "9", "dotted.name/x": "3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, f fixture) {
				d := put(t, f, "content", have)
				before, err := f.Info(t.Context(), d.Digest)
				if err != nil {
					t.Fatal(err)
				}
				got, err := f.Update(t.Context(), content.Info{Digest: d.Digest, Labels: c.labels, Size: 99}, c.fields...)
				if err != nil {
					t.Fatal(err)
				}
				after, err := f.Info(t.Context(), d.Digest)
				if err != nil {
					t.Fatal(err)
				}
				sameLabels(t, "returned", got.Labels, c.want)
				sameLabels(t, "stored", after.Labels, c.want)
				if after.Size != 7 || !after.CreatedAt.Equal(before.CreatedAt) || !after.UpdatedAt.After(before.UpdatedAt) {
					t.Errorf("%+v became %+v", before, after)
				}
			})
		})
	}
}

func TestUpdateRefuses(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		d := put(t, f, "content", map[string]string{"a": "1"})
		for _, field := range []string{"size", "digest", "created_at", "label", "labels.", "", "labelsa"} {
			_, err := f.Update(t.Context(), content.Info{Digest: d.Digest, Labels: map[string]string{"a": "2"}}, "labels.a", field)
			is(t, "field "+field, err, errdefs.IsInvalidArgument)
		}
		_, err := f.Update(t.Context(), content.Info{Digest: digest.FromString("missing")})
		is(t, "missing", err, errdefs.IsNotFound)
		_, err = f.Update(t.Context(), content.Info{Digest: "sha256:x"})
		is(t, "no digest", err, errdefs.IsInvalidArgument)
		info, err := f.Info(t.Context(), d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		sameLabels(t, "after refusals", info.Labels, map[string]string{"a": "1"})
	})
}

func TestLabelsHaveContainerdsLimit(t *testing.T) {
	key := strings.Repeat("k", 96)
	fits, tooLong := map[string]string{key: strings.Repeat("v", 4000)}, map[string]string{key: strings.Repeat("v", 4001)}
	everywhere(t, func(t *testing.T, f fixture) {
		d := put(t, f, "content", fits)
		_, err := f.Update(t.Context(), content.Info{Digest: d.Digest, Labels: tooLong})
		is(t, "all", err, errdefs.IsInvalidArgument)
		_, err = f.Update(t.Context(), content.Info{Digest: d.Digest, Labels: tooLong}, "labels."+key)
		is(t, "one", err, errdefs.IsInvalidArgument)
		got, err := f.Update(t.Context(), content.Info{Digest: d.Digest, Labels: fits}, "labels."+key)
		if err != nil {
			t.Fatal(err)
		}
		sameLabels(t, "at the limit", got.Labels, fits)

		w := begin(t, f, "key", "other content")
		err = w.Commit(t.Context(), 0, "", content.WithLabels(tooLong))
		is(t, "commit", err, errdefs.IsInvalidArgument)
		w = begin(t, f, "key", "") // the writer is closed, and what was written is kept
		if err := w.Commit(t.Context(), 13, digest.FromString("other content"), content.WithLabels(fits)); err != nil {
			t.Error(err)
		}
	})
}

func TestFiltersHaveContainerdsGrammar(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		names := map[digest.Digest]string{}
		add := func(name string, labels map[string]string) digest.Digest {
			d := put(t, f, name, labels).Digest
			names[d] = name
			return d
		}
		a := add("a", map[string]string{"k": "1", "containerd.io/gc.root": "now"})
		add("b", map[string]string{"k": "2", "sp ace": "x"})
		add("c", nil)
		for _, c := range []struct {
			want    string
			filters []string
		}{
			{"a b c", nil},
			{"a b c", []string{""}},
			{"a b", []string{"labels.k"}},
			{"a", []string{"labels.k==1"}},
			{"b c", []string{"labels.k!=1"}},
			{"a b", []string{"labels.k~=^[12]$"}},
			{"a", []string{`labels."containerd.io/gc.root"`}},
			{"a", []string{`labels."containerd.io/gc.root"==now`}},
			{"b", []string{`labels."sp ace"==x`}},
			{"b", []string{`labels.k,labels."sp ace"`}},
			{"", []string{"labels.k==1,labels.k==2"}},
			{"a b", []string{"labels.k==1", "labels.k==2"}},
			{"a", []string{"digest==" + string(a)}},
			{"a", []string{"digest~=" + a.Encoded()[:12]}},
			{"b c", []string{"digest!=" + string(a)}},
			{"", []string{"size==1"}}, // no field there, so not here
			{"", []string{"nothing"}},
		} {
			got := map[string]bool{}
			for _, d := range walked(t, f, c.filters...) {
				got[names[d]] = true
			}
			want := strings.Fields(c.want)
			if len(got) != len(want) {
				t.Errorf("%q selects %v, want %v", c.filters, got, want)
			}
			for _, name := range want {
				if !got[name] {
					t.Errorf("%q selects %v, want %v", c.filters, got, want)
				}
			}
		}
		for _, bad := range []string{"labels.k=", "==x", "labels.k==1,", `labels."k`, "a b"} {
			err := f.Walk(t.Context(), func(content.Info) error { return nil }, bad)
			is(t, "filter "+bad, err, errdefs.IsInvalidArgument)
			_, err = f.ListStatuses(t.Context(), bad)
			is(t, "filter of statuses "+bad, err, errdefs.IsInvalidArgument)
		}
	})
}
