// Command cutproxy stands between a client and a registry and breaks one push off: .ci/clients lets clients push through
// it, and push again.
//
//	cutproxy cut  ADDR TARGET BYTES FILE     ends all connections once the client has sent so many bytes
//	cutproxy hold ADDR TARGET BYTES FILE     takes nothing more from then on, until it is killed
//
// FILE is created when that happened. After a cut all goes through.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
)

func main() {
	if len(os.Args) != 6 || os.Args[1] != "cut" && os.Args[1] != "hold" {
		fmt.Fprintln(os.Stderr, "usage: cutproxy cut|hold ADDR TARGET BYTES FILE")
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, run(os.Args[1] == "hold", os.Args[2], os.Args[3], os.Args[4], os.Args[5]))
	os.Exit(1)
}

// proxy counts what clients send.
type proxy struct {
	hold bool
	file string

	mu   sync.Mutex // guards what follows
	left int64      // bytes until the end; below 0 after it
	open map[net.Conn]bool
}

// run serves until something fails.
func run(hold bool, addr, target, bytes, file string) error {
	left, err := strconv.ParseInt(bytes, 10, 64)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	p := &proxy{hold: hold, file: file, left: left, open: map[net.Conn]bool{}}
	for {
		client, err := l.Accept()
		if err != nil {
			return err
		}
		server, err := net.Dial("tcp", target)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.open[client], p.open[server] = true, true
		p.mu.Unlock()
		go p.pass(counter{p, server}, client, server)
		go p.pass(client, server, client)
	}
}

// pass hands on what from sends to w, and ends both sides when one has ended.
func (p *proxy) pass(w io.Writer, from, to net.Conn) {
	_, _ = io.Copy(w, from) // either side may end at any time: that is no error here
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range []net.Conn{from, to} {
		delete(p.open, c)
		_ = c.Close()
	}
}

// counter is a server that a client's bytes are counted to.
type counter struct {
	p      *proxy
	server net.Conn
}

func (c counter) Write(b []byte) (int, error) {
	ended, err := c.p.count(len(b))
	if err != nil {
		return 0, err
	}
	if ended && c.p.hold {
		select {}
	}
	return c.server.Write(b)
}

// count takes n bytes. ended says that they are behind the end, where what is open is cut off.
func (p *proxy) count(n int) (ended bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left < 0 {
		return true, nil
	}
	if p.left -= int64(n); p.left >= 0 {
		return false, nil
	}
	if err := os.WriteFile(p.file, nil, 0o644); err != nil {
		return true, err
	}
	for c := range p.open {
		if !p.hold {
			_ = c.Close()
		}
	}
	return true, nil
}
