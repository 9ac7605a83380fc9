package serve_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// A registry in memory. With scheme/ocidir and a reference as ocidir:///srv in its place it is one over a directory.
func ExampleNew() {
	s, err := serve.New(mem.New(), ref.MustParse("mem://demo"))
	if err != nil {
		panic(err)
	}
	srv := httptest.NewServer(s)
	res, err := http.Get(srv.URL + "/v2/_catalog")
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println(res.StatusCode, string(body))

	srv.Close() // first the listener, then what it served
	if err := s.Shutdown(context.Background()); err != nil {
		panic(err)
	}
	// Output: 200 {"repositories":[]}
}
