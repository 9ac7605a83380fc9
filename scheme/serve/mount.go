package serve

import (
	"io"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
)

// mount tries to take a blob over from another repository. Whatever prevents it, the answer is a session: who may not
// read the other repository cannot tell that from a blob that is not there.
func (s *Server) mount(x *exchange) (bool, error) {
	d := types.Descriptor{Digest: x.req.Mount}
	if x.req.From != "" {
		return s.mountFrom(x, x.req.From, d)
	}
	may, err := s.mayPull(x, x.req.Repo) // who may only push learns nothing of what is there already
	if err != nil {
		return false, err
	}
	if may {
		if _, err := s.api.BlobHead(x.r.Context(), x.ref, d); err == nil {
			return true, nil
		}
	}
	for i := range s.places {
		mounted, err := s.mountAny(x, &s.places[i], d)
		if mounted || err != nil {
			return mounted, err
		}
	}
	return false, nil
}

// maxSources bounds the repositories with a blob that are tried as the source of a mount that names none: half of all may
// have a common layer, and the subject none of them.
const maxSources = 1000

// mountAny looks for the blob in all repositories of a place that the subject may read.
func (s *Server) mountAny(x *exchange, p *Place, d types.Descriptor) (mounted bool, err error) {
	var finder scheme.BlobFinder
	if !scheme.As(s.api, p.Root, &finder) {
		return s.mountSeen(x, p, d)
	}
	var failed error
	tried := 0
	err = finder.BlobFind(x.r.Context(), p.Root.Base(), d.Digest, func(repo string) error {
		if name, ok := s.places.name(p, repo); ok {
			mounted, failed = s.mountFrom(x, name, d)
		}
		if tried++; mounted || failed != nil || tried == maxSources {
			return io.EOF
		}
		return nil
	})
	if err != nil { // nobody asked for the search: what it cannot find is not there
		s.log.DebugContext(x.r.Context(), "mount: search", "id", x.id, "error", err)
	}
	return mounted, failed
}

// mountSeen tries the repositories of a place in which this server knows, without asking, that the blob was.
func (s *Server) mountSeen(x *exchange, p *Place, d types.Descriptor) (bool, error) {
	for _, name := range s.seen.names(d.Digest) {
		if owner, _, ok := s.places.find(name); !ok || owner != p || name == x.req.Repo {
			continue
		}
		if mounted, err := s.mountFrom(x, name, d); mounted || err != nil {
			return mounted, err
		}
	}
	return false, nil
}

// mountFrom takes the blob over from repository name, if the subject may read that.
func (s *Server) mountFrom(x *exchange, name string, d types.Descriptor) (bool, error) {
	if may, err := s.mayPull(x, name); !may || err != nil {
		return false, err
	}
	_, from, ok := s.places.find(name)
	return ok && s.api.BlobMount(x.r.Context(), from, x.ref, d) == nil, nil
}
