// Package schemetest holds every implementation of scheme.API to the contract that package scheme states.
//
// A driver's test is a few lines:
//
//	func TestContract(t *testing.T) {
//		schemetest.Run(t, schemetest.Harness{
//			New: func(t *testing.T) (scheme.API, ref.Ref) {
//				return mem.New(), ref.MustParse("mem://test").WithRepo("group/repo")
//			},
//			Capabilities: []schemetest.Capability{schemetest.BlobOpener, schemetest.BlobLister, schemetest.RepoLister},
//		})
//	}
//
// Each case gets a repository of its own and states the rule it checks; a failure prints the rule. What a place need
// not be able to do is declared in Harness.Lacks, so that a reader of the driver's test sees it, and then must answer
// errs.ErrUnsupported. What a place of others is known to do wrong is named in Harness.Except. The suite has no other
// exceptions, uses no clock, and runs its cases in parallel.
//
// Blob, Image and Index make content by names. They serve other packages' tests as well.
package schemetest

import (
	"cmp"
	"slices"
	"testing"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/ref"
)

// Harness says how to reach an implementation, and what it cannot do. Only New is required.
type Harness struct {
	// New returns an API and a repository of it that does not exist yet. Each call gives a root of its own, with
	// nothing in it: RepoLister is asked for all there is. What New opens it closes in t.Cleanup. It is called from
	// several goroutines.
	New func(t *testing.T) (scheme.API, ref.Ref)

	// Sibling names another repository that does not exist yet, which can share blobs with r's, and is below the
	// same root unless r has no Repo. Without it "-other" is appended to the repository's name.
	Sibling func(r ref.Ref) ref.Ref

	// Reopen returns a second API over what api, which New returned, stores, as another process would have: what one
	// of them has acknowledged the other one sees, and either may be closed before the other and more than once. Leave
	// it nil where there cannot be a second.
	Reopen func(t *testing.T, api scheme.API, r ref.Ref) scheme.API

	// Lacks lists what the place cannot do. Everything is expected that is not listed.
	Lacks []Feature

	// Except names cases, as "Group/case", that the place is known to fail, each with the reason. It is for places that
	// others wrote, behind an adapter: ours have no exceptions.
	Except map[string]string

	// Capabilities lists the optional interfaces that the place has for r. Nothing is expected that is not listed,
	// and nothing else of the known ones may be found.
	Capabilities []Capability

	// BlobSize is the size of the largest blob, in bytes; by default one more than a MiB.
	BlobSize int
	// Writers is how many goroutines write at once; by default 16.
	Writers int
	// Steps is how many random operations are compared with the model in each of 100 runs, at most; by default 12.
	Steps int
}

// Feature is something that the contract allows a place to be without. Declare it in Harness.Lacks.
type Feature string

// The features.
const (
	// Mount: BlobMount shares blobs between the repository and its sibling, and WithMountFrom leaves the stream
	// unread. Without it BlobMount answers ErrUnsupported.
	Mount Feature = "mount"
	// MountTellsMissing: BlobMount answers ErrNotFound when the source lacks the blob. Without it ErrUnsupported is
	// as good: registries answer both a refusal and an absent blob with 202.
	MountTellsMissing Feature = "mount-tells-missing"
	// BlobDelete, ManifestDelete and TagDelete work. Without them they answer ErrUnsupported.
	BlobDelete     Feature = "blob-delete"
	ManifestDelete Feature = "manifest-delete"
	TagDelete      Feature = "tag-delete"
	// SHA512: content of other algorithms than sha256 is taken, and can be tagged. Without it a put answers
	// ErrUnsupported or ErrInvalid.
	SHA512 Feature = "sha512"
	// CheckContent: ManifestPut refuses a manifest whose content is missing, and names all of it. A registry's own
	// answer is relayed, and some do not look.
	CheckContent Feature = "check-content"
	// Sparse: WithSparse stores an index whose manifests are missing. Registries may insist on them; without it the
	// put answers ErrManifestBlobUnknown.
	Sparse Feature = "sparse"
	// SparseImages: WithSparseImages stores an image whose config and layers are missing. Without it the put answers
	// ErrManifestBlobUnknown.
	SparseImages Feature = "sparse-images"
	// TagAt: WithTagAt and WithTagDeleteAt compare before they write. Without it both answer ErrUnsupported.
	TagAt Feature = "tag-at"
	// ReferrersTellMissing: ReferrerList answers ErrNotFound for a repository that does not exist. Without it an
	// empty list is as good.
	ReferrersTellMissing Feature = "referrers-tell-missing"
	// UnknownTypes: manifests of types that nobody knows are stored. Without it a put answers ErrUnsupported or
	// ErrInvalid.
	UnknownTypes Feature = "unknown-types"
)

var features = []Feature{Mount, MountTellsMissing, BlobDelete, ManifestDelete, TagDelete, SHA512, CheckContent, Sparse, SparseImages, TagAt, ReferrersTellMissing, UnknownTypes}

// Capability names an optional interface of package scheme.
type Capability string

// The capabilities whose behaviour is checked.
const (
	BlobOpener Capability = "BlobOpener"
	BlobLister Capability = "BlobLister"
	RepoLister Capability = "RepoLister"
	BlobFinder Capability = "BlobFinder"
	BlobStater Capability = "BlobStater"
	Labeler    Capability = "Labeler"

	Ingester      Capability = "Ingester"
	IngestManager Capability = "IngestManager"
	// Truncater: what Ingester opens is a scheme.Truncater.
	Truncater Capability = "Truncater"

	IndexStore Capability = "IndexStore"
	Leaser     Capability = "Leaser"
	Syncer     Capability = "Syncer"
	Cleaner    Capability = "Cleaner"
	Collector  Capability = "Collector"
	Checker    Capability = "Checker"
)

var capabilities = []Capability{
	BlobOpener, BlobLister, RepoLister, BlobFinder, BlobStater, Labeler, Ingester, IngestManager, Truncater,
	IndexStore, Leaser, Syncer, Cleaner, Collector, Checker,
}

// readers are the capabilities that a read-only view has, too. Of IndexStore it has the reading half.
var readers = []Capability{BlobOpener, BlobLister, RepoLister, BlobFinder, BlobStater, IndexStore, Checker}

// A testCase checks one rule in a repository of its own.
type testCase struct {
	name  string
	rule  string // what the implementation broke when it fails
	needs []Feature
	has   []Capability
	run   func(e *env)
}

// groups are all cases. The order is that of the documentation: what fails first explains what fails later.
var groups = []struct {
	name  string
	cases []testCase
}{
	{"Blob", blobCases},
	{"BlobPut", blobPutCases},
	{"BlobMount", mountCases},
	{"Manifest", manifestCases},
	{"ManifestPut", manifestPutCases},
	{"Swap", swapCases},
	{"Delete", deleteCases},
	{"Tag", tagCases},
	{"Referrer", referrerCases},
	{"Ping", pingCases},
	{"Invalid", invalidCases},
	{"Context", contextCases},
	{"Concurrent", concurrentCases},
	{"Reopen", reopenCases},
	{"Capability", capabilityCases},
	{"Stat", statCases},
	{"Label", labelCases},
	{"Ingest", ingestCases},
	{"IngestOffer", ingestOfferCases},
	{"IngestLock", ingestLockCases},
	{"IngestResume", ingestResumeCases},
	{"IngestManage", ingestManageCases},
	{"IndexStore", indexStoreCases},
	{"Lease", leaseCases},
	{"Collect", collectCases},
	{"Clean", cleanCases},
	{"Check", checkCases},
	{"Wrapper", wrapperCases},
	{"Lacking", lackingCases},
	{"Model", modelCases},
}

// Run checks the implementation that h reaches, as subtests of t.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.New == nil {
		t.Fatal("schemetest: Harness.New is missing")
	}
	h.BlobSize = cmp.Or(h.BlobSize, 1<<20+1)
	h.Writers = cmp.Or(h.Writers, 16)
	h.Steps = cmp.Or(h.Steps, 12)
	for _, f := range h.Lacks {
		if !slices.Contains(features, f) {
			t.Fatalf("schemetest: Harness.Lacks names %q; the features are %q", f, features)
		}
		t.Logf("schemetest: declared to lack %s", f)
	}
	for _, c := range h.Capabilities {
		if !slices.Contains(capabilities, c) {
			t.Fatalf("schemetest: Harness.Capabilities names %q; those checked are %q", c, capabilities)
		}
	}
	for name := range h.Except {
		if !isCase(name) {
			t.Fatalf("schemetest: Harness.Except names %q, which is no case", name)
		}
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for _, c := range g.cases {
				t.Run(c.name, func(t *testing.T) {
					if why := h.without(c); why != "" {
						t.Skip(why)
					}
					if why, known := h.Except[g.name+"/"+c.name]; known {
						t.Skip("Harness.Except: " + why)
					}
					t.Parallel()
					c.run(newEnv(t, &h, c.rule))
				})
			}
		})
	}
}

// isCase reports whether "Group/case" is one.
func isCase(name string) bool {
	for _, g := range groups {
		for _, c := range g.cases {
			if g.name+"/"+c.name == name {
				return true
			}
		}
	}
	return false
}

// without says why c cannot be run: the harness declares that something is missing.
func (h *Harness) without(c testCase) string {
	for _, f := range c.needs {
		if !h.can(f) {
			return "Harness.Lacks declares that the place lacks " + string(f)
		}
	}
	for _, capability := range c.has {
		if !slices.Contains(h.Capabilities, capability) {
			return "Harness.Capabilities does not declare " + string(capability)
		}
	}
	return ""
}

// can reports whether the place is expected to have f.
func (h *Harness) can(f Feature) bool { return !slices.Contains(h.Lacks, f) }

// has reports whether the place declares the capability c.
func (h *Harness) has(c Capability) bool { return slices.Contains(h.Capabilities, c) }

// sibling names the second repository.
func (h *Harness) sibling(r ref.Ref) ref.Ref {
	switch {
	case h.Sibling != nil:
		return h.Sibling(r)
	case r.Repo == "":
		return ref.Ref{Scheme: r.Scheme, Root: r.Root + "-other"}
	default:
		return r.WithRepo(r.Repo + "-other")
	}
}
