package ocidir

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
)

func TestIndexRestore(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"garbage": func(path string) error { return os.WriteFile(path, []byte(`{"schemaVersion":2,`), 0o644) },
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"missing": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			r := place(t.TempDir())
			o := open(t)
			for _, tag := range []string{"b", "a", "gone", "c"} {
				must(t, schemetest.Image(tag).Push(t.Context(), o, r.WithTag(tag)))
			}
			must(t, o.TagDelete(t.Context(), r.WithTag("gone")))
			must(t, schemetest.Image("a2").Push(t.Context(), o, r.WithTag("a")))
			before, err := os.ReadFile(filepath.Join(r.Root, indexName))
			must(t, err)
			must(t, spoil(filepath.Join(r.Root, indexName)))
			spoiled, rerr := os.ReadFile(filepath.Join(r.Root, indexName))

			all, _ := check(t, open(t), r)
			if len(all) != 1 || all[0].Kind != scheme.ProblemIndex || errs.Hint(all[0].Err) == "" {
				t.Errorf("check: %v, want the index, with a hint", all)
			}
			o = open(t)
			done, err := o.IndexRestore(t.Context(), r)
			if err != nil || !done.Index || done.Marker || done.Entries != 5 {
				t.Fatalf("%+v, %v", done, err)
			}
			var was, is any
			must(t, json.Unmarshal(before, &was))
			after, err := os.ReadFile(filepath.Join(r.Root, indexName))
			must(t, err)
			must(t, json.Unmarshal(after, &is))
			if diff := cmp.Diff(entriesOf(was), entriesOf(is)); diff != "" {
				t.Errorf("index.json (-before +restored):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"a", "b", "c"}, tagsOf(t, o, r)); diff != "" {
				t.Errorf("tags (-want +got):\n%s", diff)
			}
			if rerr == nil {
				if kept, err := os.ReadFile(done.Kept); err != nil || string(kept) != string(spoiled) {
					t.Errorf("the unusable file was not kept: %q, %v", kept, err)
				}
			}
			must(t, schemetest.Image("next").Push(t.Context(), open(t), r.WithTag("next")))
			if all, _ := check(t, open(t), r); len(all) > 1 { // what was kept is a note
				t.Errorf("afterwards: %v", all)
			}
			if again, err := open(t).IndexRestore(t.Context(), r); err != nil || again.Index {
				t.Errorf("of an index that can be used: %+v, %v", again, err)
			}
		})
	}
}

func entriesOf(doc any) map[string]any {
	all := map[string]any{}
	for _, e := range doc.(map[string]any)["manifests"].([]any) {
		m := e.(map[string]any)
		name := ""
		if notes, ok := m["annotations"].(map[string]any); ok {
			name = notes["org.opencontainers.image.ref.name"].(string)
		}
		all[m["digest"].(string)+" "+name] = e
	}
	return all
}

func TestIndexRestoreOfTheMarker(t *testing.T) {
	r := place(t.TempDir())
	must(t, schemetest.Image("a").Push(t.Context(), open(t), r.WithTag("a")))
	path := filepath.Join(r.Root, markerName)
	must(t, os.WriteFile(path, []byte("{"), 0o644))
	o := open(t)
	if done, err := o.IndexRestore(t.Context(), r); err != nil || !done.Marker || done.Index {
		t.Errorf("%+v, %v", done, err)
	}
	tagsOf(t, o, r)
	must(t, os.WriteFile(path, []byte(`{"imageLayoutVersion":"9.0.0"}`), 0o644))
	if _, err := open(t).IndexRestore(t.Context(), r); !errors.Is(err, errs.ErrUnsupported) {
		t.Errorf("of another version: %v", err)
	}
}

func TestIndexRestoreWithoutMemory(t *testing.T) {
	r := place(t.TempDir())
	must(t, schemetest.Image("a").Push(t.Context(), open(t), r.WithTag("a")))
	must(t, errors.Join(os.RemoveAll(filepath.Join(r.Root, stateDir)), os.WriteFile(filepath.Join(r.Root, indexName), []byte("x"), 0o644)))
	if _, err := open(t).IndexRestore(t.Context(), r); !errors.Is(err, errs.ErrNotFound) || errs.Hint(err) == "" {
		t.Errorf("got %v, want ErrNotFound with a hint", err)
	}
	if got, err := os.ReadFile(filepath.Join(r.Root, indexName)); err != nil || string(got) != "x" {
		t.Errorf("index.json is %q, %v", got, err)
	}
	if _, err := open(t).IndexRestore(t.Context(), place(t.TempDir())); !errors.Is(err, errs.ErrNameUnknown) {
		t.Errorf("of no layout: %v", err)
	}
}

// Who has the lock may have been stopped: the one who restores waits no longer than he wants to.
func TestIndexRestoreWaitsAsLongAsTheContext(t *testing.T) {
	r := place(t.TempDir())
	push(t, open(t), r.WithTag("a"), schemetest.Opaque("a"))
	f, err := os.OpenFile(filepath.Join(r.Root, lockName), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, lockFile(f, true))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	o, done := open(t), make(chan error, 1)
	go func() { _, err := o.IndexRestore(ctx, r); done <- err }()
	select {
	case err := <-done:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits on")
	}
}
