package ocidir

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
)

// draft is the index that a commit is going to write. Changes are made to a copy, once there is one to make; nobody
// sees it before the file is in place. Next to it is said what was changed, in order: an entry may come and go.
type draft struct {
	base, next     *index
	added, dropped []*entry
	deleted        []digest.Digest // that were asked to be deleted, listed or not
	verbatim       bool            // next is as it is to be written, and shared
}

// enter makes an entry known that is in entries.
func (d *draft) enter(e *entry) {
	d.next.hold(e)
	d.added = append(d.added, e)
}

// now is the index as the changes made so far leave it.
func (d *draft) now() *index {
	if d.next != nil {
		return d.next
	}
	return d.base
}

func (d *draft) edit() *index {
	switch {
	case d.next == nil:
		d.next = d.base.clone()
	case d.verbatim:
		d.next, d.verbatim = d.next.clone(), false
	}
	return d.next
}

// setTag makes tag point to desc. What it pointed to stays, as an untagged entry if it has no other, so that it can
// still be read by its digest.
func (d *draft) setTag(tag string, desc types.Descriptor) error {
	ix := d.now()
	old, there := ix.tags.get(tag)
	if there && old.n == 1 && old.e.same(desc) {
		return nil
	}
	image := ""
	if there {
		image = old.e.image // containerd's name belongs to the tag: it moves along
	}
	e, err := newEntry(desc, tag, image)
	if err != nil {
		return err
	}
	ix = d.edit()
	d.dropBare(desc.Digest)
	switch {
	case !there:
		ix.entries = append(ix.entries, e)
		d.enter(e)
	case old.n == 1:
		return d.replace(old.e, e)
	default: // the last one takes the new content's place; the others just lose the name
		for _, o := range d.withTag(tag) {
			if o != old.e {
				if err := d.untag(o); err != nil {
					return err
				}
			}
		}
		return d.replace(old.e, e)
	}
	return nil
}

// addUntagged lists desc without a tag, unless it is listed.
func (d *draft) addUntagged(desc types.Descriptor) error {
	if h, ok := d.now().digests.get(desc.Digest); ok && h.e.mediaType == desc.MediaType {
		return nil
	}
	e, err := newEntry(desc, "", "")
	if err != nil {
		return err
	}
	ix := d.edit()
	d.dropBare(desc.Digest)
	ix.entries = append(ix.entries, e)
	d.enter(e)
	return nil
}

// removeTag takes the name from every entry that lookup finds under tag, and reports whether there was one. A full image
// name that the tag would stand for next goes with it: a deleted tag must not come back as another image.
func (d *draft) removeTag(tag string) (bool, error) {
	found := false
	for e := d.now().lookup(tag); e != nil; e = d.next.lookup(tag) {
		found = true
		d.edit()
		for _, o := range slices.Clone(d.next.entries) {
			// Full names that stand for one tag all have one digest.
			t, exact := o.tag()
			if o.name == e.name || !exact && t == tag && o.digest == e.digest {
				if err := d.untag(o); err != nil {
					return true, err
				}
			}
		}
		d.next.finish()
	}
	return found, nil
}

// removeDigest removes every entry of a digest, and reports whether there was one.
func (d *draft) removeDigest(dig digest.Digest) bool {
	d.deleted = append(d.deleted, dig)
	if _, ok := d.now().digests.get(dig); !ok {
		return false
	}
	return d.remove(func(e *entry) bool { return e.digest == dig })
}

// removeUntagged removes the entries of these digests that have no name.
func (d *draft) removeUntagged(all map[digest.Digest]types.Descriptor) {
	goes := func(e *entry) bool {
		_, ok := all[e.digest]
		return ok && e.isUntagged()
	}
	if d.remove(goes) {
		for dig := range all {
			d.deleted = append(d.deleted, dig)
		}
	}
}

// remove removes the entries that go, and reports whether there were any.
func (d *draft) remove(goes func(*entry) bool) bool {
	if !slices.ContainsFunc(d.now().entries, goes) {
		return false
	}
	var gone []*entry
	ix := d.edit()
	ix.entries = slices.DeleteFunc(ix.entries, func(e *entry) bool {
		if goes(e) {
			gone = append(gone, e)
			return true
		}
		return false
	})
	if len(gone) > 64 { // each may have to look for the last one of those that share its digest
		for _, e := range gone {
			d.drop(e)
		}
		ix.link()
		return true
	}
	for _, e := range gone {
		d.release(e)
	}
	ix.finish()
	return true
}

// same reports whether e already says what desc does.
func (e *entry) same(desc types.Descriptor) bool {
	return e.digest == desc.Digest && e.mediaType == desc.MediaType && e.size == desc.Size
}

// withTag returns all entries of an exact tag.
func (d *draft) withTag(tag string) []*entry {
	var all []*entry
	for _, e := range d.next.entries {
		if e.name == tag && e.digest != "" {
			all = append(all, e)
		}
	}
	return all
}

// replace puts e in the place of old, and what old listed at the end if nothing else lists it.
func (d *draft) replace(old, e *entry) error {
	ix := d.next
	ix.entries[slices.Index(ix.entries, old)] = e
	d.release(old)
	d.enter(e)
	if _, listed := ix.digests.get(old.digest); listed {
		return nil
	}
	rest, err := old.untagged()
	if err != nil {
		return err
	}
	ix.entries = append(ix.entries, rest)
	d.enter(rest)
	return nil
}

// untag takes the name from e, and e away if its digest is listed elsewhere.
func (d *draft) untag(e *entry) error {
	ix := d.next
	i := slices.Index(ix.entries, e)
	d.release(e)
	if _, listed := ix.digests.get(e.digest); listed {
		ix.entries = slices.Delete(ix.entries, i, i+1)
		return nil
	}
	rest, err := e.untagged()
	if err != nil {
		return err
	}
	ix.entries[i] = rest
	d.enter(rest)
	return nil
}

// dropBare removes the untagged entry of a digest that is about to get a better one.
func (d *draft) dropBare(dig digest.Digest) {
	ix := d.next
	for h, _ := ix.digests.get(dig); h.bare > 0; h, _ = ix.digests.get(dig) {
		i := slices.IndexFunc(ix.entries, func(e *entry) bool { return e.bare && e.digest == dig })
		d.release(ix.entries[i])
		ix.entries = slices.Delete(ix.entries, i, i+1)
	}
}

// drop notes that e is gone. Of what this draft has added before nothing is left to say.
func (d *draft) drop(e *entry) {
	if i := slices.Index(d.added, e); i >= 0 {
		d.added = slices.Delete(d.added, i, i+1)
		return
	}
	d.dropped = append(d.dropped, e)
}

// release takes an entry that is no longer in entries, or about to leave, out of the maps.
func (d *draft) release(e *entry) {
	d.drop(e)
	d.next.release(e)
}
