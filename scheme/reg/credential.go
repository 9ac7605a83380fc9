package reg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	orasauth "oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/ocisync/ocisync/types/errs"
)

// dockerHubKey is what Docker files Docker Hub's credentials under.
const dockerHubKey = "https://index.docker.io/v1/"

// files finds credentials in the files of Docker and Podman, which it reads when it is first asked.
type files struct {
	load func() ([]*credentialFile, error)
}

func newFiles() *files { return &files{load: sync.OnceValues(loadCredentialFiles)} }

// find looks for the most specific credential in the first file that has any: an entry for the repository or what it
// is below (Podman), a helper for the host, an entry for the host.
func (f *files) find(ctx context.Context, host, repo string) (Credential, error) {
	all, err := f.load()
	if err != nil {
		return Credential{}, err
	}
	for _, file := range all {
		cred, err := file.find(ctx, host, repo)
		if err != nil {
			return Credential{}, fmt.Errorf("credentials for %s from %s: %w", host, file.path, err)
		}
		if cred != orasauth.EmptyCredential {
			return Credential(cred), nil
		}
	}
	return Credential{}, nil
}

// credentialPaths lists the files in the order in which they are looked at. REGISTRY_AUTH_FILE, when set, is the only
// one.
func credentialPaths() []string {
	if p := os.Getenv("REGISTRY_AUTH_FILE"); p != "" {
		return []string{p}
	}
	var paths []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		paths = append(paths, filepath.Join(dir, "containers", "auth.json"))
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // a daemon without one has none of the files below it
	}
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		paths = append(paths, filepath.Join(dir, "containers", "auth.json"))
	} else if home != "" {
		paths = append(paths, filepath.Join(home, ".config", "containers", "auth.json"))
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		paths = append(paths, filepath.Join(dir, "config.json"))
	} else if home != "" {
		paths = append(paths, filepath.Join(home, ".docker", "config.json"))
	}
	return paths
}

func loadCredentialFiles() ([]*credentialFile, error) {
	var all []*credentialFile
	for _, path := range credentialPaths() {
		f, err := loadCredentialFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, &errs.Error{
				Op: "read credentials", Ref: path, Err: fmt.Errorf("%w: %w", errs.ErrInvalid, err),
				Hint: "repair or remove " + path + ", or name another file in REGISTRY_AUTH_FILE",
			}
		}
		all = append(all, f)
	}
	return all, nil
}

// credentialFile is one file. The library reads entries and runs helpers; which key is asked for is decided here, as
// the library takes an entry for host/name as one for host.
type credentialFile struct {
	path    string
	entries map[string]bool // keys of auths that hold something
	helpers map[string]string
	store   string
	plain   *credentials.FileStore
	dynamic *credentials.DynamicStore
}

func loadCredentialFile(path string) (*credentialFile, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Auths map[string]struct {
			Auth, IdentityToken, RegistryToken, Username string
		} `json:"auths"`
		Store   string            `json:"credsStore"`
		Helpers map[string]string `json:"credHelpers"`
	}
	if len(strings.TrimSpace(string(raw))) > 0 {
		if err := json.Unmarshal(raw, &doc); err != nil {
			return nil, errors.New("it is not the JSON of Docker or Podman") // the error might quote a secret
		}
	}
	f := &credentialFile{path: path, entries: map[string]bool{}, helpers: doc.Helpers, store: doc.Store}
	for key, e := range doc.Auths {
		f.entries[key] = e.Auth != "" || e.IdentityToken != "" || e.RegistryToken != "" || e.Username != ""
	}
	if f.plain, err = credentials.NewFileStore(path); err != nil {
		return nil, err
	}
	f.dynamic, err = credentials.NewStore(path, credentials.StoreOptions{})
	return f, err
}

func (f *credentialFile) find(ctx context.Context, host, repo string) (orasauth.Credential, error) {
	for name := host + "/" + repo; repo != "" && len(name) > len(host); name = name[:strings.LastIndexByte(name, '/')] {
		if f.entries[name] {
			return f.plain.Get(ctx, name)
		}
	}
	keys := []string{host, "https://" + host, "https://" + host + "/", "https://" + host + "/v1/", "https://" + host + "/v2/"}
	if host == dockerHub {
		keys = []string{dockerHubKey, "index.docker.io", dockerHub, dockerHubAPI}
	}
	if f.store != "" || f.helpers[keys[0]] != "" {
		cred, err := f.dynamic.Get(ctx, keys[0])
		if err != nil || cred != orasauth.EmptyCredential {
			return cred, err
		}
	}
	for _, key := range keys {
		switch {
		case f.helpers[key] != "" && key != keys[0]:
			return f.dynamic.Get(ctx, key)
		case f.entries[key]:
			return f.plain.Get(ctx, key)
		}
	}
	return orasauth.EmptyCredential, nil
}
