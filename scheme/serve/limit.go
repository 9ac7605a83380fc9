package serve

import (
	lru "container/list"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/ocisync/ocisync/types/errs"
)

// The defaults of WithMaxRequests.
const (
	defaultMaxRequests     = 20000
	defaultMaxRequestsEach = 2000
)

// queueTime is how long a request waits for one of those that are being answered to end, and what a client is told to
// wait that found no room.
const queueTime = 5 * time.Second

// maxCallers bounds the table of WithRateLimit.
const maxCallers = 10000

// WithMaxRequests bounds the requests that are being answered at once: total of them, and each from one address (one
// /64 network for IPv6), but for trusted proxies. Uploads and downloads count as long as they last, slow ones too. A
// request beyond total waits for five seconds, if no more than total others do; then it gets 503. One beyond each gets
// 429 at once. Both say Retry-After. 0 is no limit, and a negative number the default: 20,000 and 2,000.
func WithMaxRequests(total, each int) Option {
	return func(c *config) { setLimit(&c.maxRequests, total); setLimit(&c.maxRequestsEach, each) }
}

// WithRateLimit bounds the requests of one caller to perSecond in the long run and burst at once; what is more gets 429
// with Retry-After. A caller is a subject, or, for requests without credentials or with wrong ones, an address (one /64
// network for IPv6). Wrong credentials are counted apart, by address: once they are too many, requests with credentials
// get 429 from there before anybody looks at them, as looking may be expensive.
//
// The callers of whom something has to be remembered are 10,000 at most: when that many are active, all new ones share
// one limit as if they were one, and so win nothing by being many. Default: no limit.
func WithRateLimit(perSecond float64, burst int) Option {
	return func(c *config) { c.rate, c.burst = rate.Limit(perSecond), max(burst, 1) }
}

// slots are what requests take to be answered.
type slots struct {
	total   chan struct{} // nil without a limit
	waiting atomic.Int64
	each    int

	mu   sync.Mutex
	from map[netip.Prefix]int // that have a slot or wait for one
}

func newSlots(total, each int) *slots {
	s := &slots{each: each, from: map[netip.Prefix]int{}}
	if total > 0 {
		s.total = make(chan struct{}, total)
	}
	return s
}

// take returns when the request may be answered, or an error when there is no room. many says that from stands for many
// clients: a proxy's own address, or none.
func (s *slots) take(ctx context.Context, from netip.Prefix, many bool) (release func(), err error) {
	if !many && !s.enter(from) {
		return nil, &errs.Error{Op: "serve", RetryAfter: queueTime, Err: fmt.Errorf("%w: %d requests of one address at once", errs.ErrRateLimited, s.each)}
	}
	leave := func() {
		if !many {
			s.leave(from)
		}
	}
	if s.total == nil {
		return leave, nil
	}
	select {
	case s.total <- struct{}{}:
	default:
		if err := s.wait(ctx); err != nil {
			leave()
			return nil, err
		}
	}
	return func() { <-s.total; leave() }, nil
}

// wait waits for a slot.
func (s *slots) wait(ctx context.Context) error {
	full := &errs.Error{Op: "serve", RetryAfter: queueTime, Err: fmt.Errorf("%w: %d requests at once", errs.ErrUnavailable, cap(s.total))}
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > int64(cap(s.total)) {
		return full
	}
	timer := time.NewTimer(queueTime)
	defer timer.Stop()
	select {
	case s.total <- struct{}{}:
		return nil
	case <-timer.C:
		return full
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slots) enter(from netip.Prefix) bool {
	if s.each <= 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from[from] >= s.each {
		return false
	}
	s.from[from]++
	return true
}

func (s *slots) leave(from netip.Prefix) {
	if s.each <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from[from]--; s.from[from] == 0 {
		delete(s.from, from)
	}
}

// caller is who has a rate: a subject, or an address for those who are nobody, and once more for wrong credentials.
type caller struct {
	subject string
	from    netip.Prefix
	wrong   bool
}

// rates are the token buckets of callers. One is forgotten only when it is full again, which is as if it had never been.
type rates struct {
	limit rate.Limit
	burst int
	max   int

	mu      sync.Mutex
	buckets map[caller]*lru.Element // of *bucket
	used    lru.List                // who asked last is in front
	others  *rate.Limiter           // of those for whom there is no room
}

type bucket struct {
	of caller
	*rate.Limiter
}

// newRates returns nil, which limits nothing, for a limit of 0.
func newRates(limit rate.Limit, burst, callers int) *rates {
	if !(limit > 0) {
		return nil
	}
	return &rates{limit: limit, burst: burst, max: callers, buckets: map[caller]*lru.Element{}, others: rate.NewLimiter(limit, burst)}
}

// bucket finds or makes the one of a caller.
func (t *rates) bucket(c caller, now time.Time) *rate.Limiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.buckets[c]; ok {
		t.used.MoveToFront(e)
		return e.Value.(*bucket).Limiter
	}
	for len(t.buckets) >= t.max {
		oldest := t.used.Back()
		b := oldest.Value.(*bucket)
		if b.TokensAt(now) < float64(t.burst) {
			return t.others
		}
		t.used.Remove(oldest)
		delete(t.buckets, b.of)
	}
	b := &bucket{of: c, Limiter: rate.NewLimiter(t.limit, t.burst)}
	t.buckets[c] = t.used.PushFront(b)
	return b.Limiter
}

// take counts a request. Its error is errs.ErrRateLimited when it is one too many, which is not counted.
func (t *rates) take(c caller) error {
	if t == nil {
		return nil
	}
	now := time.Now()
	r := t.bucket(c, now).ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	r.CancelAt(now)
	return tooFast(wait)
}

// ask reports what take would, and counts nothing.
func (t *rates) ask(c caller) error {
	if t == nil {
		return nil
	}
	now := time.Now()
	if missing := 1 - t.bucket(c, now).TokensAt(now); missing > 0 {
		return tooFast(time.Duration(missing / float64(t.limit) * float64(time.Second)))
	}
	return nil
}

func tooFast(wait time.Duration) error {
	return &errs.Error{Op: "serve", RetryAfter: wait, Err: fmt.Errorf("%w: the rate of one caller", errs.ErrRateLimited)}
}

// throttle counts a request, when it is known who sent it.
func (s *Server) throttle(x *exchange) error {
	if x.ctx.Subject != "" {
		return s.rates.take(caller{subject: x.ctx.Subject})
	}
	return s.rates.take(caller{from: network(x.ctx.Remote)})
}

// patience refuses credentials from where too many wrong ones came.
func (s *Server) patience(x *exchange) error {
	if s.rates == nil || x.r.Header.Get("Authorization") == "" {
		return nil
	}
	return s.rates.ask(caller{from: network(x.ctx.Remote), wrong: true})
}

// wrong counts wrong credentials. How many are left is the next request's matter.
func (s *Server) wrong(x *exchange) {
	_ = s.rates.take(caller{from: network(x.ctx.Remote), wrong: true})
}

// slot waits for the request's turn.
func (s *Server) slot(x *exchange) (release func(), err error) {
	many := !x.ctx.Remote.IsValid() || s.trusts(x.ctx.Remote)
	return s.slots.take(x.r.Context(), network(x.ctx.Remote), many)
}
