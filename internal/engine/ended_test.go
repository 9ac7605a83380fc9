package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// What is in memory is walked without a request that would notice the end of the context.
func TestWalksInMemoryEndWithTheContext(t *testing.T) {
	m, err := manifest.New([]byte(`{"schemaVersion":2,"mediaType":"` + types.MediaTypeImageIndex + `","manifests":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	r := &run{}
	r.manifests.put(m)
	in := &inspection{run: r, above: map[digest.Digest]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.pickNested(ctx, m.Descriptor(), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("platforms: %v", err)
	}
	if _, err := in.node(ctx, ref.Ref{}, m.Descriptor(), m, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("inspect: %v", err)
	}
}
