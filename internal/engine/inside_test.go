package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

func TestWorkIsDoneOnceAndItsOutcomeIsShared(t *testing.T) {
	var f flights[string, int]
	var ran, led atomic.Int32
	boom := errors.New("boom")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			v, first, err := f.do(context.Background(), "key", func() (int, error) { ran.Add(1); return 7, boom })
			if first {
				led.Add(1)
			}
			if v != 7 || err != boom {
				t.Errorf("%d %v", v, err)
			}
		})
	}
	wg.Wait()
	if ran.Load() != 1 || led.Load() != 1 {
		t.Errorf("ran %d times, led %d", ran.Load(), led.Load())
	}
	f.settle("key", 8)
	f.settle("other", 9)
	if v, first, err := f.do(context.Background(), "other", nil); v != 9 || first || err != nil {
		t.Errorf("%d %v %v", v, first, err)
	}
}

func TestWhoWaitsEndsWithHisContext(t *testing.T) {
	var f flights[string, int]
	release, started := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _, _ = f.do(context.Background(), "key", func() (int, error) { close(started); <-release; return 0, nil })
	}()
	<-started
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := f.do(ctx, "key", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(release)
	<-done
}

func TestNestedWorkNeedsNoMoreGoroutinesThanThereAre(t *testing.T) {
	s := newScheduler(1)
	var leaves, now, worst atomic.Int32
	s.first(100, func(int) {
		s.each(20, func(int) {
			s.each(20, func(int) {
				worst.Store(max(worst.Load(), now.Add(1)))
				leaves.Add(1)
				now.Add(-1)
			})
		})
	})
	if leaves.Load() != 100*20*20 {
		t.Errorf("%d leaves", leaves.Load())
	}
	if limit := int32(imagesPerTransfer + extraPerTransfer); worst.Load() > limit {
		t.Errorf("%d at once, limit %d", worst.Load(), limit)
	}
}

func TestTheCacheForgetsWhatWasUsedLongAgo(t *testing.T) {
	var c cache
	pad := make([]byte, cacheItem-100)
	for i := range pad {
		pad[i] = 'x'
	}
	var all []*manifest.Manifest
	for i := range 20 {
		m, err := manifest.New(fmt.Appendf(nil, `{"mediaType":"x/y","n":%d,"pad":"%s"}`, i, pad))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
		c.put(m)
		c.get(all[0].Digest())
	}
	if c.used > cacheSize || c.get(all[0].Digest()) == nil || c.get(all[1].Digest()) != nil || c.get(all[19].Digest()) == nil {
		t.Errorf("%d bytes of %d manifests", c.used, len(c.items))
	}
	huge, err := manifest.New(append([]byte(`{"mediaType":"x/y"}`), make([]byte, cacheItem)...))
	if err != nil {
		t.Fatal(err)
	}
	if c.put(huge); c.get(huge.Digest()) != nil {
		t.Error("what is huge is kept")
	}
}

func TestMountsAreForgottenInTurn(t *testing.T) {
	m := newMounts()
	base := ref.Ref{Scheme: "reg", Root: "host"}
	first := digest.FromString("first")
	for i := range 5 {
		m.add(base.WithRepo(fmt.Sprint("r", i)), first)
		m.add(base.WithRepo("r4"), first)
	}
	if got := m.find(base.WithRepo("r4"), first); len(got) != mountsEach-1 || got[0].Repo != "r3" {
		t.Errorf("%v", got)
	}
	if got := m.find(ref.Ref{Scheme: "reg", Root: "elsewhere", Repo: "x"}, first); got != nil {
		t.Errorf("another registry: %v", got)
	}
	for i := range mountsKept {
		m.add(base.WithRepo("r"), digest.FromString(fmt.Sprint(i)))
	}
	if len(m.repos) > mountsKept || m.find(base.WithRepo("x"), first) != nil {
		t.Errorf("%d kept", len(m.repos))
	}
}
