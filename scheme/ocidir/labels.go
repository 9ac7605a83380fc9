package ocidir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var _ scheme.Labeler = (*OCIDir)(nil)

const (
	labelsDir  = stateDir + "/labels"
	labelsLock = stateDir + "/labels.lock"
	// maxLabels is the size of one blob's file of labels, in bytes, at most.
	maxLabels = 4 << 20
)

// labelRecord is what the file of one blob's labels says. It is of the blob that was stored at Created, and of none that
// has the same digest and was stored later: so labels never come back with a blob that somebody else deleted and
// stored again.
type labelRecord struct {
	Created int64             `json:"created"` // the modification time of the blob's file
	Updated int64             `json:"updated"` // when the labels changed last; both in nanoseconds since 1970
	Labels  map[string]string `json:"labels,omitempty"`
}

// of reports whether the record belongs to that file. Who moves a layout in an archive may keep whole seconds only.
func (r labelRecord) of(id fileID) bool {
	const second = int64(time.Second)
	return r.Created == id.mtime || id.mtime%second == 0 && r.Created-r.Created%second == id.mtime
}

func (r labelRecord) info(d digest.Digest, id fileID) blob.Info {
	return blob.Info{
		Digest: d, Size: id.size, Labels: r.Labels,
		Created: time.Unix(0, id.mtime), Updated: time.Unix(0, max(id.mtime, r.Updated)),
	}
}

// labelsPath is where the labels of the blob d are.
func labelsPath(d digest.Digest) string { return join(labelsDir, d.Algorithm().String(), d.Encoded()) }

// readLabels returns the labels of the blob d, whose file is id: the empty record when it has none. A file that makes no
// sense says nothing, as one whose labels were not durable may be after a power loss; the next change replaces it.
func (l *layout) readLabels(d digest.Digest, id fileID) (labelRecord, error) {
	f, file, err := l.vol.openFile(labelsPath(d))
	if absent(err) || notAFile(err) {
		return labelRecord{}, nil
	}
	if err != nil {
		return labelRecord{}, err
	}
	defer f.Close()
	raw := make([]byte, min(file.size, maxLabels+1))
	if _, err := io.ReadFull(f, raw); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return labelRecord{}, err
	}
	if rec, ok := parseLabels(raw); ok && rec.of(id) {
		return rec, nil
	}
	return labelRecord{}, nil
}

// parseLabels reads what a file of labels says, if it says something.
func parseLabels(raw []byte) (labelRecord, bool) {
	var rec labelRecord
	if len(raw) > maxLabels || json.Unmarshal(raw, &rec) != nil || validLabels(rec.Labels) != nil {
		return labelRecord{}, false
	}
	return rec, true
}

// validLabels refuses labels that are too long or no text.
func validLabels(labels map[string]string) error {
	for k, v := range labels {
		if len(k)+len(v) > scheme.MaxLabel {
			return fmt.Errorf("%w: the label %.40q has %d bytes with its value, more than %d", errs.ErrInvalid, k, len(k)+len(v), scheme.MaxLabel)
		}
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("%w: the label %.40q is not text in UTF-8", errs.ErrInvalid, k)
		}
	}
	return nil
}

// labelled returns the names of the digests that have a file of labels.
func (l *layout) labelled(alg digest.Algorithm) (map[string]bool, error) {
	names, err := l.readNames(join(labelsDir, alg.String()))
	all := make(map[string]bool, len(names))
	for _, n := range names {
		all[n] = true
	}
	return all, err
}

// notAFile reports that something has a name which is no regular file.
func notAFile(err error) bool { return errors.Is(err, errs.ErrCorrupt) }

// BlobLabel implements scheme.Labeler. Labels are kept in .ocisync; they are UTF-8, and those of one blob take 4 MiB at
// most.
func (o *OCIDir) BlobLabel(ctx context.Context, r ref.Ref, info blob.Info, fields ...string) (blob.Info, error) {
	const op = "blob label"
	name, err := blobPath(info.Digest)
	if err != nil {
		return blob.Info{}, fail(op, r, "", err)
	}
	edit, err := labelEdit(info.Labels, fields)
	if err != nil {
		return blob.Info{}, fail(op, r, info.Digest, err)
	}
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return blob.Info{}, err
	}
	defer end()
	if _, err := l.vol.stat(name); err != nil {
		return blob.Info{}, failBlob(op, r, info.Digest, err)
	}
	if err := l.prepare(ctx); err != nil {
		return blob.Info{}, failWrite(op, r, info.Digest, err)
	}
	out, err := l.label(ctx, info.Digest, edit)
	if err != nil {
		return blob.Info{}, failWrite(op, r, info.Digest, err)
	}
	return out, nil
}

// labelEdit returns the change that fields ask for.
func labelEdit(labels map[string]string, fields []string) (func(old map[string]string) map[string]string, error) {
	all := len(fields) == 0
	var keys []string
	for _, f := range fields {
		key, one := strings.CutPrefix(f, "labels.")
		switch {
		case f == "labels":
			all = true
		case one && key != "":
			keys = append(keys, key)
		default:
			return nil, fmt.Errorf("%w: %q of a blob cannot be changed; labels, or labels.KEY, can", errs.ErrInvalid, f)
		}
	}
	given := maps.Clone(labels)
	if !all {
		given = map[string]string{}
		for _, k := range keys {
			given[k] = labels[k]
		}
	}
	if err := validLabels(given); err != nil {
		return nil, err
	}
	if all {
		return func(map[string]string) map[string]string { return maps.Clone(given) }, nil
	}
	return func(old map[string]string) map[string]string {
		out := maps.Clone(old)
		if out == nil {
			out = map[string]string{}
		}
		for k, v := range given {
			if out[k] = v; v == "" {
				delete(out, k)
			}
		}
		return out
	}, nil
}
