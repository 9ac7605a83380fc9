package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"

	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// childArg is how this program starts itself as the server that is measured.
const childArg = "serve-child"

// The account of clients that have one.
const (
	account     = "bench:bench"
	accountHash = "bench:$2a$05$dZnf5C552yT.sd7iEzeS2e07FuJFZXOrKSI4bLnk2oZ6kMgD4NcM."
)

// auths are the headers of servers that want to know who asks.
var auths = map[string]string{
	"ocisync+auth+log": "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(account)) + "\r\n",
}

// makeOcisync starts the command as it comes, without the log of accesses, as the others have none. For profiles it starts
// this program.
func makeOcisync(ctx context.Context, c config, s *shelf, dir, addr string) (*exec.Cmd, error) {
	data := filepath.Join(dir, "data")
	if c.profile == "" {
		return ocisync(ctx, c, s, dir, "--no-access-log", "--addr", addr, data)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.Command(self, childArg, addr, data, c.profile), copyTree(s.dir, data)
}

// makeOcisyncAuth starts it with users, and a line in the log for every request.
func makeOcisyncAuth(ctx context.Context, c config, s *shelf, dir, addr string) (*exec.Cmd, error) {
	users := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(users, []byte(accountHash+"\n"), 0o600); err != nil {
		return nil, err
	}
	return ocisync(ctx, c, s, dir, "--htpasswd", users, "--addr", addr, filepath.Join(dir, "data"))
}

func ocisync(ctx context.Context, c config, s *shelf, dir string, args ...string) (*exec.Cmd, error) {
	bin := c.ours
	if bin == "" {
		top, err := c.top(ctx)
		if err != nil {
			return nil, err
		}
		if bin, err = goBuild(ctx, top, filepath.Join(dir, "ocisync"), "./cmd/ocisync"); err != nil {
			return nil, err
		}
	}
	return exec.Command(bin, append([]string{"serve"}, args...)...), copyTree(s.dir, filepath.Join(dir, "data"))
}

// child serves a tree of layouts until it is told to end.
func child(args []string) (err error) {
	if len(args) != 3 {
		return errors.New("wants ADDR DIR PROFILES")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	end, err := profile(args[2])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	api := ocidir.New()
	defer func() { err = errors.Join(err, api.Close()) }()
	h, err := serve.New(api, ref.Ref{Scheme: ref.SchemeOCIDir, Root: args[1]})
	if err != nil {
		return err
	}
	web := h.HTTPServer()
	web.Addr = args[0]
	failed := make(chan error, 1)
	go func() { failed <- web.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	return errors.Join(web.Close(), h.Shutdown(context.Background()))
}

// profile writes how time and memory were spent into dir, unless that is empty. What it returns ends it.
func profile(dir string) (end func() error, err error) {
	if dir == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	runtime.SetMutexProfileFraction(100)
	runtime.SetBlockProfileRate(100_000)
	cpu, err := os.Create(filepath.Join(dir, "cpu"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, errors.Join(err, cpu.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		errs := []error{cpu.Close()}
		for _, name := range []string{"allocs", "block", "mutex"} {
			errs = append(errs, writeProfile(dir, name))
		}
		return errors.Join(errs...)
	}, nil
}

func writeProfile(dir, name string) error {
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return errors.Join(pprof.Lookup(name).WriteTo(f, 0), f.Close())
}
