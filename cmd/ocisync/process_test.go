package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// patience is how long a command may take that takes a second.
const patience = 2 * time.Minute

// command runs this test binary as ocisync, in a process of its own: TestMain sees the name and runs the command
// rather than the tests. Should it ever not, the child must not start children again. A command that hangs is ended.
func command(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	const child = "OCISYNC_TEST_CHILD"
	if os.Getenv(child) != "" {
		t.Fatal("the test binary runs its tests where it was to run as ocisync")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, exe)
	cmd.Args, cmd.Stdout, cmd.Stderr = append([]string{"ocisync"}, args...), &out, &out
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir(), child+"=1")
	cmd.WaitDelay = 10 * time.Second
	cmd.Cancel = func() error {
		if err := cmd.Process.Signal(syscall.SIGABRT); err == nil { // it prints where it hangs, and dies
			return nil
		}
		return cmd.Process.Kill()
	}
	return cmd, &out
}

// slowRegistry serves repository app with n tags. Every answer takes a moment, so that a copy can be met in the middle;
// met is told of each.
func slowRegistry(t *testing.T, n int, met func()) (host string) {
	t.Helper()
	m, root := mem.New(), ref.Ref{Scheme: "mem", Root: "test"}
	repo, ctx := root.WithRepo("app"), context.Background()
	put := func(mt, content string) types.Descriptor {
		d, err := m.BlobPut(ctx, repo, types.Descriptor{}, strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		d.MediaType = mt
		return d
	}
	shared := put("application/vnd.oci.image.layer.v1.tar", strings.Repeat("shared", 50_000))
	for i := range n {
		mf, err := manifest.FromJSON(map[string]any{
			"schemaVersion": 2, "mediaType": types.MediaTypeImageManifest, "config": put(types.MediaTypeImageConfig, fmt.Sprintf(`{"n":%d}`, i)),
			"layers": []types.Descriptor{shared, put("application/vnd.oci.image.layer.v1.tar", strings.Repeat(fmt.Sprint(i), 20_000))},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.ManifestPut(ctx, repo.WithTag(fmt.Sprintf("v%d", i)), mf); err != nil {
			t.Fatal(err)
		}
	}
	h, err := serve.New(m, root)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		met()
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		if err := h.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return strings.TrimPrefix(srv.URL, "http://")
}

// checkLayout reads a layout with nothing of ours: every file that index.json reaches must be there and be what its
// descriptor says. It returns the tags.
func checkLayout(t *testing.T, dir string) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // killed before the first commit
	}
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Manifests []types.Descriptor }
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatalf("index.json: %v", err)
	}
	var check func(d types.Descriptor)
	check = func(d types.Descriptor) {
		data, err := os.ReadFile(filepath.Join(dir, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded()))
		if err != nil {
			t.Errorf("a committed index reaches a missing blob: %v", err)
			return
		}
		if int64(len(data)) != d.Size || d.Digest.Algorithm().FromBytes(data) != d.Digest {
			t.Errorf("blob %s is damaged (%d of %d bytes)", d.Digest, len(data), d.Size)
		}
		var doc struct {
			Config    *types.Descriptor
			Layers    []types.Descriptor
			Manifests []types.Descriptor
		}
		if !types.IsManifest(d.MediaType) || json.Unmarshal(data, &doc) != nil {
			return
		}
		if doc.Config != nil {
			check(*doc.Config)
		}
		for _, c := range append(doc.Layers, doc.Manifests...) {
			check(c)
		}
	}
	var tags []string
	for _, d := range index.Manifests {
		check(d)
		if name := d.Annotations[types.AnnotationRefName]; name != "" {
			tags = append(tags, name)
		}
	}
	return tags
}

func TestKilledAtAnyMomentTheLayoutIsValidAndTheNextRunFinishes(t *testing.T) {
	const tags = 24
	for name, sig := range map[string]os.Signal{"SIGKILL": os.Kill, "SIGINT": os.Interrupt} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var left atomic.Int64 // requests until the moment has come
			moment := make(chan struct{}, 1)
			host := slowRegistry(t, tags, func() {
				if left.Add(-1) == 0 {
					moment <- struct{}{}
				}
			})
			dir := filepath.Join(t.TempDir(), "mirror")
			interrupted := 0
			for round := range 8 {
				left.Store(1 + rand.Int64N(40)) // a run makes about a hundred requests
				cmd, out := command(t, "copy", "--all-tags", "--plain-http", host, host+"/app", "ocidir://"+filepath.ToSlash(dir))
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				var err error
				select {
				case <-moment:
					if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
						t.Fatal(err)
					}
					err = <-ended
				case err = <-ended: // nothing was left to do
					left.Store(0)
					select {
					case <-moment:
					default:
					}
				}
				if err != nil {
					interrupted++
				}
				checkLayout(t, dir)
				if t.Failed() {
					t.Fatalf("round %d:\n%s", round, out)
				}
			}
			cmd, out := command(t, "copy", "--all-tags", "--plain-http", host, host+"/app", "ocidir://"+filepath.ToSlash(dir))
			if err := cmd.Run(); err != nil {
				t.Fatalf("the same command did not finish the job: %v\n%s", err, out)
			}
			if got := checkLayout(t, dir); len(got) != tags {
				t.Errorf("%d of %d tags", len(got), tags)
			}
			if interrupted == 0 {
				t.Error("no run was interrupted: the test shows nothing")
			}
		})
	}
}

// bigLayer is n bytes that are made as they are read.
type bigLayer struct{ n int64 }

func (b bigLayer) reader() io.Reader { return io.LimitReader(pattern{}, b.n) }

type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

// bigRegistry serves one image whose layer is made on the fly, and takes pushes without keeping them.
func bigRegistry(t *testing.T, layer bigLayer) string {
	t.Helper()
	h := digest.Canonical.Hash()
	if _, err := io.CopyBuffer(h, layer.reader(), make([]byte, 1<<16)); err != nil {
		t.Fatal(err)
	}
	big := types.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: digest.NewDigest(digest.Canonical, h), Size: layer.n}
	config := []byte("{}")
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": types.MediaTypeImageManifest, "layers": []types.Descriptor{big},
		"config": types.Descriptor{MediaType: types.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		switch {
		case r.Method == http.MethodPost:
			w.Header().Set("Location", "/v2/push/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
		case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/"):
			body, err := io.ReadAll(r.Body)
			if err != nil || !bytes.Equal(body, raw) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
			w.WriteHeader(http.StatusCreated)
		case r.Method == http.MethodPut:
			want := digest.Digest(r.URL.Query().Get("digest"))
			h := want.Algorithm().Hash()
			if _, err := io.CopyBuffer(h, r.Body, make([]byte, 1<<16)); err != nil || digest.NewDigest(want.Algorithm(), h) != want {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.Header().Set("Location", "/v2/push/blobs/"+string(want))
			w.WriteHeader(http.StatusCreated)
		case strings.HasPrefix(r.URL.Path, "/v2/push/"):
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Path == "/v2/":
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", types.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", digest.FromBytes(raw).String())
			w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
			if r.Method == http.MethodGet {
				_, _ = w.Write(raw)
			}
		case name == string(big.Digest):
			w.Header().Set("Content-Length", fmt.Sprint(big.Size))
			if r.Method == http.MethodGet {
				_, _ = io.CopyBuffer(w, layer.reader(), make([]byte, 1<<16))
			}
		default:
			_, _ = w.Write(config)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}
