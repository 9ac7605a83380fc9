package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mattn/go-runewidth"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/transfer"
)

// aCopy is what a copy of two images says, one second an event: the first has a layer that breaks once, the second
// fails.
func aCopy() []transfer.Event {
	layer := types.Descriptor{MediaType: "application/x-layer", Digest: digest.FromString("layer"), Size: 4_000_000}
	config := types.Descriptor{MediaType: "application/x-config", Digest: digest.FromString("config"), Size: 500}
	image := types.Descriptor{MediaType: types.MediaTypeImageManifest, Digest: digest.FromString("image"), Size: 700}
	src, dst := "reg.lan/app:1", "ocidir://m:1"
	events := []transfer.Event{
		{Kind: transfer.ImageStarted, Source: src, Target: dst},
		{Kind: transfer.Planned, Source: src, Target: dst, Descriptor: layer},
		{Kind: transfer.Present, Source: src, Target: dst, Descriptor: config},
		{Kind: transfer.Started, Source: src, Target: dst, Descriptor: layer},
		{Kind: transfer.Bytes, Source: src, Target: dst, Descriptor: layer, Bytes: 1_000_000},
		{Kind: transfer.Retried, Source: src, Target: dst, Descriptor: layer, Err: errors.New("connection reset")},
		{Kind: transfer.Bytes, Source: src, Target: dst, Descriptor: layer, Bytes: 1_500_000},
		{Kind: transfer.Bytes, Source: src, Target: dst, Descriptor: layer, Bytes: 1_500_000},
		{Kind: transfer.Moved, Source: src, Target: dst, Descriptor: layer},
		{Kind: transfer.ImageDone, Source: src, Target: dst, Descriptor: image, Outcome: transfer.Copied},
		{Kind: transfer.ImageStarted, Source: "reg.lan/app:2", Target: "ocidir://m:2"},
		{Kind: transfer.ImageDone, Source: "reg.lan/app:2", Target: "ocidir://m:2", Outcome: transfer.Error, Err: errors.New("denied \x1b[31m")},
	}
	for i := range events {
		events[i].Time = time.Date(2026, 1, 2, 3, 4, 5+i, 0, time.UTC)
	}
	return events
}

func TestPlainViewTellsEachImageAndFromTimeToTimeTheWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		v := newPlainView(&console{w: &out}, time.Now, summaryInterval)
		events := aCopy()
		for _, e := range events[:5] {
			e.Time = time.Now()
			v.event(e)
			time.Sleep(time.Second)
		}
		time.Sleep(summaryInterval - 5*time.Second)
		synctest.Wait()
		for _, e := range events[5:] {
			v.event(e)
		}
		v.close()
		want := "0 images done · 1 running · 1.0 MB of 4.0 MB · 30.0 s\n" +
			"copied     reg.lan/app:1 → ./m:1  sha256:6105d6cc76af\n" +
			"failed     reg.lan/app:2 → ./m:2\n"
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestJSONViewIsStable(t *testing.T) {
	var out bytes.Buffer
	v := newJSONView(&console{w: &out})
	for _, e := range aCopy() {
		v.event(e)
	}
	v.close()
	golden(t, "progress.jsonl", out.Bytes())
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

func TestJSONViewAddsUpBytesAndLosesNone(t *testing.T) {
	var out bytes.Buffer
	v := newJSONView(&console{w: &out})
	start, layer := time.Now(), types.Descriptor{Digest: digest.FromString("layer"), Size: 1000}
	for i := range 1000 {
		v.event(transfer.Event{Kind: transfer.Bytes, Time: start.Add(time.Duration(i) * time.Millisecond), Descriptor: layer, Bytes: 1})
	}
	v.event(transfer.Event{Kind: transfer.Moved, Time: start.Add(time.Second), Descriptor: layer})
	v.close()
	var sum int64
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, line := range lines {
		var e jsonEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		sum += e.Bytes
	}
	if sum != 1000 {
		t.Errorf("the lines tell of %d bytes, want 1000", sum)
	}
	if len(lines) > 7 {
		t.Errorf("%d lines for one second of one blob", len(lines))
	}
	if !strings.Contains(lines[len(lines)-1], `"event":"moved"`) {
		t.Errorf("the last line is %s", lines[len(lines)-1])
	}
}

func TestActiveLinesAreFewAndFitTheTerminal(t *testing.T) {
	tl := newTally(time.Now())
	for i := range maxActive + 3 {
		d := types.Descriptor{Digest: digest.FromString(fmt.Sprint(i)), Size: 1 << 40}
		tl.add(transfer.Event{Kind: transfer.Started, Source: "ocidir:///" + strings.Repeat("画像/", 30) + ":1", Descriptor: d})
		tl.add(transfer.Event{Kind: transfer.Bytes, Descriptor: d, Bytes: 1 << 39, Time: time.Now()})
	}
	for _, width := range []int{0, 1, 20, 80, 300} {
		lines := activeLines(tl, width)
		if len(lines) != maxActive+1 {
			t.Fatalf("%d lines", len(lines))
		}
		for _, line := range lines {
			if w := runewidth.StringWidth(line); w > max(width-1, 0) {
				t.Errorf("width %d: a line of %d columns: %s", width, w, line)
			}
		}
	}
	if last := activeLines(tl, 80)[maxActive]; last != "  and 3 more" {
		t.Errorf("last line %q", last)
	}
}

func TestTTYViewLeavesTheFinishedImagesAndNoMovingLine(t *testing.T) {
	defer goleak.VerifyNone(t)
	var out bytes.Buffer
	c := &console{w: &out}
	v := newTTYView(c)
	for _, e := range aCopy() {
		v.event(e)
	}
	c.printf("a log line\n")
	v.close()
	c.printf("after\n")
	for _, want := range []string{"copied     reg.lan/app:1 → ./m:1", "failed     reg.lan/app:2", "a log line", "after"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the terminal lacks %q:\n%q", want, out.String())
		}
	}
	if !strings.HasSuffix(out.String(), "after\n") {
		t.Errorf("the view drew after it was closed: %q", out.String())
	}
}

func TestTallyCountsWhatMovesAndForgetsWhatHasMoved(t *testing.T) {
	events := aCopy()
	tl := newTally(events[0].Time)
	for i, e := range events {
		tl.add(e)
		if want := map[bool]int{true: 1}[i >= 3 && i < 8]; len(tl.active) != want {
			t.Errorf("after event %d: %d active, want %d", i, len(tl.active), want)
		}
	}
	got := tl.total(events[9].Time)
	if want := "2 images done · 1 failed · 4.0 MB · 1 retry · 800.0 kB/s · 9.0 s"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(tl.byID) != 0 {
		t.Errorf("%d items are remembered", len(tl.byID))
	}
}

func TestAFailuresReasonIsNotAControlSequence(t *testing.T) {
	for in, want := range map[string]string{
		"a\x1b[31mred": "a�[31mred", "two\nlines": "two lines", "ok ä 画": "ok ä 画", "\u202eevil": "�evil", "c1\u009b": "c1�",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestSizesAndTimesAreForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 45_200_000: "45.2 MB", 5_000_000_000: "5.0 GB", 1 << 62: "4.6 EB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0.0 s", 3120 * time.Millisecond: "3.1 s", 245 * time.Second: "4m05s", 192 * time.Minute: "3h12m"} {
		if got := elapsed(d); got != want {
			t.Errorf("elapsed(%s) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int]string{0: "0 blobs", 1: "1 blob", 2: "2 blobs"} {
		if got := count(n, "blob"); got != want {
			t.Errorf("count(%d) = %s, want %s", n, got, want)
		}
	}
}

// golden compares got with a file in testdata, or with UPDATE=1 writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("UPDATE") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (UPDATE=1 go test writes it anew):\n%s", file, diff)
	}
}
