package ocidir

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// vanishedName is the list of roots that other tools dropped. It is small, and there only after that happened.
const vanishedName = stateDir + "/vanished"

// maxVanishedSize bounds what is read into memory of it.
const maxVanishedSize = 64 << 20

// vanishedRoot is an entry of index.json as we last committed it that another tool dropped: by mistake, as one that
// saves an index it read before our commit, or on purpose. We cannot tell, so it is reported, and not brought back.
type vanishedRoot struct {
	desc types.Descriptor // media type, digest, size and artifact type
	tag  string           // that it had; empty when it had none
	when time.Time        // when it was missed
}

// vanished returns the roots that other tools dropped, in byte order of digest and tag, one for each tag. A root is no
// longer among them once its tag, or without one its digest, is listed again, after we deleted it, or after
// forgetVanished. It may be called at any time but under the lock, where vanishedLocked is to be used.
//
// Errors: ErrCorrupt when the list cannot be read; then nothing is known of what it said.
func (l *layout) vanished(ctx context.Context) (all []vanishedRoot, err error) {
	now, err := l.current(ctx)
	if err != nil {
		return nil, err
	}
	gone, err := l.missed(now)
	if err != nil {
		return nil, err
	}
	if len(gone) > 0 { // or is a commit under way?
		err = l.underLock(ctx, func(_ *fileLock, now *cached) error {
			all, err = l.vanishedLocked(now)
			return err
		})
		if !isReadOnly(err) {
			return all, err
		}
	}
	return l.vanishedLocked(now)
}

// vanishedLocked is vanished for who runs under the lock (see underLock).
func (l *layout) vanishedLocked(now *cached) ([]vanishedRoot, error) {
	known, err := l.readVanished()
	if err != nil {
		return nil, err
	}
	gone, err := l.missed(now)
	if err != nil {
		return nil, err
	}
	return sortVanished(stillGone(append(known, gone...), now.ix)), nil
}

// isVanished reports whether another tool dropped the last entry of a digest.
func (l *layout) isVanished(ctx context.Context, d digest.Digest) bool {
	all, err := l.vanished(ctx)
	return err == nil && slices.ContainsFunc(all, func(v vanishedRoot) bool { return v.desc.Digest == d })
}

func stillGone(all []vanishedRoot, ix *index) []vanishedRoot {
	return slices.DeleteFunc(all, func(v vanishedRoot) bool { return v.isBack(ix) })
}

// addVanished adds to the list what ix lacks. A list that cannot be read is lost anyway, and is made anew.
func (l *layout) addVanished(gone []vanishedRoot, ix *index) error {
	known, err := l.readVanished()
	if err != nil && !errors.Is(err, errs.ErrCorrupt) {
		return err
	}
	all := sortVanished(stillGone(append(slices.Clone(known), gone...), ix))
	if err == nil && slices.EqualFunc(known, all, sameRoot) {
		return nil
	}
	return l.writeVanished(all)
}

// resolveVanished takes off the list what a commit brought back or deleted: what comes to be listed again and is dropped
// by us later is not missed.
func (l *layout) resolveVanished(ix *index, deleted []digest.Digest) error {
	if _, err := l.vol.stat(vanishedName); absent(err) {
		return nil
	}
	known, err := l.readVanished()
	if errors.Is(err, errs.ErrCorrupt) {
		return nil // who asks for it is told
	}
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(stillGone(slices.Clone(known), ix), func(v vanishedRoot) bool {
		return slices.Contains(deleted, v.desc.Digest)
	})
	if len(left) == len(known) {
		return nil
	}
	return l.writeVanished(left)
}

// dropVanished removes a list that makes no sense.
func (l *layout) dropVanished() error {
	if _, err := l.readVanished(); !errors.Is(err, errs.ErrCorrupt) {
		return err
	}
	return l.vol.remove(vanishedName)
}

func sameRoot(a, b vanishedRoot) bool { return a.desc.Digest == b.desc.Digest && a.tag == b.tag }

// isBack reports whether the root is listed again. What a tag names now does not matter: somebody decided on it.
func (v vanishedRoot) isBack(ix *index) bool {
	if _, listed := ix.digests.get(v.desc.Digest); !listed {
		return false
	}
	if v.tag == "" {
		return true
	}
	_, there := ix.tags.get(v.tag)
	return there
}

// forgetVanished gives up the roots of these digests: nobody misses them any more. It runs under the lock.
func (l *layout) forgetVanished(all ...digest.Digest) error {
	now, err := l.current(context.Background())
	if err != nil {
		return err
	}
	if err := l.notice(now); err != nil {
		return err
	}
	if j, err := l.readJournal(); err != nil {
		return err
	} else if j.last != (mark{}) && j.last != now.id.mark() { // what was noticed must not be noticed again
		if _, err := l.startRoots(now); err != nil {
			return err
		}
	}
	return l.resolveVanished(now.ix, all)
}

// vanishedJSON is a vanishedRoot in the file.
type vanishedJSON struct {
	MediaType    string        `json:"mediaType,omitempty"`
	Digest       digest.Digest `json:"digest"`
	Size         int64         `json:"size"`
	ArtifactType string        `json:"artifactType,omitempty"`
	Tag          string        `json:"tag,omitempty"`
	When         time.Time     `json:"when"`
}

// readVanished reads the list as it is written. Entries that cannot be roots are passed over.
func (l *layout) readVanished() ([]vanishedRoot, error) {
	f, id, err := l.vol.openFile(vanishedName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var doc struct{ Vanished []vanishedJSON }
	if id.size > maxVanishedSize {
		err = fmt.Errorf("%d bytes are more than %d", id.size, int64(maxVanishedSize))
	} else {
		err = json.NewDecoder(io.LimitReader(f, maxVanishedSize)).Decode(&doc)
	}
	if err != nil {
		return nil, &errs.Error{
			Op: "read", Ref: l.file(vanishedName), Err: fmt.Errorf("%w: %w", errs.ErrCorrupt, err),
			Hint: "ocisync gc DIRECTORY --vanished gives up what it listed: manifests that other tools dropped from index.json",
		}
	}
	var all []vanishedRoot
	for _, v := range doc.Vanished {
		if types.ValidDigest(v.Digest) != nil || v.Size < 0 || v.Tag != "" && ref.ValidTag(v.Tag) != nil {
			continue
		}
		d := types.Descriptor{MediaType: v.MediaType, Digest: v.Digest, Size: v.Size, ArtifactType: v.ArtifactType}
		all = append(all, vanishedRoot{desc: d, tag: v.Tag, when: v.When})
	}
	return sortVanished(all), nil
}

// sortVanished puts all in order and leaves one of each; the first one that was missed stays.
func sortVanished(all []vanishedRoot) []vanishedRoot {
	slices.SortStableFunc(all, func(a, b vanishedRoot) int {
		return cmp.Or(cmp.Compare(a.desc.Digest, b.desc.Digest), cmp.Compare(a.tag, b.tag), a.when.Compare(b.when))
	})
	return slices.CompactFunc(all, sameRoot)
}

// writeVanished replaces the list, durably but for its name, or removes it when nothing is left.
func (l *layout) writeVanished(all []vanishedRoot) error {
	if len(all) == 0 {
		return l.vol.remove(vanishedName)
	}
	doc := struct {
		Vanished []vanishedJSON `json:"vanished"`
	}{}
	for _, v := range all {
		doc.Vanished = append(doc.Vanished, vanishedJSON{
			MediaType: v.desc.MediaType, Digest: v.desc.Digest, Size: v.desc.Size, ArtifactType: v.desc.ArtifactType,
			Tag: v.tag, When: v.when.UTC(),
		})
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return l.replace(vanishedName, raw)
}
