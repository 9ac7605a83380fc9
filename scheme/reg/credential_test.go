package reg

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/types/errs"
)

// home is a machine without credentials, and the folder that its files are in.
func home(t *testing.T) string {
	dir := t.TempDir()
	for _, v := range []string{"REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"} {
		t.Setenv(v, "")
	}
	t.Setenv("HOME", dir)
	t.Setenv("USERPROFILE", dir)
	return dir
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// "dTpw" is u:p; the entries differ by their user.
const authFile = `{"auths": {
	"registry.example": {"auth": "aG9zdDpw"},
	"registry.example/team": {"auth": "dGVhbTpw"},
	"registry.example/team/app": {"auth": "YXBwOnA="},
	"https://old.example/v1/": {"auth": "b2xkOnA="},
	"https://index.docker.io/v1/": {"auth": "aHViOnA="},
	"only.example/team": {"auth": "dGVhbTpw"},
	"token.example": {"auth": "dTpw", "identitytoken": "id"},
	"empty.example": {}
}}`

func TestCredentialFile(t *testing.T) {
	dir := home(t)
	write(t, filepath.Join(dir, ".docker", "config.json"), authFile, 0o600)
	f := newFiles()
	for name, tc := range map[string]struct{ host, repo, user string }{
		"host":                             {"registry.example", "other/app", "host"},
		"host without a repository":        {"registry.example", "", "host"},
		"what the repository is below":     {"registry.example", "team/other", "team"},
		"the repository":                   {"registry.example", "team/app", "app"},
		"a longer name is another":         {"registry.example", "team2/app", "host"},
		"an URL of Docker's first days":    {"old.example", "a", "old"},
		"Docker Hub":                       {"docker.io", "library/alpine", "hub"},
		"none for the host, but for parts": {"only.example", "other", ""},
		"part of such a host":              {"only.example", "team/x", "team"},
		"an entry that holds nothing":      {"empty.example", "a", ""},
		"unknown":                          {"unknown.example", "a", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cred, err := f.find(t.Context(), tc.host, tc.repo)
			if err != nil || cred.Username != tc.user {
				t.Errorf("got %+v, %v, want user %q", cred, err, tc.user)
			}
		})
	}
	cred, err := f.find(t.Context(), "token.example", "a")
	if err != nil || cred.RefreshToken != "id" {
		t.Errorf("got %+v, %v, want the identity token", cred, err)
	}
}

func TestCredentialPaths(t *testing.T) {
	entry := func(user string) string {
		return `{"auths":{"r.example":{"auth":"` + user + `"}}}`
	}
	dir := home(t)
	paths := []struct{ variable, value, file, auth, user string }{ // from last to first
		{"HOME", dir, ".docker/config.json", "YTpw", "a"},
		{"DOCKER_CONFIG", dir + "/docker", "config.json", "Yjpw", "b"},
		{"HOME", dir, ".config/containers/auth.json", "Yzpw", "c"},
		{"XDG_CONFIG_HOME", dir + "/config", "containers/auth.json", "ZDpw", "d"},
		{"XDG_RUNTIME_DIR", dir + "/run", "containers/auth.json", "ZTpw", "e"},
		{"REGISTRY_AUTH_FILE", dir + "/mine.json", "", "Zjpw", "f"},
	}
	for _, p := range paths {
		t.Setenv(p.variable, p.value)
		write(t, filepath.Join(p.value, p.file), entry(p.auth), 0o600)
		cred, err := newFiles().find(t.Context(), "r.example", "a")
		if err != nil || cred.Username != p.user {
			t.Errorf("with %s: got %+v, %v, want user %q", p.variable, cred, err, p.user)
		}
	}
	t.Setenv("REGISTRY_AUTH_FILE", dir+"/absent.json") // the others are not looked at
	if cred, err := newFiles().find(t.Context(), "r.example", "a"); err != nil || !cred.anonymous() {
		t.Errorf("got %+v, %v, want nobody", cred, err)
	}
}

func TestBrokenCredentialFile(t *testing.T) {
	dir := home(t)
	path := filepath.Join(dir, ".docker", "config.json")
	write(t, path, `{"auths": {"r.example": {"auth": "c2VjcmV0OnA="},,}`, 0o600)
	_, err := newFiles().find(t.Context(), "r.example", "a")
	if !errors.Is(err, errs.ErrInvalid) || !strings.Contains(err.Error(), path) || errs.Hint(err) == "" {
		t.Errorf("got %v, hint %q, want the file and the cure", err, errs.Hint(err))
	}
	if err != nil && strings.Contains(err.Error(), "c2VjcmV0") {
		t.Errorf("%q tells a secret", err)
	}
}

func TestCredentialHelper(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the helper of this test is a shell script, which Windows does not run")
	}
	dir := home(t)
	write(t, filepath.Join(dir, "bin", "docker-credential-test"), `#!/bin/sh
read host
case "$host" in
https://index.docker.io/v1/) echo '{"Username":"hub","Secret":"p"}' ;;
r.example) echo '{"Username":"<token>","Secret":"id"}' ;;
slow.example) exec sleep 600 ;;
broken.example) echo 'the keychain is locked'; exit 1 ;;
*) echo 'credentials not found in native keychain'; exit 1 ;;
esac
`, 0o755)
	t.Setenv("PATH", filepath.Join(dir, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	write(t, filepath.Join(dir, ".docker", "config.json"), `{"credsStore": "test", "auths": {"r.example": {}, "plain.example": {"auth": "dTpw"}}}`, 0o600)
	f := newFiles()
	for host, want := range map[string]Credential{
		"docker.io":       {Username: "hub", Password: "p"},
		"r.example":       {RefreshToken: "id"},
		"unknown.example": {},
		"plain.example":   {Username: "u", Password: "p"},
	} {
		if got, err := f.find(t.Context(), host, "a"); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", host, got, err)
		}
	}
	if _, err := f.find(t.Context(), "broken.example", "a"); err == nil || !strings.Contains(err.Error(), "keychain is locked") {
		t.Errorf("got %v, want the helper's words", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.find(ctx, "slow.example", "a"); err == nil {
		t.Error("a helper that hangs outlives the context")
	}
}
