// Package access says who may do what with a server of package serve, without anything else than a configuration:
// Basic finds out who asks, by HTTP basic credentials of users that are configured or in htpasswd files; Policy decides
// by rules. Each works without the other, beside an Authenticator or Authorizer of somebody else.
//
//	users, err := access.NewBasic(access.BasicConfig{Realm: "images", Files: []string{"/etc/ocisync/htpasswd"}})
//	rules, err := access.NewPolicy(
//		access.Rule{Subjects: []string{access.Anonymous}, Repositories: []string{"public/**"}, Actions: []serve.Action{serve.ActionPull}},
//		access.Rule{Subjects: []string{"robot"}, Repositories: []string{"**"}, Actions: []serve.Action{serve.ActionPull, serve.ActionPush}},
//	)
//	s, err := serve.New(api, root, serve.WithAuthenticator(users), serve.WithAuthorizer(rules))
//
// The types here are plain values, for a program to fill from whatever its configuration is written in.
package access

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/errs"
)

// The subjects of a rule that are no user's name. No user can have these names.
const (
	Anyone    = "*"         // whoever is somebody
	Anonymous = "anonymous" // everybody, with and without credentials
)

// User is somebody with a password. Exactly one of Password and Hash is set.
type User struct {
	Name     string   // not empty, of at most 255 bytes, without ':' and control characters
	Password string   // in the clear, from where only the server reads it: a secret of the environment
	Hash     string   // of bcrypt, as "htpasswd -nB NAME" prints it behind the name: $2a$, $2b$ or $2y$
	Groups   []string // that the user is in
}

// BasicConfig is what NewBasic makes an Authenticator of.
type BasicConfig struct {
	Realm   string              // what people are shown when they are asked for a password; default "registry"
	Service string              // a parameter of the challenge that some clients show; default none
	Users   []User              // those that are in no file
	Files   []string            // paths of htpasswd files, which are read again when they change
	Groups  map[string][]string // the members of groups, wherever those users are from: by group, beside User.Groups
	Log     *slog.Logger        // where it is said that a file was read again, or cannot be; default nowhere
}

// Rule allows some subjects some actions on some repositories. What no rule allows is denied.
type Rule struct {
	// Subjects are names of users, Anyone, or Anonymous; Groups are names of groups. One that fits is enough, and there
	// must be one.
	Subjects, Groups []string
	// Repositories are patterns, of which one must fit: a name as it is, with "*" for any characters of one component,
	// "**" for any characters with "/" among them, and "{user}" for a component that is the subject's name. So "a" is a
	// alone and not a/b, "a/*" is a/b and not a/b/c, "a/**" is everything below a and not a itself, and "**" is all.
	// They may be missing only where Actions is no more than the catalog, which is of no repository.
	Repositories []string
	// Actions are what is allowed. There must be one.
	Actions []serve.Action
	// Networks restrict the rule to requests from there (see serve.Context.Remote). None: from anywhere.
	Networks []netip.Prefix
}

// maxName bounds the names of users and groups, in bytes.
const maxName = 255

// validName reports why name can be no user's or group's.
func validName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: the name is empty", errs.ErrInvalid)
	case len(name) > maxName:
		return fmt.Errorf("%w: a name of %d bytes, more than %d", errs.ErrInvalid, len(name), maxName)
	case name == Anyone || name == Anonymous:
		return fmt.Errorf("%w: the name %q has a meaning of its own in rules", errs.ErrInvalid, name)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) || strings.Contains(name, ":"):
		return fmt.Errorf("%w: the name %q has a colon, a control character or broken UTF-8", errs.ErrInvalid, name)
	}
	return nil
}
