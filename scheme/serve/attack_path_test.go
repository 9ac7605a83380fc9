package serve_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// badNames are no names of repositories, as they stand in a request's target.
var badNames = []string{
	"..", "../sibling", "../../etc", "good/..", "good/../..", "good/../../sibling", "good/../good", "./good", "good/.", ".",
	"%2e%2e", "%2e%2e/sibling", "%2E%2E/sibling", ".%2e/sibling", "..%2fsibling", "..%2Fsibling", "%2e%2e%2fsibling", "good%2f..%2f..%2fsibling",
	"..%5csibling", `..\sibling`, `good\..\..\sibling`, "good%5c", "%252e%252e/sibling", "..%c0%afsibling", "%c0%ae%c0%ae/sibling",
	"good%00", "%00", "good%0a", "good%0d%0a", "good%0aX", "good%20", "%20good", "good%09", "good%7f", "good%ff", "g%C3%B6%C3%B6d", "gööd",
	"good//good", "/good", "good/", "GOOD", "Good", "good:v1", "good@sha256", "good~", "good?", "-good", "good-", "_good", "good.", ".good",
	"good..good", "good___good", "good._good", ".ocisync", "_uploads", "good/_uploads", "good/.ocisync", "good/_manifests", "c:", "con:", "good;x",
	strings.Repeat("a", 256), strings.Repeat("a", 300), strings.Repeat("a/", 200) + "a", strings.Repeat("a", 5000),
}

func TestAttackNamesThatLeadElsewhere(t *testing.T) {
	d := digest.FromString(secret).String()
	besiege(t, func(f fort) {
		for _, name := range badNames {
			for _, target := range []string{
				"/v2/" + name + "/manifests/v1", "/v2/" + name + "/manifests/" + d, "/v2/" + name + "/blobs/" + d, "/v2/" + name + "/tags/list",
				"/v2/" + name + "/referrers/" + d, "/v2/" + name + "/blobs/uploads/", "/v2/" + name + "/blobs/uploads/x",
			} {
				if strings.Contains(name, "?") { // which ends the path
					target = strings.Replace(target, "?", "%3F", 1)
				}
				f.refused(target)
			}
			from := strings.NewReplacer("?", "%3F", ";", "%3B").Replace(name)
			f.want("400", "POST", "/v2/good/blobs/uploads/?mount="+d+"&from="+from, "")
		}
		for name, want := range map[string]string{
			"..": "400 NAME_INVALID", "%2e%2e": "400 NAME_INVALID", "good%2f..%2f..%2fsibling": "400 NAME_INVALID", "good%0a": "400 NAME_INVALID",
			"good%00": "400 NAME_INVALID", `..\sibling`: "400 NAME_INVALID", "good//good": "400 NAME_INVALID", "/good": "400 NAME_INVALID",
			"GOOD": "400 NAME_INVALID", "_uploads": "400 NAME_INVALID", strings.Repeat("a", 256): "400 NAME_INVALID", strings.Repeat("a", 300): "400 NAME_INVALID",
		} {
			f.want(want, "GET", "/v2/"+name+"/manifests/v1", nil)
			f.want(want, "PUT", "/v2/"+name+"/manifests/v1", "{}")
			f.want(want, "GET", "/v2/"+name+"/blobs/"+d, nil)
			f.want(want, "GET", "/v2/"+name+"/tags/list", nil)
			f.want(want, "GET", "/v2/"+name+"/referrers/"+d, nil)
			f.want(want, "POST", "/v2/"+name+"/blobs/uploads/", "")
			f.want(want, "POST", "/v2/good/blobs/uploads/?mount="+d+"&from="+name, "")
		}
	})
}

// Targets that only a raw socket sends: what cleans them, and then serves something, would be wrong about who asks for what.
func TestAttackTargetsAreNotCleaned(t *testing.T) {
	besiege(t, func(f fort) {
		for _, target := range []string{
			"/v2//good/manifests/v1", "//v2/good/manifests/v1", "/v2/./good/manifests/v1", "/v2/x/../good/manifests/v1", "/../v2/good/manifests/v1",
			"/v2/good/manifests/../manifests/v1", "/v2/good/manifests//v1", "/v2/good//manifests/v1", "/v2/good/manifests/v1/", "/v2/good/manifests/v1/.",
			"/v2/good/manifests/v1%2f", "/v2/good%2fmanifests%2fv1", "/v2%2fgood/manifests/v1", "/v2/good/manifests%2fv1", "/V2/good/manifests/v1",
			"/v2/good/tags/list/", "/v2/good/tags%2flist", "/v2;x/good/manifests/v1", "/v1/../v2/good/manifests/v1", "/v2/../secret", "/v2/../../secret", "/secret",
			"/v2/good/index.json", "/v2/good/oci-layout", "/v2/good/blobs/sha256/" + digest.FromString("{}").Encoded(), "/v2/good/.ocisync/lock", "/v2/good", "/v2x/", "/v2/_catalog/",
			"/v2/%5fcatalog/", "/livez/../v2/good/manifests/v1", "/v2/good/manifests/%2e%2e%2fv1", "/v2/good/manifests/v1%00", "/v2/good/manifests/v1%0a", "/v2/good/manifests/v1%20",
		} {
			f.refused(target)
		}
		f.want("200", "GET", "/v2/good/manifests/v1", nil)
		f.want("200", "GET", "/v2/g%6F%6fd/manif%65sts/v%31", nil)                 // another way to write the same
		f.want("200", "GET", "http://evil.example/v2/good/manifests/v1", nil)      // the absolute form: the host says nothing
		f.want("200", "GET", "/v2/good/manifests/v1?x=../../sibling&%00=%00", nil) // parameters that nobody knows
	})
}

// Layouts have files of their own; a repository cannot be one of them, and none can be put into another's.
func TestAttackNamesOfTheStoresOwnFiles(t *testing.T) {
	besiege(t, func(f fort) {
		for _, name := range []string{"blobs", "index.json", "oci-layout", "good/blobs", "good/index.json", "good/oci-layout", "good/blobs/sha256", "blobs/x", "good/blobs/x"} {
			f.want("400 NAME_INVALID", "GET", "/v2/"+name+"/tags/list", nil)
			f.want("400 NAME_INVALID", "POST", "/v2/"+name+"/blobs/uploads/?digest="+digest.FromString("x").String(), "x")
			f.want("400 NAME_INVALID", "PUT", "/v2/"+name+"/manifests/v1", imageDoc(v1.MediaTypeImageManifest, ""), "Content-Type: "+v1.MediaTypeImageManifest)
			f.want("400 NAME_INVALID", "GET", "/v2/"+name+"/manifests/v1", nil)
		}
	})
	each(t, func(t *testing.T, w *wire) { // parts of a path that look like the end of it
		for _, name := range []string{"manifests", "a/manifests", "a/manifests/b", "tags", "tags/list", "a/tags/list", "uploads", "a/referrers/b", "v2", "a/uploads"} {
			s := newSet()
			s.image(nil, "v1")
			w.pushBlobs(name, s)
			w.putManifest(name, s, s.manifests[0])
			w.readsManifest(name, "v1", s.manifests[0])
			w.tags(name, "", "v1")
		}
	})
}

// badDigests are no digests, as they stand in a target.
var badDigests = []string{
	"sha256:..", "sha256:../..", "sha256:..%2f..", "sha256:%2e%2e", "..:..", "sha256:", ":", "sha256:x", "sha256:" + strings.Repeat("g", 64),
	"sha256:" + strings.Repeat("A", 64), "SHA256:" + strings.Repeat("a", 64), "sha256:" + strings.Repeat("a", 63), "sha256:" + strings.Repeat("a", 65),
	"sha256:" + strings.Repeat("a", 128), "sha512:" + strings.Repeat("a", 64), "sha512:" + strings.Repeat("a", 127), "md5:" + strings.Repeat("a", 32),
	"sha1:" + strings.Repeat("a", 40), "sha256%00:" + strings.Repeat("a", 64), "sha256:" + strings.Repeat("a", 64) + "%00", "sha256:" + strings.Repeat("a", 64) + "%0a",
	"%20sha256:" + strings.Repeat("a", 64), "sha256:" + strings.Repeat("a", 32) + "%2f" + strings.Repeat("a", 31), "sha256+b64:" + strings.Repeat("a", 64),
	"blobs:" + strings.Repeat("a", 64), "sha256:" + strings.Repeat("a", 64) + ":x", "sha256::" + strings.Repeat("a", 63), "sha256:" + strings.Repeat("a", 100000),
}

func TestAttackDigestsThatAreNone(t *testing.T) {
	besiege(t, func(f fort) {
		for _, d := range badDigests {
			want := "400 DIGEST_INVALID"
			if strings.Contains(strings.ToLower(d), "%2f") || strings.Contains(d, "/") { // more components than one
				want = "400"
			}
			for _, at := range []string{"/v2/good/blobs/", "/v2/good/manifests/", "/v2/good/referrers/"} {
				a := f.ask("GET", at+d, nil)
				if strings.Contains(d, "/") && a.res.StatusCode == 404 {
					continue
				}
				f.is(want, "GET", a)
				f.refused(at + d)
			}
			for _, param := range []string{"digest=" + d, "mount=" + d, "mount=" + d + "&from=good"} {
				f.want("400 DIGEST_INVALID", "POST", "/v2/good/blobs/uploads/?"+param, "x")
			}
			f.want("400 DIGEST_INVALID", "PUT", with(f.session("good"), "digest="+d), "x")
		}
		for _, algorithm := range []string{"md5", "sha1", "../x", "SHA256", "sha256%00", "x", strings.Repeat("a", 5000)} {
			f.want("400 DIGEST_INVALID", "POST", "/v2/good/blobs/uploads/?digest-algorithm="+algorithm, "")
		}
	})
}

func TestAttackSessionsThatNobodyOpened(t *testing.T) {
	d := digest.FromString("x").String()
	besiege(t, func(f fort) {
		for _, id := range []string{
			".", "%2e", "%2e%2e", "%2E.", "...", "%00", "x%00", "x%0a", "x%20", "%5c..", "x:y", "~", "*", "x;y", "gö", "%ff", "index.json", "blobs", ".ocisync",
			strings.Repeat("a", 129), strings.Repeat("a", 5000), "AAAAAAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAA.0", "x..y", "-1", "0",
		} {
			at := "/v2/good/blobs/uploads/" + id
			for _, method := range []string{"GET", "HEAD", "PATCH", "DELETE"} {
				f.want("404 BLOB_UPLOAD_UNKNOWN", method, at, "x")
			}
			f.want("404 BLOB_UPLOAD_UNKNOWN", "PUT", at+"?digest="+d, "x")
		}
		for _, id := range []string{"..", "../x", "..%2fx", "%2e%2e%2f%2e%2e", "x%2fy", "../../blobs/sha256/x"} {
			f.refused("/v2/good/blobs/uploads/" + id)
		}
		at := f.want("202", "PATCH", f.session("good"), "x", octets).header("Location") // of another repository
		other := strings.Replace(at, "/v2/good/", "/v2/goo/", 1)
		for _, method := range []string{"GET", "PATCH", "DELETE"} {
			f.want("404 BLOB_UPLOAD_UNKNOWN", method, other, "y")
		}
		f.want("404 BLOB_UPLOAD_UNKNOWN", "PUT", with(other, "digest="+d), "")
		f.has(f.want("204", "GET", at, nil), "Range: 0-0")
		f.want("204", "DELETE", at, nil)
	})
}

func TestAttackTagsThatAreNone(t *testing.T) {
	besiege(t, func(f fort) {
		raw, ct := imageDoc(v1.MediaTypeImageManifest, ""), "Content-Type: "+v1.MediaTypeImageManifest
		f.want("201", "POST", "/v2/good/blobs/uploads/?digest="+digest.FromString("{}").String(), "{}")
		for _, tag := range []string{
			strings.Repeat("t", 129), ".x", "-x", "%2e%2e", "..", "x%20", "x%00", "x%0a", "x%0d%0aX-Injected:%201", "t%C3%A4g", "x%5cy", "x~", "x@y", "x,y", "%2a", "",
		} {
			if tag != "" {
				for _, method := range []string{"GET", "HEAD"} {
					a := f.ask(method, "/v2/good/manifests/"+tag, nil)
					if a.res.StatusCode != 404 && a.res.StatusCode != 400 {
						t.Errorf("%s: %s", a.asked, a.res.Status)
					}
				}
			}
			want := "400 NAME_INVALID"
			if strings.Contains(tag, ":") {
				want = "400 DIGEST_INVALID"
			}
			f.want(want, "PUT", "/v2/good/manifests/"+tag, raw, ct)
			f.want(want, "DELETE", "/v2/good/manifests/"+tag, nil)
			f.want("400 NAME_INVALID", "PUT", "/v2/good/manifests/ok?tag=fine&tag="+tag, raw, ct) // all or none
			f.want("400 NAME_INVALID", "PUT", "/v2/good/manifests/"+digest.FromString(raw).String()+"?tag="+tag+"&tag=fine", raw, ct)
		}
		f.tags("good", "", "v1")
		f.gone("/v2/good/manifests/" + digest.FromString(raw).String())
		f.want("202", "DELETE", "/v2/good/blobs/"+digest.FromString("{}").String(), nil)
	})
}

// What belongs to one repository is not in another one, whatever is asked for.
func TestAttackContentOfOtherRepositories(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		s := newSet()
		subject := bare(s.image(nil, "v1"))
		s.image(s.artifact(artifact1, &subject))
		w.pushBlobs("a/secret", s)
		for _, m := range s.manifests {
			w.putManifest("a/secret", s, m)
		}
		w.push("a", "other")
		w.push("a/secret/b", "other")
		for _, repo := range []string{"a", "a/secret/b", "none"} {
			for d := range s.blobs {
				w.gone("/v2/" + repo + "/blobs/" + d.String())
			}
			for _, m := range s.manifests {
				w.gone("/v2/" + repo + "/manifests/" + m.Digest.String())
				w.gone("/v2/" + repo + "/blobs/" + m.Digest.String())
				w.sameReferrers(repo, m.Digest, "", nil)
				w.want("400 MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/"+repo+"/manifests/v1", m.raw, "Content-Type: "+m.MediaType)
			}
			w.gone("/v2/" + repo + "/manifests/v1")
		}
	})
}

// Links inside of a layout lead nowhere: who may write to one directory must not read others through the server.
func TestAttackLinksPlantedInALayout(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege on Windows")
	}
	for name, to := range map[string]string{"relative": "../../../../secret", "absolute": "", "a directory": "../../../../sibling"} {
		t.Run(name, func(t *testing.T) {
			besiege(t, func(f fort) {
				if to == "" {
					to = filepath.Join(f.outer, "secret")
				}
				link := filepath.Join(f.root, "good", "blobs", "sha256", digest.FromString(secret).Encoded())
				if err := os.Symlink(to, link); err != nil {
					t.Fatal(err)
				}
				target := "/v2/good/blobs/" + digest.FromString(secret).String()
				for _, rng := range []string{"", "Range: bytes=0-3\r\n"} {
					for _, method := range []string{"GET", "HEAD"} { // what is in a blob's place is damage, or nothing
						if a := f.unchecked(method, target, rng); !strings.HasPrefix(a, "404") && !strings.HasPrefix(a, "500") || strings.Contains(a, secret[:4]) || strings.Contains(a, f.outer) {
							t.Errorf("%s of a link to outside: %s", method, a)
						}
					}
				}
				if a := f.unchecked("GET", "/v2/good/manifests/"+digest.FromString(secret).String(), ""); !strings.HasPrefix(a, "404") {
					t.Errorf("a manifest through a link to outside: %s", a)
				}
				f.want("202", "POST", "/v2/other/blobs/uploads/?mount="+digest.FromString(secret).String()+"&from=good", "")
				f.want("202", "POST", "/v2/other/blobs/uploads/?mount="+digest.FromString(secret).String(), "")
				f.push("good", secret) // a put heals what was damaged, and does not write through the link
				if a := f.unchecked("GET", target, ""); !strings.HasPrefix(a, "200") || !strings.HasSuffix(a, secret) {
					t.Errorf("what was put: %s", a)
				}
				if fi, err := os.Lstat(link); err != nil || !fi.Mode().IsRegular() {
					t.Errorf("the put left the link: %v %v", fi, err)
				}
				if err := os.Remove(link); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
	t.Run("the index", func(t *testing.T) {
		besiege(t, func(f fort) {
			index := filepath.Join(f.root, "good", "index.json")
			kept := index + ".kept"
			if err := os.Rename(index, kept); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("../../sibling/index.json", index); err != nil {
				t.Fatal(err)
			}
			for _, target := range []string{"/v2/good/tags/list", "/v2/good/manifests/v1"} {
				res := f.unchecked("GET", target, "")
				if strings.Contains(res, secret) || strings.Contains(res, `"v1"`) || strings.Contains(res, f.outer) {
					t.Errorf("%s is answered from outside: %s", target, res)
				}
			}
			if err := os.Rename(kept, index); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// A link in the place of a repository leads nowhere outside of the tree, to read or to write.
func TestAttackLinksPlantedInATree(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege on Windows")
	}
	besiege(t, func(f fort) {
		for link, to := range map[string]string{"link": "../sibling", "up": "..", "absolute": filepath.Join(f.outer, "sibling")} {
			if err := os.Symlink(to, filepath.Join(f.root, link)); err != nil {
				t.Fatal(err)
			}
		}
		d, raw := digest.FromString(secret).String(), imageDoc(v1.MediaTypeImageManifest, "")
		for _, name := range []string{"link", "up", "up/sibling", "absolute", "up/new", "link/new", "absolute/new"} {
			for _, target := range []string{"/manifests/v1", "/blobs/" + d, "/tags/list"} {
				if a := f.ask("GET", "/v2/"+name+target, nil); a.res.StatusCode != 403 && a.res.StatusCode != 404 {
					t.Errorf("%s is answered with %s: %s", a.asked, a.res.Status, a.body)
				}
			}
			f.want("403 DENIED", "POST", "/v2/"+name+"/blobs/uploads/?digest="+digest.FromString("x").String(), "x")
			f.want("202", "POST", "/v2/good/blobs/uploads/?mount="+d+"&from="+name, "")
			f.refused("/v2/" + name + "/blobs/" + d)
			for _, method := range []string{"PUT", "DELETE"} {
				if a := f.ask(method, "/v2/"+name+"/manifests/v1", raw, "Content-Type: "+v1.MediaTypeImageManifest); a.res.StatusCode < 400 {
					t.Errorf("%s is answered with %s", a.asked, a.res.Status)
				}
			}
		}
		f.want("202", "POST", "/v2/good/blobs/uploads/?mount="+d, "")
		if a := f.want("200", "GET", "/v2/_catalog", nil); strings.Contains(a.body, "link") || strings.Contains(a.body, "up") {
			t.Errorf("the catalog follows links: %s", a.body)
		}
		for _, link := range []string{"link", "up", "absolute"} {
			if err := os.Remove(filepath.Join(f.root, link)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// unchecked is the answer's text to a request that a damaged store may well answer with a 500.
func (w *wire) unchecked(method, target, header string) string {
	w.t.Helper()
	a := w.exchange(method, fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", method, target, header))
	return fmt.Sprint(a.res.Status, a.res.Header, a.body)
}
