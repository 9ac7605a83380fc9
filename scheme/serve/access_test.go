package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// door is an Authenticator and an Authorizer for tests. Users have their names as passwords, with "pw-" before.
type door struct {
	mu     sync.Mutex
	allow  func(c Context) error
	login  func(r *http.Request) (Identity, error) // nil: basic credentials
	asked  []Context
	scoped bool // the challenge names the scope
}

func password(user string) string { return "pw-" + user }

// as is the header of a user; "" has none.
func as(user string) header {
	if user == "" {
		return header{}
	}
	return header{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password(user)))}
}

func (h header) with(more header) header {
	all := maps.Clone(h)
	maps.Copy(all, more)
	return all
}

func (d *door) Authenticate(r *http.Request) (Identity, error) {
	if d.login != nil {
		return d.login(r)
	}
	user, pass, ok := r.BasicAuth()
	if ok && user+pass != "" && pass != password(user) {
		return Identity{}, fmt.Errorf("%w: wrong", errs.ErrUnauthorized)
	}
	return Identity{Subject: user}, nil
}

func (d *door) Challenge(c Context) []Challenge {
	params := map[string]string{"realm": "test"}
	if d.scoped && c.Scope() != "" {
		params["scope"] = c.Scope()
	}
	return []Challenge{{Scheme: "basic", Params: params}}
}

func (d *door) Authorize(_ context.Context, c Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, c)
	return d.allow(c)
}

// set changes who may do what while the server runs.
func (d *door) set(allow func(Context) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.allow = allow
}

// take returns what was asked since the last take.
func (d *door) take() []Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.asked
	d.asked = nil
	return all
}

func (d *door) options() []Option { return []Option{WithAuthenticator(d), WithAuthorizer(d)} }

// rights allows users what is listed: "USER ACTION REPOSITORY", with "*" for every repository. "root" may do everything.
func rights(lines ...string) func(Context) error {
	return func(c Context) error {
		repo := c.Repository
		if c.Action == ActionCatalog {
			repo = "*"
		}
		if c.Subject == "root" || slices.Contains(lines, fmt.Sprintf("%s %s %s", c.Subject, c.Action, repo)) || slices.Contains(lines, fmt.Sprintf("%s %s *", c.Subject, c.Action)) {
			return nil
		}
		return fmt.Errorf("%w: not by this door", errs.ErrDenied)
	}
}

// root sends a request that must succeed.
func (c *client) root(method, target string, body any, h header) answer {
	c.t.Helper()
	a := c.do(method, target, body, as("root").with(h))
	if a.StatusCode >= 400 {
		c.t.Fatalf("%s %s: status %d: %s", method, target, a.StatusCode, a.body)
	}
	return a
}

// fill pushes a blob "x" and an image t.
func (c *client) fill(repo string) {
	c.t.Helper()
	for _, content := range []string{"x", "{}"} {
		c.root("POST", "/v2/"+repo+"/blobs/uploads/?digest="+sum(content), content, nil)
	}
	c.root("PUT", "/v2/"+repo+"/manifests/t", image(""), header{"Content-Type": typeImage})
}

// requests are one or more of each kind of the specification's requests about a repository that fill has filled.
// SESSION stands for an upload that is open.
var requests = []struct {
	kind               ocihttp.Kind
	method, path, body string
	status             int
	action             Action
	endpoint           Endpoint
	resource           string
}{
	{ocihttp.Ping, "GET", "", "", 200, "", EndpointPing, ""},
	{ocihttp.BlobGet, "GET", "blobs/" + sum("x"), "", 200, ActionPull, EndpointBlob, sum("x")},
	{ocihttp.BlobHead, "HEAD", "blobs/" + sum("x"), "", 200, ActionPull, EndpointBlob, sum("x")},
	{ocihttp.BlobDelete, "DELETE", "blobs/" + sum("x"), "", 202, ActionDelete, EndpointBlob, sum("x")},
	{ocihttp.UploadStart, "POST", "blobs/uploads/", "", 202, ActionPush, EndpointUpload, ""},
	{ocihttp.UploadStart, "POST", "blobs/uploads/?digest=" + sum("y"), "y", 201, ActionPush, EndpointUpload, sum("y")},
	{ocihttp.UploadChunk, "PATCH", "blobs/uploads/SESSION", "y", 202, ActionPush, EndpointUpload, "SESSION"},
	{ocihttp.UploadFinish, "PUT", "blobs/uploads/SESSION?digest=" + sum("y"), "y", 201, ActionPush, EndpointUpload, "SESSION"},
	{ocihttp.UploadStatus, "GET", "blobs/uploads/SESSION", "", 204, ActionPush, EndpointUpload, "SESSION"},
	{ocihttp.UploadCancel, "DELETE", "blobs/uploads/SESSION", "", 204, ActionPush, EndpointUpload, "SESSION"},
	{ocihttp.ManifestGet, "GET", "manifests/t", "", 200, ActionPull, EndpointManifest, "t"},
	{ocihttp.ManifestGet, "GET", "manifests/" + sum(image("")), "", 200, ActionPull, EndpointManifest, sum(image(""))},
	{ocihttp.ManifestHead, "HEAD", "manifests/t", "", 200, ActionPull, EndpointManifest, "t"},
	{ocihttp.ManifestPut, "PUT", "manifests/u", image(" "), 201, ActionPush, EndpointManifest, "u"},
	{ocihttp.ManifestDelete, "DELETE", "manifests/t", "", 202, ActionDelete, EndpointManifest, "t"},
	{ocihttp.ManifestDelete, "DELETE", "manifests/" + sum(image("")), "", 202, ActionDelete, EndpointManifest, sum(image(""))},
	{ocihttp.TagList, "GET", "tags/list", "", 200, ActionPull, EndpointTags, ""},
	{ocihttp.Referrers, "GET", "referrers/" + sum(image("")), "", 200, ActionPull, EndpointReferrers, sum(image(""))},
	{ocihttp.Catalog, "GET", "", "", 200, ActionCatalog, EndpointCatalog, ""},
}

// target is the path of a request about a repository.
func target(kind ocihttp.Kind, repo, path string) string {
	switch kind {
	case ocihttp.Ping:
		return "/v2/"
	case ocihttp.Catalog:
		return "/v2/_catalog"
	}
	return "/v2/" + repo + "/" + path
}

// open begins an upload as a user who may push, and returns the session's id.
func (c *client) open(user, repo string) string {
	c.t.Helper()
	a := c.want(202, "", "POST", "/v2/"+repo+"/blobs/uploads/", nil, as(user))
	return a.Header.Get("Location")[strings.LastIndex(a.Header.Get("Location"), "/")+1:]
}

func TestRequestsCoverEveryKind(t *testing.T) {
	seen := map[ocihttp.Kind]bool{}
	for _, r := range requests {
		seen[r.kind] = true
		if r.kind.Method() != r.method {
			t.Errorf("%v is %s", r.kind, r.method)
		}
	}
	for k := ocihttp.Kind(1); int(k) < ocihttp.Kinds; k++ {
		if !seen[k] {
			t.Errorf("no request is a %v", k)
		}
	}
}

// TestEachActionIsARightOfItsOwn sends every kind of request as users who may do one thing each.
func TestEachActionIsARightOfItsOwn(t *testing.T) {
	d := &door{scoped: true}
	users := map[string]Action{"puller": ActionPull, "pusher": ActionPush, "deleter": ActionDelete, "lister": ActionCatalog, "guest": "none", "": "none"}
	var lines []string
	for user, action := range users {
		lines = append(lines, fmt.Sprintf("%s %s *", user, action))
	}
	d.set(rights(lines...))
	for _, r := range requests {
		c := start(t, mem.New(), d.options()...)
		for user, may := range users {
			c.fill("r")
			session := ""
			if strings.Contains(r.path, "SESSION") {
				owner := "root"
				if may == r.action {
					owner = user
				}
				session = c.open(owner, "r")
			}
			target := target(r.kind, "r", strings.ReplaceAll(r.path, "SESSION", session))
			h := as(user)
			if r.kind == ocihttp.ManifestPut {
				h["Content-Type"] = typeImage
			}
			d.take()
			switch {
			case user == "":
				a := c.want(401, "UNAUTHORIZED", r.method, target, r.body, h)
				want := Context{Action: r.action, Repository: "r"}.Scope()
				if want != "" {
					want = `,scope="` + want + `"`
				}
				a.has(t, header{"WWW-Authenticate": `Basic realm="test"` + want})
			case may == r.action || r.kind == ocihttp.Ping:
				c.want(r.status, "", r.method, target, r.body, h).has(t, header{"WWW-Authenticate": ""})
			default:
				c.want(403, "DENIED", r.method, target, r.body, h).has(t, header{"WWW-Authenticate": ""})
			}
			asked := d.take()
			if r.kind == ocihttp.Ping {
				if len(asked) > 0 {
					t.Errorf("ping asks about %+v", asked)
				}
				continue
			}
			want := Context{
				Subject: user, Action: r.action, Endpoint: r.endpoint, Repository: "r", Method: r.method,
				Resource: strings.ReplaceAll(r.resource, "SESSION", session), Remote: netip.MustParseAddr("127.0.0.1"),
			}
			if r.kind == ocihttp.Catalog {
				want.Repository = ""
			}
			if len(asked) == 0 || fmt.Sprint(asked[0]) != fmt.Sprint(want) {
				t.Errorf("%s %s asks about %+v, want %+v", r.method, target, asked, want)
			}
		}
	}
}

func TestWrongCredentialsAreRefusedWhateverNobodyMay(t *testing.T) {
	d := &door{allow: func(Context) error { return nil }}
	c := start(t, mem.New(), d.options()...)
	c.fill("r")
	wrong := header{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte("root:wrong"))}
	for _, r := range requests {
		target := target(r.kind, "r", r.path)
		c.want(401, "UNAUTHORIZED", r.method, target, r.body, wrong).has(t, header{"WWW-Authenticate": `Basic realm="test"`})
	}
	c.want(200, "", "GET", "/v2/r/manifests/t", nil, nil)
	c.want(200, "", "GET", "/v2/r/manifests/t", nil, header{"Authorization": "Basic Og=="}) // as containers/image has no credentials
}

// TestPingAsksWhoItIs: clients learn from the ping alone that there are credentials to send.
func TestPingAsksWhoItIs(t *testing.T) {
	everything := func(Context) error { return nil }
	d := &door{allow: everything}
	c := start(t, mem.New(), d.options()...)
	for _, h := range []header{nil, {"Authorization": "Basic Og=="}} {
		c.want(401, "UNAUTHORIZED", "GET", "/v2/", nil, h).has(t, header{"WWW-Authenticate": `Basic realm="test"`})
	}
	c.want(200, "", "GET", "/v2/", nil, as("anybody"))
	if asked := d.take(); len(asked) > 0 {
		t.Errorf("ping asks about %+v", asked)
	}
	c = start(t, mem.New(), WithAuthorizer(d)) // nobody can be anybody
	c.want(200, "", "GET", "/v2/", nil, nil)
	c.want(404, "", "GET", "/v2/r/tags/list", nil, nil)
	d.set(rights())
	c.want(403, "DENIED", "GET", "/v2/r/tags/list", nil, nil).has(t, header{"WWW-Authenticate": ""})
}

// TestAnAuthenticatorAloneLetsEverybodyDoEverythingWhoIsSomebody.
func TestAnAuthenticatorAloneLetsEverybodyDoEverythingWhoIsSomebody(t *testing.T) {
	c := start(t, mem.New(), WithAuthenticator(&door{}))
	for _, r := range requests {
		c.want(401, "UNAUTHORIZED", r.method, target(r.kind, "r", r.path), r.body, nil).has(t, header{"WWW-Authenticate": `Basic realm="test"`})
	}
	c.fill("r")
	c.want(202, "", "DELETE", "/v2/r/manifests/t", nil, as("anybody"))
}

// same reports an answer as text, without what differs between any two requests.
func (a answer) same() string {
	h := a.Header.Clone()
	for _, k := range []string{"Date", "Docker-Upload-Uuid", "X-Request-Id"} {
		h.Del(k)
	}
	if l := h.Get("Location"); strings.Contains(l, "/uploads/") {
		h.Set("Location", l[:strings.LastIndex(l, "/")])
	}
	var b bytes.Buffer
	fmt.Fprintln(&b, a.Status)
	if err := h.Write(&b); err != nil {
		panic(err)
	}
	return b.String() + a.body
}

// TestARepositoryThatIsForbiddenIsAsGoodAsAbsent: whether it exists cannot be told from any answer.
func TestARepositoryThatIsForbiddenIsAsGoodAsAbsent(t *testing.T) {
	d := &door{allow: rights("guest pull mine", "guest push mine")}
	c := start(t, mem.New(), d.options()...)
	c.fill("secret/here")
	session := c.open("root", "secret/here")
	for _, user := range []string{"guest", ""} {
		for _, r := range requests {
			if r.kind == ocihttp.Ping || r.kind == ocihttp.Catalog {
				continue
			}
			h := as(user)
			if r.kind == ocihttp.ManifestPut {
				h["Content-Type"] = typeImage
			}
			path := strings.ReplaceAll(r.path, "SESSION", session)
			there := c.do(r.method, "/v2/secret/here/"+path, r.body, h)
			none := c.do(r.method, "/v2/secret/none/"+path, r.body, h)
			if there.StatusCode != 403 && there.StatusCode != 401 || there.same() != none.same() {
				t.Errorf("%q %s %s: of one that is there\n%s\nand of one that is not\n%s", user, r.method, path, there.same(), none.same())
			}
		}
	}
	c.root("GET", "/v2/secret/here/manifests/t", nil, nil) // nothing had an effect
	c.root("GET", "/v2/secret/here/blobs/"+sum("x"), nil, nil)
}

// TestAMountNeedsThePullOfItsSource: what the subject may not read cannot be told from what is not there.
func TestAMountNeedsThePullOfItsSource(t *testing.T) {
	d := &door{allow: rights("guest push mine", "guest push other", "guest pull other", "guest pull open", "guest pull gone")}
	c := start(t, mem.New(), d.options()...)
	c.fill("secret")
	c.root("POST", "/v2/open/blobs/uploads/?digest="+sum("open"), "open", nil)
	c.root("POST", "/v2/mine/blobs/uploads/?digest="+sum("unread"), "unread", nil)
	mount := func(blob, from string) answer {
		t.Helper()
		path := "/v2/mine/blobs/uploads/?mount=" + blob
		if from != "" {
			path += "&from=" + from
		}
		return c.do("POST", path, nil, as("guest"))
	}
	want := mount(sum("nowhere"), "open").same()
	if !strings.HasPrefix(want, "202 ") {
		t.Fatal(want)
	}
	for _, m := range [][2]string{
		{sum("x"), "secret"},       // forbidden, and there
		{sum("nowhere"), "secret"}, // forbidden, and not there
		{sum("x"), "none"},         // forbidden, and no repository
		{sum("x"), "gone"},         // allowed, and no repository
		{sum("x"), "open"},         // allowed, and not there
		{sum("x"), ""},             // there, where it may not be read
		{sum("nowhere"), ""},
		{sum("unread"), ""}, // there, in a repository that may be written and not read
		{sum("unread"), "mine"},
	} {
		if got := mount(m[0], m[1]).same(); got != want {
			t.Errorf("mount %s from %q:\n%s\nwant\n%s", m[0], m[1], got, want)
		}
	}
	for _, from := range []string{"open", ""} {
		if a := mount(sum("open"), from); a.StatusCode != 201 {
			t.Errorf("from %q: %s", from, a.same())
		}
		c.root("DELETE", "/v2/mine/blobs/"+sum("open"), nil, nil)
	}
	if a := c.do("POST", "/v2/open/blobs/uploads/?from=mine&mount="+sum("unread"), nil, as("guest")); a.StatusCode != 403 {
		t.Errorf("to where it may not be written: %s", a.same())
	}

	// One that may be read is found, wherever else it is: also in the repository itself.
	c.root("POST", "/v2/other/blobs/uploads/?digest="+sum("x"), "x", nil)
	if a := mount(sum("x"), ""); a.StatusCode != 201 {
		t.Errorf("of one among several: %s", a.same())
	}
	if a := c.do("POST", "/v2/other/blobs/uploads/?mount="+sum("x"), nil, as("guest")); a.StatusCode != 201 {
		t.Errorf("of what is there: %s", a.same())
	}
	d.take()
	mount(sum("open"), "secret")
	var asked []string
	for _, q := range d.take() {
		asked = append(asked, fmt.Sprint(q.Subject, " ", q.Action, " ", q.Repository))
	}
	if !slices.Equal(asked, []string{"guest push mine", "guest pull secret"}) {
		t.Errorf("a mount asks about %q", asked)
	}
}

// common is a place in which every repository has every blob.
type common struct{ *mem.Mem }

func (common) BlobFind(_ context.Context, _ ref.Ref, _ digest.Digest, fn func(string) error) error {
	for i := range 10 * maxSources {
		if err := fn(fmt.Sprint("secret/", i)); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

func TestTheSearchForASourceIsBounded(t *testing.T) {
	d := &door{allow: rights("guest push mine")}
	c := start(t, common{mem.New()}, d.options()...)
	c.want(202, "", "POST", "/v2/mine/blobs/uploads/?mount="+sum("x"), nil, as("guest"))
	if n := len(d.take()); n < maxSources || n > maxSources+5 {
		t.Errorf("it is asked about %d repositories", n)
	}
}

func TestListsHaveOnlyWhatMayBeRead(t *testing.T) {
	d := &door{allow: rights("guest catalog *", "guest pull b", "guest pull d", "guest pull f")}
	c := start(t, mem.New(), d.options()...)
	for _, repo := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		c.fill(repo)
	}
	list := func(query string) (string, string) {
		t.Helper()
		a := c.want(200, "", "GET", "/v2/_catalog"+query, nil, as("guest"))
		return a.body, a.Header.Get("Link")
	}
	for _, l := range [][3]string{
		{"", `{"repositories":["b","d","f"]}`, ""},
		{"?n=3", `{"repositories":["b","d","f"]}`, ""},
		{"?n=1", `{"repositories":["b"]}`, `</v2/_catalog?n=1&last=b>; rel="next"`},
		{"?n=2&last=a", `{"repositories":["b","d"]}`, `</v2/_catalog?n=2&last=d>; rel="next"`},
		{"?last=e", `{"repositories":["f"]}`, ""},
		{"?last=f", `{"repositories":[]}`, ""},
		{"?n=0", `{"repositories":[]}`, ""},
	} {
		if body, link := list(l[0]); body != l[1] || link != l[2] {
			t.Errorf("catalog%s: %s %s, want %s", l[0], body, link, l[1:])
		}
	}
	d.set(rights("guest catalog *"))
	if body, link := list(""); body != `{"repositories":[]}` || link != "" {
		t.Errorf("who may read nothing sees %s %s", body, link)
	}
}

func TestARightThatIsRevokedEndsAnUpload(t *testing.T) {
	may := rights("x push r")
	d := &door{allow: may}
	c := start(t, mem.New(), d.options()...)
	path := "/v2/r/blobs/uploads/" + c.open("x", "r")
	c.want(202, "", "PATCH", path, "a", as("x"))
	d.set(rights("x pull r"))
	c.want(403, "DENIED", "PATCH", path, "b", as("x"))
	c.want(403, "DENIED", "GET", path, nil, as("x"))
	c.want(403, "DENIED", "PUT", path+"?digest="+sum("a"), nil, as("x"))
	c.want(403, "DENIED", "DELETE", path, nil, as("x"))
	d.set(may)
	c.want(201, "", "PUT", path+"?digest="+sum("a"), nil, as("x"))
}

// TestEveryTagOfAPutIsAuthorized before anything of it is stored.
func TestEveryTagOfAPutIsAuthorized(t *testing.T) {
	free := func(c Context) error {
		if c.Subject == "x" && c.Action == ActionPush && c.Resource == "locked" {
			return errs.ErrDenied
		}
		return nil
	}
	d := &door{allow: free}
	c := start(t, mem.New(), d.options()...)
	c.fill("r")
	m := image(`,"annotations":{"a":"b"}`)
	put := as("x").with(header{"Content-Type": typeImage})
	for _, path := range []string{"one?tag=two&tag=locked", "locked?tag=one", sum(m) + "?tag=one&tag=locked&tag=two", "locked"} {
		c.want(403, "DENIED", "PUT", "/v2/r/manifests/"+path, m, put)
		for _, ref := range []string{"one", "two", "locked", sum(m)} {
			c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/r/manifests/"+ref, nil, as("x"))
		}
	}
	d.take()
	c.want(201, "", "PUT", "/v2/r/manifests/"+sum(m)+"?tag=one&tag=two", m, put)
	var asked []string
	for _, q := range d.take() {
		asked = append(asked, q.Resource)
	}
	if !slices.Equal(asked, []string{sum(m), "one", "two"}) {
		t.Errorf("it is asked about %q", asked)
	}
	// What is refused for its length anyway costs the Authorizer no more than what is not.
	c.want(414, "", "PUT", "/v2/r/manifests/one?tag=x"+strings.Repeat("&tag=x", 2000), m, put)
	if n := len(d.take()); n > defaultMaxTags+1 {
		t.Errorf("it is asked %d times", n)
	}
}

// TestAnUploadIsItsSubjectsAlone: another subject, and another repository, have no such session.
func TestAnUploadIsItsSubjectsAlone(t *testing.T) {
	d := &door{allow: rights("x push r", "x push s", "y push r", "y push s", " push r")}
	c := start(t, mem.New(), d.options()...)
	session := c.open("x", "r")
	c.want(202, "", "PATCH", "/v2/r/blobs/uploads/"+session, "hello ", as("x"))
	all := []struct{ user, repo string }{{"y", "r"}, {"x", "s"}, {"y", "s"}, {"", "r"}}
	for _, o := range all {
		path := "/v2/" + o.repo + "/blobs/uploads/" + session
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", path, nil, as(o.user))
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "PATCH", path, "evil", as(o.user))
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "PATCH", path, "evil", as(o.user).with(header{"Content-Range": "6-9"}))
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "PUT", path+"?digest="+sum("hello "), nil, as(o.user))
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "DELETE", path, nil, as(o.user))
	}
	c.want(201, "", "PUT", "/v2/r/blobs/uploads/"+session+"?digest="+sum("hello x"), "x", as("x"))
}
