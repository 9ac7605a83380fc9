package umoci

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/umoci/oci/cas"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// AnnotationState is the annotation of an index from GetIndex that says which state of which Engine it is. PutIndex
// takes it out: it is never stored.
const AnnotationState = "io.github.ocisync.umoci.state"

// GetIndex returns the index as it is now, marked with AnnotationState.
//
// Errors: cas.ErrInvalid when there is none, or it cannot be parsed; cas.ErrUnknownType when it says that it is of
// another type than an image index.
func (e *Engine) GetIndex(ctx context.Context) (ispec.Index, error) {
	if err := e.begin("index get", ""); err != nil {
		return ispec.Index{}, err
	}
	raw, index, err := e.read(ctx)
	if err != nil {
		return ispec.Index{}, err
	}
	state := digest.FromBytes(raw)
	e.mu.Lock()
	e.last = state
	e.mu.Unlock()
	if index.Annotations == nil {
		index.Annotations = map[string]string{}
	}
	index.Annotations[AnnotationState] = e.name + " " + string(state)
	return index, nil
}

// read returns the index, as it is stored and parsed.
func (e *Engine) read(ctx context.Context) (raw []byte, index ispec.Index, err error) {
	const op = "index get"
	if raw, err = e.store.IndexGet(ctx, e.r); err != nil {
		return nil, ispec.Index{}, broken(err)
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, ispec.Index{}, e.fail(op, "", fmt.Errorf("%w: index.json: %w", errs.ErrCorrupt, err))
	}
	if err := checkType(index); err != nil {
		return nil, ispec.Index{}, e.fail(op, "", err)
	}
	return raw, index, nil
}

func checkType(index ispec.Index) error {
	if index.MediaType != "" && index.MediaType != types.MediaTypeImageIndex {
		return fmt.Errorf("%w: an image's index cannot be a %q", errs.ErrUnknownType, index.MediaType)
	}
	return nil
}

// PutIndex replaces the index, atomically and durably. Fields that umoci does not know are kept: those of the index
// itself, and those of entries that stay as they are.
//
// An index from this Engine's GetIndex replaces the state that it was made from, and nothing else: see the package's
// introduction. An index that a caller made himself replaces the state that this Engine has read or written last, and
// when it never did, whatever there is.
//
// Errors: cas.ErrClobber when the index was changed by somebody else meanwhile, and nothing was changed;
// cas.ErrUnknownType when index.MediaType is that of something else; cas.ErrInvalid when it is no index.
func (e *Engine) PutIndex(ctx context.Context, index ispec.Index) error {
	const op = "index put"
	if err := e.begin(op, ""); err != nil {
		return err
	}
	if err := checkType(index); err != nil {
		return e.fail(op, "", err)
	}
	base := e.base(index)
	old, err := e.store.IndexGet(ctx, e.r)
	if err != nil {
		return broken(err)
	}
	if base != "" && base != digest.FromBytes(old) {
		return e.fail(op, "", fmt.Errorf("%w: the index is not the one that was read", errs.ErrConflict))
	}
	next, err := encode(old, index)
	if err != nil {
		return e.fail(op, "", fmt.Errorf("%w: %w", errs.ErrInvalid, err))
	}
	if err := e.store.IndexPut(ctx, e.r, old, next); err != nil {
		return broken(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last = digest.FromBytes(next)
	return nil
}

// base is the state that index replaces; empty is any.
func (e *Engine) base(index ispec.Index) digest.Digest {
	if state, mine := strings.CutPrefix(index.Annotations[AnnotationState], e.name+" "); mine {
		return digest.Digest(state)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last
}

// create makes the repository by putting a blob that nobody else can mean, and takes the blob away again: that leaves
// whatever somebody else does at the same time alone, which an index that is put without having read one does not.
func (e *Engine) create(ctx context.Context) error {
	const op = "create"
	if _, err := e.store.IndexGet(ctx, e.r); err == nil {
		return e.fail(op, "", errs.ErrExists)
	} else if !errors.Is(err, errs.ErrNotFound) {
		return classify(err)
	}
	d, err := e.api.BlobPut(ctx, e.r, types.Descriptor{}, strings.NewReader(rand.Text()))
	if err != nil {
		return classify(err)
	}
	if err := e.api.BlobDelete(ctx, e.r, d); err != nil {
		return classify(err)
	}
	_, _, err = e.read(ctx)
	return err
}

// Retry calls fn, which reads the index and puts it back, until it fails with something else than cas.ErrClobber, or
// succeeds. Whenever it has to be called again somebody else's change was successful.
func Retry(ctx context.Context, fn func() error) error {
	for {
		err := fn()
		if !errors.Is(err, cas.ErrClobber) {
			return err
		}
		if cerr := ctx.Err(); cerr != nil {
			return fmt.Errorf("%w: %w", cerr, err)
		}
	}
}

// encode is index as JSON, with everything of old that umoci's type cannot hold.
func encode(old []byte, index ispec.Index) ([]byte, error) {
	index.MediaType = types.MediaTypeImageIndex
	index.Annotations = maps.Clone(index.Annotations)
	delete(index.Annotations, AnnotationState)
	if len(index.Annotations) == 0 {
		index.Annotations = nil
	}
	fields, err := fieldsOf(index)
	if err != nil {
		return nil, err
	}
	if fields["manifests"], err = entries(old, index.Manifests); err != nil {
		return nil, err
	}
	var before map[string]json.RawMessage
	if err := json.Unmarshal(old, &before); err != nil {
		return nil, err
	}
	for name, value := range before {
		if !known(name) {
			fields[name] = value
		}
	}
	return marshal(fields)
}

// known reports whether umoci's type has the field, and so decides about it. Names are matched as encoding/json does.
func known(name string) bool {
	for _, k := range []string{"schemaVersion", "mediaType", "artifactType", "manifests", "subject", "annotations"} {
		if strings.EqualFold(name, k) {
			return true
		}
	}
	return false
}

// entries is the list of manifests, in which entries that old has as well are what they are there, but for white space.
func entries(old []byte, list []ispec.Descriptor) (json.RawMessage, error) {
	var before struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(old, &before); err != nil {
		return nil, err
	}
	there := map[digest.Digest][]entry{}
	for _, raw := range before.Manifests {
		var d ispec.Descriptor
		if err := json.Unmarshal(raw, &d); err != nil {
			return nil, err
		}
		there[d.Digest] = append(there[d.Digest], entry{raw: raw, desc: d})
	}
	out := make([]json.RawMessage, 0, len(list))
	for _, d := range list {
		raw, err := take(there[d.Digest], d)
		if err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
	return marshal(out)
}

// entry is one of the index that is replaced.
type entry struct {
	raw   json.RawMessage
	desc  ispec.Descriptor
	taken bool
}

// take returns d as it stands in one of candidates, each of which is used once, or encodes it.
func take(candidates []entry, d ispec.Descriptor) (json.RawMessage, error) {
	for i := range candidates {
		if c := &candidates[i]; !c.taken && reflect.DeepEqual(c.desc, d) {
			c.taken = true
			return c.raw, nil
		}
	}
	return marshal(d)
}

// fieldsOf is v as the fields of its JSON.
func fieldsOf(v any) (map[string]json.RawMessage, error) {
	data, err := marshal(v)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	err = json.Unmarshal(data, &fields)
	return fields, err
}

// marshal is json.Marshal that leaves <, > and & as they are, so that what is copied stays the same.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
