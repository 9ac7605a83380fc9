package ocidir

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/ref"
)

const (
	// ownTime is how large a blob may be to be hashed by who opens it, in his time. Larger ones are hashed on their own.
	ownTime = 4 << 20
	// maxProofs is how many blobs are hashed on their own at once.
	maxProofs = 4
)

// proofs are the large blobs that are being hashed because somebody opened them for the first time. A hash goes on when
// who asked for it goes away: a client that waits for a minute, and then tries again, would otherwise never have a range
// of a blob that takes longer. Of many who ask for one blob all wait for one hash.
type proofs struct {
	mu      sync.Mutex
	running map[badFile]*proof
	slots   chan struct{}
	ctx     context.Context // of the API's life
	end     context.CancelFunc
	all     sync.WaitGroup
}

// proof is one blob's. err is there when done is closed.
type proof struct {
	done   chan struct{}
	err    error
	wanted int // how many wait; who begins to hash when nobody does any more need not begin
}

func newProofs() *proofs {
	p := &proofs{running: map[badFile]*proof{}, slots: make(chan struct{}, maxProofs)}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// close stops all and waits until they have stopped.
func (p *proofs) close() {
	p.mu.Lock()
	p.end()
	p.mu.Unlock()
	p.all.Wait()
}

// join waits for key's proof, which run makes unless it is being made.
func (p *proofs) join(ctx context.Context, key badFile, run func(context.Context) error) error {
	p.mu.Lock()
	if err := p.ctx.Err(); err != nil {
		p.mu.Unlock()
		return errClosed
	}
	one := p.running[key]
	if one == nil {
		one = &proof{done: make(chan struct{})}
		p.running[key] = one
		p.all.Go(func() { p.make(key, one, run) })
	}
	one.wanted++
	p.mu.Unlock()
	select {
	case <-one.done:
		return one.err
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		one.wanted--
		return ctx.Err()
	}
}

func (p *proofs) make(key badFile, one *proof, run func(context.Context) error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-p.ctx.Done():
	}
	if p.start(key, one) {
		one.err = run(p.ctx)
		p.mu.Lock()
		delete(p.running, key)
		p.mu.Unlock()
	}
	close(one.done)
}

// start reports whether the hash is to begin; if not it is forgotten, and who comes later begins anew.
func (p *proofs) start(key badFile, one *proof) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one.wanted > 0 && p.ctx.Err() == nil {
		return true
	}
	delete(p.running, key)
	one.err = errClosed // for who still waits
	return false
}

// prove is verify for a blob of any size. It ends with ctx; the hash of a large blob goes on then.
func (o *OCIDir) prove(ctx context.Context, b *blobFile, d digest.Digest) error {
	if b.id.size <= ownTime || b.l.mem.isVerified(b.id, d) {
		return b.verify(ctx, d)
	}
	at, path, name := b.l.at, b.l.path, b.name
	err := o.proofs.join(ctx, badFile{b.id, d}, func(ctx context.Context) error {
		return o.proveFile(ctx, at, path, name, d)
	})
	if err != nil {
		return err
	}
	return b.verify(ctx, d) // it is known, unless the file is another one by now
}

// proveFile hashes the file that has a blob's name now.
func (o *OCIDir) proveFile(ctx context.Context, at ref.Ref, path, name string, d digest.Digest) error {
	l, err := o.use(at, path)
	if err != nil {
		return err
	}
	defer o.release(l)
	f, id, err := l.openBlobFile(d, name)
	if err != nil {
		return err
	}
	defer f.Close()
	b := &blobFile{l: l, f: f, id: id, name: name}
	return b.verify(ctx, d)
}
