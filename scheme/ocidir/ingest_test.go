package ocidir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// begin opens an ingest.
func begin(t testing.TB, o *OCIDir, r ref.Ref, key string, opts ...scheme.IngestOption) *upload {
	t.Helper()
	u, err := o.Ingest(t.Context(), r, key, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u.(*upload)
}

func writeTo(t testing.TB, u scheme.Upload, data []byte) {
	t.Helper()
	if n, err := u.Write(data); err != nil || n != len(data) {
		t.Fatal(n, err)
	}
}

func closed(t testing.TB, u scheme.Upload) {
	t.Helper()
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
}

// leave makes an ingest that was written to and closed.
func leave(t testing.TB, o *OCIDir, r ref.Ref, key string, data []byte, opts ...scheme.IngestOption) {
	t.Helper()
	u := begin(t, o, r, key, opts...)
	writeTo(t, u, data)
	closed(t, u)
}

// ingestFile is the path of a file of an ingest.
func ingestFile(r ref.Ref, key, name string) string {
	return filepath.Join(r.Root, ingestDir, nameOfKey(key), name)
}

func openFiles(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(all)
}

func TestIdleIngestsHoldNothing(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	first := begin(t, o, r, "first")
	writeTo(t, first, []byte("first"))
	if _, err := first.Commit(t.Context(), types.Descriptor{}, nil); err != nil { // opens what a layout has open
		t.Fatal(err)
	}
	files, routines := openFiles(t), runtime.NumGoroutine()
	for i := range 50 {
		u := begin(t, o, r, fmt.Sprint(i))
		writeTo(t, u, []byte("some bytes"))
		if i == 0 {
			if n := openFiles(t) - files; n != 2 {
				t.Errorf("an open ingest holds %d files", n)
			}
		}
		closed(t, u)
	}
	for _, end := range []func(u *upload) error{
		func(u *upload) error { return u.Abort(t.Context()) },
		func(u *upload) error { _, err := u.Commit(t.Context(), types.Descriptor{}, nil); return err },
		func(u *upload) error {
			_, err := u.Commit(t.Context(), types.Descriptor{Size: 99}, nil)
			if errors.Is(err, errs.ErrSizeMismatch) {
				return nil
			}
			return fmt.Errorf("a wrong size: %w", err)
		},
	} {
		if err := end(begin(t, o, r, "1")); err != nil {
			t.Error(err)
		}
	}
	if _, err := o.Ingest(t.Context(), r, "1", scheme.WithIngestToken("x")); !errors.Is(err, errs.ErrUploadUnknown) {
		t.Error(err)
	}
	held := begin(t, o, r, "held")
	if _, err := o.Ingest(t.Context(), r, "held"); !errors.Is(err, errs.ErrLocked) {
		t.Error(err)
	}
	closed(t, held)
	if n := openFiles(t) - files; n != 0 {
		t.Errorf("%d files are open", n)
	}
	if n := runtime.NumGoroutine() - routines; n > 0 {
		t.Errorf("%d goroutines are left", n)
	}
}

func TestLookingAtIngestsDisturbsNobody(t *testing.T) {
	o, r := open(t, WithDurability(None)), place(t.TempDir())
	leave(t, o, r, "key", []byte("x"))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		other := open(t)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := other.IngestStat(t.Context(), r, "key"); err != nil {
					t.Error(err)
					return
				}
				if gone, err := other.IngestExpire(t.Context(), r, time.Hour); err != nil || len(gone) > 0 {
					t.Error(gone, err)
					return
				}
			}
		})
	}
	for range 500 {
		u, err := o.Ingest(t.Context(), r, "key")
		if err != nil {
			t.Error(err)
			break
		}
		if in, err := o.IngestStat(t.Context(), r, "key"); err != nil || !in.Active {
			t.Errorf("open, and described as %+v, %v", in, err)
		}
		closed(t, u)
	}
	close(stop)
	wg.Wait()
}

func TestIngestThatSomebodyDeleted(t *testing.T) {
	for name, path := range map[string]string{"data": ingestDir + "/" + nameOfKey("key") + "/data", "all": stateDir} {
		t.Run(name, func(t *testing.T) {
			for _, end := range []string{"write", "close", "commit"} {
				o, r := open(t), place(t.TempDir())
				putBlob(t, o, r, []byte("first"))
				u := begin(t, o, r, "key")
				writeTo(t, u, []byte("lost"))
				if err := os.RemoveAll(filepath.Join(r.Root, path)); err != nil {
					t.Fatal(err)
				}
				var err error
				switch end {
				case "write":
					_, err = u.Write([]byte("x"))
				case "close":
					err = u.Close()
				case "commit":
					_, err = u.Commit(t.Context(), types.Descriptor{}, nil)
				}
				if !errors.Is(err, errs.ErrUploadUnknown) {
					t.Errorf("%s: got %v", end, err)
				}
				if err := u.Close(); err != nil && end == "commit" {
					t.Error(err)
				}
				u = begin(t, o, r, "key")
				writeTo(t, u, []byte("again"))
				if _, err := u.Commit(t.Context(), types.Descriptor{}, nil); err != nil {
					t.Errorf("%s, and again: %v", end, err)
				}
			}
		})
	}
}

func TestAbandonedPutsAreSweptByAge(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	data := bigBlob("abandoned")
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	broken := errors.New("the network is gone")
	src := func() *slowSource {
		return &slowSource{data: data, stop: 5 << 20, then: func() error { return broken }}
	}
	if _, err := o.BlobPut(t.Context(), r, d, src()); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	key := putKey + string(d.Digest)
	leave(t, o, r, "a user's", []byte("x"))
	leave(t, o, r, "without meta", []byte("x"))
	if err := os.Remove(ingestFile(r, "without meta", ingestInfo)); err != nil {
		t.Fatal(err)
	}
	age := func(old time.Duration) {
		at := time.Now().Add(-old)
		for _, k := range []string{key, "a user's", "without meta"} {
			if k != "without meta" {
				remeta(t, r, k, func(m *ingestMeta) { m.Updated = at })
			}
			if err := os.Chtimes(ingestFile(r, k, ingestData), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	age(putAge - time.Hour)
	putBlob(t, open(t), r, []byte("young"))
	if names := leftovers(t, r.Root); len(names) != 3 {
		t.Fatalf("in ingest are %q", names)
	}
	age(putAge + time.Hour)
	held := openRaw(t, o, r, key, scheme.IngestOptions{})
	putBlob(t, open(t), r, []byte("open"))
	if names := leftovers(t, r.Root); len(names) != 2 {
		t.Fatalf("while it is open: in ingest are %q", names)
	}
	held.letGo()
	putBlob(t, open(t), r, []byte("old"))
	if names := leftovers(t, r.Root); len(names) != 1 || names[0] != nameOfKey("a user's") {
		t.Errorf("in ingest are %q", names)
	}
}
