package access

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func bcrypted(t testing.TB, password string, cost int) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func mustBasic(t testing.TB, c BasicConfig) *Basic {
	t.Helper()
	b, err := NewBasic(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ask sends the header's values, of which none is one that is absent.
func ask(b *Basic, headers ...string) (serve.Identity, error) {
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	r.Header["Authorization"] = headers
	return b.Authenticate(r)
}

func login(b *Basic, name, password string) (serve.Identity, error) {
	return ask(b, "Basic "+base64.StdEncoding.EncodeToString([]byte(name+":"+password)))
}

// counter counts comparisons, and what they cost: one of cost c is worth 2^c.
type counter struct {
	mu         sync.Mutex
	calls, sum int
}

func (c *counter) count(b *Basic) {
	b.compareHash = func(hash, password []byte) error {
		cost, err := bcrypt.Cost(hash)
		c.mu.Lock()
		c.calls++
		c.sum += 1 << cost
		c.mu.Unlock()
		if err != nil {
			return err
		}
		return bcrypt.CompareHashAndPassword(hash, password)
	}
}

func (c *counter) take() (calls, sum int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls, sum = c.calls, c.sum
	c.calls, c.sum = 0, 0
	return calls, sum
}

func TestUsersProveThemselvesByTheirPasswords(t *testing.T) {
	b := mustBasic(t, BasicConfig{
		Users: []User{
			{Name: "plain", Password: "a:b: c", Groups: []string{"one"}},
			{Name: "long", Password: strings.Repeat("x", maxPlain)},
			{Name: "jörg", Password: "pässwörd"},
			{Name: "hashed", Hash: bcrypted(t, "a:b", bcrypt.MinCost)},
			{Name: "full", Hash: bcrypted(t, strings.Repeat("y", 72), bcrypt.MinCost)},
			// As other programs make them: Apache's htpasswd, and a vector of crypt_blowfish.
			{Name: "apache", Hash: "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC"},
			{Name: "blowfish-a", Hash: "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
			{Name: "blowfish-b", Hash: "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
		},
		Groups: map[string][]string{"two": {"plain", "hashed", "nobody"}},
	})
	for _, c := range []struct {
		name, password string
		groups         []string
	}{
		{"plain", "a:b: c", []string{"one", "two"}},
		{"long", strings.Repeat("x", maxPlain), nil},
		{"jörg", "pässwörd", nil},
		{"hashed", "a:b", []string{"two"}},
		{"full", strings.Repeat("y", 72), nil},
		{"apache", "myPassword", nil},
		{"blowfish-a", "U*U", nil},
		{"blowfish-b", "U*U", nil},
	} {
		for range 2 { // computed, and known
			who, err := login(b, c.name, c.password)
			if err != nil || who.Subject != c.name || !slices.Equal(who.Groups, c.groups) {
				t.Errorf("%s: %+v, %v", c.name, who, err)
			}
		}
		for _, wrong := range []string{"", c.password + "x", c.password[1:], strings.ToUpper(c.password), c.password + ":"} {
			if wrong == c.password {
				continue
			}
			if who, err := login(b, c.name, wrong); !errors.Is(err, errs.ErrUnauthorized) || who.Subject != "" {
				t.Errorf("%s with %q: %+v, %v", c.name, wrong, who, err)
			}
		}
		for _, other := range []string{"", strings.ToUpper(c.name), c.name + "x"} {
			if who, err := login(b, other, c.password); !errors.Is(err, errs.ErrUnauthorized) || who.Subject != "" {
				t.Errorf("%q with the password of %s: %+v, %v", other, c.name, who, err)
			}
		}
	}
}

// TestPasswordsThatBcryptTakesForAnother: bcrypt ignores what is behind 72 bytes, and repeats a shorter password with a
// NUL between.
func TestPasswordsThatBcryptTakesForAnother(t *testing.T) {
	full := strings.Repeat("y", 72)
	b := mustBasic(t, BasicConfig{Users: []User{
		{Name: "full", Hash: bcrypted(t, full, bcrypt.MinCost)}, {Name: "short", Hash: bcrypted(t, "ab", bcrypt.MinCost)},
	}})
	if bcrypt.CompareHashAndPassword([]byte(b.static["short"].hash), []byte("ab\x00ab")) != nil {
		t.Fatal("bcrypt does not repeat passwords: this test tests nothing")
	}
	for _, c := range [][2]string{{"full", full + "z"}, {"short", "ab\x00ab"}, {"short", "ab\x00"}} {
		if who, err := login(b, c[0], c[1]); !errors.Is(err, errs.ErrUnauthorized) {
			t.Errorf("%s with %q: %+v, %v", c[0], c[1], who, err)
		}
	}
	_, one := login(b, "full", full+"z")
	_, two := login(b, "nobody", full+"z")
	if one.Error() != two.Error() || !strings.Contains(one.Error(), "72") {
		t.Errorf("%v, and of nobody %v", one, two)
	}
}

func TestHeadersThatAreNoCredentials(t *testing.T) {
	b := mustBasic(t, BasicConfig{Users: []User{{Name: "a", Password: "b"}}})
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, headers := range [][]string{nil, {"Basic Og=="}, {"basic Og=="}} {
		if who, err := ask(b, headers...); err != nil || who.Subject != "" || who.Groups != nil {
			t.Errorf("%q: %+v, %v", headers, who, err)
		}
	}
	for _, headers := range [][]string{{basic("a:b")}, {"BASIC  " + basic("a:b")[6:] + " "}} {
		if who, err := ask(b, headers...); err != nil || who.Subject != "a" {
			t.Errorf("%q: %+v, %v", headers, who, err)
		}
	}
	for _, headers := range [][]string{
		{""}, {"Basic"}, {"Basic "}, {"Basic !"}, {basic("a")}, {basic("")}, {basic("a:b") + "="}, {basic("a:b") + " x"},
		{basic("a:b"), basic("a:b")}, {"Basic Og==", basic("a:b")}, {basic("a:b\n")}, {basic("a\x00:b")}, {basic(":b")}, {basic("a:")},
		{"Bearer x"}, {"Basicx " + basic("a:b")[6:]}, {basic("a:b")[6:]}, {basic("a:" + strings.Repeat("b", 10000))},
	} {
		who, err := ask(b, headers...)
		if !errors.Is(err, errs.ErrUnauthorized) || who.Subject != "" {
			t.Errorf("%.60q: %+v, %v", headers, who, err)
		}
		status, raw := ocihttp.WriteError(err)
		if status != http.StatusUnauthorized || strings.Contains(string(raw), "72") {
			t.Errorf("%.60q: %d %s", headers, status, raw)
		}
	}
}

func TestHugeCredentialsAreNotLookedAt(t *testing.T) {
	b := mustBasic(t, BasicConfig{Users: []User{{Name: "a", Password: "b"}}})
	if _, err := login(b, "a", strings.Repeat("b", maxHeader)); err != errMalformed {
		t.Error(err)
	}
}

// FuzzCredentials holds that what net/http's clients send is read as they meant it, and that what cannot be meant so is
// refused as somebody's mistake and never as the server's.
func FuzzCredentials(f *testing.F) {
	for _, s := range []string{"", "Basic Og==", "Basic YTpi", "basic  YTpi ", "Bearer x", "Basic", "Basic YTpi=", "Basic \x00"} {
		f.Add(s, "user", "pass:word")
	}
	f.Fuzz(func(t *testing.T, header, user, pass string) {
		name, password, err := credentials([]string{header})
		if err != nil && (!errors.Is(err, errs.ErrUnauthorized) || name+password != "") {
			t.Errorf("%q: %q %q %v", header, name, password, err)
		}
		if err == nil && (hasControl(name) || hasControl(password) || strings.Contains(name, ":")) {
			t.Errorf("%q is %q with %q", header, name, password)
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.SetBasicAuth(user, pass)
		name, password, err = credentials(r.Header["Authorization"])
		wantName, wantPassword, _ := strings.Cut(user+":"+pass, ":")
		if len(user)+len(pass) > maxPlain {
			return
		}
		good := !hasControl(wantName) && !hasControl(wantPassword)
		if good != (err == nil) || good && (name != wantName || password != wantPassword) {
			t.Errorf("%q with %q are read as %q with %q, %v", user, pass, name, password, err)
		}
	})
}

func TestChallenge(t *testing.T) {
	for _, c := range []struct{ realm, service, want string }{
		{"", "", `Basic realm="registry"`},
		{`a "b" \`, "images", `Basic realm="a \"b\" \\",service="images"`},
	} {
		b := mustBasic(t, BasicConfig{Realm: c.realm, Service: c.service})
		if all := b.Challenge(serve.Context{}); len(all) != 1 || all[0].String() != c.want {
			t.Errorf("%q", all)
		}
	}
	for _, c := range []BasicConfig{{Realm: "a\nb"}, {Service: "é"}} {
		if _, err := NewBasic(c); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestUsersThatCannotBeAreRefused(t *testing.T) {
	good := bcrypted(t, "secret", bcrypt.MinCost)
	for _, users := range [][]User{
		{{Password: "secret"}},
		{{Name: "a:b", Password: "secret"}},
		{{Name: "a\n", Password: "secret"}},
		{{Name: "\xff", Password: "secret"}},
		{{Name: strings.Repeat("a", 256), Password: "secret"}},
		{{Name: Anyone, Password: "secret"}},
		{{Name: Anonymous, Password: "secret"}},
		{{Name: "a"}},
		{{Name: "a", Password: "secret", Hash: good}},
		{{Name: "a", Password: "secret\n"}},
		{{Name: "a", Password: strings.Repeat("x", maxPlain+1)}},
		{{Name: "a", Hash: "secret"}},
		{{Name: "a", Hash: "$2x$" + good[4:]}},
		{{Name: "a", Hash: good[:59]}},
		{{Name: "a", Hash: good + "a"}},
		{{Name: "a", Hash: good[:59] + "="}},
		{{Name: "a", Hash: "$2a$03" + good[6:]}},
		{{Name: "a", Hash: "$2a$17" + good[6:]}},
		{{Name: "a", Hash: "$2a$+5" + good[6:]}},
		{{Name: "a", Hash: "$2a$ 5" + good[6:]}},
		{{Name: "a", Password: "secret", Groups: []string{""}}},
		{{Name: "a", Password: "secret"}, {Name: "a", Password: "secret"}},
	} {
		_, err := NewBasic(BasicConfig{Users: users})
		if !errors.Is(err, errs.ErrInvalid) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), good[7:50]) {
			t.Errorf("%+v: %v", users, err)
		}
	}
	for _, groups := range []map[string][]string{{"": {"a"}}, {"g": {""}}, {Anyone: nil}, {"g": {Anonymous}}} {
		if _, err := NewBasic(BasicConfig{Groups: groups}); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%v: %v", groups, err)
		}
	}
}

func TestBcryptIsComputedOnceForEachUser(t *testing.T) {
	b := mustBasic(t, BasicConfig{Users: []User{{Name: "a", Hash: bcrypted(t, "right", bcrypt.MinCost)}}})
	var c counter
	c.count(b)
	for i := range 10 {
		if _, err := login(b, "a", "right"); err != nil {
			t.Fatal(err)
		}
		if calls, _ := c.take(); (calls == 1) != (i == 0) {
			t.Errorf("request %d compared %d times", i, calls)
		}
	}
	for range 3 { // a guess is remembered by nobody, and makes nothing be forgotten
		if _, err := login(b, "a", "wrong"); !errors.Is(err, errs.ErrUnauthorized) {
			t.Error(err)
		}
		if calls, _ := c.take(); calls != 1 {
			t.Errorf("a guess compared %d times", calls)
		}
	}
	if _, err := login(b, "a", "right"); err != nil {
		t.Error(err)
	}
	if calls, _ := c.take(); calls != 0 {
		t.Errorf("after guesses: compared %d times", calls)
	}
}

func TestEveryGuessCostsTheSame(t *testing.T) {
	b := mustBasic(t, BasicConfig{Users: []User{
		{Name: "cheap", Hash: bcrypted(t, "right", 4)}, {Name: "middle", Hash: bcrypted(t, "right", 6)}, {Name: "dear", Hash: bcrypted(t, "right", 7)},
		{Name: "plain", Password: "right"},
	}})
	var c counter
	c.count(b)
	for _, name := range []string{"cheap", "middle", "dear", "plain", "nobody", ""} {
		if _, err := login(b, name, "wrong"); !errors.Is(err, errs.ErrUnauthorized) {
			t.Error(err)
		}
		if _, sum := c.take(); sum != 1<<7 {
			t.Errorf("a guess for %q costs %d, not %d", name, sum, 1<<7)
		}
	}
	// The comparisons that only take time really do.
	for cost := minCost; cost < 7; cost++ {
		if err := bcrypt.CompareHashAndPassword(dummy(cost), []byte("x")); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			t.Errorf("dummy of cost %d: %v", cost, err)
		}
	}

	b = mustBasic(t, BasicConfig{Users: []User{{Name: "plain", Password: "right"}}}) // nothing to hide
	c.count(b)
	for _, name := range []string{"plain", "nobody"} {
		if _, err := login(b, name, "wrong"); !errors.Is(err, errs.ErrUnauthorized) {
			t.Error(err)
		}
	}
	if calls, _ := c.take(); calls != 0 {
		t.Errorf("%d comparisons without any hash", calls)
	}
}

// blocked makes comparisons wait: started says when one has begun, and each needs something from proceed.
func blocked(b *Basic) (started, proceed chan struct{}) {
	started, proceed = make(chan struct{}, 1000), make(chan struct{})
	b.compareHash = func(hash, password []byte) error {
		started <- struct{}{}
		<-proceed
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	return started, proceed
}

func TestGuessesAreComparedFewAtOnceAndWaitNoLongerThanTheirRequests(t *testing.T) {
	users := []User{{Name: "a", Hash: bcrypted(t, "right", bcrypt.MinCost)}, {Name: "known", Hash: bcrypted(t, "right", bcrypt.MinCost)}}
	synctest.Test(t, func(t *testing.T) {
		b := mustBasic(t, BasicConfig{Users: users})
		b.gate = newGate(2, 3)
		if _, err := login(b, "known", "right"); err != nil {
			t.Fatal(err)
		}
		started, proceed := blocked(b)
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 10)
		guess := func(ctx context.Context) {
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/v2/", nil)
			r.SetBasicAuth("a", "wrong")
			_, err := b.Authenticate(r)
			results <- err
		}
		for i := range 5 {
			if i < 2 {
				go guess(t.Context())
			} else {
				go guess(ctx)
			}
			synctest.Wait()
		}
		if len(started) != 2 {
			t.Errorf("%d are compared at once, not 2", len(started))
		}
		guess(t.Context())
		err := <-results
		var e *errs.Error
		if !errors.Is(err, errs.ErrRateLimited) || !errors.As(err, &e) || e.RetryAfter <= 0 {
			t.Errorf("one too many: %v", err)
		}
		if status, _ := ocihttp.WriteError(err); status != http.StatusTooManyRequests {
			t.Errorf("status %d", status)
		}
		if _, err := login(b, "known", "right"); err != nil { // who is known waits for nobody
			t.Error(err)
		}
		cancel()
		synctest.Wait()
		for range 3 {
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Errorf("of a request that has ended: %v", err)
			}
		}
		close(proceed)
		for range 2 {
			if err := <-results; !errors.Is(err, errs.ErrUnauthorized) {
				t.Error(err)
			}
		}
		if n := b.gate.waiting.Load(); n != 0 || len(b.gate.slots) != 0 {
			t.Errorf("%d wait and %d are in, of none", n, len(b.gate.slots))
		}
		go guess(t.Context())
		if err := <-results; !errors.Is(err, errs.ErrUnauthorized) { // there is room again
			t.Error(err)
		}
	})
}

// TestManyRequestsAtOnceProveThePasswordOnce: a client that begins with ten layers at once does not wait ten times.
func TestManyRequestsAtOnceProveThePasswordOnce(t *testing.T) {
	users := []User{{Name: "a", Hash: bcrypted(t, "right", bcrypt.MinCost)}}
	synctest.Test(t, func(t *testing.T) {
		b := mustBasic(t, BasicConfig{Users: users})
		b.gate = newGate(1, 20)
		started, proceed := blocked(b)
		results := make(chan error, 10)
		for range 10 {
			go func() {
				_, err := login(b, "a", "right")
				results <- err
			}()
		}
		synctest.Wait()
		close(proceed)
		for range 10 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if len(started) != 1 {
			t.Errorf("compared %d times", len(started))
		}
	})
}

func BenchmarkKnownUser(b *testing.B) {
	basic := mustBasic(b, BasicConfig{Users: []User{{Name: "robot", Hash: bcrypted(b, "correct horse", bcrypt.MinCost)}}})
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	r.SetBasicAuth("robot", "correct horse")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := basic.Authenticate(r); err != nil {
			b.Fatal(err)
		}
	}
}
