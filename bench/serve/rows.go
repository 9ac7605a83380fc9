package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
)

// row is one line of the table.
type row struct {
	name    string
	clients int
	bytes   int64 // of an operation's body, when the row is about throughput
	writes  bool  // which no web server can do
	// make returns what a client of a server does. check does it once, and looks at the answer.
	make  func(c *conn) operation
	check func(c *conn) error
}

func rows(s *shelf) []row {
	byTag := func(i int) string { return "/v2/" + repoApp + "/manifests/" + tagName(i%appTags) }
	byDigest := func(i int) string { return "/v2/" + repoApp + "/manifests/" + string(s.manifests[i%appTags].Digest()) }
	small := func(int) string { return "/v2/" + repoApp + "/blobs/" + string(s.small.Digest) }
	large := func(int) string { return "/v2/" + repoApp + "/blobs/" + string(s.large.Digest) }
	var all []row
	for _, n := range []int{8, 256} {
		all = append(all, reading(fmt.Sprintf("GET manifest by tag, %d tags", appTags), "GET", n, byTag, s.manifests[0].Descriptor()))
	}
	all = append(all, reading(fmt.Sprintf("HEAD manifest by tag, %d tags", appTags), "HEAD", 16, byTag, s.manifests[0].Descriptor()))
	all = append(all, reading("GET manifest by digest", "GET", 8, byDigest, s.manifests[0].Descriptor()))
	for _, n := range []int{8, 256} {
		all = append(all, reading("GET blob of 64 KiB", "GET", n, small, s.small))
	}
	middle := reading(fmt.Sprintf("GET blob of %d MiB", s.middle.Size>>20), "GET", 8, func(int) string { return "/v2/" + repoApp + "/blobs/" + string(s.middle.Digest) }, s.middle)
	middle.bytes = s.middle.Size
	big := reading(fmt.Sprintf("GET blob of %d MiB", s.large.Size>>20), "GET", 2, large, s.large)
	big.bytes = s.large.Size
	all = append(all, middle, big, s.tagList())
	all = append(all, s.pushImages(), s.pushTags(repoApp, appTags, s.manifests[:64]), s.pushTags(repoMany, s.manyTags, s.many))
	return all
}

// reading is a row of requests without a body. They are made before: 1,000 of them in turn.
func reading(name, method string, clients int, path func(int) string, first types.Descriptor) row {
	head := method == http.MethodHead
	made := map[string][][]byte{} // by who asks
	return row{
		name: name, clients: clients,
		make: func(c *conn) operation {
			reqs := made[c.auth]
			for i := len(reqs); i < appTags; i++ {
				reqs = append(reqs, c.text(method, path(i)))
			}
			made[c.auth] = reqs
			return func(client, n int) error {
				a, err := c.do(reqs[(client*37+n)%len(reqs)], head, io.Discard)
				return a.must(http.StatusOK, err)
			}
		},
		check: func(c *conn) error {
			body := sha256.New()
			a, err := c.do(c.text(method, path(0)), head, body)
			if err := a.must(http.StatusOK, err); err != nil {
				return err
			}
			if a.length != first.Size {
				return fmt.Errorf("Content-Length %d, not %d", a.length, first.Size)
			}
			if got := digest.NewDigest(digest.SHA256, body); !head && got != first.Digest {
				return fmt.Errorf("the body has digest %s, not %s", got, first.Digest)
			}
			return nil
		},
	}
}

// must is an error unless the answer has the status.
func (a answer) must(status int, err error) error {
	if err == nil && a.status != status {
		return fmt.Errorf("status %d, not %d", a.status, status)
	}
	return err
}

func (s *shelf) tagList() row {
	return row{
		name: fmt.Sprintf("list %d tags", appTags), clients: 8, writes: true,
		make: func(c *conn) operation {
			req := c.text("GET", "/v2/"+repoApp+"/tags/list")
			return func(_, _ int) error {
				a, err := c.do(req, false, io.Discard)
				return a.must(http.StatusOK, err)
			}
		},
		check: func(c *conn) error {
			var body bytes.Buffer
			a, err := c.do(c.text("GET", "/v2/"+repoApp+"/tags/list"), false, &body)
			if n := strings.Count(body.String(), `"v`); err == nil && n < appTags {
				return fmt.Errorf("status %d, %d tags, not %d", a.status, n, appTags)
			}
			return err
		},
	}
}

// serial makes everything that is pushed new.
var serial atomic.Int64

// pushImages pushes an image of a config and a layer of 2 KiB, under tags that move.
func (s *shelf) pushImages() row {
	push := func(c *conn, n int64) error {
		var all []types.Descriptor
		for _, data := range [][]byte{
			fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{"Env":["N=%d"]},"rootfs":{"type":"layers","diff_ids":[]}}`, n),
			append(fmt.Appendf(nil, "%d", n), make([]byte, 2048)...),
		} {
			d, err := pushBlob(c, repoPush, data)
			if err != nil {
				return err
			}
			all = append(all, d)
		}
		all[0].MediaType, all[1].MediaType = types.MediaTypeImageConfig, layerMT
		m, err := s.image(all[0], all[1:], "pushed")
		if err != nil {
			return err
		}
		return pushManifest(c, repoPush, fmt.Sprintf("p%d", n%tagCount), m.Raw())
	}
	return row{
		name: "push an image of 2 small blobs", clients: 8, writes: true,
		make: func(c *conn) operation {
			return func(_, _ int) error { return push(c, serial.Add(1)) }
		},
		check: func(c *conn) error { return push(c, serial.Add(1)) },
	}
}

func pushBlob(c *conn, repo string, data []byte) (types.Descriptor, error) {
	d := types.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	a, err := c.do(c.text("POST", "/v2/"+repo+"/blobs/uploads/", "Content-Length: 0\r\n"), false, io.Discard)
	if err := a.must(http.StatusAccepted, err); err != nil {
		return d, fmt.Errorf("POST: %w", err)
	}
	loc, err := url.Parse(a.location)
	if err != nil {
		return d, err
	}
	if loc.Path == "" {
		return d, errors.New("an upload without Location")
	}
	q := loc.Query()
	q.Set("digest", string(d.Digest))
	req := append(c.text("PUT", loc.EscapedPath()+"?"+q.Encode(), "Content-Type: application/octet-stream\r\n", fmt.Sprintf("Content-Length: %d\r\n", len(data))), data...)
	a, err = c.do(req, false, io.Discard)
	if err := a.must(http.StatusCreated, err); err != nil {
		return d, fmt.Errorf("PUT of a blob: %w", err)
	}
	return d, nil
}

func pushManifest(c *conn, repo, tag string, raw []byte) error {
	req := append(c.text("PUT", "/v2/"+repo+"/manifests/"+tag, "Content-Type: "+types.MediaTypeImageManifest+"\r\n", fmt.Sprintf("Content-Length: %d\r\n", len(raw))), raw...)
	a, err := c.do(req, false, io.Discard)
	if err := a.must(http.StatusCreated, err); err != nil {
		return fmt.Errorf("PUT of a manifest: %w", err)
	}
	return nil
}

// pushTags moves tags in a repository of that many, each time to another manifest that is there.
func (s *shelf) pushTags(repo string, tags int, all []*manifest.Manifest) row {
	push := func(c *conn, n int64) error {
		return pushManifest(c, repo, fmt.Sprintf("p%d", n%tagCount), all[int(n/tagCount)%len(all)].Raw())
	}
	return row{
		name: fmt.Sprintf("push a tag to %d tags", tags), clients: 16, writes: true,
		make: func(c *conn) operation {
			return func(_, _ int) error { return push(c, serial.Add(1)) }
		},
		check: func(c *conn) error { return push(c, serial.Add(1)) },
	}
}
