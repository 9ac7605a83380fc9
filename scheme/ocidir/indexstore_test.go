package ocidir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

func getIndex(t *testing.T, o *OCIDir, r ref.Ref) []byte {
	t.Helper()
	raw, err := o.IndexGet(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestIndexIsStoredByteByByte(t *testing.T) {
	o, r := open(t), place(t.TempDir()+"/new")
	if _, err := o.IndexGet(t.Context(), r); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("no layout: got %v", err)
	}
	next := []byte("\n{ \"unknown\" : [ 1.50, {\"é\":\"\\u00e9\"} ],\"schemaVersion\":2,\r\n\"manifests\" : [ " +
		entryJSON("a", "v1") + " ,\n\n\t" + entryJSON("b", "v2") + "," + entryJSON("c", "") + "\n], \"z\":null }\n\n")
	if err := o.IndexPut(t.Context(), r, next, next); !errors.Is(err, errs.ErrConflict) {
		t.Errorf("compared with a layout that is not there: got %v", err)
	}
	if _, err := os.Stat(r.Root); err == nil {
		t.Error("a put that lost made a directory")
	}
	if err := o.IndexPut(t.Context(), r, nil, next); err != nil {
		t.Fatal(err)
	}
	for who, api := range map[string]*OCIDir{"who put it": o, "another": open(t)} {
		if got := getIndex(t, api, r); !bytes.Equal(got, next) {
			t.Errorf("%s reads %q, want %q", who, got, next)
		}
		l, err := api.TagList(t.Context(), r)
		if err != nil || !slices.Equal(l.Tags, []string{"v1", "v2"}) {
			t.Errorf("%s lists %q, %v", who, l.Tags, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(r.Root, indexName)); err != nil || !bytes.Equal(got, next) {
		t.Errorf("the file is %q, %v", got, err)
	}
	if err := o.IndexPut(t.Context(), r, next[1:], []byte(emptyIndex)); !errors.Is(err, errs.ErrConflict) {
		t.Errorf("compared with another index: got %v", err)
	}
	if err := o.IndexPut(t.Context(), r, []byte{}, []byte(emptyIndex)); !errors.Is(err, errs.ErrConflict) {
		t.Errorf("compared with nothing: got %v", err)
	}
	if err := schemetest.Image("image").Push(t.Context(), o, r.WithTag("v3")); err != nil {
		t.Fatal(err)
	}
	if got := getIndex(t, o, r); !bytes.Contains(got, []byte(`"unknown" : [ 1.50, {"é":"\u00e9"} ]`)) || !bytes.Contains(got, []byte(`"z":null }`)) {
		t.Errorf("a tag lost unknown fields: %s", got)
	}
	if err := o.IndexPut(t.Context(), r, getIndex(t, o, r), next); err != nil {
		t.Errorf("compared with what is there: %v", err)
	}
	if _, err := o.ManifestHead(t.Context(), r.WithTag("v3")); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("a tag of the former index: %v", err)
	}
}

func TestDocumentsThatAreNoIndexAreRefused(t *testing.T) {
	o, r := open(t), place(t.TempDir()+"/new")
	bad := map[string]string{
		"nothing":          "",
		"no JSON":          "{",
		"no object":        `[]`,
		"no manifests":     `{"schemaVersion":2}`,
		"another version":  `{"schemaVersion":1,"manifests":[]}`,
		"a manifest":       `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}`,
		"a type that is 7": `{"schemaVersion":2,"mediaType":7,"manifests":[]}`,
		"two documents":    emptyIndex + emptyIndex,
		"manifests twice":  `{"manifests":[],"manifests":[]}`,
	}
	for name, raw := range bad {
		if err := o.IndexPut(t.Context(), r, nil, []byte(raw)); !errors.Is(err, errs.ErrInvalid) || !strings.Contains(err.Error(), "no image index") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := os.Stat(r.Root); err == nil {
		t.Error("a refused index made a directory")
	}
	// what another tool wrote may be kept, and not be added
	putBlob(t, o, r, []byte("first"))
	odd := `{"mediaType":"a/b","digest":"md5:0","size":1}`
	if err := os.WriteFile(filepath.Join(r.Root, indexName), []byte(indexJSON(odd)), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := o.IndexPut(t.Context(), r, nil, []byte(indexJSON(entryJSON("a", "v1"), odd))); err != nil {
		t.Error(err)
	}
	if err := o.IndexPut(t.Context(), r, nil, []byte(indexJSON(odd, odd))); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("an entry without a digest was added: %v", err)
	}
}

// A damaged index.json is not replaced, whatever one compares with: somebody may still rescue it.
func TestIndexPutLeavesADamagedIndexAsItIs(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	putBlob(t, o, r, []byte("blob"))
	damaged := []byte(`{"manifests":[{`)
	if err := os.WriteFile(filepath.Join(r.Root, indexName), damaged, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, old := range [][]byte{nil, damaged} {
		if err := o.IndexPut(t.Context(), r, old, []byte(emptyIndex)); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("got %v", err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(r.Root, indexName)); err != nil || !bytes.Equal(got, damaged) {
		t.Errorf("it is now %q, %v", got, err)
	}
}

// What an index names and reaches is durable before it, whoever wrote it.
func TestIndexPutSyncsWhatItReaches(t *testing.T) {
	for name, images := range map[string]int{"few": 1, "many": manyFiles} {
		t.Run(name, func(t *testing.T) {
			s := &steps{}
			o, r := open(t, withHook(s.hook)), place(t.TempDir())
			putBlob(t, o, r, []byte("first"))
			other := open(t, WithDurability(None))
			var entries []string
			var files []string
			for i := range images {
				it := schemetest.Image(fmt.Sprint("image", i))
				if err := it.Push(t.Context(), other, r.WithTag(fmt.Sprint("v", i))); err != nil {
					t.Fatal(err)
				}
				v, err := it.Manifest.View()
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range append(v.Children(), it.Descriptor()) {
					path, err := blobPath(d.Digest)
					if err != nil {
						t.Fatal(err)
					}
					files = append(files, path)
				}
				d := it.Descriptor()
				entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, d.MediaType, d.Digest, d.Size))
			}
			entries = append(entries, entryJSON("not there", ""))
			s.set(nil)
			if err := o.IndexPut(t.Context(), r, nil, []byte(indexJSON(entries...))); err != nil {
				t.Fatal(err)
			}
			steps := s.seen[:slices.Index(s.seen, stepRename+" "+indexName)+1]
			if images >= manyFiles && canSyncFS {
				files = []string{"."}
				steps = slices.DeleteFunc(steps, func(s string) bool { return !strings.HasPrefix(s, stepSyncFS) })
			}
			for _, f := range files {
				if !slices.ContainsFunc(steps, func(s string) bool { return strings.HasSuffix(s, " "+f) }) {
					t.Errorf("%s was not synced before the index: %q", f, s.seen)
				}
			}
		})
	}
}

// checked is an index whose unknown field is the sum of all of it but that field.
func checked(entries []string) []byte {
	body := indexJSON(entries...)
	return []byte(strings.Replace(body, "{", fmt.Sprintf(`{"sum":"%x",`, sha256.Sum256([]byte(body))), 1))
}

func isChecked(raw []byte) bool {
	head, rest, ok := bytes.Cut(raw, []byte(`",`))
	sum := sha256.Sum256(append([]byte("{"), rest...))
	return ok && string(head) == fmt.Sprintf(`{"sum":"%x`, sum)
}

// childIndex adds n entries to an index by comparing and swapping, one by one; with a negative n it reads the index -n
// times, and checks that it is whole. Args are directory, name and n.
func childIndex(args []string) error {
	ctx := context.Background()
	o, r := New(), place(args[0])
	defer o.Close()
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	for i := range -n {
		if raw, err := o.IndexGet(ctx, r); err != nil || !isChecked(raw) {
			return fmt.Errorf("read %d is %.200q, %v", i, raw, err)
		}
	}
	for i := 0; i < n; {
		old, err := o.IndexGet(ctx, r)
		if err != nil {
			return err
		}
		_, list, _ := bytes.Cut(old, []byte(`"manifests":[`))
		list, _, _ = bytes.Cut(list, []byte(`]`))
		entries := []string{entryJSON("content", fmt.Sprint(args[1], "-", i))}
		if len(list) > 0 {
			entries = append(entries, string(list))
		}
		switch err := o.IndexPut(ctx, r, old, checked(entries)); {
		case err == nil:
			i++
		case !errors.Is(err, errs.ErrConflict):
			return err
		}
	}
	return nil
}

func TestIndexIsSwappedBetweenProcesses(t *testing.T) {
	const each = 20
	r := place(t.TempDir())
	if err := open(t).IndexPut(t.Context(), r, nil, checked(nil)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for p := range 5 {
		wg.Go(func() {
			n := each
			if p < 2 {
				n = -2000
			}
			if err := startAs(t, "index", r.Root, fmt.Sprint("p", p), fmt.Sprint(n)).Run(); err != nil {
				t.Errorf("process %d: %v", p, err)
			}
		})
	}
	for g := range 4 {
		wg.Go(func() {
			if err := childIndex([]string{r.Root, fmt.Sprint("g", g), fmt.Sprint(each)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	l, err := open(t).TagList(t.Context(), r)
	if err != nil || len(l.Tags) != 7*each {
		t.Errorf("%d of %d changes are there, %v", len(l.Tags), 7*each, err)
	}
}

func TestIndexPutKilledAtEveryStep(t *testing.T) {
	before, after := []byte(indexJSON(entryJSON("a", "v1"))), []byte(indexJSON(entryJSON("b", "v2")))
	for n := int64(0); ; n++ {
		r := place(t.TempDir())
		if err := open(t).IndexPut(t.Context(), r, nil, before); err != nil {
			t.Fatal(err)
		}
		h, taken := crash(n)
		o := New(withHook(h))
		err := o.IndexPut(t.Context(), r, before, after)
		o.Close()
		if taken.Load() <= n {
			if err != nil || n < 5 {
				t.Fatalf("after %d steps: %v", n, err)
			}
			return
		}
		if err == nil {
			t.Fatalf("killed at step %d, acknowledged all the same", n)
		}
		got := getIndex(t, open(t), r)
		if !bytes.Equal(got, before) && !bytes.Equal(got, after) {
			t.Errorf("killed at step %d: the index is %s", n, got)
		}
		if err := open(t).IndexPut(t.Context(), r, got, after); err != nil {
			t.Errorf("killed at step %d; the next swap: %v", n, err)
		}
	}
}

// What an IndexPut drops is gone on purpose; what it names and another tool then drops is missed.
func TestWhatAnIndexPutDropsIsNotMissed(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	missed := func(who *OCIDir) (tags []string) {
		t.Helper()
		l, end, err := who.begin(t.Context(), "test", r)
		if err != nil {
			t.Fatal(err)
		}
		defer end()
		all, err := l.vanished(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			tags = append(tags, v.tag)
		}
		slices.Sort(tags)
		return tags
	}
	for _, tag := range []string{"v1", "v2"} {
		if err := schemetest.Image(tag).Push(t.Context(), o, r.WithTag(tag)); err != nil {
			t.Fatal(err)
		}
	}
	entries := []string{entryJSON("c", "v3"), entryJSON("d", "v4")}
	if err := o.IndexPut(t.Context(), r, nil, []byte(indexJSON(entries...))); err != nil {
		t.Fatal(err)
	}
	for _, who := range []*OCIDir{o, open(t)} {
		if got := missed(who); len(got) > 0 {
			t.Errorf("dropped on purpose, and missed: %q", got)
		}
	}
	if err := os.WriteFile(filepath.Join(r.Root, indexName), []byte(indexJSON(entries[0])), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, who := range []*OCIDir{o, open(t)} {
		if got := missed(who); !slices.Equal(got, []string{"v4"}) {
			t.Errorf("missed are %q, want v4", got)
		}
	}
}
