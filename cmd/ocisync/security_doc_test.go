package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// TestRecipesOfTheSecurityGuide runs the configurations of docs/security.md, in their order, and asks as several users
// for what the guide says that they may and may not.
func TestRecipesOfTheSecurityGuide(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	recipes := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1)
	const ok, login, denied, off = "ok", "login", "denied", "off"
	wanted := [][]string{ // "USER REQUEST REPOSITORY ANSWER", where a user - is nobody
		{"- pull any/x " + ok, "- catalog - " + ok, "- push any/x " + off, "- delete any/x " + off},
		{"- pull any/x " + login, "alice pull any/x " + ok, "alice push any/x " + ok, "bob delete any/x " + ok, "wrong pull any/x " + login},
		{
			"- pull any/x " + ok, "- catalog - " + ok, "- push any/x " + login, "wrong pull any/x " + login,
			"ci push any/x " + ok, "ci pull any/x " + ok, "ci delete any/x " + denied,
			"alice delete any/x " + ok, "alice push any/x " + denied, "carol delete any/x " + denied,
		},
		{
			"- pull shared/x " + login, "alice push web/x " + ok, "alice pull data/x " + denied, "bob delete data/x/y " + ok, "bob push web/x " + denied,
			"alice push home/alice/x " + ok, "bob pull home/alice/x " + denied, "carol pull shared/x " + ok, "carol push shared/x " + denied, "carol catalog - " + ok,
		},
	}
	if len(recipes) != len(wanted) {
		t.Fatalf("there are %d recipes, and answers for %d", len(recipes), len(wanted))
	}
	for i, recipe := range recipes {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			handler := serveRecipe(t, recipe[1])
			for _, line := range wanted[i] {
				f := strings.Fields(line)
				if got := askRecipe(handler, f[0], f[1], f[2]); got != f[3] {
					t.Errorf("%s: %s", line, got)
				}
			}
		})
	}
}

// serveRecipe is a registry in memory with the configuration.
func serveRecipe(t *testing.T, config []byte) http.Handler {
	t.Helper()
	dir := t.TempDir()
	var users bytes.Buffer
	for _, name := range []string{"alice", "bob", "carol"} {
		hash, err := bcrypt.GenerateFromPassword([]byte("pw-"+name), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&users, "%s:%s\n", name, hash)
	}
	t.Setenv("CI_PASSWORD", "pw-ci")
	file := filepath.Join(dir, "serve.yaml")
	for name, raw := range map[string][]byte{file: config, filepath.Join(dir, "htpasswd"): users.Bytes()} {
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := readServeConfig(file)
	if err != nil {
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
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// askRecipe sends a request for what is not there as a user, and says how it was answered.
func askRecipe(handler http.Handler, user, what, repo string) string {
	digest := "sha256:" + strings.Repeat("0", 64)
	method, target := http.MethodGet, "/v2/_catalog"
	switch what {
	case "pull":
		target = "/v2/" + repo + "/blobs/" + digest
	case "push":
		method, target = http.MethodPost, "/v2/"+repo+"/blobs/uploads/"
	case "delete":
		method, target = http.MethodDelete, "/v2/"+repo+"/manifests/"+digest
	}
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr = "127.0.0.1:1234"
	switch user {
	case "-":
	case "wrong":
		r.SetBasicAuth("alice", "wrong")
	default:
		r.SetBasicAuth(user, "pw-"+user)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	switch w.Code {
	case http.StatusOK, http.StatusAccepted, http.StatusNotFound:
		return "ok"
	case http.StatusUnauthorized:
		return "login"
	case http.StatusForbidden:
		return "denied"
	case http.StatusMethodNotAllowed:
		return "off"
	}
	return w.Result().Status
}
