package serve

import (
	"errors"
	"io"
	"sync"
	"time"
)

// errOver is what a request's body says to who still reads it when the request has been answered.
var errOver = errors.New("the request is over")

// body is the request's body. It remembers its failure: that is the client's, whatever a place makes of it.
//
// A place may give up while it hangs in a Read, as the context ends that wait; it then leaves the Read behind. So what is
// known of the body may be asked for, and the request may end, while somebody reads.
type body struct {
	r io.Reader

	mu      sync.Mutex // guards what follows; not held while r is read
	n       int64      // bytes that were read
	asked   bool       // somebody has read, or tried: a client that waited for "100 Continue" sends now
	ended   bool       // there is nothing more to read
	busy    bool       // somebody reads
	over    bool       // the request is over: nobody reads any more
	err     error
	reading deadline
	first   func() // called before the first Read; may be nil
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.enter(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = false
	b.n += int64(n)
	b.ended = b.ended || err != nil
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

func (b *body) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return errOver
	}
	if !b.asked && b.first != nil {
		b.first()
	}
	b.asked, b.busy = true, true
	if !b.ended { // else net/http waits for the next request, and the deadline would end that
		b.reading.move()
	}
	return nil
}

// failure is why the body could not be read, nil if it could.
func (b *body) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// received is how many bytes came.
func (b *body) received() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// last gives the client what is left of limit for the rest of the body, whoever reads it; net/http does that, too, before
// it sends the answer. rest reports whether there may be more, and that nobody is reading it; asked whether anybody has.
func (b *body) last(limit time.Duration) (rest, asked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return false, b.asked
	}
	b.reading.last(limit)
	return !b.busy, b.asked
}

// cut lets the reading have the deadline that is set next, and no later one: a Read that is just about to begin would
// otherwise move it.
func (b *body) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading.set = nil
}

// end is called when the request has been answered: the connection's deadlines are the next one's.
func (b *body) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over, b.reading.set = true, nil
}
