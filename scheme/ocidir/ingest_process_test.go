package ocidir

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// ingestEnv makes the test binary a process that has to do with ingests: its value is a list of words in JSON.
const ingestEnv = "OCIDIR_TEST_INGEST"

func ingestMain(args string) int {
	var words []string
	if err := json.Unmarshal([]byte(args), &words); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	do := map[string]func(dir, arg string) error{"write": childWrites, "fight": childFights, "put": childPuts, "hold": childHolds}
	if err := do[words[0]](words[1], words[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// startIngest starts such a process, and returns its output.
func startIngest(t *testing.T, words ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	args, err := json.Marshal(words)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ingestEnv+"="+string(args))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// line expects a line of output.
func line(t *testing.T, s *bufio.Scanner) string {
	t.Helper()
	if !s.Scan() {
		t.Fatalf("the other process says nothing: %v", s.Err())
	}
	return s.Text()
}

// kill ends a process that does not end by itself.
func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}

// childWrites writes to an ingest for ever, and says how far it came.
func childWrites(dir, key string) error {
	u, err := New().Ingest(context.Background(), place(dir), key, scheme.WithIngestOwner("the child"), scheme.WithExpectedBlob(types.Descriptor{Size: 1 << 40}))
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		if _, err := u.Write(schemetest.Blob(fmt.Sprint("part ", i), 100_000)); err != nil {
			return err
		}
		fmt.Println(u.Status().Offset)
	}
}

func TestIngestOfAKilledProcessGoesOn(t *testing.T) {
	dir := t.TempDir()
	begun := time.Now()
	cmd, out := startIngest(t, "write", dir, "key")
	for range 10 {
		line(t, out)
	}
	o, r := open(t), place(dir)
	live, err := o.IngestStat(t.Context(), r, "key")
	if err != nil || !live.Active || live.Offset < 1_000_000 || live.Owner != "the child" {
		t.Errorf("while it writes: %+v, %v", live, err)
	}
	_, err = o.Ingest(t.Context(), r, "key")
	if !errors.Is(err, errs.ErrLocked) || !strings.Contains(err.Error(), "["+strconv.Itoa(cmd.Process.Pid)+"]") {
		t.Errorf("while it writes, another one: got %v, want ErrLocked with the process", err)
	}
	kill(t, cmd)
	acked := int64(0)
	for out.Scan() {
		if acked, err = strconv.ParseInt(out.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	left, err := o.IngestStat(t.Context(), r, "key")
	if err != nil || left.Active || left.Offset < acked || !left.Started.Equal(live.Started) || left.Started.Before(begun) || left.Expected.Size != 1<<40 {
		t.Fatalf("after it was killed at %d bytes: %+v, %v", acked, left, err)
	}
	u, err := o.Ingest(t.Context(), r, "key")
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for i := 0; int64(len(all)) < left.Offset; i++ {
		all = append(all, schemetest.Blob(fmt.Sprint("part ", i), 100_000)...)
	}
	all = all[:left.Offset]
	if s := u.Status(); s.Offset != left.Offset || s.Owner != "the child" || s.Expected.Size != 1<<40 || !s.Started.Equal(left.Started) {
		t.Errorf("opened again: %+v", s)
	}
	if u.Digest() != digest.FromBytes(all) {
		t.Error("the digest of what is there is wrong")
	}
	if d, err := u.Commit(t.Context(), types.Descriptor{}, nil); err != nil || d.Digest != digest.FromBytes(all) {
		t.Errorf("commit: %v, %v", d, err)
	}
}

// childHolds opens an ingest, says so and waits to be killed.
func childHolds(dir, key string) error {
	if _, err := New().Ingest(context.Background(), place(dir), key); err != nil {
		return err
	}
	fmt.Println("open")
	time.Sleep(time.Hour) // until it is killed
	return nil
}

// childFights opens one ingest again and again, and notes outside of it that it has it.
func childFights(dir, rounds string) error {
	n, err := strconv.Atoi(rounds)
	if err != nil {
		return err
	}
	o := New()
	defer o.Close()
	for had := 0; had < n; {
		ok, err := fight(o, dir)
		if err != nil {
			return err
		}
		if ok {
			had++
		}
	}
	return nil
}

// fight has the ingest once, or not, and expects to be alone with it: with the marker, and with what is in it.
func fight(o *OCIDir, dir string) (had bool, err error) {
	ctx, marker := context.Background(), filepath.Join(dir, "..", "marker")
	u, err := o.Ingest(ctx, place(dir), "key")
	if errors.Is(err, errs.ErrLocked) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	m, err := os.OpenFile(marker, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, fmt.Errorf("two have the ingest: %w", err)
	}
	m.Close()
	at := u.Status().Offset
	for i := range 3 {
		if _, err := u.Write(make([]byte, 1000)); err != nil {
			return false, err
		}
		fi, err := os.Stat(filepath.Join(dir, ingestDir, nameOfKey("key"), ingestData))
		if err != nil || fi.Size() != at+int64(i+1)*1000 {
			return false, fmt.Errorf("somebody else wrote or removed: %v, %w", fi, err)
		}
	}
	if err := os.Remove(marker); err != nil {
		return false, err
	}
	switch rand.IntN(4) {
	case 0:
		err = u.Abort(ctx)
	case 1:
		if _, err = u.Commit(ctx, types.Descriptor{}, nil); errors.Is(err, errs.ErrExists) {
			err = nil
		}
	default:
		err = u.Close()
	}
	return true, err
}

func TestProcessesFightForAnIngest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	var wg sync.WaitGroup
	for range 3 {
		cmd, _ := startIngest(t, "fight", dir, "40")
		wg.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	for range 2 { // two values of this process
		o := open(t, WithDurability(None))
		wg.Go(func() {
			for had := 0; had < 40; {
				ok, err := fight(o, dir)
				if err != nil {
					t.Error(err)
					return
				}
				if ok {
					had++
				}
			}
		})
	}
	wg.Wait()
	valid(t, place(dir))
}

// slowSource is a blob whose first part is there at once; the rest comes when it may. It counts what was read.
type slowSource struct {
	data []byte
	stop int64 // where reading stops
	then func() error

	mu    sync.Mutex
	off   int64
	bytes int64   // that were read
	opens []int64 // offsets of OpenAt
}

func (s *slowSource) Read(p []byte) (int, error) {
	n, err := s.readAt(p, s.off)
	s.off += int64(n)
	return n, err
}

func (s *slowSource) readAt(p []byte, off int64) (int, error) {
	if off == s.stop && s.then != nil {
		if err := s.then(); err != nil {
			return 0, err
		}
	}
	end := int64(len(s.data))
	if s.then != nil && off < s.stop {
		end = s.stop
	}
	if off >= end {
		return 0, io.EOF
	}
	n := copy(p, s.data[off:end])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += int64(n)
	return n, nil
}

func (s *slowSource) OpenAt(_ context.Context, off int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opens = append(s.opens, off)
	return io.NopCloser(&laterPart{s, off}), nil
}

type laterPart struct {
	s   *slowSource
	off int64
}

func (l *laterPart) Read(p []byte) (int, error) {
	n, err := l.s.readAt(p, l.off)
	l.off += int64(n)
	return n, err
}

var _ blob.Source = (*slowSource)(nil)

// bigBlob is large enough to be resumed.
func bigBlob(name string) []byte { return schemetest.Blob(name, resumable+1_000_001) }

// childPuts puts a blob whose source hangs at the byte arg.
func childPuts(dir, arg string) error {
	stop, err := strconv.ParseInt(arg, 10, 64)
	if err != nil {
		return err
	}
	data := bigBlob("put")
	src := &slowSource{data: data, stop: stop, then: func() error {
		fmt.Println("hangs")
		time.Sleep(time.Hour) // until it is killed
		return nil
	}}
	_, err = New().BlobPut(context.Background(), place(dir), types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}, src)
	return err
}

func TestPutOfAKilledProcessGoesOn(t *testing.T) {
	data := bigBlob("put")
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	for _, stop := range []int64{0, 3 << 20, d.Size - 1, d.Size} {
		t.Run(fmt.Sprint(stop), func(t *testing.T) {
			dir := t.TempDir()
			cmd, out := startIngest(t, "put", dir, strconv.FormatInt(stop, 10))
			line(t, out)
			o, r := open(t), place(dir)
			if l, err := o.BlobHead(t.Context(), r, d); !errors.Is(err, errs.ErrNotFound) {
				t.Errorf("a part of a blob is seen: %v, %v", l, err)
			}
			for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				if in, err := o.IngestStat(t.Context(), r, putKey+string(d.Digest)); err == nil && in.Offset == stop {
					break // what was read is written
				}
			}
			kill(t, cmd)
			src := &slowSource{data: data}
			if got, err := o.BlobPut(t.Context(), r, d, src); err != nil || got.Digest != d.Digest || got.Size != d.Size {
				t.Fatalf("%v, %v", got, err)
			}
			// what was read and not written yet died with the process
			if again := src.bytes - (d.Size - stop); again < 0 || again > pourBuffers*copySize {
				t.Errorf("killed after %d of %d bytes, %d were read again", stop, d.Size, again)
			}
			ra, err := o.BlobOpen(t.Context(), r, d)
			if err != nil {
				t.Fatal(err)
			}
			ra.Close()
			if left := leftovers(t, dir); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
		})
	}
}

func TestClaimOfAKilledProcessIsFree(t *testing.T) {
	dir := t.TempDir()
	cmd, out := startIngest(t, "hold", dir, "key")
	line(t, out)
	kill(t, cmd)
	o, r := open(t), place(dir)
	gone, err := o.IngestExpire(t.Context(), r, 0)
	if err != nil || len(gone) != 1 || gone[0].Key != "key" {
		t.Errorf("expired %v, %v", gone, err)
	}
	if _, err := os.Stat(filepath.Join(dir, ingestDir, nameOfKey("key"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was expired is still there: %v", err)
	}
}
