package serve

import (
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// How much is remembered of where blobs are: of the digests twice maxSeen at most, and of each so many repositories.
const (
	maxSeen      = 5000
	maxSeenRepos = 4
)

// seen remembers in which repositories blobs were stored lately, for mounts that name no source, from places that cannot
// search (scheme.BlobFinder): a registry says which blobs a repository has, but not which repositories have a blob. It is
// a hint. The blob may be gone since, and who asks may not be allowed to read it there: both are for the mount to find out.
//
// There are two generations: when the newer is full it becomes the older, and what was that is forgotten.
type seen struct {
	mu           sync.Mutex // guards both
	newer, older map[digest.Digest][]string
}

// add remembers that repository name has d.
func (s *seen) add(d digest.Digest, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := s.of(d)
	if i := slices.Index(names, name); i >= 0 {
		names = slices.Delete(slices.Clone(names), i, i+1)
	}
	names = append([]string{name}, names...)
	if s.newer == nil || len(s.newer) >= maxSeen {
		s.newer, s.older = map[digest.Digest][]string{}, s.newer
	}
	s.newer[d] = names[:min(len(names), maxSeenRepos)]
}

// names are the repositories that had d, the latest first.
func (s *seen) names(d digest.Digest) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of(d)
}

// of is names, with the lock held. The result is never written to again.
func (s *seen) of(d digest.Digest) []string {
	if names, ok := s.newer[d]; ok {
		return names
	}
	return s.older[d]
}
