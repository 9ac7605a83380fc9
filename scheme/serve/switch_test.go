package serve

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme/mem"
)

// TestDeletesThatAreSwitchedOff: each kind alone, with what else can be done.
func TestDeletesThatAreSwitchedOff(t *testing.T) {
	for i := range 8 {
		on := Deletes{Tags: i&1 > 0, Manifests: i&2 > 0, Blobs: i&4 > 0}
		t.Run(fmt.Sprintf("%+v", on), func(t *testing.T) {
			c := start(t, mem.New(), WithDeletes(on))
			doc := c.putImage("a", "v1", "")
			try := func(on bool, target, allow string) {
				t.Helper()
				if on {
					c.want(202, "", "DELETE", target, nil, nil)
					c.want(404, "", "GET", target, nil, nil)
					return
				}
				c.want(405, "UNSUPPORTED", "DELETE", target, nil, nil).has(t, header{"Allow": allow})
				c.want(200, "", "GET", target, nil, nil)
			}
			try(on.Tags, "/v2/a/manifests/v1", "GET, HEAD, PUT")
			try(on.Manifests, "/v2/a/manifests/"+sum(doc), "GET, HEAD, PUT")
			try(on.Blobs, "/v2/a/blobs/"+sum("{}"), "GET, HEAD")
			if !on.Manifests { // not by another way either
				c.want(405, "", "DELETE", "/v2/a/manifests/"+sum(doc)+"?tag=v1", nil, nil)
				c.want(200, "", "GET", "/v2/a/manifests/"+sum(doc), nil, nil)
			}
		})
	}
}

// TestDeletedManifestsAreGoneEverywhere at once: by digest, by every tag, and from the referrers.
func TestDeletedManifestsAreGoneEverywhere(t *testing.T) {
	overPlaces(t, func(t *testing.T, c *client) {
		subject := sum(c.putImage("a", "subject", ""))
		doc := refers(subject, "application/x", "")
		child := image(`,"annotations":{"child":"1"}`)
		for _, tag := range []string{"v1", "v2"} {
			c.want(201, "", "PUT", "/v2/a/manifests/"+tag, doc, header{"Content-Type": typeImage})
		}
		c.want(201, "", "PUT", "/v2/a/manifests/"+sum(child), child, header{"Content-Type": typeImage})
		index := `{"schemaVersion":2,"manifests":[{"mediaType":"` + typeImage + `","digest":"` + sum(child) + `","size":` + fmt.Sprint(len(child)) + `}]}`
		c.want(201, "", "PUT", "/v2/a/manifests/index", index, header{"Content-Type": typeIndex})

		c.want(202, "", "DELETE", "/v2/a/manifests/v1", nil, nil)
		c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/a/manifests/v1", nil, nil)
		for _, still := range []string{"manifests/v2", "manifests/" + sum(doc)} {
			c.want(200, "", "GET", "/v2/a/"+still, nil, nil)
		}
		if a := c.want(200, "", "GET", "/v2/a/referrers/"+subject, nil, nil); !strings.Contains(a.body, sum(doc)) {
			t.Errorf("a tag's delete takes the referrer away: %s", a.body)
		}
		c.want(202, "", "DELETE", "/v2/a/manifests/"+sum(doc), nil, nil)
		for _, gone := range []string{"v2", sum(doc)} {
			c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/a/manifests/"+gone, nil, nil)
			c.want(404, "MANIFEST_UNKNOWN", "DELETE", "/v2/a/manifests/"+gone, nil, nil)
		}
		if a := c.want(200, "", "GET", "/v2/a/referrers/"+subject, nil, nil); strings.Contains(a.body, sum(doc)) {
			t.Errorf("it still refers: %s", a.body)
		}
		if a := c.want(200, "", "GET", "/v2/a/tags/list", nil, nil); strings.Contains(a.body, "v2") {
			t.Errorf("its tag is listed: %s", a.body)
		}
		// Parents first, as the conformance programme does it, and children first.
		c.want(202, "", "DELETE", "/v2/a/manifests/"+sum(index), nil, nil)
		c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/a/manifests/index", nil, nil)
		c.want(202, "", "DELETE", "/v2/a/manifests/"+sum(child), nil, nil)
		c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/a/manifests/"+sum(child), nil, nil)
		c.want(201, "", "PUT", "/v2/a/manifests/"+sum(child), child, header{"Content-Type": typeImage})
		c.want(201, "", "PUT", "/v2/a/manifests/index", index, header{"Content-Type": typeIndex})
		c.want(202, "", "DELETE", "/v2/a/manifests/"+sum(child), nil, nil)
		c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/a/manifests/"+sum(child), nil, nil)
		c.want(200, "", "GET", "/v2/a/manifests/index", nil, nil)
		// A blob goes whoever needs it.
		c.want(202, "", "DELETE", "/v2/a/blobs/"+sum("{}"), nil, nil)
		c.want(404, "BLOB_UNKNOWN", "GET", "/v2/a/blobs/"+sum("{}"), nil, nil)
		c.want(404, "BLOB_UNKNOWN", "DELETE", "/v2/a/blobs/"+sum("{}"), nil, nil)
		c.want(200, "", "GET", "/v2/a/manifests/subject", nil, nil)
	})
}

// TestAllowSaysWhatIsSwitchedOn: what is offered in place of a method that there is not would be answered.
func TestAllowSaysWhatIsSwitchedOn(t *testing.T) {
	for name, tc := range map[string]struct {
		opts []Option
		want header // by path
	}{
		"all": {nil, header{"manifests/v1": "GET, HEAD, PUT, DELETE", "blobs/" + sum("x"): "GET, HEAD, DELETE", "tags/list": "GET"}},
		"no deletes": {[]Option{WithDeletes(Deletes{}), WithoutCatalog()}, header{
			"manifests/v1": "GET, HEAD, PUT", "manifests/" + sum("x"): "GET, HEAD, PUT", "blobs/" + sum("x"): "GET, HEAD", "../_catalog": "",
		}},
		"tags only": {[]Option{WithDeletes(Deletes{Tags: true})}, header{"manifests/v1": "GET, HEAD, PUT, DELETE", "manifests/" + sum("x"): "GET, HEAD, PUT"}},
		"read-only": {[]Option{WithReadOnly()}, header{"manifests/v1": "GET, HEAD", "blobs/" + sum("x"): "GET, HEAD", "blobs/uploads/": "", "../_catalog": "GET"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, mem.New(), tc.opts...)
			for path, allow := range tc.want {
				target := strings.Replace("/v2/a/"+path, "/a/../", "/", 1)
				c.want(405, "UNSUPPORTED", "OPTIONS", target, nil, nil).has(t, header{"Allow": allow})
			}
		})
	}
}

func TestNamesThatAreNarrowerHere(t *testing.T) {
	m := mem.New()
	start(t, m).push("other", "{}")
	c := start(t, m, WithNamePattern(regexp.MustCompile(`team|team/[a-z]+`)))
	c.push("team/a", "{}")
	for _, name := range []string{"other", "team/a/b", "xteam", "team2", "team/a1"} {
		for method, path := range map[string]string{"GET": "/tags/list", "HEAD": "/blobs/" + sum("{}"), "POST": "/blobs/uploads/", "PUT": "/manifests/x", "DELETE": "/manifests/x"} {
			c.want(400, "NAME_INVALID", method, "/v2/"+name+path, nil, nil)
		}
	}
	if a := c.want(200, "", "GET", "/v2/_catalog", nil, nil); a.body != `{"repositories":["team/a"]}` {
		t.Error(a.body)
	}
	c.want(202, "", "POST", "/v2/team/blobs/uploads/?mount="+sum("{}")+"&from=other", nil, nil) // as if it were not there
	c.want(201, "", "POST", "/v2/team/blobs/uploads/?mount="+sum("{}")+"&from=team/a", nil, nil)
}

func TestWarnings(t *testing.T) {
	long := strings.Repeat("x", 4000)
	c := start(t, mem.New(), WithWarning(""), WithWarning("moves to \"b\"\r\nX: y"), WithWarning(long), WithWarning(long), WithWarning("soon"))
	for method, path := range map[string]string{"GET": "/v2/", "HEAD": "/v2/a/manifests/x", "PUT": "/v2/a/manifests/x"} {
		a := c.do(method, path, nil, nil)
		if got := ocihttp.Warnings(a.Header.Values("Warning")); len(got) != 3 || got[0] != `moves to "b"  X: y` || got[1] != long || got[2] != "soon" || a.Header.Get("X") != "" {
			t.Errorf("%s: %.200q", method, a.Header.Values("Warning"))
		}
	}
}
