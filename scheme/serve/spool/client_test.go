package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
)

// patience bounds what a test waits for.
const patience = time.Minute

// pusher uploads a blob in chunks as the specification says, over a network that breaks: it takes every Location, and after
// a failure asks how far the upload came and goes on there.
type pusher struct {
	base   string // of the server: http://HOST:PORT
	http   *http.Client
	chunk  int
	ranged bool // it sends Content-Range
	tail   bool // the last chunk is the PUT's

	patient bool // it waits a moment before it tries again

	location string
	said     string // by the last answer
	offset   int
}

// errGiveUp: it does not come to an end.
var errGiveUp = errors.New("the upload makes no progress")

// push uploads content to repo.
func (p *pusher) push(ctx context.Context, repo string, content []byte) error {
	d := digest.FromBytes(content)
	for range 1000 {
		if p.location == "" {
			if p.start(ctx, repo) != nil {
				p.pause()
				continue
			}
		}
		last := p.offset >= len(content) || p.tail && p.offset+p.chunk >= len(content)
		var status int
		var err error
		if last {
			status, err = p.send(ctx, "PUT", p.location+"?digest="+url.QueryEscape(string(d)), content[p.offset:])
		} else {
			status, err = p.send(ctx, "PATCH", p.location, content[p.offset:min(len(content), p.offset+p.chunk)])
		}
		if err == nil && last && status == http.StatusCreated {
			return nil
		}
		if err == nil && status == http.StatusAccepted {
			continue
		}
		if err == nil && status >= 400 && status != http.StatusRequestedRangeNotSatisfiable && status != http.StatusNotFound && status < 500 {
			return fmt.Errorf("status %d at %d of %d: %s", status, p.offset, len(content), p.said)
		}
		if done, err := p.ask(ctx, repo, d); done || err != nil {
			return err
		}
	}
	return errGiveUp
}

// start opens a session.
func (p *pusher) start(ctx context.Context, repo string) error {
	p.location, p.offset = p.base+"/v2/"+repo+"/blobs/uploads/", 0
	status, err := p.send(ctx, "POST", p.location, nil)
	if err == nil && status != http.StatusAccepted {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		p.location = ""
	}
	p.offset = 0
	return err
}

// ask learns how far the upload came. It is over if there is no session, and the blob is there.
func (p *pusher) ask(ctx context.Context, repo string, d digest.Digest) (done bool, err error) {
	for range 1000 {
		status, err := p.send(ctx, "GET", p.location, nil)
		switch {
		case err != nil || status == http.StatusServiceUnavailable:
			p.pause()
			continue
		case status == http.StatusNoContent:
			return false, nil
		case status != http.StatusNotFound:
			return false, fmt.Errorf("the session's status is answered with %d", status)
		}
		if status, err = p.send(ctx, "HEAD", p.base+"/v2/"+repo+"/blobs/"+string(d), nil); err != nil {
			continue
		}
		p.location = "" // else: all over again
		return status == http.StatusOK, nil
	}
	return false, errGiveUp
}

// pause lets the server come back.
func (p *pusher) pause() {
	if p.patient {
		time.Sleep(time.Millisecond)
	}
}

// send sends one request, and takes over what the answer says about the session.
func (p *pusher) send(ctx context.Context, method, target string, body []byte) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	if p.ranged && len(body) > 0 {
		r.Header.Set("Content-Range", ocihttp.FormatChunkRange(int64(p.offset), int64(len(body))))
	}
	res, err := p.http.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	p.said = string(raw)
	if rng := res.Header.Get("Range"); rng != "" && res.StatusCode < 300 {
		n, exact, err := ocihttp.ParseUploadRange(rng)
		if err != nil {
			return 0, err
		}
		p.offset = int(n)
		if !exact && method == "PATCH" {
			p.offset = 1
		}
	}
	if loc := res.Header.Get("Location"); loc != "" && res.StatusCode != http.StatusCreated {
		u, err := res.Location()
		if err != nil {
			return 0, err
		}
		p.location = u.String()
	}
	return res.StatusCode, nil
}

// do sends one request to a server that works.
func do(t *testing.T, method, target, body string, h map[string]string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range h {
		r.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	res.Body = io.NopCloser(bytes.NewReader(raw))
	return res
}

// want is do for an answer that must have this status, and, unless it is "", this Range.
func want(t *testing.T, status int, rng, method, target, body string, h map[string]string) *http.Response {
	t.Helper()
	res := do(t, method, target, body, h)
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != status || rng != "" && res.Header.Get("Range") != rng {
		t.Fatalf("%s %.100s: %d, Range %q, want %d, %q: %s", method, target, res.StatusCode, res.Header.Get("Range"), status, rng, raw)
	}
	res.Body = io.NopCloser(bytes.NewReader(raw))
	return res
}
