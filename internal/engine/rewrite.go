package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

// rewrites keeps the indexes that a run has made: no place has them yet.
type rewrites struct {
	mu  sync.Mutex // guards all
	all map[digest.Digest]*manifest.Manifest
}

func (w *rewrites) get(d digest.Digest) *manifest.Manifest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all[d]
}

func (w *rewrites) add(m *manifest.Manifest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[digest.Digest]*manifest.Manifest{}
	}
	w.all[m.Digest()] = m
}

// rewrite makes an index that lists only the wanted part of m, and m itself if that is all of it. Every byte stays,
// also of fields that are not known here, but for the entries that go, and those of nested indexes that change.
func (r *run) rewrite(ctx context.Context, m *manifest.Manifest) (*manifest.Manifest, error) {
	return r.rewriteBelow(ctx, m, 0)
}

func (r *run) rewriteBelow(ctx context.Context, m *manifest.Manifest, depth int) (*manifest.Manifest, error) {
	view, err := m.View()
	if err != nil {
		return nil, err
	}
	keep, _, err := r.pick(ctx, view.Manifests, depth)
	if err != nil {
		return nil, err
	}
	before, entries, after, err := splitIndex(m.Raw())
	if err != nil {
		return nil, err
	}
	if len(entries) != len(view.Manifests) {
		return nil, fmt.Errorf("%w: %s: its entries cannot be told apart", errs.ErrManifestInvalid, m.Digest())
	}
	same := len(keep) == len(entries)
	var kept [][]byte
	for _, i := range keep {
		entry, changed, err := r.rewriteEntry(ctx, entries[i], view.Manifests[i], depth+1)
		if err != nil {
			return nil, err
		}
		same = same && !changed
		kept = append(kept, entry)
	}
	if same {
		return m, nil
	}
	raw := bytes.Join([][]byte{before, bytes.Join(kept, []byte(",")), after}, nil)
	made, err := manifest.New(raw, manifest.WithMediaType(m.MediaType()), manifest.WithDigest(m.Digest().Algorithm().FromBytes(raw)))
	if err != nil {
		return nil, err
	}
	r.rewritten.add(made)
	return made, nil
}

// rewriteEntry returns an entry with the digest and size of the nested index that was made of d.
func (r *run) rewriteEntry(ctx context.Context, entry []byte, d types.Descriptor, depth int) (raw []byte, changed bool, err error) {
	if !types.IsIndex(d.MediaType) || hasPlatform(d) {
		return entry, false, nil
	}
	made, err := r.reduce(ctx, d, depth)
	if err != nil || made == nil {
		return entry, false, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(entry, &fields); err != nil {
		return nil, false, err
	}
	delete(fields, "data") // the old index, word for word
	fields["digest"], _ = json.Marshal(made.Digest())
	fields["size"], _ = json.Marshal(made.Descriptor().Size)
	raw, err = json.Marshal(fields)
	return raw, true, err
}

// reduce makes an index of the wanted part of the nested index d, once in a run: see pickNested. It is nil if that is
// all of d.
func (r *run) reduce(ctx context.Context, d types.Descriptor, depth int) (*manifest.Manifest, error) {
	if made, done := r.reduced.Load(d.Digest); done {
		return made.(*manifest.Manifest), nil
	}
	old, err := r.fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	made, err := r.rewriteBelow(ctx, old, depth)
	if err != nil {
		return nil, err
	}
	if made.Digest() == d.Digest {
		made = nil
	}
	r.reduced.Store(d.Digest, made)
	return made, nil
}

// splitIndex cuts the JSON of an index into its entries and what stands before and after them.
func splitIndex(raw []byte) (before []byte, entries [][]byte, after []byte, err error) {
	bad := func(why string) ([]byte, [][]byte, []byte, error) {
		return nil, nil, nil, fmt.Errorf("%w: the index cannot be rewritten: %s", errs.ErrManifestInvalid, why)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return bad("it is no object")
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return bad(err.Error())
		}
		start := dec.InputOffset()
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return bad(err.Error())
		}
		name, _ := t.(string)
		if !strings.EqualFold(name, "manifests") { // Go's decoder takes any case: so must whoever looks for rivals
			continue
		}
		if name != "manifests" || before != nil {
			return bad("it has several lists of manifests")
		}
		var list []json.RawMessage
		if err := json.Unmarshal(value, &list); err != nil {
			return bad(err.Error())
		}
		open := start + int64(bytes.IndexByte(raw[start:], '['))
		before, after = raw[:open+1], raw[dec.InputOffset()-1:]
		for _, e := range list {
			entries = append(entries, e)
		}
	}
	if before == nil {
		return bad("it has no list of manifests")
	}
	return before, entries, after, nil
}
