package umoci_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/umoci/oci/cas"
	"github.com/opencontainers/umoci/oci/casext"

	"github.com/ocisync/ocisync/interop/umoci"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
)

func TestPutIndexReplaces(t *testing.T) {
	e, dir := create(t)
	a, b := image(t, e, "a"), image(t, e, "b")
	want := topLevel(a, b)
	want.Annotations = map[string]string{"who": "me", "html": "<a&b>"}
	want.ArtifactType, want.Subject = "application/vnd.example", &b
	if err := e.PutIndex(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	for _, from := range []*umoci.Engine{e, open(t, dir)} {
		got, err := from.GetIndex(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.Annotations[umoci.AnnotationState] == "" {
			t.Error("the state is not marked")
		}
		if delete(got.Annotations, umoci.AnnotationState); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if err := e.PutIndex(t.Context(), ispec.Index{Versioned: want.Versioned}); err != nil { // no type, and nil for the list
		t.Fatal(err)
	}
	if got := stored(t, dir); !strings.Contains(got, `"manifests":[]`) || !strings.Contains(got, ispec.MediaTypeImageIndex) || strings.Contains(got, "annotations") {
		t.Errorf("an empty index is stored as %s", got)
	}
}

func TestWhatUmociDoesNotKnowIsKept(t *testing.T) {
	e, dir := create(t)
	a, b := image(t, e, "a"), image(t, e, "b")
	overwrite(t, fmt.Sprintf(`{"schemaVersion": 2, "x-top": {"kept": [1, "<&>"]}, "manifests": [
		{"mediaType": %q, "digest": %q, "size": %d, "x-entry": "kept", "annotations": {"org.opencontainers.image.ref.name": "a"}},
		{"mediaType": %q, "digest": %q, "size": %d, "x-entry": "goes with its tag", "annotations": {"org.opencontainers.image.ref.name": "b"}},
		{"mediaType": "x/y", "digest": %[2]q, "size": 1, "x-entry": "one of two"},
		{"mediaType": "x/y", "digest": %[2]q, "size": 1, "x-entry": "the other"}
	]}`, a.MediaType, a.Digest, a.Size, b.MediaType, b.Digest, b.Size), dir, "index.json")
	if err := casext.NewEngine(e).UpdateReference(t.Context(), "b", a); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Top       any `json:"x-top"`
		Manifests []map[string]any
	}
	if err := json.Unmarshal([]byte(stored(t, dir)), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Top, map[string]any{"kept": []any{1.0, "<&>"}}) {
		t.Errorf("the index's own field is %v", got.Top)
	}
	var fields []any
	for _, e := range got.Manifests {
		fields = append(fields, e["x-entry"])
	}
	if !reflect.DeepEqual(fields, []any{"kept", "one of two", "the other", nil}) {
		t.Errorf("the entries are %v", got.Manifests)
	}
	if !strings.Contains(stored(t, dir), `"<&>"`) {
		t.Error("what was copied is spelled differently")
	}
}

func TestAnIndexThatWasChangedMeanwhileIsNotReplaced(t *testing.T) {
	e, dir := create(t)
	a, b := image(t, e, "a"), image(t, e, "b")
	other := open(t, dir)
	get := func(e *umoci.Engine) ispec.Index {
		t.Helper()
		idx, err := e.GetIndex(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return idx
	}
	first := get(e)
	if err := other.PutIndex(t.Context(), topLevel(a)); err != nil { // it has read nothing: whatever there is
		t.Fatal(err)
	}
	now := stored(t, dir)
	is(t, "from the state before", e.PutIndex(t.Context(), first), cas.ErrClobber)
	get(e) // that e knows the new state by now does not make an index of the old one
	is(t, "from the state before, again", e.PutIndex(t.Context(), first), cas.ErrClobber)
	is(t, "made by hand", other2(t, e, other, dir).PutIndex(t.Context(), topLevel(b)), cas.ErrClobber)
	if got := stored(t, dir); !strings.Contains(got, string(a.Digest)) || strings.Contains(got, string(b.Digest)) && got == now {
		t.Errorf("the index is %s", got)
	}
	second := get(e)
	second.Manifests = append(second.Manifests, b)
	if err := e.PutIndex(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	is(t, "twice from one state", e.PutIndex(t.Context(), second), cas.ErrClobber)
	foreign := get(other)
	if err := e.PutIndex(t.Context(), foreign); err != nil { // another engine's mark says nothing here
		t.Fatal(err)
	}
	stored(t, dir)
}

// other2 lets e read the index, and other change it.
func other2(t *testing.T, e, other *umoci.Engine, dir string) *umoci.Engine {
	t.Helper()
	if _, err := e.GetIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := umoci.Retry(t.Context(), func() error {
		return casext.NewEngine(other).UpdateReference(t.Context(), "moved", ispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString(dir), Size: 1})
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// unsynced opens an image with an API that does not wait for the disk: it makes no difference for who overtakes whom.
func unsynced(t *testing.T, api scheme.API, dir string) *umoci.Engine {
	t.Helper()
	e, err := umoci.Open(t.Context(), api, dirRef(dir))
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, e)
}

// tagAll tags n names at once, each with one of engines, and returns how many were acknowledged.
func tagAll(t *testing.T, engines []*umoci.Engine, n int, retry bool) (acknowledged int) {
	t.Helper()
	desc := image(t, engines[0], "image")
	var ok atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			ext := casext.NewEngine(engines[i%len(engines)])
			update := func() error {
				own := desc
				own.Annotations = nil
				return ext.UpdateReference(t.Context(), fmt.Sprint("tag-", i), own)
			}
			err := update()
			if retry && errors.Is(err, cas.ErrClobber) {
				err = umoci.Retry(t.Context(), update)
			}
			switch {
			case err == nil:
				ok.Add(1)
			case retry || !errors.Is(err, cas.ErrClobber):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return int(ok.Load())
}

// Of 40 references that are updated at once umoci's own engine acknowledges 40 and keeps a few.
func TestNoAcknowledgedReferenceIsLost(t *testing.T) {
	for _, c := range []struct {
		name    string
		engines func(t *testing.T) (all []*umoci.Engine)
	}{
		{"one engine", func(t *testing.T) []*umoci.Engine {
			_, dir := create(t)
			return []*umoci.Engine{unsynced(t, newAPI(t, ocidir.WithDurability(ocidir.None)), dir)}
		}},
		{"engines of one API", func(t *testing.T) (all []*umoci.Engine) {
			_, dir := create(t)
			api := newAPI(t, ocidir.WithDurability(ocidir.None))
			for range 8 {
				all = append(all, unsynced(t, api, dir))
			}
			return all
		}},
		{"APIs of their own", func(t *testing.T) (all []*umoci.Engine) {
			_, dir := create(t)
			for range 8 {
				all = append(all, unsynced(t, newAPI(t, ocidir.WithDurability(ocidir.None)), dir))
			}
			return all
		}},
	} {
		for _, retry := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, retried: %v", c.name, retry), func(t *testing.T) {
				engines := c.engines(t)
				n := tagAll(t, engines, 40, retry)
				refs, err := casext.NewEngine(engines[0]).ListReferences(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(refs) != n || n == 0 || retry && n != 40 {
					t.Errorf("%d updates were acknowledged, %d references are there", n, len(refs))
				}
			})
		}
	}
}

func TestRetryEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := umoci.Retry(ctx, func() error {
		if n++; n == 3 {
			cancel()
		}
		return fmt.Errorf("again: %w", cas.ErrClobber)
	})
	is(t, "retry", err, context.Canceled, cas.ErrClobber)
	boom := errors.New("boom")
	if err := umoci.Retry(t.Context(), func() error { return boom }); err != boom || n != 3 {
		t.Errorf("%v after %d calls", err, n)
	}
}

// The test binary is its own second process: with this set it tags 40 names in the image that it names.
const childEnv = "OCISYNC_INTEROP_UMOCI_DIR"

func child(dir string) {
	if err := childTags(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func childTags(ctx context.Context, dir string) error {
	api := ocidir.New(ocidir.WithDurability(ocidir.None))
	defer api.Close()
	e, err := umoci.Open(ctx, api, dirRef(dir))
	if err != nil {
		return err
	}
	d, size, err := e.PutBlob(ctx, strings.NewReader("what is tagged"))
	if err != nil {
		return err
	}
	for i := range 40 {
		tag := fmt.Sprint("tag-", os.Getpid(), "-", i)
		err := umoci.Retry(ctx, func() error {
			return casext.NewEngine(e).UpdateReference(ctx, tag, ispec.Descriptor{MediaType: "text/plain", Digest: d, Size: size})
		})
		if err != nil {
			return err
		}
		fmt.Println(tag)
	}
	return nil
}

func TestProcessesTagAtOnce(t *testing.T) {
	e, dir := create(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 3 {
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env, cmd.Stderr = append(os.Environ(), childEnv+"="+dir), os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				mu.Lock()
				want = append(want, lines.Text())
				mu.Unlock()
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	refs, err := casext.NewEngine(e).ListReferences(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(refs)
	slices.Sort(want)
	if len(want) != 120 || !slices.Equal(refs, want) {
		t.Errorf("%d tags were acknowledged, %d are there", len(want), len(refs))
	}
}
