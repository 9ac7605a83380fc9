package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/transfer"
)

func TestAPlanWritesNothingAndSaysWhatACopyDoes(t *testing.T) {
	for _, place := range [][2]string{{"src", "dst"}, {"one", "one"}, {"reg", "reg"}} {
		w := worldOf(t, place[0], place[1])
		b := w.atSource()
		child := b.image([]string{"shared", "layer"})
		b.index([]types.Descriptor{on(child, "linux/amd64")}, "1", "2")
		b.artifact(child, "signature")
		b.image([]string{"shared", "there"}, "3")
		w.atTarget().image([]string{"shared", "there"}, "3")
		ctx := context.Background()
		told := 0
		plan, err := w.engine.Plan(ctx, w.from, w.to, engine.Options{AllTags: true, Events: func(ev transfer.Event) {
			if ev.Kind == transfer.Planned {
				told++
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range []string{"BlobPut", "BlobMount", "BlobGet", "ManifestPut"} {
			if w.src.count(op)+w.dst.count(op) != 0 {
				t.Errorf("%v: a plan calls %s", place, op)
			}
		}
		if w.tag("1") != "" || !plan.DryRun || plan.Copied != 2 || plan.Unchanged != 1 || plan.Images[0].Outcome != transfer.WouldCopy || told == 0 {
			t.Errorf("%v: %+v", place, plan)
		}
		done := w.copy(engine.Options{AllTags: true})
		if done.Copied != plan.Copied || done.Unchanged != plan.Unchanged || done.Manifests != plan.Manifests || done.Blobs+done.Mounted != plan.Blobs {
			t.Errorf("%v: planned %+v\ndone %+v", place, plan, done)
		}
		if done.Mounted == 0 && done.Bytes != plan.Bytes {
			t.Errorf("%v: planned %d bytes, moved %d", place, plan.Bytes, done.Bytes)
		}
	}
}

func TestAPlanFailsWhereACopyWould(t *testing.T) {
	w := newWorld(t)
	w.atSource().image([]string{"layer"}, "latest")
	w.from.Tag = "none"
	rep, err := w.engine.Plan(context.Background(), w.from, w.to, engine.Options{})
	if !errors.Is(err, errs.ErrNotFound) || rep.Failed != 1 || !strings.Contains(err.Error(), "none") {
		t.Errorf("%v", err)
	}
}
