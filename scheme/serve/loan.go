package serve

import (
	"io"
	"sync"
)

// loan is what a session has received, for a place to read. A place may leave a Read behind, as it may with a body: after
// end it gets nothing any more, and the upload is the session's alone.
type loan struct {
	mu   sync.RWMutex // held while r is read
	r    io.ReaderAt
	over bool
}

func (l *loan) ReadAt(p []byte, off int64) (int, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.over {
		return 0, errOver
	}
	return l.r.ReadAt(p, off)
}

func (l *loan) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}
