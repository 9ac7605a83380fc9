package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"

	"golang.org/x/term"
)

// console is stderr: log lines, messages and the progress view share it. While a view with moving lines is up, it
// takes what is written, to show it above them.
type console struct {
	mu    sync.Mutex
	w     io.Writer
	above io.Writer // the view, or nil

	lines atomic.Bool // with --progress json, or a log in JSON: whatever is said is a line of JSON
}

// Write takes whole lines.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.above != nil {
		if n, err := c.above.Write(p); err == nil {
			return n, nil
		}
	}
	return c.w.Write(p)
}

// show puts a view in front, or with nil removes it.
func (c *console) show(view io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.above = view
}

func (c *console) printf(format string, args ...any) { fmt.Fprintf(c, format, args...) }

// isTerminal reports whether lines on f can be drawn over.
func isTerminal(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

// printable makes text from outside (a registry's words, names in a manifest) safe to print on a terminal: one line,
// and no control sequences.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r) || r == unicode.ReplacementChar || unicode.Is(unicode.Cf, r):
			return '�'
		}
		return r
	}, s)
}
