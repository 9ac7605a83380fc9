package containerd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/interop/containerd"
	"github.com/ocisync/ocisync/scheme/ocidir"
)

// The test binary is its own second process: with these set it does a job on a directory, says what it did on its
// standard output, and goes on when a line comes in.
const (
	childEnv    = "OCISYNC_INTEROP_CHILD"
	childDirEnv = "OCISYNC_INTEROP_DIR"
)

// child is the second process.
func child(job, dir string) {
	api := ocidir.New()
	s := containerd.New(api, dirRef(dir))
	if err := childJob(context.Background(), s, job); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := api.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func childJob(ctx context.Context, s *containerd.Store, job string) error {
	switch job {
	case "hold": // writes half of the ingest "key", and holds it until it is killed or told to go on
		w, err := s.Writer(ctx, content.WithRef("key"), withSize(10))
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, "01234"); err != nil {
			return err
		}
		fmt.Println("holding")
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			return err
		}
		return w.Close()
	case "write": // writes the blobs 0 to 49, and labels them
		for i := range 50 {
			data := fmt.Sprint("blob ", i)
			d := ocispec.Descriptor{Digest: digest.FromString(data), Size: int64(len(data))}
			if err := content.WriteBlob(ctx, s, "write-"+data, strings.NewReader(data), d); err != nil {
				return err
			}
			label := content.Info{Digest: d.Digest, Labels: map[string]string{fmt.Sprint("pid-", os.Getpid()): "was here"}}
			for key := range label.Labels {
				if _, err := s.Update(ctx, label, "labels."+key); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return errors.New("no such job: " + job)
}

// start runs job in a process of its own.
func start(t *testing.T, job, dir string) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Reader) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+job, childDirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	if in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, in, bufio.NewReader(stdout)
}

func TestAnotherProcessKeepsItsIngest(t *testing.T) {
	dir := t.TempDir()
	cmd, in, out := start(t, "hold", dir)
	if line, err := out.ReadString('\n'); line != "holding\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	s, _ := inDir(t, dir)
	_, err := s.Writer(t.Context(), content.WithRef("key"))
	is(t, "its ingest", err, errdefs.IsUnavailable)
	is(t, "aborting it", s.Abort(t.Context(), "key"), errdefs.IsUnavailable)
	if st, err := s.Status(t.Context(), "key"); err != nil || st.Offset != 5 || st.Total != 10 {
		t.Errorf("its status: %+v, %v", st, err)
	}
	if _, err := io.WriteString(in, "go on\n"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	finish(t, s)
}

func TestWhatAKilledProcessWroteIsGoneOnWith(t *testing.T) {
	dir := t.TempDir()
	cmd, _, out := start(t, "hold", dir)
	if line, err := out.ReadString('\n'); line != "holding\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it was not killed")
	}
	s, _ := inDir(t, dir)
	finish(t, s)
}

// finish goes on with the ingest that the job hold left.
func finish(t *testing.T, s *containerd.Store) {
	t.Helper()
	w := begin(t, s, "key", "", withSize(10))
	st, err := w.Status()
	if err != nil || st.Offset != 5 || st.Total != 10 || w.Digest() != digest.FromString("01234") {
		t.Errorf("opened again it is %+v with the digest %s, %v", st, w.Digest(), err)
	}
	write(t, w, "56789")
	if err := w.Commit(t.Context(), 10, digest.FromString("0123456789")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, digest.FromString("0123456789")); got != "0123456789" {
		t.Errorf("it reads %q", got)
	}
}

func TestProcessesWriteTheSameBlobsAtOnce(t *testing.T) {
	dir := t.TempDir()
	var cmds []*exec.Cmd
	for range 3 {
		cmd, _, _ := start(t, "write", dir)
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	s, _ := inDir(t, dir)
	if got := walked(t, s); len(got) != 50 {
		t.Errorf("%d blobs are there, want 50", len(got))
	}
	err := s.Walk(t.Context(), func(i content.Info) error {
		if len(i.Labels) != 3 {
			t.Errorf("%s has the labels %v, want one of each process", i.Digest, i.Labels)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if left, err := s.ListStatuses(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("ingests are left: %v, %v", left, err)
	}
}

func TestWritersOfOneRefTakeTurns(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		const data = "what everybody wants to write"
		d := ocispec.Descriptor{Digest: digest.FromString(data), Size: int64(len(data))}
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if err := content.WriteBlob(t.Context(), f, "ref", hidden(data), d); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := read(t, f, d.Digest); got != data {
			t.Errorf("it reads %q", got)
		}
		if left, err := f.ListStatuses(t.Context()); err != nil || len(left) != 0 {
			t.Errorf("ingests are left: %v, %v", left, err)
		}
	})
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s, api := inDir(t, dir)
	want := ocispec.Descriptor{Digest: digest.FromString("0123456789"), Size: 10}
	leave(t, s, "key", "01234", content.WithDescriptor(want))
	d := put(t, s, "blob", map[string]string{"k": "v"})
	before, err := s.Status(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context(), d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := api.(*ocidir.OCIDir).Close(); err != nil {
		t.Fatal(err)
	}

	s, _ = inDir(t, dir)
	after, err := s.Status(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	if after.Offset != 5 || after.Total != 10 || after.Expected != want.Digest || !after.StartedAt.Equal(before.StartedAt) {
		t.Errorf("%+v became %+v", before, after)
	}
	if got, err := s.Info(t.Context(), d.Digest); err != nil || !got.CreatedAt.Equal(info.CreatedAt) || !got.UpdatedAt.Equal(info.UpdatedAt) || got.Labels["k"] != "v" {
		t.Errorf("%+v became %+v, %v", info, got, err)
	}
	w := begin(t, s, "key", "56789", content.WithDescriptor(want))
	if st, err := w.Status(); err != nil || !st.StartedAt.Equal(before.StartedAt) {
		t.Errorf("opened again it is %+v, %v", st, err)
	}
	if err := w.Commit(t.Context(), 10, want.Digest); err != nil {
		t.Error(err)
	}
}

func TestNothingStaysOpen(t *testing.T) {
	dir := t.TempDir()
	s, api := inDir(t, dir)
	put(t, s, "warm", nil)
	before := openFiles(t)
	for i := range 20 {
		key := fmt.Sprint("key ", i)
		leave(t, s, key, key)
		d := put(t, s, key, map[string]string{"k": "v"})
		read(t, s, d.Digest)
		if _, err := s.Writer(t.Context(), content.WithRef("there"), content.WithDescriptor(d)); !errdefs.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		w := begin(t, s, key+" wrong", key)
		is(t, "a wrong digest", w.Commit(t.Context(), 0, digest.FromString("wrong")), errdefs.IsFailedPrecondition)
	}
	walked(t, s)
	if after := openFiles(t); after > before {
		t.Errorf("%d files were open, %d are: idle ingests hold them", before, after)
	}
	if err := api.(*ocidir.OCIDir).Close(); err != nil {
		t.Fatal(err)
	}
	if after := openFiles(t); after >= before {
		t.Errorf("%d files were open, %d are after closing", before, after)
	}
}

// openFiles counts this process's open files.
func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this system has no /proc/self/fd")
	}
	return len(all)
}
