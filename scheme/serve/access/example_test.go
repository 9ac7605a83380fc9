package access_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/scheme/serve/access"
	"github.com/ocisync/ocisync/types/ref"
)

// Everybody pulls what is public, and a robot does everything but remove.
func ExampleNewPolicy() {
	users, err := access.NewBasic(access.BasicConfig{Users: []access.User{{Name: "robot", Password: "of the environment"}}})
	if err != nil {
		panic(err)
	}
	rules, err := access.NewPolicy(
		access.Rule{Subjects: []string{access.Anonymous}, Repositories: []string{"public/**"}, Actions: []serve.Action{serve.ActionPull}},
		access.Rule{Subjects: []string{"robot"}, Repositories: []string{"**"}, Actions: []serve.Action{serve.ActionPull, serve.ActionPush, serve.ActionCatalog}},
	)
	if err != nil {
		panic(err)
	}
	s, err := serve.New(mem.New(), ref.MustParse("mem://demo"), serve.WithAuthenticator(users), serve.WithAuthorizer(rules))
	if err != nil {
		panic(err)
	}
	defer s.Shutdown(context.Background())

	ask := func(path, user, password string) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if user != "" {
			r.SetBasicAuth(user, password)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		fmt.Printf("%d %q\n", w.Code, w.Header().Get("WWW-Authenticate"))
	}
	ask("/v2/public/a/tags/list", "", "")
	ask("/v2/private/a/tags/list", "", "")
	ask("/v2/_catalog", "robot", "of the environment")
	ask("/v2/_catalog", "robot", "a guess")
	// Output:
	// 404 ""
	// 401 "Basic realm=\"registry\""
	// 200 ""
	// 401 "Basic realm=\"registry\""
}
