package reg

import (
	"context"
	"io"
	"time"
)

// stalled is why a request was ended that did not move. It is a timeout, and so an interruption that is retried.
type stalled struct{}

func (stalled) Error() string { return "the connection stalled" }
func (stalled) Timeout() bool { return true }

// watchdog ends a request when nothing happened for as long as it was told to expect. It is used by one phase of the
// request at a time: sending the body, waiting for the answer, reading the answer.
type watchdog struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// watch returns a context for one request, and its watchdog. stop must be called when the request is over.
func watch(ctx context.Context, d time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watchdog{cancel: cancel, timer: time.AfterFunc(d, func() { cancel(stalled{}) })}
}

// expect says that something will happen within d.
func (w *watchdog) expect(d time.Duration) { w.timer.Reset(d) }

// rest says that it is our turn.
func (w *watchdog) rest() { w.timer.Stop() }

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// watchedAnswer is the body of an answer: a byte must come within idle, as long as somebody waits for one.
type watchedAnswer struct {
	ctx  context.Context // of the request
	body io.ReadCloser
	dog  *watchdog
	idle time.Duration
}

func (b *watchedAnswer) Read(p []byte) (int, error) {
	b.dog.expect(b.idle)
	n, err := b.body.Read(p)
	b.dog.rest()
	if err != nil && err != io.EOF {
		err = explainEnd(b.ctx, err)
	}
	return n, err
}

func (b *watchedAnswer) Close() error {
	b.dog.stop()
	return b.body.Close()
}

// watchedBody is the body of a request: the connection must take what it was given within idle. How long the source
// needs to give more is not its concern. After the end the answer is due within header.
type watchedBody struct {
	io.ReadCloser
	dog          *watchdog
	idle, header time.Duration
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.dog.rest()
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		b.dog.expect(b.idle)
	} else {
		b.dog.expect(b.header)
	}
	return n, err
}

// explainEnd says why a request's context ended it, when that is why it failed.
func explainEnd(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(ctx); cause == (stalled{}) {
		return cause
	}
	return ctx.Err()
}
