package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// conn is a client of one connection that stays open. It speaks as little HTTP as there needs to be: a client of
// net/http costs more than the servers do, and would hide what they cost.
type conn struct {
	c    net.Conn
	in   *bufio.Reader
	sink []byte
	auth string // a header
}

func dial(ctx context.Context, s *server) (*conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	return &conn{c: c, in: bufio.NewReaderSize(c, 16<<10), sink: make([]byte, 256<<10), auth: s.auth}, nil
}

const accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"

// text is a request as it goes over the wire.
func (c *conn) text(method, path string, headers ...string) []byte {
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: %s\r\n%s%s\r\n", method, path, accept, c.auth, strings.Join(headers, ""))
}

// answer is the head of an answer.
type answer struct {
	status   int
	length   int64 // -1 when it is chunked
	location string
}

// do sends a request and reads the answer, whose body goes to w.
func (c *conn) do(req []byte, head bool, w io.Writer) (answer, error) {
	if _, err := c.c.Write(req); err != nil {
		return answer{}, err
	}
	a, err := c.readHead()
	if err != nil || head || a.status == 204 || a.status == 304 {
		return a, err
	}
	if a.length >= 0 {
		return a, c.pour(w, a.length)
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 64)
		if err != nil {
			return a, err
		}
		if err := c.pour(w, n); err != nil {
			return a, err
		}
		if _, err := c.in.Discard(2); err != nil || n == 0 {
			return a, err
		}
	}
}

func (c *conn) readHead() (answer, error) {
	a := answer{length: 0}
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			if len(line) < 12 {
				return a, fmt.Errorf("no status: %q", line)
			}
			if a.status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return a, err
			}
			continue
		}
		if len(line) == 0 {
			return a, nil
		}
		switch name, value, _ := bytes.Cut(line, []byte(": ")); {
		case len(name) == 14 && bytes.EqualFold(name, []byte("Content-Length")):
			if a.length, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return a, err
			}
		case len(name) == 17 && bytes.EqualFold(name, []byte("Transfer-Encoding")):
			a.length = -1
		case len(name) == 8 && bytes.EqualFold(name, []byte("Location")):
			a.location = string(value)
		}
	}
}

// pour reads n bytes.
func (c *conn) pour(w io.Writer, n int64) error {
	for n > 0 {
		m, err := c.in.Read(c.sink[:min(n, int64(len(c.sink)))])
		if _, werr := w.Write(c.sink[:m]); werr != nil {
			return werr
		}
		if n -= int64(m); err != nil && n > 0 {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
	}
	return nil
}

// load is what a server did in one turn.
type load struct {
	perSecond float64
	p99       time.Duration
	took      time.Duration // the turn
	cpu       time.Duration // the server's processor time for one operation, 0 when that is not known
	clients   time.Duration // the clients'
}

// each is what of d is one operation's.
func (l load) each(d time.Duration) time.Duration {
	return time.Duration(float64(d) / (l.perSecond * l.took.Seconds()))
}

// operation does one thing as client number i for the n-th time.
type operation func(client, n int) error

// crowd is the clients of one server in one row.
type crowd struct {
	conns []*conn
	ops   []operation // by client
	next  []int       // by client
}

func gather(ctx context.Context, s *server, n int, make func(*conn) operation) (*crowd, error) {
	c := &crowd{}
	for range n {
		one, err := dial(ctx, s)
		if err != nil {
			c.close()
			return nil, err
		}
		c.conns, c.ops, c.next = append(c.conns, one), append(c.ops, make(one)), append(c.next, 0)
	}
	return c, nil
}

func (c *crowd) close() {
	for _, one := range c.conns {
		one.c.Close()
	}
}

// press has all clients do what they do for as long as a turn takes.
func (c *crowd) press(ctx context.Context, turn time.Duration) (load, error) {
	var mu sync.Mutex
	var all []time.Duration
	var g errgroup.Group
	end := make(chan struct{})
	stop := time.AfterFunc(turn, func() { close(end) })
	defer stop.Stop()
	began := time.Now()
	for i, op := range c.ops {
		g.Go(func() error {
			took := make([]time.Duration, 0, 1024)
			last := time.Now()
			for {
				select {
				case <-end:
					mu.Lock()
					defer mu.Unlock()
					all = append(all, took...)
					return nil
				case <-ctx.Done():
					return ctx.Err()
				default:
				}
				if err := op(i, c.next[i]); err != nil {
					return err
				}
				c.next[i]++
				now := time.Now()
				took, last = append(took, now.Sub(last)), now
			}
		})
	}
	err := g.Wait()
	elapsed := time.Since(began)
	if err != nil {
		return load{}, err
	}
	if len(all) == 0 {
		return load{}, errors.New("not one operation in a turn")
	}
	slices.Sort(all)
	return load{perSecond: float64(len(all)) / elapsed.Seconds(), p99: all[len(all)*99/100], took: elapsed}, nil
}
