package scheme

import (
	"context"
	"errors"
	"io"
	"os"
	"reflect"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/ref"
)

// A capability is what only some places can do. Find one with As, or better use the helper beside it, which falls
// back. A method may still answer errs.ErrUnsupported: one host may lack what its type has.

// BlobOpener gives random access to blobs. Ranges cannot be checked against a digest, so a place that stores has
// checked the whole blob before; a registry checks nothing but the size.
type BlobOpener interface {
	// BlobOpen opens the blob d.Digest of r's repository. The caller closes it. Errors: ErrNotFound.
	BlobOpen(ctx context.Context, r ref.Ref, d types.Descriptor) (blob.ReaderAt, error)
}

// BlobProver is a BlobOpener that knows which blobs it has checked already.
type BlobProver interface {
	// BlobOpenProven is BlobOpen for who does not want to wait until a large blob was read: one of more than unread
	// bytes that was not checked yet is ErrUnproven. Who wants all of it may stream it with BlobGet instead.
	BlobOpenProven(ctx context.Context, r ref.Ref, d types.Descriptor, unread int64) (blob.ReaderAt, error)
}

// ErrUnproven is said by a BlobProver of a blob that it would have to read first.
var ErrUnproven = errors.New("the blob was not checked yet")

// Filer is implemented by a blob.ReaderAt, or a blob.Reader, whose content is a file as it is, for sendfile and
// reflinks. The file belongs to the reader: it must not be closed, and is valid until the reader is. For a
// blob.Reader, bytes read from the file are not verified. File answers false once the file is known to have changed
// since it was checked: what was read of it before is as good as that answer.
type Filer interface {
	File() (*os.File, bool)
}

// Byter is implemented by a blob.ReaderAt whose content is in memory. The bytes are verified; nobody may write to them,
// and they stay when the reader is closed.
type Byter interface {
	Bytes() ([]byte, bool)
}

// BlobLister lists the blobs of one repository, in no particular order, manifests included.
type BlobLister interface {
	// BlobList calls fn for every blob until fn returns an error, which it then returns. Errors: ErrNotFound.
	BlobList(ctx context.Context, r ref.Ref, fn func(blob.Info) error) error
}

// RepoLister lists the repositories below a root (a registry, a tree of layouts).
type RepoLister interface {
	// RepoList calls fn with the name of every repository below r's root that comes after last in byte order, in
	// that order, until fn returns an error, which it then returns; io.EOF ends the list without being returned. A
	// root that is itself a single layout lists one repository, "". Errors: ErrNotFound, ErrUnsupported.
	RepoList(ctx context.Context, r ref.Ref, last string, fn func(repo string) error) error
}

// BlobFinder finds blobs in all repositories of a root at once: for mounts that name no source.
type BlobFinder interface {
	// BlobFind calls fn with the names of repositories below r's root that hold blob d, in no particular order and
	// not necessarily all, until fn returns an error, which it then returns; io.EOF ends the search without being
	// returned. fn may use the API. It is no error that no repository has the blob, or that there is none.
	BlobFind(ctx context.Context, r ref.Ref, d digest.Digest, fn func(repo string) error) error
}

// Throttler says how much may run at once. Places do not limit themselves; who schedules work takes slots for it, all
// that a transfer needs together (see AcquireSlots).
type Throttler interface {
	// Slots returns the slots of r's host. nil is no limit.
	Slots(r ref.Ref) *Slots
}

// Closer ends the use of an API: waits for what it still does, closes what it holds open. The API must not be used
// afterwards.
type Closer interface {
	io.Closer
}

// Asser is implemented by wrappers and by Mux: they answer for the place they stand before, and return its
// capabilities wrapped again, so that nothing escapes a wrapper and nothing is lost in one.
type Asser interface {
	// As sets *target, which is a pointer to a capability's interface type, and returns true if r's place has it.
	As(r ref.Ref, target any) bool
}

// As finds a capability of the place that r names, in the manner of errors.As: it sets *target and returns true, or
// returns false. The ref decides where an API stands for several places.
func As[T any](api API, r ref.Ref, target *T) bool {
	if a, ok := api.(Asser); ok {
		return a.As(r, target)
	}
	t, ok := api.(T)
	if ok {
		*target = t
	}
	return ok
}

// AsAny is As for a target whose type is known only at run time: a pointer to an interface type. Wrappers use it to
// hand a request for a capability on unchanged.
func AsAny(api API, r ref.Ref, target any) bool {
	if a, ok := api.(Asser); ok {
		return a.As(r, target)
	}
	v := reflect.ValueOf(target)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Interface {
		panic("scheme.As: target must be a non-nil pointer to an interface type")
	}
	if !reflect.TypeOf(api).Implements(v.Elem().Type()) {
		return false
	}
	v.Elem().Set(reflect.ValueOf(api))
	return true
}
