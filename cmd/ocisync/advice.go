package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/spell"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

// missingTagTimeout bounds the request for the tags there are: advice must not cost more than the failure.
const missingTagTimeout = 5 * time.Second

// adviseMissing adds to the failures in err that say that r does not exist why, or which tags there are.
func adviseMissing(ctx context.Context, api scheme.API, r ref.Ref, arg string, err error) error {
	if err == nil {
		return nil
	}
	all := separate(err)
	for i, e := range all {
		at, ok := located(e)
		here := ok && ref.SamePlace(at, r) && !errors.Is(e, context.Canceled)
		if why := whyNoLayout(r); why != "" && here {
			all[i] = &explained{e, why}
			if isHeadless(r) {
				all[i] = &hinted{all[i], fmt.Sprintf("ocisync verify %s --restore-index, which writes oci-layout anew", display(r.Place()))}
			}
			continue
		}
		if why := whyNothing(r); why != "" && here && errors.Is(e, errs.ErrNameUnknown) {
			all[i] = &explained{e, why}
			continue
		}
		if advice := missing(ctx, api, r, arg, e); advice != "" {
			all[i] = &hinted{e, advice}
		}
	}
	return errors.Join(all...)
}

// explained is an error with the reason that it lacks.
type explained struct {
	error
	why string
}

func (e *explained) Error() string { return e.error.Error() + ": " + e.why }
func (e *explained) Unwrap() error { return e.error }

// whyNoLayout says why the directory r cannot be a layout, or returns "" if it may be one.
func whyNoLayout(r ref.Ref) string {
	if r.Scheme != ref.SchemeOCIDir {
		return ""
	}
	name := display(r.Place())
	switch info, err := os.Stat(filepath.FromSlash(r.Path())); {
	case errors.Is(err, fs.ErrNotExist):
		return "no such directory " + name
	case err != nil:
		return "" // the failure itself says more
	case !info.IsDir():
		return name + " is a file, not a directory"
	case isHeadless(r):
		return name + " has an index.json, but no oci-layout file"
	}
	return ""
}

// isHeadless reports whether the directory r lacks only the file that makes it a layout.
func isHeadless(r ref.Ref) bool { return has(r, "index.json") && !has(r, "oci-layout") }

func has(r ref.Ref, file string) bool {
	_, err := os.Stat(filepath.Join(filepath.FromSlash(r.Path()), file))
	return err == nil
}

// whyNothing says what the directory r, in which nothing was found, is instead of a layout, or returns "".
func whyNothing(r ref.Ref) string {
	if r.Scheme != ref.SchemeOCIDir || has(r, "oci-layout") {
		return ""
	}
	name := display(r.Place())
	switch entries, err := os.ReadDir(filepath.FromSlash(r.Path())); {
	case err != nil:
		return ""
	case len(entries) == 0:
		return name + " is an empty directory"
	}
	return name + " is a directory, but no image layout"
}

// unreadable returns the directories below the folder r that may not be read: the layouts in them are not known, so that
// nothing is said of them otherwise.
func unreadable(ctx context.Context, r ref.Ref) (all []string) {
	if r.Scheme != ref.SchemeOCIDir || r.Tag != "" || r.Digest != "" {
		return nil
	}
	top := filepath.FromSlash(r.Path())
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return fs.SkipAll
		case errors.Is(err, fs.ErrPermission) && path != top:
			if filepath.Base(path) != "lost+found" {
				all = append(all, path)
			}
			return fs.SkipDir
		case err != nil, !d.IsDir():
			return nil
		case d.Name() == "blobs", d.Name() == ".ocisync":
			return fs.SkipDir
		}
		return nil
	})
	return all
}

// adviseTarget adds to the failures in err at the repository of Docker Hub that arg named, in short, as a copy's target
// that a directory is written otherwise: few may push to Docker Hub, and many forget the "./".
func adviseTarget(r ref.Ref, arg string, err error) error {
	if !isShort(arg, r) {
		return err
	}
	all := separate(err)
	for i, e := range all {
		at, ok := located(e)
		if !ok || !ref.SamePlace(at, r) || errors.Is(e, context.Canceled) {
			continue
		}
		switch refused := errors.Is(e, errs.ErrUnauthorized) || errors.Is(e, errs.ErrDenied); {
		case refused:
			all[i] = &hinted{e, fmt.Sprintf("%s; or docker login to push to %s", folderQuestion(arg, r), r.Root)}
		case isBare(arg, r) && hintFor(e) == "":
			all[i] = &hinted{e, folderQuestion(arg, r)}
		}
	}
	return errors.Join(all...)
}

// missing returns what to say about one failure, or "".
func missing(ctx context.Context, api scheme.API, r ref.Ref, arg string, err error) string {
	absent := errors.Is(err, errs.ErrNotFound)
	closed := absent || errors.Is(err, errs.ErrUnauthorized) || errors.Is(err, errs.ErrDenied) || errors.Is(err, errs.ErrUnavailable)
	if hint := folderHint(arg); hint != "" && closed {
		return hint
	}
	if at, ok := located(err); !ok || !ref.SamePlace(at, r) {
		return "" // something else is missing
	}
	if absent && r.Digest == "" {
		if hint := otherTags(ctx, api, r); hint != "" {
			return hint
		}
		if untagged, err := onlyUntagged(ctx, api, r); err == nil && len(untagged) > 0 {
			return "what is there has no tag: " + strings.Join(untagged[:min(len(untagged), 3)], ", ")
		}
	}
	if d := missingDigest(err); absent && r.Scheme == ref.SchemeOCIDir && d != "" && d != r.Digest {
		return fmt.Sprintf(hintVerify, display(r.Place()))
	}
	if closed && isBare(arg, r) {
		return folderQuestion(arg, r)
	}
	return ""
}

// hintVerify is advice for a directory that lacks content.
const hintVerify = "ocisync verify %s names all that is missing or damaged, and with --repair-from SOURCE replaces it from another copy"

// missingDigest returns the digest of the content that err says is missing, or "".
func missingDigest(err error) digest.Digest {
	var e *errs.Error
	for errors.As(err, &e) {
		if e.Digest != "" {
			return e.Digest
		}
		if r, perr := ref.Parse(e.Ref); perr == nil && r.Digest != "" {
			return r.Digest
		}
		err, e = e.Err, nil
	}
	return ""
}

// otherTags names the tags of r that may have been meant, or returns "".
func otherTags(ctx context.Context, api scheme.API, r ref.Ref) string {
	tags, more, err := someTags(ctx, api, r)
	want := r.Reference()
	if err != nil || len(tags) == 0 || slices.Contains(tags, want) {
		return ""
	}
	near := spell.Nearest(want, tags, 3)
	if len(near) == 0 {
		near = tags[:min(len(tags), 5)]
	}
	rest := ""
	if n := len(tags) - len(near); n > 0 || more {
		rest = fmt.Sprintf("; all: ocisync ls %s", display(r.Place()))
	}
	return fmt.Sprintf("one of the tags that are there: %s%s", strings.Join(near, ", "), rest)
}

// onlyUntagged names the images of a directory without any tag, as crane pull leaves them.
func onlyUntagged(ctx context.Context, api scheme.API, r ref.Ref) ([]string, error) {
	var store scheme.IndexStore
	if r.Scheme != ref.SchemeOCIDir || !scheme.As(api, r, &store) {
		return nil, errs.ErrUnsupported
	}
	tags, err := api.TagList(ctx, r.Place(), scheme.WithTagLimit(1))
	if err != nil || len(tags.Tags) > 0 {
		return nil, err
	}
	raw, err := store.IndexGet(ctx, r.Place())
	if err != nil {
		return nil, err
	}
	var index struct{ Manifests []types.Descriptor }
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, err
	}
	var names []string
	for _, d := range index.Manifests {
		if types.ValidDigest(d.Digest) == nil {
			names = append(names, display(r.WithDigest(d.Digest)))
		}
	}
	return names, nil
}

// someTags lists tags of r, as many as advice may need, without those that belong to other images: signatures and
// lists of referrers. more says that there are further ones.
func someTags(ctx context.Context, api scheme.API, r ref.Ref) (tags []string, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, missingTagTimeout)
	defer cancel()
	list, err := api.TagList(ctx, r, scheme.WithTagLimit(1000))
	if err != nil {
		return nil, false, err
	}
	tags = slices.DeleteFunc(list.Tags, func(tag string) bool {
		_, cosign := referrer.CosignSubject(tag)
		return cosign || referrer.IsFallbackTag(tag)
	})
	return tags, list.More, nil
}

// unmatched returns the failure of a copy whose patterns chose none of the tags that src has, or nil if src has none.
// A script that mirrors by a pattern with a typing error would otherwise mirror nothing for ever, and be content.
func unmatched(ctx context.Context, api scheme.API, src ref.Ref, patterns []string) error {
	tags, more, err := someTags(ctx, api, src)
	if err != nil {
		return err
	}
	if len(tags) == 0 {
		return nil
	}
	quoted := make([]string, len(patterns))
	hint := ""
	for i, p := range patterns {
		quoted[i] = "'" + p + "'"
		if strings.Contains(p, ",") && !strings.Contains(p, "regex:") {
			hint = "repeat --tags for each pattern; "
		}
	}
	hint += "the tags that are there: " + strings.Join(tags[:min(len(tags), 8)], ", ")
	if more || len(tags) > 8 {
		hint += fmt.Sprintf(", …; all: ocisync ls %s", display(src))
	}
	return &hinted{fmt.Errorf("%w: no tag of %s matches --tags %s", errs.ErrNotFound, display(src), strings.Join(quoted, " ")), hint}
}
