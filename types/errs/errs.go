// Package errs holds the errors that every place answers with.
//
// There are two layers. A sentinel (ErrNotFound, ErrDenied, …) says what kind of failure it was and is tested with
// errors.Is; finer sentinels wrap coarser ones, so a missing blob is ErrBlobUnknown and therefore also ErrNotFound.
// Error adds the operation, the place, the digest and the registry's own words. Sentinels that have a code of the
// distribution specification survive HTTP: a server prints the code, a client turns it into the same sentinel again.
package errs

import "errors"

// kind is a sentinel: a text, the code it has on the wire, and the coarser kind that it is a case of.
type kind struct {
	text   string
	code   string
	parent error
}

func (k *kind) Error() string { return k.text }
func (k *kind) Unwrap() error { return k.parent }

// The sentinels. The comment names the code of the distribution specification ("Error Codes"), where there is one.
var (
	// ErrNotFound is the parent of everything that is absent. A HEAD request can say no more than this.
	ErrNotFound error = &kind{text: "not found"}
	// ErrBlobUnknown: the repository has no such blob (BLOB_UNKNOWN).
	ErrBlobUnknown error = &kind{text: "blob not found", code: "BLOB_UNKNOWN", parent: ErrNotFound}
	// ErrManifestUnknown: the repository has no such manifest or tag (MANIFEST_UNKNOWN).
	ErrManifestUnknown error = &kind{text: "manifest not found", code: "MANIFEST_UNKNOWN", parent: ErrNotFound}
	// ErrNameUnknown: there is no such repository or layout (NAME_UNKNOWN).
	ErrNameUnknown error = &kind{text: "repository not found", code: "NAME_UNKNOWN", parent: ErrNotFound}
	// ErrUploadUnknown: the upload session does not exist or has expired (BLOB_UPLOAD_UNKNOWN).
	ErrUploadUnknown error = &kind{text: "upload session not found", code: "BLOB_UPLOAD_UNKNOWN", parent: ErrNotFound}

	// ErrInvalid is the parent of every request that is wrong in itself: repeating it cannot help.
	ErrInvalid error = &kind{text: "invalid"}
	// ErrNameInvalid: the repository name or tag breaks the grammar (NAME_INVALID).
	ErrNameInvalid error = &kind{text: "invalid name", code: "NAME_INVALID", parent: ErrInvalid}
	// ErrManifestInvalid: the manifest is malformed or contradicts its media type (MANIFEST_INVALID).
	ErrManifestInvalid error = &kind{text: "invalid manifest", code: "MANIFEST_INVALID", parent: ErrInvalid}
	// ErrManifestBlobUnknown: the manifest references content that the repository lacks (MANIFEST_BLOB_UNKNOWN).
	// Error.Missing names every digest.
	ErrManifestBlobUnknown error = &kind{text: "manifest references missing content", code: "MANIFEST_BLOB_UNKNOWN", parent: ErrInvalid}
	// ErrDigestInvalid: a digest is malformed or of an unsupported algorithm (DIGEST_INVALID).
	ErrDigestInvalid error = &kind{text: "invalid digest", code: "DIGEST_INVALID", parent: ErrInvalid}
	// ErrDigestMismatch: the content is not what its descriptor says (DIGEST_INVALID on the wire).
	ErrDigestMismatch error = &kind{text: "content does not match its digest", code: "DIGEST_INVALID", parent: ErrDigestInvalid}
	// ErrSizeMismatch: the content is shorter or longer than its descriptor says.
	ErrSizeMismatch error = &kind{text: "content does not match its size", code: "DIGEST_INVALID", parent: ErrDigestMismatch}
	// ErrSizeInvalid: the content is larger than the place or the caller allows (SIZE_INVALID).
	ErrSizeInvalid error = &kind{text: "size not allowed", code: "SIZE_INVALID", parent: ErrInvalid}
	// ErrUploadInvalid: an upload request that does not fit its session (BLOB_UPLOAD_INVALID).
	ErrUploadInvalid error = &kind{text: "invalid upload", code: "BLOB_UPLOAD_INVALID", parent: ErrInvalid}
	// ErrRangeInvalid: a range that the content does not have, or a chunk out of order (HTTP status 416).
	ErrRangeInvalid error = &kind{text: "invalid range", parent: ErrInvalid}
	// ErrUnknownType: a media type that the operation cannot interpret.
	ErrUnknownType error = &kind{text: "unknown media type", parent: ErrInvalid}

	// ErrUnauthorized: credentials are needed (UNAUTHORIZED).
	ErrUnauthorized error = &kind{text: "authentication required", code: "UNAUTHORIZED"}
	// ErrDenied: the credentials do not suffice (DENIED).
	ErrDenied error = &kind{text: "access denied", code: "DENIED"}
	// ErrRateLimited: too many requests (TOOMANYREQUESTS); Error.RetryAfter says how long to wait, when known.
	ErrRateLimited error = &kind{text: "too many requests", code: "TOOMANYREQUESTS"}

	// ErrUnsupported: the place cannot do this, whoever asks (UNSUPPORTED).
	ErrUnsupported error = &kind{text: "not supported", code: "UNSUPPORTED"}
	// ErrReadOnly: the place takes no writes.
	ErrReadOnly error = &kind{text: "read-only", code: "UNSUPPORTED", parent: ErrUnsupported}
	// ErrUnknownScheme: nothing serves this kind of reference.
	ErrUnknownScheme error = &kind{text: "unknown scheme", code: "UNSUPPORTED", parent: ErrUnsupported}

	// ErrExists: the operation asked for something new, and it is there already.
	ErrExists error = &kind{text: "already exists"}
	// ErrClobber: going on would overwrite something that is not ours.
	ErrClobber error = &kind{text: "would overwrite foreign files"}
	// ErrCorrupt: stored data is damaged; nothing was changed.
	ErrCorrupt error = &kind{text: "stored data is damaged"}
	// ErrNoSpace: the disk is full.
	ErrNoSpace error = &kind{text: "no space left on device"}
	// ErrUnavailable: the place did not answer, or answered that it cannot now; trying later may help.
	ErrUnavailable error = &kind{text: "not available"}
	// ErrLocked: somebody else is writing it; trying later may help.
	ErrLocked error = &kind{text: "in use by another writer", parent: ErrUnavailable}
	// ErrConflict: it is not what the caller said it was, because somebody changed it meanwhile; nothing was changed.
	ErrConflict error = &kind{text: "changed meanwhile"}
)

// byCode is the wire-stable set: the codes of the distribution specification and the sentinel of each.
// DIGEST_INVALID reads as ErrDigestInvalid, the coarser of the two kinds that print it.
var byCode = map[string]error{
	"BLOB_UNKNOWN":          ErrBlobUnknown,
	"MANIFEST_UNKNOWN":      ErrManifestUnknown,
	"NAME_UNKNOWN":          ErrNameUnknown,
	"BLOB_UPLOAD_UNKNOWN":   ErrUploadUnknown,
	"NAME_INVALID":          ErrNameInvalid,
	"MANIFEST_INVALID":      ErrManifestInvalid,
	"MANIFEST_BLOB_UNKNOWN": ErrManifestBlobUnknown,
	"DIGEST_INVALID":        ErrDigestInvalid,
	"SIZE_INVALID":          ErrSizeInvalid,
	"BLOB_UPLOAD_INVALID":   ErrUploadInvalid,
	"UNAUTHORIZED":          ErrUnauthorized,
	"DENIED":                ErrDenied,
	"TOOMANYREQUESTS":       ErrRateLimited,
	"UNSUPPORTED":           ErrUnsupported,
}

// FromCode returns the sentinel of a code of the distribution specification, and nil for any other code.
func FromCode(code string) error { return byCode[code] }

// Code returns the distribution specification's code for err: the one an Error carries, else the one of the
// sentinel it wraps, else "".
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Code != "" {
		return e.Code
	}
	var k *kind
	for errors.As(err, &k) {
		if k.code != "" {
			return k.code
		}
		err, k = k.parent, nil
		if err == nil {
			break
		}
	}
	return ""
}
