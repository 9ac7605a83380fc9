package serve

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ocisync/ocisync/types/errs"
)

// ask sends a request to a server that is not listening.
func ask(s *Server, method, target, remote string, h header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr = remote
	for k, v := range h {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// passwords knows users whose password is their name, and counts who asks.
type passwords struct{ asked *int }

func (p passwords) Authenticate(r *http.Request) (Identity, error) {
	user, pass, ok := r.BasicAuth()
	if !ok {
		return Identity{}, nil
	}
	*p.asked++
	if user != pass {
		return Identity{}, errs.ErrUnauthorized
	}
	return Identity{Subject: user}, nil
}

func (passwords) Challenge(Context) []Challenge { return []Challenge{{Scheme: "basic"}} }

func basic(user, pass string) header {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, pass)
	return header{"Authorization": r.Header.Get("Authorization")}
}

func TestRateLimit(t *testing.T) {
	opts := []Option{WithRateLimit(0.1, 3), WithTrustedProxies(prefixes(t, "10.0.0.0/8")...)}
	inBubble(t, opts, func(t *testing.T, s *Server, p *pipes, seen *events) {
		for i, tc := range []struct {
			target, remote, forwarded string
			wait                      time.Duration // before
			status                    int
			retry                     string
		}{
			{target: "/v2/", remote: "192.0.2.1:1", status: 200},
			{target: "/nothing", remote: "192.0.2.1:2", status: 404}, // counts
			{target: "/v2/a/manifests/none", remote: "192.0.2.1:3", status: 404},
			{target: "/v2/", remote: "192.0.2.1:4", status: 429, retry: "10"},
			{target: "/v2/", remote: "192.0.2.1:4", forwarded: "203.0.113.7", status: 429, retry: "10"},
			{target: "/nothing", remote: "192.0.2.1:4", status: 429, retry: "10"},
			{target: "/v2/", remote: "192.0.2.1:4", wait: 9500 * time.Millisecond, status: 429, retry: "1"},
			{target: "/v2/", remote: "192.0.2.2:1", status: 200}, // somebody else
			{target: "/v2/", remote: "192.0.2.1:4", wait: 600 * time.Millisecond, status: 200},
			{target: "/v2/", remote: "192.0.2.1:4", status: 429, retry: "10"},
			{target: "/v2/", remote: "[2001:db8::1]:1", status: 200},
			{target: "/v2/", remote: "[2001:db8::2]:1", status: 200},
			{target: "/v2/", remote: "[2001:db8::3]:1", status: 200},
			{target: "/v2/", remote: "[2001:db8::4]:1", status: 429, retry: "10"}, // the same network
			{target: "/v2/", remote: "[2001:db8:0:1::1]:1", status: 200},
			{target: "/v2/", remote: "10.0.0.1:1", forwarded: "203.0.113.1", status: 200},
			{target: "/v2/", remote: "10.0.0.1:1", forwarded: "203.0.113.1", status: 200},
			{target: "/v2/", remote: "10.0.0.2:1", forwarded: "203.0.113.1", status: 200},
			{target: "/v2/", remote: "10.0.0.2:1", forwarded: "203.0.113.66, 203.0.113.1", status: 429, retry: "10"},
			{target: "/v2/", remote: "10.0.0.2:1", forwarded: "203.0.113.2", status: 200},
		} {
			time.Sleep(tc.wait)
			w := ask(s, "GET", tc.target, tc.remote, header{"X-Forwarded-For": tc.forwarded})
			if w.Code != tc.status || w.Header().Get("Retry-After") != tc.retry {
				t.Errorf("%d: %d, Retry-After %q, want %d and %q", i, w.Code, w.Header().Get("Retry-After"), tc.status, tc.retry)
			}
			if w.Code == http.StatusTooManyRequests && !strings.Contains(w.Body.String(), `"TOOMANYREQUESTS"`) {
				t.Errorf("%d: %s", i, w.Body)
			}
		}
	})
}

// TestRateOfSubjects holds that subjects have a rate of their own, wherever they are, and that guessing is slow and
// does not reach the authenticator.
func TestRateOfSubjects(t *testing.T) {
	var asked int
	inBubble(t, []Option{WithRateLimit(0.1, 2), WithAuthenticator(passwords{&asked})}, func(t *testing.T, s *Server, p *pipes, seen *events) {
		const addr = "192.0.2.1:1"
		for i, tc := range []struct {
			remote, user, pass string
			status, asked      int
		}{
			{addr, "ann", "ann", 200, 1},
			{addr, "ann", "ann", 200, 1},
			{addr, "ann", "ann", 429, 1},
			{"192.0.2.9:1", "ann", "ann", 429, 1}, // from elsewhere
			{addr, "bob", "bob", 200, 1},          // from where ann is
			{addr, "", "", 401, 0},                // nobody
			{addr, "", "", 401, 0},
			{addr, "", "", 429, 0},
			{addr, "ann", "guess", 401, 1},
			{addr, "bob", "guess", 401, 1},
			{addr, "eve", "guess", 429, 0},
			{addr, "bob", "bob", 429, 0}, // from where somebody guesses
			{"192.0.2.9:1", "bob", "bob", 200, 1},
		} {
			asked = 0
			var h header
			if tc.user != "" {
				h = basic(tc.user, tc.pass)
			}
			if w := ask(s, "GET", "/v2/", tc.remote, h); w.Code != tc.status || asked != tc.asked {
				t.Errorf("%d: %d, asked %d times, want %d and %d", i, w.Code, asked, tc.status, tc.asked)
			}
		}
	})
}

// TestManyCallers holds that who comes under ever new addresses fills no memory, makes nobody else's bucket full again,
// and gains nothing.
func TestManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers = 100
		rates := newRates(1, 2, callers)
		from := func(i int) caller {
			return caller{from: network(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))}
		}
		victim := caller{subject: "ann"}
		for range 2 {
			if err := rates.take(victim); err != nil {
				t.Fatal(err)
			}
		}
		taken := 0
		for i := range 10 * callers {
			if rates.take(from(i)) == nil {
				taken++
			}
		}
		if len(rates.buckets) != callers || rates.used.Len() != callers {
			t.Errorf("%d buckets, %d in the list", len(rates.buckets), rates.used.Len())
		}
		if want := callers - 1 + 2; taken != want {
			t.Errorf("%d requests of ever new callers were taken, want %d", taken, want)
		}
		if rates.take(victim) == nil {
			t.Error("the table has forgotten who used up what it had")
		}
		if rates.ask(from(10*callers)) == nil {
			t.Error("a new caller has more than what the others left")
		}
		time.Sleep(3 * time.Second) // all are full again
		for i := range 2 * callers {
			if err := rates.take(from(i)); err != nil && i < callers {
				t.Fatalf("caller %d: %v", i, err)
			}
		}
		if len(rates.buckets) != callers {
			t.Errorf("%d buckets", len(rates.buckets))
		}
	})
}

func TestNoRateLimit(t *testing.T) {
	s := &Server{rates: newRates(0, 1, maxCallers)}
	for range 1000 {
		x := &exchange{r: httptest.NewRequest("GET", "/v2/", nil)}
		x.r.SetBasicAuth("a", "b")
		s.wrong(x)
		if err := s.patience(x); err != nil {
			t.Fatal(err)
		}
		if err := s.throttle(x); err != nil {
			t.Fatal(err)
		}
	}
}

// upload begins an upload that stays open, and returns how to end it: its status is then the result.
func upload(t *testing.T, s *Server, session, remote string) func() int {
	t.Helper()
	pr, pw := io.Pipe()
	r := httptest.NewRequest("PATCH", session, pr)
	r.RemoteAddr = remote
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() { defer close(done); s.ServeHTTP(w, r) }()
	synctest.Wait()
	return func() int {
		pw.Close()
		<-done
		return w.Code
	}
}

func TestMaxRequests(t *testing.T) {
	inBubble(t, []Option{WithMaxRequests(2, 0)}, func(t *testing.T, s *Server, p *pipes, seen *events) {
		sessions := []string{openSession(t, s), openSession(t, s), openSession(t, s)}
		first, second := upload(t, s, sessions[0], "192.0.2.1:1"), upload(t, s, sessions[1], "192.0.2.1:1")
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(queueTime / 2)
			if got := second(); got != 202 {
				t.Error(got)
			}
		})
		for range 2 { // wait, and find room when the second one ends
			wg.Go(func() {
				if w := ask(s, "GET", "/v2/", "192.0.2.2:1", nil); w.Code != 200 {
					t.Error(w.Code, w.Body)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		w := ask(s, "GET", "/v2/", "192.0.2.2:1", nil) // no room to wait
		if w.Code != 503 || w.Header().Get("Retry-After") != "5" || !strings.Contains(w.Body.String(), "UNAVAILABLE") || time.Since(began) != 0 {
			t.Error(w.Code, w.Header(), w.Body, time.Since(began))
		}
		wg.Wait()
		third := upload(t, s, sessions[2], "192.0.2.3:1")
		began = time.Now()
		w = ask(s, "GET", "/v2/", "192.0.2.2:1", nil)
		if w.Code != 503 || time.Since(began) != queueTime {
			t.Errorf("%d after %v of the bubble's clock", w.Code, time.Since(began))
		}
		for _, end := range []func() int{first, third} {
			if got := end(); got != 202 {
				t.Error(got)
			}
		}
		if w := ask(s, "GET", "/v2/", "192.0.2.2:1", nil); w.Code != 200 {
			t.Error(w.Code)
		}
	})
}

func TestMaxRequestsOfOneAddress(t *testing.T) {
	opts := []Option{WithMaxRequests(0, 2), WithTrustedProxies(prefixes(t, "10.0.0.0/8")...)}
	inBubble(t, opts, func(t *testing.T, s *Server, p *pipes, seen *events) {
		var sessions []string
		for range 5 {
			sessions = append(sessions, openSession(t, s))
		}
		var ends []func() int
		for i, remote := range []string{"192.0.2.1:1", "192.0.2.1:2", "10.0.0.1:1", "10.0.0.1:1", "10.0.0.1:1"} {
			ends = append(ends, upload(t, s, sessions[i], remote))
		}
		for remote, want := range map[string]int{"192.0.2.1:3": 429, "192.0.2.2:1": 200, "10.0.0.1:2": 200} {
			w := ask(s, "GET", "/v2/", remote, nil)
			if w.Code != want || want == 429 && w.Header().Get("Retry-After") != "5" {
				t.Errorf("%s: %d %v", remote, w.Code, w.Header())
			}
		}
		for _, end := range ends {
			if got := end(); got != 202 {
				t.Error(got)
			}
		}
		if w := ask(s, "GET", "/v2/", "192.0.2.1:3", nil); w.Code != 200 || len(s.slots.from) != 0 {
			t.Errorf("%d, %v", w.Code, s.slots.from)
		}
	})
}

// TestWaitingEnds holds that a client that goes away does not wait on.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1, 1)
		release, err := s.take(t.Context(), netip.Prefix{}, false)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(time.Second); cancel() }()
		began := time.Now()
		_, err = s.take(ctx, netip.MustParsePrefix("192.0.2.1/32"), false)
		if !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("%v after %v of the bubble's clock", err, time.Since(began))
		}
		if len(s.from) != 1 || s.waiting.Load() != 0 {
			t.Errorf("left: %v, %d wait", s.from, s.waiting.Load())
		}
		release()
		if len(s.from) != 0 || len(s.total) != 0 {
			t.Errorf("left: %v, %d", s.from, len(s.total))
		}
	})
}
