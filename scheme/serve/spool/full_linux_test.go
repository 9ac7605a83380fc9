package spool_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// disk mounts a file system of some MiB in memory.
func disk(t *testing.T, mib int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: mounting needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Skipf("SKIPPED: cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil { // nothing is open on it
			t.Error("unmount:", err)
		}
	})
	return dir
}

// When the space is used up in the middle of an upload the client learns it, the session keeps what it was told of, and
// goes on when there is space again.
func TestUploadsWhenThereIsNoSpace(t *testing.T) {
	const mib = 1 << 20
	chunk := strings.Repeat("0123456789abcdef", 2*mib/16)
	for name, place := range map[string]func(t *testing.T) (api scheme.API, root ref.Ref, opts []serve.Option, fill string){
		"ocidir": func(t *testing.T) (scheme.API, ref.Ref, []serve.Option, string) {
			dir := disk(t, 8)
			o := ocidir.New()
			t.Cleanup(func() { o.Close() })
			return o, ref.Ref{Scheme: ref.SchemeOCIDir, Root: filepath.Join(dir, "tree")}, nil, filepath.Join(dir, "fill")
		},
		"spool": func(t *testing.T) (scheme.API, ref.Ref, []serve.Option, string) {
			dir := disk(t, 8)
			return only{mem.New()}, ref.Ref{Scheme: mem.Scheme, Root: "x"}, []serve.Option{serve.WithStateDir(dir)}, filepath.Join(dir, "fill")
		},
	} {
		t.Run(name, func(t *testing.T) {
			api, root, opts, fill := place(t)
			s, err := serve.New(api, root, opts...)
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewServer(s)
			t.Cleanup(func() {
				srv.Close()
				if err := s.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
			})
			loc := want(t, 202, "", "POST", srv.URL+"/v2/a/blobs/uploads/", "", nil).Header.Get("Location")
			loc = want(t, 202, "", "PATCH", srv.URL+loc, chunk, nil).Header.Get("Location")
			if err := os.WriteFile(fill, make([]byte, 5*mib), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				want(t, 507, "", "PUT", srv.URL+loc+"?digest="+string(digest.FromString(chunk+chunk)), chunk, nil)
				want(t, 507, "", "PATCH", srv.URL+loc, chunk, nil)
			}
			if res := do(t, "POST", srv.URL+"/v2/a/blobs/uploads/", "", nil); res.StatusCode != 507 && res.StatusCode != 202 {
				t.Error("a session without space is answered with", res.StatusCode)
			}
			want(t, 204, fmt.Sprintf("0-%d", 2*mib-1), "GET", srv.URL+loc, "", nil)
			small := strings.Repeat("x", mib/2) // what there is no room for leaves room for what fits
			other := want(t, 202, "", "POST", srv.URL+"/v2/b/blobs/uploads/", "", nil).Header.Get("Location")
			other = want(t, 202, "", "PATCH", srv.URL+other, small, nil).Header.Get("Location")
			want(t, 204, "", "DELETE", srv.URL+other, "", nil)
			if err := os.Remove(fill); err != nil {
				t.Fatal(err)
			}
			loc = want(t, 202, fmt.Sprintf("0-%d", 4*mib-1), "PATCH", srv.URL+loc, chunk, nil).Header.Get("Location")
			want(t, 201, "", "PUT", srv.URL+loc+"?digest="+string(digest.FromString(chunk+chunk)), "", nil)
			want(t, 200, "", "HEAD", srv.URL+"/v2/a/blobs/"+string(digest.FromString(chunk+chunk)), "", nil)
		})
	}
}
