package engine

import (
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/ref"
)

const (
	mountsKept = 1 << 16 // blobs whose repositories are remembered
	mountsEach = 3       // repositories for each
)

// mounts remembers, for the life of an Engine, which repositories of a registry were seen to have a blob. It may be
// wrong at any time: a registry that refuses a mount takes the bytes in the same session.
type mounts struct {
	mu    sync.Mutex // guards what follows
	repos map[mountKey][]string
	order []mountKey // a ring: the next one to be forgotten is at next
	next  int
}

type mountKey struct {
	base ref.Ref // the registry
	blob digest.Digest
}

func newMounts() *mounts { return &mounts{repos: map[mountKey][]string{}} }

// add remembers that r's repository has d.
func (m *mounts) add(r ref.Ref, d digest.Digest) {
	key := mountKey{r.Base(), d}
	m.mu.Lock()
	defer m.mu.Unlock()
	have, known := m.repos[key]
	if slices.Contains(have, r.Repo) {
		return
	}
	if len(have) == mountsEach {
		have = have[1:]
	}
	m.repos[key] = append(slices.Clip(have), r.Repo)
	switch {
	case known:
	case len(m.order) < mountsKept:
		m.order = append(m.order, key)
	default:
		delete(m.repos, m.order[m.next])
		m.order[m.next] = key
		m.next = (m.next + 1) % mountsKept
	}
}

// find returns the repositories of r's registry, other than r's own, that are believed to have d; the last seen first.
func (m *mounts) find(r ref.Ref, d digest.Digest) []ref.Ref {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []ref.Ref
	for _, repo := range slices.Backward(m.repos[mountKey{r.Base(), d}]) {
		if repo != r.Repo {
			all = append(all, r.WithRepo(repo))
		}
	}
	return all
}
