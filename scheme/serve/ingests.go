package serve

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/serve/spool"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// ingests is where the bytes of a repository's uploads are until they are a blob.
type ingests struct {
	scheme.Ingester
	scheme.IngestManager
	ref     ref.Ref
	spooled bool // the spool: the place gets the blob when it is whole
}

// ingests returns where the uploads of r's repository are. They are the place's if it can keep and manage them.
func (s *Server) ingests(r ref.Ref) (ingests, error) {
	in := ingests{ref: r}
	if scheme.As(s.api, r, &in.Ingester) && scheme.As(s.api, r, &in.IngestManager) {
		return in, nil
	}
	sp, err := s.spool.open()
	if err != nil {
		return in, err
	}
	return ingests{Ingester: sp, IngestManager: sp, ref: sp.Ref, spooled: true}, nil
}

// lazySpool is a spool that is opened when a place first needs it.
type lazySpool struct {
	dir string

	mu     sync.Mutex // guards all below
	spool  *spool.Spool
	closed bool
}

func (l *lazySpool) open() (*spool.Spool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errs.ErrUnavailable
	}
	if l.spool != nil {
		return l.spool, nil
	}
	sp, err := spool.Open(l.dir)
	if err != nil {
		return nil, err
	}
	l.spool = sp
	return sp, nil
}

func (l *lazySpool) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed = true; l.spool == nil {
		return nil
	}
	return l.spool.Close()
}

// expire removes what an idle session has received, unless another process goes on with it.
func (s *Server) expire(u *session) {
	if err := u.in.expire(s.ctx, u.key, s.sessionTTL); err != nil && s.ctx.Err() == nil {
		s.log.ErrorContext(s.ctx, "upload: expire", "error", err)
	}
}

// expire removes the ingest key if nothing was written to it for age. Whether it is that old is looked at again when
// nobody else can write to it.
func (in ingests) expire(ctx context.Context, key string, age time.Duration) error {
	st, err := in.IngestStat(ctx, in.ref, key)
	if err != nil || !isOld(st, age) {
		return unless(err, errs.ErrUploadUnknown)
	}
	u, err := in.Ingest(ctx, in.ref, key)
	if err != nil {
		return unless(err, errs.ErrLocked)
	}
	st, err = in.IngestStat(ctx, in.ref, key) // Upload.Status need not know of who left it
	if err != nil || time.Since(st.Updated) < age {
		return errors.Join(err, u.Close())
	}
	return u.Abort(ctx)
}

func isOld(st blob.Ingest, age time.Duration) bool {
	return !st.Active && time.Since(st.Updated) >= age
}

// unless is err, but nil if that is what.
func unless(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// leftovers removes sessions of processes that are gone: those that this one does not know, and that have been idle for
// the sessions' time. It looks for them a while after the start, and then once in that time; between two looks there is
// only a timer.
type leftovers struct {
	s *Server

	mu      sync.Mutex // guards all below
	timer   *time.Timer
	running sync.WaitGroup // nothing is added when done
	done    bool
}

// leftoverPause is between two repositories: there may be many, and requests come first.
const leftoverPause = 5 * time.Millisecond

func (s *Server) watchLeftovers() *leftovers {
	l := &leftovers{s: s}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(s.sweepAfter, l.look)
	return l
}

func (l *leftovers) look() {
	l.mu.Lock()
	if l.done {
		l.mu.Unlock()
		return
	}
	l.running.Add(1)
	l.mu.Unlock()
	defer l.running.Done()
	s := l.s
	for _, p := range s.places {
		if p.ReadOnly {
			continue
		}
		if err := s.lookThrough(&p); err != nil && s.ctx.Err() == nil {
			s.log.ErrorContext(s.ctx, "uploads of earlier processes", "place", p.Root.String(), "error", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.done {
		l.timer = time.AfterFunc(max(s.sessionTTL, time.Second), l.look)
	}
}

// close waits for a look that is under way. s.ctx must have ended.
func (l *leftovers) close() {
	l.mu.Lock()
	l.done = true
	l.timer.Stop()
	l.mu.Unlock()
	l.running.Wait()
}

// lookThrough removes leftovers in the repositories of a place, or in the spool.
func (s *Server) lookThrough(p *Place) error {
	root := p.Root
	in, err := s.ingests(root)
	if err != nil {
		return err
	}
	if in.spooled {
		return s.lookInto(in)
	}
	each := func(repo string) error {
		if _, below := cutName(repo, root.Repo); !below {
			return nil
		}
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-time.After(leftoverPause):
		}
		in.ref = root.WithRepo(repo)
		err := s.lookInto(in)
		if err != nil && s.ctx.Err() == nil { // of one repository: the others are looked at all the same
			s.log.ErrorContext(s.ctx, "uploads of earlier processes", "repository", in.ref.String(), "error", err)
			return nil
		}
		return err
	}
	var finder scheme.IngestFinder
	if scheme.As(s.api, root, &finder) {
		return finder.IngestFind(s.ctx, root.Base(), each)
	}
	var lister scheme.RepoLister
	if !scheme.As(s.api, root, &lister) {
		return nil
	}
	return unless(lister.RepoList(s.ctx, root.Base(), "", each), errs.ErrNotFound)
}

// maxLook bounds how many leftovers of one repository are removed in one look.
const maxLook = 10_000

// lookInto removes the leftovers of one repository.
func (s *Server) lookInto(in ingests) error {
	var old []string
	err := in.IngestList(s.ctx, in.ref, func(st blob.Ingest) error {
		if strings.HasPrefix(st.Key, keyPrefix) && isOld(st, s.sessionTTL) && !s.sessions.knows(st.Key) {
			old = append(old, st.Key)
		}
		if len(old) == maxLook {
			return io.EOF
		}
		return nil
	})
	if err = unless(err, io.EOF); err != nil {
		return err
	}
	var failed error
	for _, key := range old {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err := in.expire(s.ctx, key, s.sessionTTL); err != nil {
			failed = err // one that cannot be removed does not keep the others; the last reason is as good as any
		}
	}
	return failed
}
