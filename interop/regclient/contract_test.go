package regclient_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	rcconfig "github.com/regclient/regclient/config"
	rcocidir "github.com/regclient/regclient/scheme/ocidir"
	rcreg "github.com/regclient/regclient/scheme/reg"

	"github.com/ocisync/ocisync/interop/regclient"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// TestContractOfBothAdapters holds one adapter behind the other to the contract: a place of ours, as a scheme of
// regclient's, as a place of ours.
func TestContractOfBothAdapters(t *testing.T) {
	lacks := []schemetest.Feature{
		schemetest.UnknownTypes,         // regclient's manifest.Manifest cannot hold them
		schemetest.Sparse,               // NewScheme WithChildren
		schemetest.SparseImages,         // as above
		schemetest.TagAt,                // regclient has no such put
		schemetest.ReferrersTellMissing, // for regclient a repository that is not there has none
	}
	through := func(api scheme.API) scheme.API {
		return regclient.NewAPI(regclient.NewScheme(api, regclient.WithChildren()))
	}
	t.Run("memory", func(t *testing.T) {
		schemetest.Run(t, schemetest.Harness{
			New: func(*testing.T) (scheme.API, ref.Ref) {
				return through(mem.New()), ref.MustParse("mem://test").WithRepo("repo")
			},
			Lacks: lacks,
		})
	})
	t.Run("directory", func(t *testing.T) {
		open := func(t *testing.T) scheme.API {
			o := ocidir.New(ocidir.WithDurability(ocidir.None))
			t.Cleanup(func() { o.Close() })
			return through(o)
		}
		schemetest.Run(t, schemetest.Harness{
			New: func(t *testing.T) (scheme.API, ref.Ref) {
				return open(t), ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir(), Repo: "repo"}
			},
			Reopen: func(t *testing.T, _ scheme.API, _ ref.Ref) scheme.API { return open(t) },
			Lacks:  lacks,
			Steps:  2,
		})
	})
}

// TestContractOfRegclientsOCIDir holds regclient's own layouts to the contract, as far as they keep it.
func TestContractOfRegclientsOCIDir(t *testing.T) {
	schemetest.Run(t, schemetest.Harness{
		New: func(t *testing.T) (scheme.API, ref.Ref) {
			return regclient.NewAPI(rcocidir.New(rcocidir.WithGC(false))), ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir(), Repo: "repo"}
		},
		Reopen: func(*testing.T, scheme.API, ref.Ref) scheme.API {
			return regclient.NewAPI(rcocidir.New(rcocidir.WithGC(false)))
		},
		Lacks: []schemetest.Feature{
			schemetest.UnknownTypes,         // its manifest.Manifest cannot hold them
			schemetest.Mount,                // BlobMount is ErrUnsupported
			schemetest.CheckContent,         // it does not look
			schemetest.TagAt,                // it has no such put
			schemetest.ReferrersTellMissing, // a directory that is not there has an empty list
		},
		Except: ocidirDefects,
	})
}

// TestContractOfRegclientsReg holds regclient's registry client, before a registry of ours, to the contract.
func TestContractOfRegclientsReg(t *testing.T) {
	open := func(host string) scheme.API {
		return regclient.NewAPI(rcreg.New(
			rcreg.WithSlog(slog.New(slog.DiscardHandler)),
			// BlobDelete never closes its answer, and the third one takes the last slot: see the research.
			rcreg.WithConfigHosts([]*rcconfig.Host{{Name: host, Hostname: host, TLS: rcconfig.TLSDisabled, ReqConcurrent: 1000}}),
			rcreg.WithRetryLimit(1),
			rcreg.WithDelay(time.Millisecond, time.Millisecond), // it takes every refusal for overload, and waits
		))
	}
	schemetest.Run(t, schemetest.Harness{
		New: func(t *testing.T) (scheme.API, ref.Ref) {
			srv, err := serve.New(mem.New(), ref.MustParse("mem://served"))
			if err != nil {
				t.Fatal(err)
			}
			web := httptest.NewServer(srv)
			t.Cleanup(func() {
				web.Close()
				if err := srv.Shutdown(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			})
			host := strings.TrimPrefix(web.URL, "http://")
			return open(host), ref.Ref{Scheme: ref.SchemeReg, Root: host, Repo: "repo"}
		},
		Reopen: func(_ *testing.T, _ scheme.API, r ref.Ref) scheme.API { return open(r.Root) },
		Lacks: []schemetest.Feature{
			schemetest.UnknownTypes,         // its manifest.Manifest cannot hold them
			schemetest.MountTellsMissing,    // a registry's 202 does not say why
			schemetest.Sparse,               // our registry insists
			schemetest.SparseImages,         // as above
			schemetest.TagAt,                // it has no such put
			schemetest.ReferrersTellMissing, // the 404 of the API is an empty list
		},
		Steps: 3,
	})
}

// ocidirDefects are the rules that regclient's layouts break, and why. No adapter can mend them.
var ocidirDefects = map[string]string{
	"Blob/tag and digest are ignored": noIndex,
	"Tag/no tags":                     noIndex,
	"Referrer/before the subject":     noIndex,
	"Concurrent/different tags":       noIndex, // a reader that is early
	"Manifest/a blob is no manifest":  "it takes any file in blobs for a manifest and fails to parse it",
}

const noIndex = "a layout that has blobs only gets no index.json, without which it cannot list anything"
