package access

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/ocisync/ocisync/types/errs"
)

func write(t *testing.T, path string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// watched is a Basic over files, with a clock of its own.
type watched struct {
	*Basic
	t    *testing.T
	mu   sync.Mutex
	time time.Time
	log  bytes.Buffer
}

func watch(t *testing.T, c BasicConfig) *watched {
	t.Helper()
	w := &watched{t: t, time: time.Now().Add(time.Hour)} // all that is written now has settled then
	c.Log = slog.New(slog.NewTextHandler(&w.log, nil))
	w.Basic = mustBasic(t, c)
	w.Basic.now = func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.time
	}
	w.pass(time.Second)
	return w
}

func (w *watched) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.time = w.time.Add(d)
}

// can says which user:password are right.
func (w *watched) can(want bool, all ...string) {
	w.t.Helper()
	for _, up := range all {
		name, password, _ := strings.Cut(up, ":")
		_, err := login(w.Basic, name, password)
		if (err == nil) != want || err != nil && !errors.Is(err, errs.ErrUnauthorized) {
			w.t.Errorf("%s: %v", up, err)
		}
	}
}

func TestAnHtpasswdFileIsReadAgainWhenItChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "htpasswd")
	one, two := bcrypted(t, "one", bcrypt.MinCost), bcrypted(t, "two", bcrypt.MinCost)
	write(t, path, "\ufeff# users", "", "a:"+one+"\r", "  b:"+one, "")
	w := watch(t, BasicConfig{Files: []string{path}, Groups: map[string][]string{"g": {"a", "c"}}, Users: []User{{Name: "static", Password: "x"}}})
	var c counter
	c.count(w.Basic)
	w.can(true, "a:one", "b:one", "static:x")
	w.can(false, "a:two", "c:two")
	c.take()

	// a stays, b has another password, c is new.
	write(t, path, "a:"+one, "b:"+two, "c:"+two)
	w.can(true, "a:one", "b:one") // nobody has looked at the file
	w.pass(time.Second - 1)
	w.can(true, "b:one")
	w.pass(1)
	w.can(false, "b:one")
	w.can(true, "b:two", "c:two", "static:x")
	if who, err := login(w.Basic, "c", "two"); err != nil || len(who.Groups) != 1 || who.Groups[0] != "g" {
		t.Errorf("%+v, %v", who, err)
	}
	c.take()
	w.can(true, "a:one") // known, as the hash is the same
	if calls, _ := c.take(); calls != 0 {
		t.Errorf("%d comparisons for a hash that has not changed", calls)
	}

	// Replaced by another file, as editors do; a is gone.
	write(t, path+".new", "b:"+two)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Second)
	w.can(false, "a:one", "c:two")
	w.can(true, "b:two")

	// Empty: nobody is left.
	write(t, path)
	w.pass(time.Second)
	w.can(false, "b:two")
	w.can(true, "static:x")
	if log := w.log.String(); strings.Count(log, "read again") != 3 || strings.Contains(log, one[7:]) || strings.Contains(log, two[7:]) {
		t.Errorf("log: %s", log)
	}
}

// TestAChangeInTheSameInstantIsSeen: as long as a file may be changed again without its time of change showing it, it
// is read again.
func TestAChangeInTheSameInstantIsSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "htpasswd")
	one, two := bcrypted(t, "one", bcrypt.MinCost), bcrypted(t, "two", bcrypt.MinCost)
	now := time.Now()
	write(t, path, "a:"+one)
	w := watch(t, BasicConfig{Files: []string{path}})
	put := func(line string) {
		t.Helper()
		write(t, path, line)
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
	}
	w.time = now
	w.checked.Store(0)
	put("a:" + two)
	w.pass(time.Second)
	w.can(true, "a:two")
	put("a:" + one)
	w.pass(time.Second)
	w.can(true, "a:one")
	w.can(false, "a:two")
}

func TestABrokenHtpasswdFileChangesNothingAndIsReportedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "htpasswd")
	good := "a:" + bcrypted(t, "one", bcrypt.MinCost)
	write(t, path, good)
	w := watch(t, BasicConfig{Files: []string{path}})
	reported := func(want string) {
		t.Helper()
		for range 3 {
			w.pass(time.Second)
			w.can(true, "a:one")
			w.can(false, "b:one")
		}
		if log := w.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "level=ERROR") || !strings.Contains(log, want) {
			t.Errorf("log: %s, want one line with %q", log, want)
		}
		w.log.Reset()
	}
	write(t, path, good, "b:"+bcrypted(t, "one", bcrypt.MinCost), "c")
	reported("htpasswd:3: ")
	write(t, path, "b:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00")
	reported("htpasswd:1: ")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	reported("no such file")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	reported("is no file")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, good)
	w.pass(time.Second)
	w.can(true, "a:one")
	if log := w.log.String(); strings.Count(log, "read again") != 1 || !strings.Contains(log, "level=INFO") {
		t.Errorf("log: %s", log)
	}
}

func TestAUserIsInOnePlace(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	a, b := "a:"+bcrypted(t, "one", bcrypt.MinCost), "b:"+bcrypted(t, "one", bcrypt.MinCost)
	write(t, first, a)
	write(t, second, a)
	for _, c := range []BasicConfig{
		{Files: []string{first, second}},
		{Files: []string{first}, Users: []User{{Name: "a", Password: "x"}}},
	} {
		if _, err := NewBasic(c); !errors.Is(err, errs.ErrInvalid) || !strings.Contains(err.Error(), `"a"`) {
			t.Errorf("%v: %v", c.Files, err)
		}
	}
	write(t, second, b)
	w := watch(t, BasicConfig{Files: []string{first, second}})
	w.can(true, "a:one", "b:one")
	write(t, second, a, b, "c"+b[1:])
	w.pass(time.Second)
	w.can(true, "a:one", "b:one")
	w.can(false, "c:one")
	write(t, first) // that was in the way
	w.pass(time.Second)
	w.can(true, "a:one", "b:one", "c:one")
}

func TestHtpasswdErrorsNameTheLineAndNoSecret(t *testing.T) {
	good := bcrypted(t, "one", bcrypt.MinCost)
	for _, c := range []struct{ line, want string }{
		{"secret", "NAME:HASH"},
		{":" + good, "name is empty"},
		{"anonymous:" + good, "anonymous"},
		{"a\x00:" + good, "control character"},
		{"first:" + good, "earlier line"},
		{"a:secret", `user "a": invalid: the hash is not bcrypt`},
		{"a:", `user "a": invalid: the hash is not bcrypt`},
		{"a:$apr1$secret$eIMz/iKDkbtys/uU7LEK00", "MD5"},
		{"a:{SHA}secret", "SHA-1"},
		{"a:$6$secret", "SHA-512"},
		{"a:$2x$05$secret", "broken bcrypt"},
		{"a:" + good + ":secret", "something behind it"},
		{"a:" + good[:40], "cut off"},
	} {
		_, err := parseHtpasswd([]byte("# one\nfirst:" + good + "\n" + c.line + "\n"))
		if !errors.Is(err, errs.ErrInvalid) || !strings.HasPrefix(err.Error(), "3: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.30q: %v, want %q", c.line, err, c.want)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), good[10:30]) {
			t.Errorf("%q is in the error: %v", c.line, err)
		}
	}
	path := filepath.Join(t.TempDir(), "none")
	if _, err := NewBasic(BasicConfig{Files: []string{path}}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	write(t, path, strings.Repeat("#", maxFile+1))
	if _, err := NewBasic(BasicConfig{Files: []string{path}}); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("of a file that is too large: %.100v", err)
	}
}

// TestManyRequestsWhileAFileChanges is for the race detector, and holds that who stays is never refused.
func TestManyRequestsWhileAFileChanges(t *testing.T) {
	dir := t.TempDir()
	still, path := filepath.Join(dir, "still"), filepath.Join(dir, "htpasswd")
	one, two := bcrypted(t, "one", bcrypt.MinCost), bcrypted(t, "two", bcrypt.MinCost)
	replace := func(b string) {
		write(t, path+".new", "a:"+one, "b:"+b)
		if err := os.Rename(path+".new", path); err != nil {
			t.Error(err)
		}
	}
	replace(one)
	write(t, still, "c:"+one)
	w := watch(t, BasicConfig{Files: []string{still, path}, Groups: map[string][]string{"g": {"a", "b", "c"}}})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				w.pass(time.Second)
				for _, name := range []string{"a", "c"} {
					if who, err := login(w.Basic, name, "one"); err != nil || len(who.Groups) != 1 {
						t.Errorf("%s: %+v, %v", name, who, err)
					}
				}
				if _, err := login(w.Basic, "b", "one"); err != nil && !errors.Is(err, errs.ErrUnauthorized) {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for i := 0; ; i++ {
		replace([]string{one, two}[i%2])
		select {
		case <-done:
		default:
			continue
		}
		break
	}
	replace(two)
	w.pass(time.Second)
	w.can(true, "a:one", "b:two", "c:one")
	w.can(false, "b:one")
}
