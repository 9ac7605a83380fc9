package scheme

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/semaphore"
)

// Slots is how much may run at once on one host. Its name orders the taking of several.
type Slots struct {
	name string
	sem  *semaphore.Weighted
}

// NewSlots returns n slots for the host of that name, which must be unique in the program. n must be positive.
func NewSlots(name string, n int) *Slots {
	return &Slots{name: name, sem: semaphore.NewWeighted(int64(max(n, 1)))}
}

// AcquireSlots takes one slot of each, all of one transfer at a time and in the order of their names, so that copies
// in opposite directions cannot wait for each other. A host that is named twice is taken once; nil is no limit.
// release gives all back, and may be called more than once.
func AcquireSlots(ctx context.Context, all ...*Slots) (release func(), err error) {
	need := slices.DeleteFunc(slices.Clone(all), func(s *Slots) bool { return s == nil })
	slices.SortFunc(need, func(a, b *Slots) int { return cmp.Compare(a.name, b.name) })
	need = slices.Compact(need)
	var held []*Slots
	release = func() {
		for _, s := range held {
			s.sem.Release(1)
		}
		held = nil
	}
	for _, s := range need {
		if err := s.sem.Acquire(ctx, 1); err != nil {
			release()
			return func() {}, err
		}
		held = append(held, s)
	}
	return release, nil
}
