package containerd

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
)

// Writer opens the ingest that WithRef names, at its end: one writer at a time, in all processes. What was left with
// another descriptor than WithDescriptor now gives starts over, empty. The descriptor's size is a forecast: more can be
// written, and Commit says what it has to be. ctx stays in force for the writer's Write.
//
// Errors: InvalidArgument without a ref; Unavailable while it is open elsewhere; AlreadyExists when the descriptor's
// digest is there already.
func (s *Store) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	const op = "content write"
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Ref == "" {
		return nil, fmt.Errorf("%s %s: ref must not be empty: %w", op, s.r, errdefs.ErrInvalidArgument)
	}
	expected := types.Descriptor{MediaType: o.Desc.MediaType, Digest: o.Desc.Digest, Size: max(o.Desc.Size, 0)}
	if expected.Digest != "" {
		if err := s.valid(op, expected.Digest); err != nil {
			return nil, err
		}
	}
	ingester, err := capability[scheme.Ingester](s, op)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	up, err := ingester.Ingest(ctx, s.r, o.Ref, scheme.WithExpectedBlob(expected), scheme.WithLooseSize())
	if err != nil {
		cancel()
		return nil, classify(err)
	}
	w := &writer{s: s, ref: o.Ref, cancel: cancel, up: up}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[w.ref] = w
	return w, nil
}

// Status describes the ingest ref. Errors: NotFound.
func (s *Store) Status(ctx context.Context, ref string) (content.Status, error) {
	manager, err := capability[scheme.IngestManager](s, "content status")
	if err != nil {
		return content.Status{}, err
	}
	ingest, err := manager.IngestStat(ctx, s.r, ref)
	if err != nil {
		return content.Status{}, classify(err)
	}
	return statusOf(ingest), nil
}

// ListStatuses describes the ingests that one of the filters matches, or every one when there is none, in byte order of
// their refs. Filters are those of Walk, with "ref" as the only field: ref==NAME, ref~=EXPRESSION. Errors:
// InvalidArgument for a filter that cannot be parsed.
func (s *Store) ListStatuses(ctx context.Context, fs ...string) ([]content.Status, error) {
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return nil, err
	}
	manager, err := capability[scheme.IngestManager](s, "content statuses")
	if err != nil {
		return nil, err
	}
	var all []content.Status
	err = manager.IngestList(ctx, s.r, func(ingest blob.Ingest) error {
		if st := statusOf(ingest); filter.Match(adaptStatus(st)) {
			all = append(all, st)
		}
		return nil
	})
	if err != nil {
		return nil, classify(err)
	}
	return all, nil
}

// adaptStatus offers a status to filters, with the fields that containerd's local store has.
func adaptStatus(st content.Status) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 1 && path[0] == "ref" {
			return st.Ref, true
		}
		return "", false
	})
}

// Abort removes the ingest ref and what was written. A writer of this Store that is open on it is ended: its methods
// fail from then on. Errors: NotFound; Unavailable while somebody else has it open.
func (s *Store) Abort(ctx context.Context, ref string) error {
	s.mu.Lock()
	w := s.open[ref]
	s.mu.Unlock()
	if w != nil {
		if was, err := w.abort(ctx); was {
			return classify(err)
		}
	}
	manager, err := capability[scheme.IngestManager](s, "content abort")
	if err != nil {
		return err
	}
	return classify(manager.IngestAbort(ctx, s.r, ref))
}

func statusOf(i blob.Ingest) content.Status {
	st := content.Status{Ref: i.Key, Offset: i.Offset, Expected: i.Expected.Digest, StartedAt: i.Started, UpdatedAt: i.Updated}
	if types.SizeKnown(i.Expected) {
		st.Total = i.Expected.Size
	}
	return st
}
