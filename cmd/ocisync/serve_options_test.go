//go:build !windows

package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ocisync/ocisync/internal/yamlfile"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// TestEveryFlagIsAKeyOfTheFile: what a flag says is what the file would say.
func TestEveryFlagIsAKeyOfTheFile(t *testing.T) {
	cases := map[string]struct{ value, file string }{
		"addr":           {":1234", "addr: :1234"},
		"tls-cert":       {"c", "tls: {cert: c, key: k}"},
		"tls-key":        {"k", "tls: {cert: c, key: k}"},
		"htpasswd":       {"f", "auth: {htpasswd: [f]}"},
		"anonymous-pull": {"true", "auth: {htpasswd: [f], anonymous-pull: true}"},
		"read-only":      {"true", "read-only: true"},
		"allow-delete":   {"true", "deletes: [tags, manifests, blobs]"},
		"create":         {"true", "create: true"},
		"sparse":         {"true", "sparse: true"},
		"sparse-images":  {"true", "sparse-images: true"},
		"catalog":        {"false", "catalog: false"},
		"path-prefix":    {"/x", "path-prefix: /x"},
		"trusted-proxy":  {"10.0.0.0/8", "trusted-proxies: [10.0.0.0/8]"},
		"state-dir":      {"d", "state-dir: d"},
		"mem-limit":      {"3MiB", "limits: {memory: 3MiB}"},
		"grace":          {"7s", "grace: 7s"},
		"log-format":     {"json", "log: {format: json}"},
		"no-access-log":  {"true", "log: {access: false}"},
		"inspect":        {"true", "log: {inspect: true}"},
	}
	needs := map[string][]string{"tls-cert": {"--tls-key", "k"}, "tls-key": {"--tls-cert", "c"}, "anonymous-pull": {"--htpasswd", "f"}}
	newServeCommand().Flags().VisitAll(func(f *pflag.Flag) {
		c, known := cases[f.Name]
		if !known {
			if f.Name != "config" {
				t.Errorf("--%s is not tested", f.Name)
			}
			return
		}
		want, flags, cmd := newServeConfig(), newServeFlags(), &cobra.Command{}
		flags.register(cmd)
		if err := cmd.ParseFlags(append([]string{"--" + f.Name + "=" + c.value}, needs[f.Name]...)); err != nil {
			t.Fatal(err)
		}
		got, err := flags.config(cmd.Flags(), nil)
		if err := errors.Join(err, yamlfile.Decode("f", []byte(c.file), want)); err != nil {
			t.Fatalf("--%s: %v", f.Name, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("--%s: %s", f.Name, cmp.Diff(want, got, cmp.Comparer(func(a, b network) bool { return a == b })))
		}
	})
}

func newServeCommand() *cobra.Command {
	cmd := &cobra.Command{}
	newServeFlags().register(cmd)
	return cmd
}

// configured is a server over memory with what a file says of it.
func configured(t *testing.T, file string) *serve.Server {
	t.Helper()
	c := newServeConfig()
	if err := yamlfile.Decode("f", []byte(file), c); err != nil {
		t.Fatal(err)
	}
	opts, err := c.options(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s, err := serve.New(mem.New(), ref.MustParse("mem://x"), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return s
}

// call is a request: METHOD PATH, a body, and headers as name and value by turns.
type call struct {
	line   string
	body   string
	header []string
}

func (c call) to(h http.Handler) *http.Response {
	method, path, _ := strings.Cut(c.line, " ")
	r := httptest.NewRequest(method, path, strings.NewReader(c.body))
	for i := 0; i+1 < len(c.header); i += 2 {
		r.Header.Set(c.header[i], c.header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

const (
	absentDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	anImage      = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + absentDigest + `","size":2},"layers":[]}`
	anIndex      = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + absentDigest + `","size":2}]}`
)

func putImage(tag string) call {
	return call{"PUT /v2/a/manifests/" + tag, anImage, []string{"Content-Type", "application/vnd.oci.image.manifest.v1+json"}}
}

// TestEverySettingHasAnEffect: the last of some requests is answered in one way by default, and in another with a file.
func TestEverySettingHasAnEffect(t *testing.T) {
	const rule = "rules: [{subjects: [anonymous], repositories: ['**'], actions: [pull], networks: [198.51.100.7]}]\n"
	tags := call{line: "GET /v2/a/tags/list"}
	upload := call{line: "POST /v2/a/blobs/uploads/"}
	index := call{"PUT /v2/a/manifests/t", anIndex, []string{"Content-Type", "application/vnd.oci.image.index.v1+json"}}
	blob := call{"POST /v2/a/blobs/uploads/?digest=" + string(digest.FromString("eleven bytes")), "eleven bytes", []string{"Content-Type", "application/octet-stream"}}
	large := call{"PUT /v2/a/manifests/t", strings.Repeat("x", 5<<20), putImage("t").header}
	many := putImage("t?tag=a" + strings.Repeat("&tag=b", 15))
	for name, c := range map[string]struct {
		file     string
		calls    []call
		without  int
		with     int
		header   string // of the last answer, with the file alone
		contains string
	}{
		"read-only":       {file: "read-only: true", calls: []call{upload}, without: 202, with: 405},
		"deletes tags":    {file: "deletes: [tags]", calls: []call{{line: "DELETE /v2/a/manifests/t"}}, without: 405, with: 404},
		"deletes by name": {file: "deletes: [tags]", calls: []call{{line: "DELETE /v2/a/manifests/" + absentDigest}}, without: 405, with: 405},
		"deletes":         {file: "deletes: [manifests]", calls: []call{{line: "DELETE /v2/a/manifests/" + absentDigest}}, without: 405, with: 404},
		"deletes blobs":   {file: "deletes: [blobs]", calls: []call{{line: "DELETE /v2/a/blobs/" + absentDigest}}, without: 405, with: 404},
		"catalog":         {file: "catalog: false", calls: []call{{line: "GET /v2/_catalog"}}, without: 200, with: 405},
		"sparse":          {file: "sparse: true", calls: []call{index}, without: 400, with: 201},
		"sparse-images":   {file: "sparse-images: true", calls: []call{putImage("t")}, without: 400, with: 201},
		"names":           {file: "names: '[b-z]+'", calls: []call{tags}, without: 404, with: 400},
		"warnings":        {file: "warnings: [closes soon]", calls: []call{{line: "GET /v2/"}}, without: 200, with: 200, header: "Warning", contains: "closes soon"},
		"path-prefix":     {file: "path-prefix: /reg", calls: []call{{line: "GET /reg/v2/"}}, without: 404, with: 200},
		"trusted-proxies": {file: rule + "trusted-proxies: [192.0.2.1]", calls: []call{{line: "GET /v2/a/tags/list", header: []string{"X-Forwarded-For", "198.51.100.7"}}}, without: 404, with: 404},
		"no such proxy":   {file: rule + "trusted-proxies: [192.0.2.2]", calls: []call{{line: "GET /v2/a/tags/list", header: []string{"X-Forwarded-For", "198.51.100.7"}}}, without: 404, with: 403},
		"realm":           {file: "auth: {realm: images, htpasswd: []}\nrules: [{subjects: ['*'], repositories: [b], actions: [pull]}]", calls: []call{tags}, without: 404, with: 403},
		"manifest":        {file: "limits: {manifest: 4MiB}", calls: []call{large}, without: 400, with: 413},
		"blob":            {file: "limits: {blob: 10}", calls: []call{blob}, without: 201, with: 413},
		"min-chunk":       {file: "limits: {min-chunk: 100}", calls: []call{upload}, without: 202, with: 202, header: "Oci-Chunk-Min-Length", contains: "100"},
		"tags":            {file: "sparse-images: true\nlimits: {tags: 10}", calls: []call{many}, without: 400, with: 414},
		"page":            {file: "sparse-images: true\nlimits: {page: 1}", calls: []call{putImage("t"), putImage("u"), tags}, without: 404, with: 200, header: "Link", contains: "last=t"},
		"sessions":        {file: "limits: {sessions: 1}", calls: []call{upload, upload}, without: 202, with: 429},
		"sessions-each":   {file: "limits: {sessions-each: 1}", calls: []call{upload, upload}, without: 202, with: 429},
		"rate":            {file: "limits: {rate: 0.001}", calls: []call{tags, tags}, without: 404, with: 429},
		"burst":           {file: "limits: {rate: 0.001, burst: 5}", calls: []call{tags, tags}, without: 404, with: 404},
		"anonymous-pull":  {file: "auth: {anonymous-pull: true, users: [{name: a, hash: $2a$04$rOfceczG.zyIoyrEs3MPx.PhMUAgErGSQh/SDcIAKJ3DeKgKh3T6a}]}", calls: []call{upload}, without: 202, with: 401, header: "Www-Authenticate", contains: "Basic"},
		"service":         {file: "auth: {service: here, users: [{name: a, hash: $2a$04$rOfceczG.zyIoyrEs3MPx.PhMUAgErGSQh/SDcIAKJ3DeKgKh3T6a}]}", calls: []call{tags}, without: 404, with: 401, header: "Www-Authenticate", contains: `service="here"`},
		"groups":          {file: "groups: {g: [a]}\nauth: {users: [{name: a, hash: $2a$04$rOfceczG.zyIoyrEs3MPx.PhMUAgErGSQh/SDcIAKJ3DeKgKh3T6a}]}\nrules: [{groups: [g], repositories: [a], actions: [pull]}]", calls: []call{{line: "GET /v2/a/tags/list", header: []string{"Authorization", "Basic YTpwYXNz"}}}, without: 404, with: 404},
	} {
		for file, want := range map[string]int{"": c.without, c.file: c.with} {
			s := configured(t, file)
			var res *http.Response
			for _, one := range c.calls {
				res = one.to(s)
			}
			if res.StatusCode != want {
				body, _ := io.ReadAll(res.Body)
				t.Errorf("%s, with %q: %s is answered with %d, want %d\n%s", name, file, c.calls[len(c.calls)-1].line, res.StatusCode, want, body)
			}
			if got := res.Header.Get(c.header); c.header != "" && strings.Contains(got, c.contains) != (file != "") {
				t.Errorf("%s, with %q: %s is %q", name, file, c.header, got)
			}
		}
	}
}

// TestLimitsOfConnectionsAndTime: what only a server that listens can show.
func TestLimitsOfConnectionsAndTime(t *testing.T) {
	listening := func(file string) string {
		s := configured(t, file)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		h := startHTTP(l, s, s, nil)
		t.Cleanup(func() {
			if err := h.stop(0); err != nil {
				t.Error(err)
			}
		})
		return l.Addr().String()
	}
	for _, file := range []string{"limits: {connections: 1}", "limits: {connections-each: 1}"} {
		host := listening(file)
		first, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		if _, err := fmt.Fprintf(first, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := first.Read(make([]byte, 1)); err != nil { // it is counted
			t.Fatal(err)
		}
		res, err := client.Get("http://" + host + "/v2/")
		if err == nil {
			t.Errorf("%s: a second one is answered with %s", file, res.Status)
		}
	}
	host := listening("limits: {read-idle: 20ms}")
	r, w := io.Pipe()
	defer w.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "http://"+host+startUpload(t, host, "a"), r)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil || res.StatusCode != http.StatusRequestTimeout {
		t.Errorf("a body that does not come: %v, %v; want 408", res, err)
	}
	host = listening("limits: {requests-each: 1}")
	blob := bytes.Repeat([]byte("x"), 64<<20)
	push := startPush(t, host, blob)
	if res, err := client.Get("http://" + host + "/v2/"); err != nil || res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a second request at once: %v, %v; want 429", res, err)
	}
	push.abandon(t)
}

// TestTLSIsOfThisCentury: TLS 1.2 at least.
func TestTLSIsOfThisCentury(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	if err := makeCertificate(path, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	config, err := (&tlsConfig{Cert: path + ".pem", Key: path + ".key"}).load(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := configured(t, "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := startHTTP(l, s, s, config)
	defer func() {
		if err := h.stop(0); err != nil {
			t.Error(err)
		}
	}()
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version})
		if got := err == nil; got != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if conn != nil {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestCertificateDates: an operator is told what clients are going to say, and of what can be read nothing wrong is advised.
func TestCertificateDates(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		from time.Time
		want string
	}{
		"good":    {now.Add(-time.Hour), ""},
		"expired": {now.Add(-3 * time.Hour), "has expired"},
		"early":   {now.Add(time.Hour), "not valid yet"},
	} {
		path, log := filepath.Join(t.TempDir(), name), new(bytes.Buffer)
		if err := makeCertificate(path, c.from); err != nil {
			t.Fatal(err)
		}
		if _, err := (&tlsConfig{Cert: path + ".pem", Key: path + ".key"}).load(slog.New(slog.NewTextHandler(log, nil))); err != nil {
			t.Fatal(err)
		}
		if c.want == "" && log.Len() > 0 || !strings.Contains(log.String(), c.want) {
			t.Errorf("%s: the log says %q", name, log)
		}
	}
	_, err := (&tlsConfig{Cert: "absent.pem", Key: "absent.key"}).load(slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(hintFor(err), "are there") {
		t.Errorf("no files: %v, try %s", err, hintFor(err))
	}
}
