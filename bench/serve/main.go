// Command serve measures registries beside each other: ours over a directory, nginx with the same content as plain files,
// which is the floor, olareg, distribution's registry, and zot when its binary is given:
//
//	go run ./bench/serve                        # all of it, in less than three minutes
//	go run ./bench/serve -only manifest -servers nginx,ocisync -rounds 7
//	go run ./bench/serve -zot /path/of/zot
//
// Every server gets the same repositories, and in every row of the table each has its turn in every round, in changing
// order; a cell is the median of the rounds. What cannot be had here (nginx without its package, zot) is said loudly and left
// out. README.md tells how to read the table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// config is what was asked for.
type config struct {
	servers []string
	only    *regexp.Regexp
	rounds  int
	round   time.Duration
	peers   string // a folder of binaries, "" to build them
	ours    string // a binary of ocisync, "" to build it
	zot     string
	nginx   string
	profile string
	large   int64
	many    int
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := child(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "server:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func parse(args []string) (config, error) {
	var c config
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	servers := fs.String("servers", "nginx,ocisync,ocisync+auth+log,olareg,distribution,zot", "which `servers`, in the order of the columns")
	only := fs.String("only", "", "only rows whose name matches this `regexp`")
	fs.IntVar(&c.rounds, "rounds", 5, "how often each server has its turn in each row")
	fs.DurationVar(&c.round, "round", 250*time.Millisecond, "how long one turn takes")
	fs.StringVar(&c.peers, "peers", "", "a `folder` that has olareg and registry; otherwise they are built from bench/peers")
	fs.StringVar(&c.zot, "zot", os.Getenv("ZOT"), "`path` of zot's binary; $ZOT is the default")
	fs.StringVar(&c.ours, "ocisync", "", "`path` of a binary of ocisync; otherwise it is built")
	fs.StringVar(&c.nginx, "nginx", "nginx", "`path` of nginx")
	fs.StringVar(&c.profile, "profile", "", "write profiles of our server into this `folder`")
	large := fs.Int64("large", 512, "`MiB` of the large blob")
	fs.IntVar(&c.many, "many", 10000, "tags of the large repository")
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	if fs.NArg() > 0 {
		return c, fmt.Errorf("%q: there are no arguments, only flags", fs.Arg(0))
	}
	c.servers, c.large = strings.Split(*servers, ","), *large<<20
	var err error
	c.only, err = regexp.Compile(*only)
	return c, err
}

func run(ctx context.Context, args []string) (err error) {
	c, err := parse(args)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "ocisync-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	began := time.Now()
	shelf, err := newShelf(ctx, filepath.Join(work, "content"), c)
	if err != nil {
		return fmt.Errorf("content: %w", err)
	}
	servers, err := startAll(ctx, c, work, shelf)
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.stop())
		}
	}()
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "ready after %.0f s\n", time.Since(began).Seconds())
	t := &table{servers: servers}
	for _, r := range rows(shelf) {
		if c.only.MatchString(r.name) {
			if err := t.measure(ctx, c, r); err != nil {
				return err
			}
		}
	}
	fmt.Printf("%s/%s, %d CPUs, %s, %d rounds of %v, took %.0f s\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), c.rounds, c.round, time.Since(began).Seconds())
	t.print(os.Stdout)
	return nil
}
