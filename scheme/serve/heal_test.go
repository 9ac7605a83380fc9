package serve_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ocisync/ocisync/scheme/ocidir"
)

func TestReadersGetTheBlobOrNothingWhileItIsHealed(t *testing.T) {
	for _, size := range []int{5000, 5 << 20} {
		s := newShelf(t, size)
		if err := flip(s.file, int64(size/2)); err != nil {
			t.Fatal(err)
		}
		long := time.Now().Add(-time.Hour)
		if err := os.Chtimes(s.file, long, long); err != nil {
			t.Fatal(err)
		}
		healer := ocidir.New()
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 3 {
					s.good(t, "")
					s.good(t, "bytes=10-4000")
				}
			})
		}
		wg.Go(func() {
			if _, err := healer.BlobPut(context.Background(), s.r, s.d, bytes.NewReader(s.data)); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if err := healer.Close(); err != nil {
			t.Error(err)
		}
		if h := s.ask(t, "GET", "", nil); !h.whole() || !bytes.Equal(h.body, s.data) {
			t.Errorf("the healed blob is not served: status %d, %d bytes of %d", h.status, len(h.body), size)
		}
	}
}

// A blob that is damaged is healed by the next push, over HTTP, while 16 clients read it in every way. They get the blob's
// bytes or less than they were promised; afterwards the good file is there and is served, and the damaged one is in the
// quarantine, at most.
func TestAPushHealsWhileOthersRead(t *testing.T) {
	for _, size := range []int{5000, 300_000, 9 << 20} {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d bytes, damage known %v", size, known), func(t *testing.T) {
				s := newShelf(t, size)
				if err := flip(s.file, int64(size/2)); err != nil {
					t.Fatal(err)
				}
				long := time.Now().Add(-time.Hour)
				if err := os.Chtimes(s.file, long, long); err != nil {
					t.Fatal(err)
				}
				if known {
					s.good(t, "")
				}
				var wg sync.WaitGroup
				for i := range 16 {
					wg.Go(func() {
						for range 2 {
							s.good(t, []string{"", "bytes=10-4000", "bytes=-100"}[i%3])
							if h := s.ask(t, "HEAD", "", nil); h.status == 200 && h.length != int64(size) {
								t.Errorf("HEAD promises %d bytes", h.length)
							}
						}
					})
				}
				wg.Go(func() { s.push(t) })
				wg.Wait()
				s.push(t) // who came first may have been told that it was there, before somebody read it
				for range 2 {
					for _, rng := range []string{"", "bytes=10-4000", "bytes=-100"} {
						if h := s.ask(t, "GET", rng, nil); !h.whole() {
							t.Errorf("GET %q of the healed blob: status %d, %d bytes of %d", rng, h.status, len(h.body), h.length)
						}
						s.good(t, rng)
					}
				}
				if raw, err := os.ReadFile(s.file); err != nil || !bytes.Equal(raw, s.data) {
					t.Errorf("the file is not the blob: %d bytes, %v", len(raw), err)
				}
				s.checkQuarantine(t)
			})
		}
	}
}

// push uploads the blob over HTTP.
func (s *shelf) push(t *testing.T) {
	t.Helper()
	resp, err := http.Post("http://"+s.addr+"/v2/repo/blobs/uploads/?digest="+string(s.d.Digest), "application/octet-stream", bytes.NewReader(s.data))
	if err != nil {
		t.Error(err)
		return
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("the push is answered with %s", resp.Status)
	}
}

// checkQuarantine checks that no good file was moved away.
func (s *shelf) checkQuarantine(t *testing.T) {
	t.Helper()
	dir := filepath.Join(filepath.Dir(s.file), "../../.ocisync/quarantine")
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	for _, e := range entries {
		if raw, err := os.ReadFile(filepath.Join(dir, e.Name())); err != nil || bytes.Equal(raw, s.data) {
			t.Errorf("%s in the quarantine is the good blob, or cannot be read: %v", e.Name(), err)
		}
	}
}
