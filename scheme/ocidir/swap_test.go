package ocidir

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// TestNothingIsLostBetweenProcesses: processes that count together, each in a number that a tag's manifest holds, and that
// is replaced only if it still is what was read.
func TestNothingIsLostBetweenProcesses(t *testing.T) {
	const processes, times = 3, 60
	o, r := open(t), place(t.TempDir()).WithTag("count")
	must(t, schemetest.Image("count", schemetest.Annotation("n", "0")).Push(t.Context(), o, r))
	var all errgroup.Group
	for range processes {
		cmd := startAs(t, "swap", r.Root, fmt.Sprint(times))
		all.Go(cmd.Run)
	}
	all.Go(func() error { return count(t.Context(), o, r, times) })
	must(t, all.Wait())
	m, err := o.ManifestGet(t.Context(), r)
	must(t, err)
	v, err := m.View()
	must(t, err)
	if want := fmt.Sprint((processes + 1) * times); v.Annotations["n"] != want {
		t.Errorf("counted to %s, want %s", v.Annotations["n"], want)
	}
}

// childSwap counts in another process.
func childSwap(args []string) error {
	times, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	o := New(WithDurability(None))
	return errors.Join(count(context.Background(), o, place(args[0]).WithTag("count"), times), o.Close())
}

// count adds one to the number that r's manifest holds, and does so again, times times.
func count(ctx context.Context, o *OCIDir, r ref.Ref, times int) error {
	for times > 0 {
		m, err := o.ManifestGet(ctx, r)
		if err != nil {
			return err
		}
		v, err := m.View()
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(v.Annotations["n"])
		if err != nil {
			return err
		}
		next := schemetest.Image("count", schemetest.Annotation("n", fmt.Sprint(n+1)))
		_, err = o.ManifestPut(ctx, r, next.Manifest, scheme.WithTagAt(m.Digest()))
		switch {
		case err == nil:
			times--
		case !errors.Is(err, errs.ErrConflict):
			return err
		}
	}
	return nil
}
