package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

func TestABlobThatIsWrongLeavesNothingVisible(t *testing.T) {
	for _, broken := range []error{errs.ErrDigestMismatch, errors.New("boom"), io.EOF} {
		w := newWorld(t)
		img := w.atSource().image([]string{"layer"}, "latest")
		bad := digest.FromString("layer")
		w.src.stream = func(d types.Descriptor) error {
			if d.Digest == bad {
				return broken
			}
			return nil
		}
		rep, err := w.engine.Copy(context.Background(), w.from, w.to, plain)
		if err == nil || broken != io.EOF && !errors.Is(err, broken) || rep.Failed != 1 {
			t.Errorf("%v: %v", broken, err)
		}
		if _, err := w.dst.base.BlobHead(context.Background(), w.to, types.Descriptor{Digest: bad}); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%v: the blob is there: %v", broken, err)
		}
		if w.tag("latest") != "" || w.dst.count("ManifestPut") != 0 || w.src.count("BlobGet "+string(bad)) != 1 {
			t.Errorf("%v: %v", broken, w.dst.seen())
		}
		w.src.stream = nil
		if w.copy(plain); !w.has(img) {
			t.Errorf("%v: not repaired", broken)
		}
	}
}

func TestAStreamThatBrokeIsBegunAgain(t *testing.T) {
	w := newWorld(t)
	layer := strings.Repeat("a layer that is told of more than once", 32<<10)
	img := w.atSource().image([]string{layer}, "latest")
	var tries sync.Map
	w.src.stream = func(d types.Descriptor) error {
		if _, again := tries.LoadOrStore(d.Digest, true); again {
			return nil
		}
		return io.ErrUnexpectedEOF
	}
	sum := int64(0)
	rep := w.copy(engine.Options{NoReferrers: true, Events: func(ev transfer.Event) { sum += ev.Bytes }})
	if rep.Retries != 2 || !w.has(img) || sum != rep.Bytes {
		t.Errorf("%+v, %d bytes told", rep, sum)
	}
	if want := img.Size + int64(len(layer)+len("config of "+layer)); sum != want {
		t.Errorf("bytes that were read twice are told twice: %d, want %d", sum, want)
	}
}

func TestAStreamThatKeepsBreakingIsGivenUp(t *testing.T) {
	w := newWorld(t)
	w.atSource().image([]string{"layer"}, "latest")
	w.src.stream = func(types.Descriptor) error { return io.ErrUnexpectedEOF }
	_, err := w.engine.Copy(context.Background(), w.from, w.to, plain)
	if !errors.Is(err, io.ErrUnexpectedEOF) || w.src.count("BlobGet") != 2*3 {
		t.Errorf("%v, %v", err, w.src.seen())
	}
}

func TestEveryFailureIsReportedAndTheRestIsCopied(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	good := b.image([]string{"shared", "good"}, "good")
	b.image([]string{"shared", "one"}, "bad1")
	b.image([]string{"shared", "two"}, "bad2")
	b.image([]string{"two", "three"}, "bad3")
	for _, lost := range []string{"one", "two"} {
		if err := w.src.base.BlobDelete(context.Background(), w.from, types.Descriptor{Digest: digest.FromString(lost)}); err != nil {
			t.Fatal(err)
		}
	}
	rep, err := w.engine.Copy(context.Background(), w.from, w.to, engine.Options{AllTags: true})
	if rep.Copied != 1 || rep.Failed != 3 || len(rep.Errs()) != 3 || !w.has(good) || w.tag("good") == "" || w.tag("bad1") != "" {
		t.Errorf("%+v", rep)
	}
	if !errors.Is(err, errs.ErrNotFound) || !errors.Is(err, errs.ErrBlobUnknown) {
		t.Errorf("the joined error is none of its parts: %v", err)
	}
	for _, im := range rep.Images {
		lost := map[string]string{"bad1": "one", "bad2": "two", "bad3": "two"}[im.Source[strings.LastIndex(im.Source, ":")+1:]]
		if lost == "" {
			continue
		}
		if im.Outcome != transfer.Error || strings.Count(im.Err.Error(), string(digest.FromString(lost))) != 1 {
			t.Errorf("%s: its own error, once: %v", im.Source, im.Err)
		}
	}
	if w.src.count("BlobGet "+string(digest.FromString("two"))) != 1 {
		t.Error("two images that need one lost blob ask for it once")
	}
}

func TestOneFailureOnTwoWaysIsSaidOnce(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	one, two := b.image([]string{"lost", "one"}), b.image([]string{"lost", "two"})
	b.index([]types.Descriptor{one, two}, "latest")
	lost := types.Descriptor{Digest: digest.FromString("lost")}
	if err := w.src.base.BlobDelete(context.Background(), w.from, lost); err != nil {
		t.Fatal(err)
	}
	if _, err := w.engine.Copy(context.Background(), w.from, w.to, plain); err == nil || strings.Count(err.Error(), string(lost.Digest)) != 1 {
		t.Errorf("%v", err)
	}
}

func TestFiveFailuresAreFiveErrors(t *testing.T) {
	w := newWorld(t)
	w.atSource().image([]string{"1", "2", "3", "4", "5"}, "latest")
	for i := 1; i <= 5; i++ {
		if err := w.src.base.BlobDelete(context.Background(), w.from, types.Descriptor{Digest: digest.FromString(fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.engine.Copy(context.Background(), w.from, w.to, plain)
	for i := 1; i <= 5; i++ {
		if strings.Count(err.Error(), string(digest.FromString(fmt.Sprint(i)))) != 1 {
			t.Errorf("layer %d is not named once in %v", i, err)
		}
	}
}

func TestErrorsOfThePlacesKeepTheirKind(t *testing.T) {
	for _, kind := range []error{errs.ErrUnauthorized, errs.ErrDenied, errs.ErrRateLimited, errs.ErrNoSpace, errs.ErrUnavailable} {
		for _, call := range []string{"ManifestHead", "ManifestGet", "BlobGet", "BlobPut", "ManifestPut", "TagList", "ReferrerList"} {
			for _, side := range []string{"source", "target"} {
				w := newWorld(t)
				w.atSource().image([]string{"layer"}, "latest")
				s := map[string]*spy{"source": w.src, "target": w.dst}[side]
				s.fails(call, kind)
				_, err := w.engine.Copy(context.Background(), w.from, w.to, engine.Options{})
				if asked := s.count(call) > 0; asked != errors.Is(err, kind) {
					t.Errorf("%s of the %s: asked %v, error %v", call, side, asked, err)
				}
			}
		}
	}
}

// TestStoppedAnywhereOnlyCompleteTagsAreThere cancels at every call in turn, on both sides, looks, and finishes.
func TestStoppedAnywhereOnlyCompleteTagsAreThere(t *testing.T) {
	w := newWorld(t)
	b := w.atSource()
	all := map[string]types.Descriptor{}
	for i := range 3 {
		name := fmt.Sprint("t", i)
		img := b.image([]string{"base", "layer of " + name})
		all[name] = b.index([]types.Descriptor{img}, name)
		b.artifact(img, "signature of "+name)
	}
	for k := 1; ; k++ {
		w := w.again(t)
		ctx, cancel := context.WithCancel(context.Background())
		var mu sync.Mutex
		calls := 0
		count := func(string) error {
			mu.Lock()
			defer mu.Unlock()
			if calls++; calls == k {
				cancel()
			}
			return nil
		}
		w.src.incident, w.dst.incident = count, count
		rep, err := w.engine.Copy(ctx, w.from, w.to, engine.Options{AllTags: true})
		cancel()
		reached := calls >= k
		if reached && calls == k && err == nil {
			reached = true // the last call of all was let through
		} else if reached && !errors.Is(err, context.Canceled) {
			t.Fatalf("call %d: %v", k, err)
		}
		for name, d := range all {
			if got := w.tag(name); got != "" && (got != d.Digest || !w.has(d)) {
				t.Fatalf("call %d: tag %s is there, its image is not", k, name)
			}
		}
		if len(rep.Images) != 0 && rep.Copied+rep.Unchanged+rep.Failed != 3 {
			t.Fatalf("call %d: %+v", k, rep)
		}
		w.src.incident, w.dst.incident = nil, nil
		w.copy(engine.Options{AllTags: true})
		for name, d := range all {
			if w.tag(name) != d.Digest || !w.has(d) {
				t.Fatalf("call %d: %s is not finished by another run", k, name)
			}
		}
		if !reached {
			break
		}
	}
}

func TestACancelledRunSaysSoOnce(t *testing.T) {
	w := newWorld(t)
	for i := range 100 {
		w.atSource().image([]string{fmt.Sprint(i)}, fmt.Sprint("t", i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.src.incident = func(call string) error {
		if strings.HasPrefix(call, "BlobGet") {
			cancel()
		}
		return nil
	}
	rep, err := w.engine.Copy(ctx, w.from, w.to, plainAll)
	if !errors.Is(err, context.Canceled) || strings.Count(err.Error(), "canceled") != 1 || len(rep.Errs()) < 50 {
		t.Errorf("%d failures, %v", len(rep.Errs()), err)
	}
}

var plainAll = engine.Options{AllTags: true, NoReferrers: true}

// throttled is a place with slots for its host.
type throttled struct {
	scheme.API
	slots *scheme.Slots

	mu         sync.Mutex
	now, worst int
}

func (t *throttled) Slots(ref.Ref) *scheme.Slots { return t.slots }

func (t *throttled) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, o ...scheme.BlobPutOption) (types.Descriptor, error) {
	t.mu.Lock()
	t.now++
	t.worst = max(t.worst, t.now)
	t.mu.Unlock()
	for range 100 {
		runtime.Gosched() // whoever may come, comes
	}
	defer func() {
		t.mu.Lock()
		t.now--
		t.mu.Unlock()
	}()
	return t.API.BlobPut(ctx, r, d, rdr, o...)
}

func TestAHostsLimitHolds(t *testing.T) {
	w := newWorld(t)
	var layers []string
	for i := range 40 {
		layers = append(layers, fmt.Sprint("layer ", i))
	}
	for i := range 10 {
		w.atSource().image(layers[:i*4+1], fmt.Sprint("t", i))
	}
	dst := &throttled{API: w.dst, slots: scheme.NewSlots("dst", 1)}
	src := &throttled{API: w.src, slots: scheme.NewSlots("src", 1)}
	w.engine = engine.New(scheme.NewMux(map[string]scheme.API{"src": src, "dst": dst}), 8)
	w.copy(plainAll)
	if dst.worst != 1 {
		t.Errorf("%d at once with one slot", dst.worst)
	}
}
