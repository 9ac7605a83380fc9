package scheme_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
)

func TestCopiesInOppositeDirectionsDoNotWaitForEachOther(t *testing.T) {
	a, b := scheme.NewSlots("a", 1), scheme.NewSlots("b", 1)
	var all errgroup.Group
	for i := range 8 {
		all.Go(func() error {
			for range 500 {
				pair := []*scheme.Slots{a, b}
				if i%2 == 0 {
					pair = []*scheme.Slots{b, a}
				}
				release, err := scheme.AcquireSlots(t.Context(), pair...)
				if err != nil {
					return err
				}
				release()
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestSlotsBoundWhatRunsAtOnce(t *testing.T) {
	hosts := []*scheme.Slots{scheme.NewSlots("a", 3), scheme.NewSlots("b", 2), scheme.NewSlots("c", 4)}
	limits := []int64{3, 2, 4}
	running := make([]atomic.Int64, 3)
	var all errgroup.Group
	for range 16 {
		all.Go(func() error {
			for range 100 {
				i, j := rand.IntN(3), rand.IntN(3)
				release, err := scheme.AcquireSlots(t.Context(), hosts[i], hosts[j], nil)
				if err != nil {
					return err
				}
				taken := map[int]bool{i: true, j: true}
				for k := range taken {
					if n := running[k].Add(1); n > limits[k] {
						t.Errorf("%d run at once on a host of %d slots", n, limits[k])
					}
				}
				for k := range taken {
					running[k].Add(-1)
				}
				release()
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestOneHostIsTakenOnce(t *testing.T) {
	s := scheme.NewSlots("a", 1)
	release, err := scheme.AcquireSlots(t.Context(), s, s, nil, s)
	if err != nil {
		t.Fatal(err)
	}
	release()
	release() // a second time gives back nothing more
	synctest.Test(t, func(t *testing.T) {
		s := scheme.NewSlots("a", 1)
		once, err := scheme.AcquireSlots(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		once()
		once()
		first, err := scheme.AcquireSlots(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan error)
		go func() {
			_, err := scheme.AcquireSlots(ctx, s)
			waiting <- err
		}()
		synctest.Wait() // until it is blocked: there is one slot only
		select {
		case err := <-waiting:
			t.Fatalf("a second slot was there: %v", err)
		default:
		}
		cancel()
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want the context's error", err)
		}
		first()
	})
}

func TestFailedAcquireGivesBackWhatItTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := scheme.NewSlots("a", 1), scheme.NewSlots("b", 1)
		holdB, err := scheme.AcquireSlots(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan error)
		go func() {
			release, err := scheme.AcquireSlots(ctx, b, a)
			release() // never nil
			waiting <- err
		}()
		synctest.Wait() // it holds a, and waits for b
		cancel()
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want the context's error", err)
		}
		holdB()
		release, err := scheme.AcquireSlots(t.Context(), a, b)
		if err != nil {
			t.Fatal(err)
		}
		release()
	})
}

func TestNoSlotsAreNoLimit(t *testing.T) {
	release, err := scheme.AcquireSlots(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	release()
}
