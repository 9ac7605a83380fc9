package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
)

func TestFlushMakesAnOpenIngestDurable(t *testing.T) {
	for name, c := range map[string]struct {
		level Durability
		want  bool
	}{"full": {Full, true}, "commit": {Commit, true}, "none": {None, false}} {
		t.Run(name, func(t *testing.T) {
			s := &steps{}
			o, r := open(t, withHook(s.hook), WithDurability(c.level)), place(t.TempDir())
			up, err := o.Ingest(t.Context(), r, "key")
			if err != nil {
				t.Fatal(err)
			}
			flush := up.(scheme.Flusher).Flush
			for _, part := range []string{"first ", "second"} {
				if _, err := fmt.Fprint(up, part); err != nil {
					t.Fatal(err)
				}
				s.set(nil)
				if err := flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				data, way := false, false
				for _, step := range s.seen {
					data = data || strings.HasPrefix(step, stepSync+" ") && strings.HasSuffix(step, "/"+ingestData)
					way = way || step == stepSyncDir+" ."
				}
				if data != c.want || way != c.want {
					t.Errorf("after %q the steps are %q", part, s.seen)
				}
			}
			boom := errors.New("boom")
			s.set(func(step, _ string) error {
				if step == stepSync {
					return boom
				}
				return nil
			})
			if err := flush(t.Context()); errors.Is(err, boom) != c.want {
				t.Errorf("a sync that fails: %v", err)
			}
			s.set(nil)
			if _, err := up.Commit(t.Context(), types.Descriptor{Digest: digest.FromString("first second"), Size: 12}, nil); err != nil {
				t.Fatal(err)
			}
			if err := flush(t.Context()); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("of what is committed: %v", err)
			}
		})
	}
}

func TestFlushEndsWithItsContext(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	up, err := o.Ingest(t.Context(), r, "key")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := up.(scheme.Flusher).Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("flush: %v", err)
	}
	if err := up.Close(); err != nil {
		t.Error(err)
	}
}
