package ocidir

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// maxMeta is the largest meta file of an ingest, in bytes. Whoever gives one more labels than fit is refused.
const maxMeta = 1 << 20

// ingestMeta is what is known about an ingest beside its bytes: the file meta. docs/layout.md describes it.
type ingestMeta struct {
	Version  int               `json:"version"`
	Key      []byte            `json:"key"` // in base64: it may be any bytes
	Started  time.Time         `json:"started"`
	Updated  time.Time         `json:"updated"` // data's own time counts when it is later
	Expected ingestExpected    `json:"expected"`
	Owner    string            `json:"owner"`
	Labels   map[string]string `json:"labels,omitempty"`
	Hash     *hashState        `json:"hash,omitempty"`
	// Algorithm is what hashes the bytes where the expected digest does not say it.
	Algorithm digest.Algorithm `json:"algorithm,omitempty"`
	// Closed is how many bytes it had when it was closed last, and Boot names the start of the system that this was
	// written in. In a later one, what data has beyond Closed may be something that nobody wrote.
	Closed int64  `json:"closed"`
	Boot   string `json:"boot,omitempty"`
	// Suspect: a sync of data failed, so that the next one may report success although bytes are lost.
	Suspect bool `json:"suspect,omitempty"`
}

// algorithm is what hashes the bytes as they come.
func (m *ingestMeta) algorithm() digest.Algorithm {
	if m.Expected.Digest == "" && m.Algorithm != "" {
		return m.Algorithm
	}
	return digestAlgorithm(m.Expected.descriptor())
}

// ingestExpected is what was announced of the blob.
type ingestExpected struct {
	MediaType string        `json:"mediaType,omitempty"`
	Digest    digest.Digest `json:"digest,omitempty"`
	Size      int64         `json:"size,omitempty"`
}

func (e ingestExpected) descriptor() types.Descriptor {
	return types.Descriptor{MediaType: e.MediaType, Digest: e.Digest, Size: e.Size}
}

// hashState is a hash of all of data, as it was when it was durable and the ingest was closed or flushed. It fits as long as the
// file is the one that is described here; a program that changed it meanwhile changed that, too.
type hashState struct {
	Algorithm digest.Algorithm `json:"algorithm"`
	State     []byte           `json:"state"`
	Inode     uint64           `json:"inode"`
	Size      int64            `json:"size"`
	Modified  int64            `json:"modified"` // nanoseconds since 1970
	Changed   int64            `json:"changed"`
}

// stateOf describes h, which has hashed all of the file id. It is nil for a hash that cannot be stored.
func stateOf(alg digest.Algorithm, h hash.Hash, id fileID) *hashState {
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return nil
	}
	state, err := m.MarshalBinary()
	if err != nil {
		return nil // the next one hashes the file
	}
	return &hashState{Algorithm: alg, State: state, Inode: id.ino, Size: id.size, Modified: id.mtime, Changed: id.ctime}
}

// restore returns the hash of all of the file id, or nil when the state is not that of this file, or of another program's
// version, so that the file must be hashed. The device is not compared: it may have another number after a restart.
func (s *hashState) restore(alg digest.Algorithm, id fileID) hash.Hash {
	if s == nil || s.Algorithm != alg || s.Inode != id.ino || s.Size != id.size || s.Modified != id.mtime || s.Changed != id.ctime {
		return nil
	}
	h := alg.Hash()
	u, ok := h.(encoding.BinaryUnmarshaler)
	if !ok || u.UnmarshalBinary(s.State) != nil {
		return nil
	}
	return h
}

// encode is the content of a meta file: the sha256 of the rest in hex, a newline, JSON.
func (m *ingestMeta) encode() ([]byte, error) {
	doc, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(doc)
	text := append(hex.AppendEncode(nil, sum[:]), '\n')
	if text = append(text, doc...); len(text) > maxMeta {
		return nil, fmt.Errorf("%w: the labels of an ingest take more than %d bytes", errs.ErrInvalid, maxMeta)
	}
	return text, nil
}

// parseMeta reads what encode made, for the ingest whose directory has that name. What is torn, or says something that
// nothing here would say, is an error as a whole.
func parseMeta(raw []byte, name string) (*ingestMeta, error) {
	sum, doc, found := bytes.Cut(raw, []byte{'\n'})
	want := sha256.Sum256(doc)
	if !found || string(sum) != hex.EncodeToString(want[:]) {
		return nil, errors.New("its checksum is wrong")
	}
	m := &ingestMeta{}
	dec := json.NewDecoder(bytes.NewReader(doc))
	if err := dec.Decode(m); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("it has more than one document")
	}
	if m.Version != 1 {
		return nil, fmt.Errorf("version %d is not known", m.Version)
	}
	if nameOfKey(string(m.Key)) != name {
		return nil, errors.New("it is of another ingest")
	}
	return m, m.check()
}

// check reports what must not be in a meta file, whoever asks for it.
func (m *ingestMeta) check() error {
	if err := scheme.ValidKey(string(m.Key)); err != nil {
		return err
	}
	if m.Expected.Digest != "" {
		if err := types.ValidDigest(m.Expected.Digest); err != nil {
			return err
		}
	}
	if err := scheme.ValidAlgorithm(m.Algorithm); err != nil {
		return err
	}
	if m.Expected.Size < 0 || m.Closed < 0 {
		return fmt.Errorf("%w: an expected size of %d bytes, %d that are there", errs.ErrInvalid, m.Expected.Size, m.Closed)
	}
	for what, s := range map[string]string{"owner": m.Owner, "media type": m.Expected.MediaType} {
		if len(s) > scheme.MaxLabel || !utf8.ValidString(s) {
			return fmt.Errorf("%w: the %s of an ingest has more than %d bytes, or is no UTF-8", errs.ErrInvalid, what, scheme.MaxLabel)
		}
	}
	return validText(m.Labels)
}

// validText is scheme.ValidLabels, and that they can be written as JSON without a change.
func validText(labels map[string]string) error {
	for k, v := range labels {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("%w: the label %.64q is no UTF-8", errs.ErrInvalid, k)
		}
	}
	return scheme.ValidLabels(labels)
}

// nameOfKey is the name of the directory of the ingest key.
func nameOfKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// isIngest reports whether a file in the ingest folder has the name of an ingest's directory.
func isIngest(name string) bool {
	return len(name) == 2*sha256.Size && types.ValidDigest(digest.NewDigestFromEncoded(digest.SHA256, name)) == nil
}

// valid reports whether the ingest can be described so.
func (m *ingestMeta) valid() error {
	if err := m.check(); err != nil {
		return err
	}
	_, err := m.encode()
	return err
}

// info is what is said about the ingest.
func (m *ingestMeta) info(offset int64) blob.Ingest {
	return blob.Ingest{
		Key: string(m.Key), Offset: offset, Expected: m.Expected.descriptor(), Started: m.Started, Updated: m.Updated,
		Owner: m.Owner, Labels: m.Labels,
	}
}
