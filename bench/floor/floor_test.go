// Package floor_test measures a mirror of many small tags against the least that any tool would have to do.
package floor_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

const (
	tags    = 1000
	workers = 16 // of the floor; the mirror runs with as many transfers
)

// source serves a repository of small images and returns its host.
func source(b *testing.B, n int) string {
	b.Helper()
	m, root := mem.New(), ref.Ref{Scheme: "mem", Root: "bench"}
	repo := root.WithRepo("app")
	rng := rand.New(rand.NewPCG(1, 2))
	put := func(mt string, size int) types.Descriptor {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		d, err := m.BlobPut(context.Background(), repo, types.Descriptor{}, strings.NewReader(string(data)))
		if err != nil {
			b.Fatal(err)
		}
		d.MediaType = mt
		return d
	}
	shared := put("application/vnd.oci.image.layer.v1.tar", 4096)
	for i := range n {
		mf, err := manifest.FromJSON(map[string]any{
			"schemaVersion": 2, "mediaType": types.MediaTypeImageManifest,
			"config": put(types.MediaTypeImageConfig, 512),
			"layers": []types.Descriptor{shared, put("application/vnd.oci.image.layer.v1.tar", 4096)},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.ManifestPut(context.Background(), repo.WithTag(fmt.Sprintf("v%04d", i)), mf); err != nil {
			b.Fatal(err)
		}
	}
	h, err := serve.New(scheme.ReadOnly(m), root)
	if err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(h)
	b.Cleanup(func() {
		srv.Close()
		if err := h.Shutdown(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return strings.TrimPrefix(srv.URL, "http://")
}

func BenchmarkMirror1000(b *testing.B) {
	host := source(b, tags)
	var ratios, mirrors, floors []float64
	for range b.N {
		dir := b.TempDir()
		t0 := time.Now()
		if err := floor(host, filepath.Join(dir, "floor")); err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		if err := mirror(host, filepath.Join(dir, "mirror")); err != nil {
			b.Fatal(err)
		}
		t2 := time.Now()
		floors = append(floors, t1.Sub(t0).Seconds()*1000)
		mirrors = append(mirrors, t2.Sub(t1).Seconds()*1000)
		ratios = append(ratios, t2.Sub(t1).Seconds()/t1.Sub(t0).Seconds())
	}
	b.ReportMetric(median(ratios), "x-floor")
	b.ReportMetric(median(mirrors), "mirror-ms")
	b.ReportMetric(median(floors), "floor-ms")
}

// BenchmarkNoop1000 mirrors again what is there already.
func BenchmarkNoop1000(b *testing.B) {
	host := source(b, tags)
	dir := filepath.Join(b.TempDir(), "mirror")
	if err := mirror(host, dir); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := mirror(host, dir); err != nil {
			b.Fatal(err)
		}
	}
}

func median(v []float64) float64 {
	sort.Float64s(v)
	return v[len(v)/2]
}

func mirror(host, dir string) (err error) {
	c := ocisync.New(ocisync.WithConcurrency(workers))
	defer func() { err = errors.Join(err, c.Close()) }()
	rep, err := c.Copy(context.Background(), ref.MustParse(host+"/app"), ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir},
		ocisync.WithAllTags(), ocisync.WithoutReferrers())
	if err == nil && len(rep.Images) != tags {
		err = fmt.Errorf("mirrored %d of %d tags", len(rep.Images), tags)
	}
	return err
}

// floor fetches, hashes, writes and renames the same files, and makes them durable at the end.
func floor(host, dir string) error {
	base := "http://" + host + "/v2/app/"
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o777); err != nil {
		return err
	}
	cl := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}}
	defer cl.CloseIdleConnections()
	var list struct{ Tags []string }
	body, err := get(cl, base+"tags/list")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return err
	}
	if len(list.Tags) != tags {
		return fmt.Errorf("%d tags", len(list.Tags))
	}
	entries := make([]types.Descriptor, len(list.Tags))
	needed := make([][]string, len(list.Tags))
	err = parallel(len(list.Tags), func(i int) error {
		raw, err := get(cl, base+"manifests/"+list.Tags[i])
		if err != nil {
			return err
		}
		m, err := manifest.New(raw)
		if err != nil {
			return err
		}
		v, err := m.View()
		if err != nil {
			return err
		}
		for _, d := range v.Children() {
			needed[i] = append(needed[i], d.Digest.Encoded())
		}
		entries[i] = m.Descriptor()
		entries[i].Annotations = map[string]string{types.AnnotationRefName: list.Tags[i]}
		return store(blobs, raw)
	})
	if err != nil {
		return err
	}
	all := slices.Concat(needed...)
	slices.Sort(all)
	all = slices.Compact(all)
	err = parallel(len(all), func(i int) error {
		raw, err := get(cl, base+"blobs/sha256:"+all[i])
		if err != nil {
			return err
		}
		return store(blobs, raw)
	})
	if err != nil {
		return err
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": entries})
	if err != nil {
		return err
	}
	return finish(dir, index)
}

func parallel(n int, fn func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(workers)
	for i := range n {
		g.Go(func() error { return fn(i) })
	}
	return g.Wait()
}

func get(cl *http.Client, url string) ([]byte, error) {
	resp, err := cl.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

func store(dir string, data []byte) error {
	sum := sha256.Sum256(data)
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, hex.EncodeToString(sum[:])))
}
