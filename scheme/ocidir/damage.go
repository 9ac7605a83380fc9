package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// healHint is what can be done about a damaged file.
const healHint = "ocisync verify DIRECTORY names all that is damaged, and with --repair-from SOURCE replaces it from another copy; copying the image here again with --verify does so, too"

// errBeingWritten: a file changed between the beginning and the end of a look at it. What was read of it proves nothing.
var errBeingWritten = errors.New("the file was changed while it was read")

// condemn is called with a file whose bytes were found to be wrong. It reads them again: they may have been right
// before a program wrote to them, or wrong on the way here only. A file that is wrong twice, and did not change
// meanwhile, is remembered as bad and set aside. The error is what a reader gets; it is nil when the bytes are right.
func (l *layout) condemn(ctx context.Context, f *os.File, id fileID, name string, d digest.Digest) error {
	got, after, err := hashFile(ctx, f, id, d.Algorithm())
	switch {
	case errors.Is(err, errBeingWritten):
		return l.damaged(name, err.Error())
	case err != nil:
		return err
	case got == d:
		l.mem.setVerified(after, d)
		return nil
	}
	l.mem.setBad(after, d)
	words := []string{wrongBytes(got, after.size)}
	if n := links(f); n > 1 {
		words = append(words, fmt.Sprintf("the file has %d names, in other layouts perhaps, which have the same damage", n))
	}
	if tags := l.cachedTags(d); len(tags) > 0 {
		words = append(words, "needed by "+enumerate(tags, 8))
	}
	if to, err := l.setAside(f, after, name, d); err == nil {
		words = append(words, "the file is now "+l.file(to))
	} else {
		words = append(words, "the file was left where it is: "+err.Error())
	}
	return l.damaged(name, strings.Join(words, "; "))
}

// foundBad is condemn for a blob that was being streamed: its layout may have been closed since.
func (o *OCIDir) foundBad(ctx context.Context, b *blobFile, d digest.Digest, cause error) error {
	after, err := identify(b.f)
	if err != nil || !after.sameBytes(b.id) {
		return fmt.Errorf("%w: %s: %w", cause, b.l.file(b.name), errBeingWritten)
	}
	l, err := o.use(b.l.at, b.l.path)
	if err != nil {
		return fmt.Errorf("%w: %w", cause, err)
	}
	defer o.release(l)
	if err := l.condemn(ctx, b.f, after, b.name, d); err != nil {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return cause // as when the caller was wrong about the size
}

func wrongBytes(got digest.Digest, size int64) string {
	if size == 0 {
		return "it is empty"
	}
	return fmt.Sprintf("it has digest %s and %d bytes", got, size)
}

// enumerate lists the first few of all.
func enumerate(all []string, most int) string {
	if more := len(all) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), more)
	}
	return strings.Join(all, ", ")
}

// hashFile reads a whole file. It is errBeingWritten when the file is not the same before and after.
func hashFile(ctx context.Context, f *os.File, id fileID, alg digest.Algorithm) (digest.Digest, fileID, error) {
	h := alg.Hash()
	if _, err := copyTo(ctx, h, io.NewSectionReader(f, 0, id.size), -1); err != nil {
		return "", id, err
	}
	after, err := identify(f)
	if err != nil {
		return "", id, err
	}
	if !after.sameBytes(id) {
		return "", after, errBeingWritten
	}
	return digest.NewDigest(alg, h), after, nil
}

// damaged is the error for a blob whose bytes are wrong.
func (l *layout) damaged(name, words string) error {
	return &errs.Error{
		Op: "verify", Ref: l.file(name), Err: fmt.Errorf("%w: the file is damaged", errs.ErrDigestMismatch),
		Message: words, Hint: healHint,
	}
}

// knownBad is the error for a file that was found to be damaged before, and could not be set aside: to who asks it is
// not there, as it would be not there elsewhere.
func (l *layout) knownBad(name string) error {
	return fmt.Errorf("%w: %w", errs.ErrBlobUnknown, l.damaged(name, "it is known since it was read before"))
}

// isBad reports whether a file is known not to have the digest: it was read before, or it is empty and should not be.
func (l *layout) isBad(id fileID, d digest.Digest) bool {
	return l.mem.isBad(id, d) || id.size == 0 && !types.EmptyDigest(d)
}

// cachedTags returns the tags that need a manifest, as far as this process has read how manifests hang together.
func (l *layout) cachedTags(d digest.Digest) []string {
	c := l.cache.Load()
	if c == nil {
		return nil
	}
	above := l.graph.above(d)
	found := map[string]bool{}
	for _, e := range c.ix.entries {
		if tag, _ := e.tag(); tag != "" && above[e.digest] {
			found[tag] = true
		}
	}
	all := make([]string, 0, len(found))
	for tag := range found {
		all = append(all, tag)
	}
	slices.Sort(all)
	return all
}

// above returns d and the indexes that list it, directly or by way of others.
func (g *graph) above(d digest.Digest) map[digest.Digest]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen := map[digest.Digest]bool{d: true}
	for todo := []digest.Digest{d}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, e := range g.parents[next] {
			if !seen[e.parent] {
				seen[e.parent] = true
				todo = append(todo, e.parent)
			}
		}
	}
	return seen
}
