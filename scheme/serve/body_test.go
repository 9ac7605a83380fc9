package serve

import (
	"errors"
	"io"
	"testing"
	"time"
)

// A Read that a place left behind may go on while the request is answered, and after it: it finds out that it is late,
// and moves no deadline of the connection's next request.
func TestTheBodyOfARequestThatIsOver(t *testing.T) {
	r, w := io.Pipe()
	moved := 0
	b := &body{r: r, reading: deadline{idle: time.Minute, set: func(time.Time) error { moved++; return nil }}}
	began, done := make(chan struct{}), make(chan error)
	go func() {
		close(began)
		for {
			if _, err := b.Read(make([]byte, 1)); err != nil {
				done <- err
				return
			}
		}
	}()
	<-began
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b.end()
	was := moved
	if rest, asked := b.last(time.Second); !asked || moved != was {
		t.Errorf("after the end: rest %v, asked %v, %d deadlines", rest, asked, moved-was)
	}
	go func() {
		_, _ = w.Write([]byte("y")) // for a Read that was under way
	}()
	if err := <-done; !errors.Is(err, errOver) {
		t.Errorf("the late reader is told %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if b.failure() != nil || moved != was {
		t.Errorf("failure %v, %d deadlines after the end", b.failure(), moved-was)
	}
	if n := b.received(); n < 1 || n > 2 {
		t.Errorf("%d bytes were received", n)
	}
}
