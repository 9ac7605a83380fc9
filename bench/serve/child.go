package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"

	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// childArg is how this program starts itself as the server that is measured.
const childArg = "serve-child"

func makeOcisync(_ context.Context, c config, s *shelf, dir, addr string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	return exec.Command(self, childArg, addr, data, c.profile), copyTree(s.dir, data)
}

func firstLine(out []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
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
	web := &http.Server{Addr: args[0], Handler: h}
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
