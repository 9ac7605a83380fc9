package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/crypto/bcrypt"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/errs"
)

const (
	defaultRealm = "registry"

	// maxHeader bounds what of credentials is looked at, in bytes of the header.
	maxHeader = 8 << 10

	// maxPlain bounds passwords in the clear, in bytes, so that with any name they fit into that.
	maxPlain = 4 << 10

	// statEvery is how often the files are looked at, at most.
	statEvery = time.Second
)

// What a client is told about its credentials. It is the same for users that there are and users that there are not.
var (
	errWrong     = refusal("user name or password is wrong")
	errMalformed = refusal("the credentials are malformed")
	errScheme    = refusal("only basic credentials are taken here")
	errLong      = refusal("the password is longer than the 72 bytes that bcrypt can check")
)

func refusal(text string) error {
	return ocihttp.Public(fmt.Errorf("%w: %s", errs.ErrUnauthorized, text))
}

// Basic is a serve.Authenticator for HTTP basic credentials (RFC 7617) of users that are configured or in htpasswd
// files. A password that was right once is known again by a keyed digest of it, so that bcrypt is computed once for
// each user and not for each request, until the user's hash changes. Guesses are not remembered; what they cost is
// bounded (see gate), and does not tell whether there is such a user.
type Basic struct {
	challenge []serve.Challenge
	macs      sync.Pool // of hash.Hash: HMACs under one key, which nobody knows
	static    map[string]*account
	groups    map[string][]string // by user, of the configuration
	log       *slog.Logger
	now       func() time.Time
	gate      gate
	// compareHash is bcrypt.CompareHashAndPassword, but for tests.
	compareHash func(hash, password []byte) error

	table   atomic.Pointer[table]
	checked atomic.Int64 // when the files were looked at, in ns
	reading sync.Mutex   // guards files; held while they are read
	files   []*file
}

// mac is a digest of a user's name and password, under the key of one Basic.
type mac [sha256.Size]byte

// NewBasic checks the configuration and reads the files. Errors: errs.ErrInvalid that names the user, or the file and
// its line, and what to do; a file cannot be read.
func NewBasic(c BasicConfig) (*Basic, error) {
	b := &Basic{
		static: map[string]*account{}, groups: map[string][]string{}, log: c.Log, now: time.Now, compareHash: bcrypt.CompareHashAndPassword,
		gate: newGate(max(1, runtime.GOMAXPROCS(0)/2), maxWaiting),
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if err := b.setChallenge(c.Realm, c.Service); err != nil {
		return nil, err
	}
	key := make([]byte, sha256.Size)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	b.macs.New = func() any { return hmac.New(sha256.New, key) }
	for g, members := range c.Groups {
		if err := validName(g); err != nil {
			return nil, fmt.Errorf("groups: %w", err)
		}
		for _, m := range members {
			if err := validName(m); err != nil {
				return nil, fmt.Errorf("group %q: %w", g, err)
			}
			b.groups[m] = append(b.groups[m], g)
		}
	}
	for i, u := range c.Users {
		if err := b.addUser(u); err != nil {
			return nil, fmt.Errorf("user %d: %w", i+1, err)
		}
	}
	for _, path := range c.Files {
		b.files = append(b.files, &file{path: path})
	}
	b.checked.Store(b.now().UnixNano())
	return b, b.readAll()
}

func (b *Basic) setChallenge(realm, service string) error {
	if realm == "" {
		realm = defaultRealm
	}
	params := map[string]string{"realm": realm}
	if service != "" {
		params["service"] = service
	}
	for k, v := range params {
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
			return fmt.Errorf("%w: %s %q is not printable ASCII", errs.ErrInvalid, k, v)
		}
	}
	b.challenge = []serve.Challenge{{Scheme: "basic", Params: params}}
	return nil
}

// addUser checks a user of the configuration.
func (b *Basic) addUser(u User) error {
	if err := validName(u.Name); err != nil {
		return err
	}
	for _, g := range u.Groups {
		if err := validName(g); err != nil {
			return fmt.Errorf("%q: groups: %w", u.Name, err)
		}
	}
	a := &account{groups: append(append([]string{}, u.Groups...), b.groups[u.Name]...)}
	switch {
	case b.static[u.Name] != nil:
		return fmt.Errorf("%w: there are two users %q", errs.ErrInvalid, u.Name)
	case (u.Password == "") == (u.Hash == ""):
		return fmt.Errorf("%w: %q needs a password or a hash, and not both", errs.ErrInvalid, u.Name)
	case u.Hash != "":
		cost, err := validHash(u.Hash)
		if err != nil {
			return fmt.Errorf("%q: %w", u.Name, err)
		}
		a.hash, a.cost = u.Hash, cost
	case len(u.Password) > maxPlain:
		return fmt.Errorf("%w: the password of %q has %d bytes, more than %d", errs.ErrInvalid, u.Name, len(u.Password), maxPlain)
	case hasControl(u.Password):
		return fmt.Errorf("%w: the password of %q has a control character, which cannot be sent", errs.ErrInvalid, u.Name)
	default: // it is as if somebody had proved already that it is right
		m := b.mac(u.Name, u.Password)
		a.proven.Store(&m)
	}
	b.static[u.Name] = a
	return nil
}

// Challenge asks for a user name and password.
func (b *Basic) Challenge(serve.Context) []serve.Challenge { return b.challenge }

// Authenticate checks r's credentials. It waits, as long as r's context lasts, when others' passwords are being
// checked, and answers errs.ErrRateLimited when too many wait already.
func (b *Basic) Authenticate(r *http.Request) (serve.Identity, error) {
	name, password, err := credentials(r.Header.Values("Authorization"))
	if err != nil || name == "" && password == "" {
		return serve.Identity{}, err
	}
	b.refresh()
	a, err := b.check(r.Context(), name, password)
	if err != nil {
		return serve.Identity{}, err
	}
	return serve.Identity{Subject: name, Groups: a.groups}, nil
}

// credentials reads the header. Two of them are refused: who is in front of the server may have looked at the other.
func credentials(headers []string) (name, password string, err error) {
	switch {
	case len(headers) == 0:
		return "", "", nil
	case len(headers) > 1 || len(headers[0]) > maxHeader:
		return "", "", errMalformed
	}
	scheme, encoded, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "basic") {
		return "", "", errScheme
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Trim(encoded, " "))
	if err != nil {
		return "", "", errMalformed
	}
	name, password, ok := strings.Cut(string(raw), ":")
	if !ok || hasControl(name) || hasControl(password) {
		return "", "", errMalformed
	}
	return name, password, nil
}

// hasControl reports whether s has a control character, which neither a name nor a password may have. The NUL among
// them is more than form: bcrypt takes a password to be the same as itself, a NUL, and itself.
func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

// mac is a digest that is worth nothing without the key. A name has no colon.
func (b *Basic) mac(name, password string) (m mac) {
	h := b.macs.Get().(hash.Hash)
	defer b.macs.Put(h)
	h.Reset()
	h.Write([]byte(name + ":" + password))
	h.Sum(m[:0])
	return m
}

// check finds the user and compares the password.
func (b *Basic) check(ctx context.Context, name, password string) (*account, error) {
	m := b.mac(name, password)
	t := b.table.Load()
	if a := t.accounts[name]; a.knows(m) {
		return a, nil
	}
	switch {
	case t.cost == 0: // there are no hashes
		return nil, errWrong
	case len(password) > maxPassword:
		return nil, errLong
	}
	leave, err := b.gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	t = b.table.Load()
	a := t.accounts[name]
	if a.knows(m) { // proven by another request while this one waited
		return a, nil
	}
	if !b.compare(ctx, t, a, password) {
		return nil, errWrong
	}
	a.proven.Store(&m)
	return a, nil
}

var _ serve.Authenticator = (*Basic)(nil)
