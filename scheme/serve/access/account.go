package access

import (
	"context"
	"crypto/subtle"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/ocisync/ocisync/types/errs"
)

const (
	// maxPassword is how much of a password bcrypt looks at, in bytes.
	maxPassword = 72

	// The costs of hashes that are taken. One more doubles the time; 16 takes seconds.
	minCost, maxCost = bcrypt.MinCost, 16

	// maxWaiting is how many requests may wait for their passwords to be compared.
	maxWaiting = 128

	// retryGate is what a request is told to wait when as many wait.
	retryGate = time.Second
)

// account is what is known about one user.
type account struct {
	hash   string // "" for a password that was given in the clear
	cost   int    // of hash
	groups []string
	proven atomic.Pointer[mac] // of the password that is right, once that is known
}

// knows reports whether m is of the password that is known to be right. A nil account knows none.
func (a *account) knows(m mac) bool {
	if a == nil {
		return false
	}
	p := a.proven.Load()
	return p != nil && subtle.ConstantTimeCompare(p[:], m[:]) == 1
}

// table is all users at one time. It does not change.
type table struct {
	accounts map[string]*account
	cost     int // the highest of all hashes; 0 if there is none
}

func newTable(accounts map[string]*account) *table {
	t := &table{accounts: accounts}
	for _, a := range accounts {
		t.cost = max(t.cost, a.cost)
	}
	return t
}

// compare reports whether the password is a's. That it is not takes as long for every account, and for a nil one, as
// the costliest hash of all takes: after a hash of cost c, which takes 2^c, those of the costs c, c+1, … up to the
// highest make up for what is missing.
func (b *Basic) compare(ctx context.Context, t *table, a *account, password string) bool {
	cost := t.cost
	switch {
	case a == nil || a.hash == "":
		_ = b.compareHash(dummy(cost), []byte(password)) // for the time alone
	default:
		if b.compareHash([]byte(a.hash), []byte(password)) == nil {
			return true
		}
		cost = a.cost
	}
	for ; cost < t.cost && ctx.Err() == nil; cost++ {
		_ = b.compareHash(dummy(cost), []byte(password))
	}
	return false
}

// dummy is a hash of no password.
func dummy(cost int) []byte { return fmt.Appendf(nil, "$2a$%02d$%053d", cost, 0) }

// validHash checks the form of a hash, $2b$10$ with 22 characters of salt and 31 of hash, and returns its cost. The
// hash itself is not part of the error.
func validHash(hash string) (cost int, err error) {
	if len(hash) < 7 || hash[:2] != "$2" || !strings.ContainsRune("aby", rune(hash[2])) || hash[3] != '$' || hash[6] != '$' {
		return 0, fmt.Errorf("%w: the hash is %s; make one with \"htpasswd -B\"", errs.ErrInvalid, kindOf(hash))
	}
	cost, err = strconv.Atoi(hash[4:6])
	if err != nil || hash[4] < '0' || len(hash) != 60 || strings.Trim(hash[7:], "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return 0, fmt.Errorf("%w: the hash of bcrypt is cut off, or has something behind it; make it again with \"htpasswd -B\"", errs.ErrInvalid)
	}
	if cost < minCost || cost > maxCost {
		return 0, fmt.Errorf("%w: the hash has cost %d, which is not %d to %d; make one with \"htpasswd -B -C 10\"", errs.ErrInvalid, cost, minCost, maxCost)
	}
	return cost, nil
}

// kindOf says what a hash is that is not one of bcrypt.
func kindOf(hash string) string {
	for prefix, kind := range map[string]string{
		"$apr1$": "Apache's MD5 ($apr1$)", "{SHA}": "plain SHA-1 ({SHA})", "{SSHA}": "SHA-1 ({SSHA})", "$1$": "MD5 ($1$)",
		"$5$": "SHA-256 ($5$)", "$6$": "SHA-512 ($6$)", "$argon2": "argon2", "$2x$": "of the broken bcrypt $2x$",
	} {
		if strings.HasPrefix(hash, prefix) {
			return kind + ", not bcrypt"
		}
	}
	return "not bcrypt ($2a$, $2b$ or $2y$)"
}

// gate bounds how many passwords are compared at once, so that guesses leave cores for everything else, and how many
// requests wait for that.
type gate struct {
	slots   chan struct{} // has an element for each that is in
	waiting atomic.Int64  // those that are in, and those that wait
	most    int64         // of them
}

func newGate(slots, waiting int) gate {
	return gate{slots: make(chan struct{}, slots), most: int64(slots + waiting)}
}

// enter waits for a slot. Errors: errs.ErrRateLimited when too many wait; ctx's.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	if g.waiting.Add(1) > g.most {
		g.waiting.Add(-1)
		return nil, &errs.Error{Op: "authenticate", RetryAfter: retryGate, Err: fmt.Errorf("%w: %d passwords are waiting to be checked", errs.ErrRateLimited, g.most)}
	}
	select {
	case g.slots <- struct{}{}:
		return func() { <-g.slots; g.waiting.Add(-1) }, nil
	case <-ctx.Done():
		g.waiting.Add(-1)
		return nil, ctx.Err()
	}
}
