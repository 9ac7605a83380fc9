package ocidir

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
)

var errProof = errors.New("what the hash found")

// slowProof is one that waits until it is let go or its context ends.
func slowProof(begun chan<- struct{}, free <-chan struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		begun <- struct{}{}
		select {
		case <-free:
			return errProof
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// All who ask for one blob wait for one hash, which goes on when all of them go away: who comes back gets its result.
func TestAProofGoesOnWhenNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProofs()
		defer p.close()
		begun, free, got := make(chan struct{}, 10), make(chan struct{}), make(chan error, 10)
		ctx, cancel := context.WithCancel(t.Context())
		key := badFile{d: "a"}
		for range 3 {
			go func() { got <- p.join(ctx, key, slowProof(begun, free)) }()
		}
		synctest.Wait()
		cancel()
		for range 3 {
			if err := <-got; !errors.Is(err, context.Canceled) {
				t.Errorf("one who goes away: %v", err)
			}
		}
		go func() { got <- p.join(t.Context(), key, slowProof(begun, free)) }()
		synctest.Wait()
		if len(begun) != 1 {
			t.Errorf("%d hashes of one blob", len(begun))
		}
		close(free)
		if err := <-got; err != errProof {
			t.Errorf("who comes back: %v", err)
		}
		synctest.Wait()
		if len(p.running) > 0 {
			t.Error("it is not forgotten")
		}
	})
}

// Only so many are made at once, and none that nobody waits for any more when its turn comes. Closing ends all.
func TestProofsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProofs()
		begun, free, got := make(chan struct{}, 100), make(chan struct{}), make(chan error, 100)
		ctx, cancel := context.WithCancel(t.Context())
		for i := range maxProofs {
			go func() { got <- p.join(t.Context(), badFile{id: fileID{ino: uint64(i)}}, slowProof(begun, free)) }()
		}
		synctest.Wait()
		go func() { got <- p.join(ctx, badFile{d: "given up"}, slowProof(begun, free)) }()
		synctest.Wait()
		go func() { got <- p.join(t.Context(), badFile{d: "late"}, slowProof(begun, free)) }()
		synctest.Wait()
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("who gives up: %v", err)
		}
		if len(begun) != maxProofs {
			t.Errorf("%d at once, want %d", len(begun), maxProofs)
		}
		free <- struct{}{}
		free <- struct{}{}
		synctest.Wait()
		if len(begun) != maxProofs+1 {
			t.Errorf("%d were begun, want %d: only the one that is waited for", len(begun), maxProofs+1)
		}
		p.close()
		for range maxProofs + 1 {
			if err := <-got; err != errProof && !errors.Is(err, context.Canceled) {
				t.Errorf("at the end: %v", err)
			}
		}
		if err := p.join(t.Context(), badFile{d: "after"}, slowProof(begun, free)); !errors.Is(err, errClosed) {
			t.Errorf("after it was closed: %v", err)
		}
	})
}

// A large blob that nobody waits for any more is proven all the same, and one that is damaged is found to be.
func TestALargeBlobIsProvenInTheBackground(t *testing.T) {
	for _, bad := range []bool{false, true} {
		o, r := open(t), place(t.TempDir())
		d := putBlob(t, open(t), r, schemetest.Blob("large", ownTime+1))
		if bad {
			damage(t, blobFileOf(r, d.Digest), damages["flipped"])
		}
		b, err := o.openBlob(t.Context(), "test", r, d.Digest)
		must(t, err)
		gone, cancel := context.WithCancel(t.Context())
		for range maxProofs { // so that it has to wait, and is sure to be in the background when its client goes
			o.proofs.slots <- struct{}{}
		}
		cancel()
		if err := o.prove(gone, b, d.Digest); !errors.Is(err, context.Canceled) {
			t.Errorf("who goes away: %v", err)
		}
		back := make(chan error, 1)
		go func() { back <- o.prove(context.Background(), b, d.Digest) }()
		for range maxProofs {
			<-o.proofs.slots
		}
		if err := <-back; bad != errors.Is(err, errs.ErrDigestMismatch) || !bad && err != nil {
			t.Errorf("damaged %v: %v", bad, err)
		}
		must(t, errors.Join(b.f.Close()))
		b.end()
		if ra, err := o.BlobOpen(t.Context(), r, d); err == nil == bad {
			t.Errorf("damaged %v: opening it: %v, %v", bad, ra, err)
		} else if err == nil {
			ra.Close()
		}
		if _, err := o.BlobHead(t.Context(), r, d); err == nil == bad {
			t.Errorf("damaged %v: HEAD: %v", bad, err)
		}
	}
}
