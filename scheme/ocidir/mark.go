package ocidir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

// marker finds what is needed: what the entries of an index reach, by way of manifests and subjects. Each document is read
// once for each nature in which it is listed, so that the work is bounded by what is there, however it is entangled.
// It knows digests by their leaseKey, 16 bytes each: two with one key would keep each other, which does no harm.
type marker struct {
	l    *layout
	need map[leaseKey]struct{}
	seen map[visit]struct{}
	todo []target
	lost map[digest.Digest]error // what was listed as a manifest and is not there: it reaches nothing that we know
	late map[visit]target        // the same, to be looked for again
	last *index                  // all its entries were walked
	done map[*entry]struct{}     // entries that were walked: successive indexes share most of them
	// onNeed is called for everything that is found to be needed, once; nil when nobody wants to know.
	onNeed func(d digest.Digest)
}

// target is content that something names.
type target struct {
	digest    digest.Digest
	mediaType string
	content   bool          // it is named as config or layer: then only a manifest's media type makes it more than bytes
	index     digest.Digest // that lists it as a manifest; empty when something else names it
}

// nature is as what a document is read.
type nature uint8

const (
	natureBytes  nature = iota // its content says nothing
	natureImage                // an image or artifact
	natureIndex                // a list of manifests
	natureOpaque               // a document that is not understood: every digest in it may be something that it needs
)

type visit struct {
	key leaseKey
	as  nature
}

func newMarker(l *layout) *marker {
	return &marker{l: l, need: map[leaseKey]struct{}{}, seen: map[visit]struct{}{}, lost: map[digest.Digest]error{}, late: map[visit]target{}, done: map[*entry]struct{}{}}
}

func (t target) nature() nature {
	switch {
	case types.IsImage(t.mediaType):
		return natureImage
	case types.IsIndex(t.mediaType):
		return natureIndex
	case t.content:
		return natureBytes
	}
	return natureOpaque
}

// has reports whether d is needed.
func (m *marker) has(d digest.Digest) bool {
	_, ok := m.need[keyOf(d)]
	return ok
}

// entries walks all entries of ix but those that skip names. What was walked before costs nothing. An entry whose
// manifest is not there, or cannot be read, is an error while it is listed: what it needs is not known.
func (m *marker) entries(ctx context.Context, ix *index, skip func(*entry) bool) error {
	if ix == m.last {
		return nil
	}
	for _, e := range ix.entries {
		if _, done := m.done[e]; done {
			continue
		}
		if e.digest == "" {
			return m.l.undecided(&errs.Error{
				Op: "read", Ref: m.l.file(indexName), Err: errs.ErrCorrupt,
				Message: "it has an entry whose digest cannot be verified: what that needs is not known",
				Hint:    "ocisync verify DIRECTORY says which entry that is; remove it with the program that made it",
			})
		}
		if skip != nil && skip(e) {
			continue
		}
		if err := m.walk(ctx, target{digest: e.digest, mediaType: e.mediaType}); err != nil {
			return err
		}
		if why := m.lost[e.digest]; why != nil {
			now, err := m.l.current(ctx)
			if err != nil {
				return err
			}
			if _, listed := now.ix.digests.get(e.digest); listed {
				return m.l.undecided(m.l.lost(e.digest, why))
			}
			delete(m.lost, e.digest) // it was deleted meanwhile
			continue
		}
		m.done[e] = struct{}{}
	}
	m.last = ix
	return nil
}

// undecided is the error for a file that decides what is needed and cannot be read.
func (l *layout) undecided(why error) error {
	return fmt.Errorf("nothing more is removed, as this file decides what is garbage: %w", why)
}

// walk marks everything that t reaches. What is not there is passed over.
func (m *marker) walk(ctx context.Context, t target) error {
	m.todo = append(m.todo[:0], t)
	for len(m.todo) > 0 {
		t := m.todo[len(m.todo)-1]
		m.todo = m.todo[:len(m.todo)-1]
		key := keyOf(t.digest)
		if _, known := m.need[key]; !known {
			m.need[key] = struct{}{}
			if m.onNeed != nil {
				m.onNeed(t.digest)
			}
		}
		v := visit{key, t.nature()}
		if _, seen := m.seen[v]; seen || v.as == natureBytes {
			continue
		}
		out, _, err := m.l.expand(ctx, t)
		if errors.Is(err, errs.ErrNotFound) {
			m.lost[t.digest], m.late[v] = err, t
			continue // it may come back as another file
		}
		if err != nil {
			return m.l.undecided(err)
		}
		delete(m.lost, t.digest)
		delete(m.late, v)
		m.seen[v] = struct{}{}
		m.todo = append(m.todo, out...)
	}
	return nil
}

// again walks what was listed and not there, and is by now: a manifest that an index lists may be put without that the
// index changes.
func (m *marker) again(ctx context.Context) error {
	for _, t := range m.late {
		there, err := m.l.isThere(t.digest)
		if err == nil && there {
			err = m.walk(ctx, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// expand reads what a document names, and of that the subject apart (it is in out as well). A document that is not what
// it is listed as, or of a type that is not understood, names every digest in it.
func (l *layout) expand(ctx context.Context, t target) (out []target, subject digest.Digest, err error) {
	if t.nature() == natureOpaque {
		ok, err := l.isDocument(t.digest)
		if errors.Is(err, errs.ErrNotFound) {
			err = l.absentFor(t, err)
		}
		if err != nil || !ok {
			return nil, "", err
		}
	}
	m, err := l.readManifest(ctx, t.digest, t.mediaType)
	if errors.Is(err, errs.ErrNotFound) && !errors.Is(err, errs.ErrDigestMismatch) {
		return nil, "", l.absentFor(t, err)
	}
	if err != nil {
		return nil, "", l.lost(t.digest, err)
	}
	v, err := m.View()
	if errors.Is(err, errs.ErrDigestInvalid) {
		return nil, "", l.lost(t.digest, fmt.Errorf("%w: %w", errs.ErrCorrupt, err))
	}
	if err != nil || !v.Known {
		return mentioned(m.Raw()), "", nil
	}
	out = contents(t.digest, v)
	if v.Subject != nil {
		subject = v.Subject.Digest
	}
	return out, subject, nil
}

// absentFor says why a manifest is not there. An index may list what was never copied, or was deleted. But one that was
// there when the index was put, or is in the quarantine, is lost, and what it needs must wait for its copy.
func (l *layout) absentFor(t target, why error) error {
	all, err := l.vol.quarantined()
	if err != nil {
		return err
	}
	for _, k := range all {
		if d, ok := quarantinedDigest(path.Base(k.name)); ok && d == t.digest {
			return l.damaged(k.name, "it is "+string(d)+", which is needed")
		}
	}
	if t.index == "" {
		return why
	}
	noted, err := l.children(t.index)
	if err != nil {
		return err
	}
	if slices.Contains(noted, t.digest) {
		name, err := blobPath(t.digest)
		if err != nil {
			return err
		}
		return &errs.Error{
			Op: "read", Ref: l.file(name), Err: fmt.Errorf("%w: the file is not there, and was when %s was put, which lists it", errs.ErrCorrupt, t.index),
			Hint: healHint,
		}
	}
	return why
}

// contents lists what an understood manifest names.
func contents(d digest.Digest, v *manifest.View) []target {
	var out []target
	for _, child := range v.Manifests {
		out = append(out, target{digest: child.Digest, mediaType: child.MediaType, index: d})
	}
	if v.Config != nil {
		out = append(out, target{digest: v.Config.Digest, mediaType: v.Config.MediaType, content: true})
	}
	for _, d := range v.Layers {
		out = append(out, target{digest: d.Digest, mediaType: d.MediaType, content: true})
	}
	if v.Subject != nil {
		out = append(out, target{digest: v.Subject.Digest, mediaType: v.Subject.MediaType})
	}
	return out
}

var digestPattern = regexp.MustCompile(`\b(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})\b`)

// mentioned lists every digest that occurs in a document.
func mentioned(raw []byte) []target {
	var out []target
	for _, found := range digestPattern.FindAll(raw, -1) {
		out = append(out, target{digest: digest.Digest(found)})
	}
	return out
}

// isDocument reports whether a blob may be a JSON object of a manifest's size.
func (l *layout) isDocument(d digest.Digest) (bool, error) {
	name, err := blobPath(d)
	if err != nil {
		return false, err
	}
	f, id, err := l.vol.openFile(name)
	if absent(err) {
		return false, errs.ErrManifestUnknown
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if id.size > types.MaxManifestSize || id.size == 0 {
		return false, nil
	}
	head := make([]byte, min(id.size, 64))
	if _, err := f.ReadAt(head, 0); err != nil {
		return false, err
	}
	return bytes.HasPrefix(bytes.TrimLeft(head, " \t\r\n"), []byte("{")), nil
}

// orphanTargets lists the children that wait for an index, which only this process knows.
func (g *graph) orphanTargets() []target {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []target
	for d, mt := range g.orphans {
		all = append(all, target{digest: d, mediaType: mt})
	}
	return all
}
