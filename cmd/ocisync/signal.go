package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// errInterrupted is the cause of a context that a signal ended.
type errInterrupted struct{ sig os.Signal }

func (e errInterrupted) Error() string { return e.sig.String() }

// timeoutError is the cause of a context that --timeout ended.
type timeoutError struct{ after time.Duration }

func (e *timeoutError) Error() string { return "not done within --timeout " + e.after.String() }

func (e *timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// interruptible returns a context that the first interrupt ends, which say tells the user. The second ends the program at once, as nothing that
// is being written becomes visible before it is whole.
func interruptible(ctx context.Context, say func()) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case sig := <-signals:
			cancel(errInterrupted{sig})
			say()
		case <-done:
			return
		}
		select {
		case sig := <-signals:
			os.Exit(signalCode(sig))
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

// outliveReader makes a write to a stderr that nobody reads any more an error of that write instead of the end of the
// program, from now on to its last line. The signal is taken rather than ignored, as programs that are started meanwhile
// would inherit the latter.
func outliveReader() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// interruptedBy returns the exit code of a program that a signal ended.
func interruptedBy(ctx context.Context) (int, bool) {
	var e errInterrupted
	if errors.As(context.Cause(ctx), &e) {
		return signalCode(e.sig), true
	}
	return 0, false
}

// quietly reports whether err says no more than that the work was stopped.
func quietly(err error) bool {
	for _, e := range leaves(err) {
		if !errors.Is(e, context.Canceled) {
			return false
		}
	}
	return true
}

// signalCode is what shells report for a program that a signal ended: 130 for an interrupt, 143 for a termination.
func signalCode(sig os.Signal) int {
	if n, ok := sig.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return exitFailed
}
