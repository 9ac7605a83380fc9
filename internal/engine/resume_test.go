package engine_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

// copyEnv makes the test binary a process that copies from a registry to a layout: "HOST DIRECTORY".
const copyEnv = "ENGINE_TEST_COPY"

func TestMain(m *testing.M) {
	if host, dir, found := strings.Cut(os.Getenv(copyEnv), " "); found {
		if _, err := copyToLayout(context.Background(), host, dir); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// copyToLayout copies the image app of the registry host into the layout dir.
func copyToLayout(ctx context.Context, host, dir string) (rep *transfer.Report, err error) {
	from, to := reg.New(reg.WithHost(host, reg.Host{TLS: reg.TLSDisabled})), ocidir.New()
	defer func() { err = errors.Join(err, to.Close(), from.Close()) }()
	mux := scheme.NewMux(map[string]scheme.API{ref.SchemeReg: from, ref.SchemeOCIDir: to})
	src := ref.Ref{Scheme: ref.SchemeReg, Root: host, Repo: "app", Tag: "latest"}
	return engine.New(mux, 1).Copy(ctx, src, ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir, Tag: "latest"}, plain)
}

// halting passes on what a registry answers, and counts the bytes of one blob. The first answer with it stops after
// stop bytes until the connection is gone.
type halting struct {
	http.Handler
	path string
	stop int64

	mu     sync.Mutex
	served int64
	hung   bool
	asked  []string // the ranges, "" for all
}

func (th *halting) ServeHTTP(w http.ResponseWriter, rq *http.Request) {
	if rq.Method != http.MethodGet || !strings.HasSuffix(rq.URL.Path, th.path) {
		th.Handler.ServeHTTP(w, rq)
		return
	}
	th.mu.Lock()
	hang := !th.hung
	th.hung = true
	th.asked = append(th.asked, rq.Header.Get("Range"))
	th.mu.Unlock()
	th.Handler.ServeHTTP(&hanging{ResponseWriter: w, th: th, hang: hang, rq: rq}, rq)
}

// sent returns how many bytes were sent since it was called last, and the ranges that were asked for so far.
func (th *halting) sent() (n int64, asked []string) {
	th.mu.Lock()
	defer th.mu.Unlock()
	n, th.served = th.served, 0
	return n, slices.Clone(th.asked)
}

type hanging struct {
	http.ResponseWriter
	th   *halting
	rq   *http.Request
	hang bool
	n    int64
}

func (w *hanging) Write(p []byte) (int, error) {
	if w.hang && w.n+int64(len(p)) > w.th.stop {
		p = p[:w.th.stop-w.n]
	}
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	w.th.mu.Lock()
	w.th.served += int64(n)
	w.th.mu.Unlock()
	if err == nil && w.hang && w.n == w.th.stop {
		if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
			return n, err
		}
		select {
		case <-w.rq.Context().Done():
			return n, w.rq.Context().Err()
		case <-time.After(2 * time.Minute): // longer than the test waits for what it then kills
			return n, errors.New("nobody broke the answer off")
		}
	}
	return n, err
}

// A copy that is killed in the middle of a large blob is gone on with by the next one: the source sends the rest only,
// and only the rest is reported as moved.
func TestCopyThatIsKilledGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process")
	}
	const stop = 9 << 20
	layer := strings.Repeat("a large layer. ", 1<<20)
	place := ref.Ref{Scheme: "mem", Root: "registry"}
	content := mem.New()
	image := (&builder{t, content, place.WithRepo("app")}).image([]string{layer}, "latest")
	server, err := serve.New(content, place)
	if err != nil {
		t.Fatal(err)
	}
	th := &halting{Handler: server, path: "/blobs/" + string(digest.FromString(layer)), stop: stop}
	ts := httptest.NewServer(th)
	defer ts.Close()
	host := strings.TrimPrefix(ts.URL, "http://")

	dir := filepath.Join(t.TempDir(), "layout")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), copyEnv+"="+host+" "+dir), os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	layout := ocidir.New()
	defer layout.Close()
	at := ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir}
	written := func() (n int64) {
		err := layout.IngestList(t.Context(), at, func(in blob.Ingest) error {
			if in.Expected.Digest == digest.FromString(layer) { // and not the config, which is as large
				n = in.Offset
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return n
	}
	for deadline := time.Now().Add(time.Minute); written() < stop && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	sent, asked := th.sent()
	if err == nil || written() != stop {
		t.Fatalf("the copy was to be killed with %d bytes: %v, %d; sent %d, asked for %q", stop, err, written(), sent, asked)
	}

	other := image.Size
	config := types.Descriptor{Digest: digest.FromString("config of " + layer), Size: int64(len("config of " + layer))}
	if _, err := layout.BlobHead(t.Context(), at, config); errors.Is(err, errs.ErrNotFound) { // it may come before the layer
		other += config.Size
	}
	rep, err := copyToLayout(t.Context(), host, dir)
	if err != nil {
		t.Fatal(err)
	}
	rest := int64(len(layer)) - stop
	if sent, asked := th.sent(); sent != rest {
		t.Errorf("%d bytes of the layer were sent, %d were missing; asked for %q", sent, rest, asked)
	}
	if rep.Bytes != rest+other {
		t.Errorf("%d bytes are reported as moved, want %d of the layer and %d of the rest", rep.Bytes, rest, other)
	}
	if lost := missingBelow(layout, at, image); lost != "" {
		t.Errorf("the copy lacks %s", lost)
	}
	ra, err := layout.BlobOpen(t.Context(), at, types.Descriptor{Digest: digest.FromString(layer)})
	if err != nil {
		t.Fatal(err)
	}
	defer ra.Close()
	if _, err := io.Copy(io.Discard, io.NewSectionReader(ra, 0, ra.Size())); err != nil || ra.Size() != int64(len(layer)) {
		t.Errorf("%d bytes, %v", ra.Size(), err)
	}
}
