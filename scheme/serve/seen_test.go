package serve

import (
	"slices"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestSeenRemembersALittle(t *testing.T) {
	var s seen
	d := digest.FromString("d")
	for _, name := range []string{"a", "b", "a", "c"} {
		s.add(d, name)
	}
	if got := s.names(d); !slices.Equal(got, []string{"c", "a", "b"}) {
		t.Errorf("%v: each once, the latest first", got)
	}
	for i := range 10 {
		s.add(d, strconv.Itoa(i))
	}
	if got := s.names(d); !slices.Equal(got, []string{"9", "8", "7", "6"}) {
		t.Errorf("%v: the latest %d", got, maxSeenRepos)
	}
	for i := range maxSeen {
		s.add(digest.FromString(strconv.Itoa(i)), "x")
	}
	if len(s.names(d)) == 0 {
		t.Error("one generation later it is forgotten already")
	}
	for i := range 3 * maxSeen {
		s.add(digest.FromString(strconv.Itoa(i)), "x")
	}
	if n := len(s.newer) + len(s.older); n > 2*maxSeen || len(s.names(d)) > 0 {
		t.Errorf("%d digests are remembered, at most %d should be", n, 2*maxSeen)
	}
}
