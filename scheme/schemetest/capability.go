package schemetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var errStop = errors.New("the callback's own error")

var capabilityCases = []testCase{
	{
		name: "declared",
		rule: "As finds what Harness.Capabilities declares; anything else it does not find, or it answers ErrUnsupported",
		run: func(e *env) {
			e.begin()
			for _, c := range capabilities {
				found, err := e.try(e.api, c)
				if slices.Contains(e.h.Capabilities, c) {
					if !found || err != nil {
						e.errorf("%s is declared; As found it: %v; using it gave: %v", c, found, err)
					}
				} else if found && !errors.Is(err, errs.ErrUnsupported) {
					e.errorf("%s is not declared, but As found it, and using it gave: %v", c, err)
				}
			}
		},
	}, {
		name: "names",
		rule: "every capability answers a repository name outside of the specification's grammar with ErrInvalid, and creates nothing",
		run: func(e *env) {
			for _, c := range e.h.Capabilities {
				if c == RepoLister || c == BlobFinder { // which look at the root
					continue
				}
				for _, name := range badRepos {
					o := *e
					o.r = e.r.WithRepo(name)
					_, err := o.try(e.api, c)
					e.is(string(c)+" in "+name, err, errs.ErrInvalid)
				}
			}
			e.untouched()
		},
	}, {
		name: "contexts",
		rule: "a context that has ended is every capability's error, and nothing is created",
		run: func(e *env) {
			ended, cancel := context.WithCancel(e.ctx)
			cancel()
			for _, c := range e.h.Capabilities {
				o := *e
				o.ctx = ended
				_, err := o.try(e.api, c)
				e.is(string(c), err, context.Canceled)
			}
			e.untouched()
			e.begin()
			for _, c := range e.h.Capabilities {
				o := *e
				o.ctx = ended
				_, err := o.try(e.api, c)
				e.is(string(c)+" of a repository", err, context.Canceled)
			}
			e.holds(e.r, describe("", Blob("begin", 10)).Digest, Blob("begin", 10))
		},
	}, {
		name: "ranges",
		rule: "a blob.ReaderAt reads any range as io.ReaderAt says: short reads come with io.EOF, and beyond the end there is nothing else",
		has:  []Capability{BlobOpener},
		run: func(e *env) {
			for _, size := range []int{0, 1, 5000} {
				data := Blob(fmt.Sprint("ranges ", size), size)
				ra := e.open(e.put(e.r, data))
				e.same("Size", ra.Size(), int64(size))
				for _, off := range []int{0, 1, 2, size / 2, size - 2, size - 1, size, size + 1, size + 10_000} {
					for _, n := range []int{0, 1, 2, size / 2, size - 1, size, size + 1} {
						if off >= 0 && n >= 0 {
							e.rangeOf(ra, data, off, n)
						}
					}
				}
				if n, err := ra.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
					e.errorf("ReadAt(-1): got %d bytes and %v, want an error", n, err)
				}
				got, err := io.ReadAll(io.NewSectionReader(ra, 0, ra.Size()))
				if err != nil || !bytes.Equal(got, data) {
					e.errorf("read as a whole: %d bytes and %v, want the %d that were put", len(got), err, size)
				}
				e.must("Close", ra.Close())
			}
		},
	}, {
		name: "ranges at once",
		rule: "a blob.ReaderAt is safe for concurrent use",
		has:  []Capability{BlobOpener},
		run: func(e *env) {
			data := Blob("at once", 100_000)
			ra := e.open(e.put(e.r, data))
			results := make(chan error)
			for i := range 8 {
				go func() {
					p := make([]byte, 10_000)
					_, err := ra.ReadAt(p, int64(i*10_000))
					if err == nil && !bytes.Equal(p, data[i*10_000:][:10_000]) {
						err = errors.New("other bytes than those that were put")
					}
					results <- err
				}()
			}
			for range 8 {
				if err := <-results; err != nil {
					e.errorf("ReadAt: %v", err)
				}
			}
			e.must("Close", ra.Close())
		},
	}, {
		name: "open of what is absent",
		rule: "BlobOpen of a blob or repository that is not there is ErrNotFound; of a malformed digest ErrInvalid",
		has:  []Capability{BlobOpener},
		run: func(e *env) {
			opener := find[scheme.BlobOpener](e, e.r)
			for range 2 {
				_, err := opener.BlobOpen(e.ctx, e.r, types.Descriptor{Digest: digest.FromString("absent"), Size: 6})
				e.refused("BlobOpen", err, errs.ErrNotFound)
				e.begin()
			}
			for _, d := range badDigests {
				_, err := opener.BlobOpen(e.ctx, e.r, types.Descriptor{Digest: d, Size: 1})
				e.refused("BlobOpen", err, errs.ErrInvalid)
			}
		},
	}, {
		name: "at an offset",
		rule: "scheme.OpenBlobAt gives the end of a blob from any offset, with BlobOpener and without; beyond the end is ErrRangeInvalid",
		run: func(e *env) {
			data := Blob("offset", 5000)
			d := e.put(e.r, data)
			for _, off := range []int{0, 1, 2500, 4999, 5000} {
				rc, err := scheme.OpenBlobAt(e.ctx, e.api, e.r, d, int64(off))
				e.must("OpenBlobAt", err)
				got, err := io.ReadAll(rc)
				if err != nil || !bytes.Equal(got, data[off:]) {
					e.errorf("from offset %d: %d bytes and %v, want the last %d", off, len(got), err, 5000-off)
				}
				e.must("Close", rc.Close())
			}
			_, err := scheme.OpenBlobAt(e.ctx, e.api, e.r, d, 5001)
			e.refused("OpenBlobAt beyond the end", err, errs.ErrRangeInvalid)
		},
	}, {
		name: "list of blobs",
		rule: "BlobList names every blob and manifest of the repository once, with its size, and nothing of another repository",
		has:  []Capability{BlobLister},
		run: func(e *env) {
			e.refused("BlobList without a repository", e.list(e.r, nil), errs.ErrNotFound)
			a := e.push(e.r.WithTag("v1"), Image("a"))
			ix := e.push(e.r.WithTag("v2"), Index([]*Item{a}))
			e.push(e.other.WithTag("v1"), Image("other"))
			want := map[digest.Digest]int64{a.Manifest.Digest(): a.Descriptor().Size, ix.Manifest.Digest(): ix.Descriptor().Size}
			for _, b := range a.Blobs {
				want[digest.FromBytes(b)] = int64(len(b))
			}
			got := map[digest.Digest]int64{}
			e.must("BlobList", e.list(e.r, func(b blob.Info) error {
				if _, twice := got[b.Digest]; twice {
					e.errorf("BlobList names %s twice", b.Digest)
				}
				got[b.Digest] = b.Size
				return nil
			}))
			e.same("blobs", got, want)
		},
	}, {
		name: "list of blobs ends",
		rule: "BlobList ends with the first error of the callback, and returns it",
		has:  []Capability{BlobLister},
		run: func(e *env) {
			e.push(e.r.WithTag("v1"), Image("a"))
			calls := 0
			err := e.list(e.r, func(blob.Info) error {
				calls++
				return errStop
			})
			e.is("BlobList", err, errStop)
			e.same("callbacks", calls, 1)
		},
	}, {
		name: "list of repositories",
		rule: "RepoList names every repository below the root in byte order, those after last only; io.EOF from the callback ends it silently, any other error is returned",
		has:  []Capability{RepoLister},
		run:  listRepos,
	}, {
		name: "search for a blob",
		rule: "BlobFind names the repositories below the root that hold the blob and no others; io.EOF from the callback ends it silently, any other error is returned",
		has:  []Capability{BlobFinder},
		run:  findBlob,
	},
}

func findBlob(e *env) {
	data := Blob("wanted", 10)
	d := describe("", data).Digest
	finder := find[scheme.BlobFinder](e, e.r)
	search := func(answer error) (names []string, err error) {
		err = finder.BlobFind(e.ctx, e.r, d, func(repo string) error {
			names = append(names, repo)
			return answer
		})
		slices.Sort(names)
		return names, err
	}
	names, err := search(nil)
	e.must("BlobFind where nothing is", err)
	e.same("repositories that hold the blob", len(names), 0)
	if e.r.Repo == "" {
		e.put(e.r, data)
		names, err = search(nil)
		e.must("BlobFind", err)
		e.same("repositories that hold the blob", names, []string{""})
		return
	}
	for _, repo := range []string{"a", "a/b", "c"} {
		e.put(e.r.WithRepo(repo), data)
	}
	e.put(e.r.WithRepo("b"), Blob("other", 10))
	names, err = search(nil)
	e.must("BlobFind", err)
	e.same("repositories that hold the blob", names, []string{"a", "a/b", "c"})
	names, err = search(io.EOF)
	e.must("BlobFind ended by io.EOF", err)
	e.same("callbacks", len(names), 1)
	_, err = search(errStop)
	e.is("BlobFind", err, errStop)
	err = finder.BlobFind(e.ctx, e.r, "sha256:../../x", func(string) error { return nil })
	e.is("BlobFind of a path", err, errs.ErrInvalid)
}

func listRepos(e *env) {
	if e.r.Repo == "" {
		e.begin()
		e.same("repositories of a single layout", e.repos(e.r, ""), []string{""})
		return
	}
	if names, err := scheme.ListRepos(e.ctx, e.api, e.r); len(names) > 0 || err != nil && !errors.Is(err, errs.ErrNotFound) {
		e.errorf("an empty root lists %q, error %v; want nothing, or ErrNotFound", names, err)
	}
	names := []string{"a", "a-b", "a.b", "a/b", "a/b/c", "a0", "b", "b/c-d", "zz"}
	for i := range names {
		e.put(e.r.WithRepo(names[i*4%len(names)]), Blob("repository", 10))
	}
	e.same("repositories", e.repos(e.r, ""), names)
	for _, last := range append(slices.Clone(names), "0", "a/", "a/a", "az", "zzz") {
		want := []string{}
		for _, n := range names {
			if n > last {
				want = append(want, n)
			}
		}
		e.same("repositories after "+last, e.repos(e.r, last), want)
	}
	lister := find[scheme.RepoLister](e, e.r)
	for _, stop := range []error{io.EOF, errStop} {
		calls := 0
		err := lister.RepoList(e.ctx, e.r, "", func(string) error {
			if calls++; calls == 2 {
				return stop
			}
			return nil
		})
		if stop == io.EOF {
			e.must("RepoList ended by io.EOF", err)
		} else {
			e.is("RepoList", err, errStop)
		}
		e.same("callbacks", calls, 2)
	}
}

// find is scheme.As for a capability that is declared; without it the case ends.
func find[T any](e *env, r ref.Ref) T {
	e.t.Helper()
	var c T
	if !scheme.As(e.api, r, &c) {
		e.fatalf("As finds no %s", reflect.TypeFor[T]())
	}
	return c
}

// repos lists the repositories after last.
func (e *env) repos(r ref.Ref, last string) []string {
	e.t.Helper()
	lister := find[scheme.RepoLister](e, r)
	names := []string{}
	e.must("RepoList", lister.RepoList(e.ctx, r, last, func(name string) error {
		names = append(names, name)
		return nil
	}))
	return names
}

// list is BlobList.
func (e *env) list(r ref.Ref, fn func(blob.Info) error) error {
	e.t.Helper()
	if fn == nil {
		fn = func(blob.Info) error { return nil }
	}
	return find[scheme.BlobLister](e, r).BlobList(e.ctx, r, fn)
}

// open is BlobOpen.
func (e *env) open(d types.Descriptor) blob.ReaderAt {
	e.t.Helper()
	ra, err := find[scheme.BlobOpener](e, e.r).BlobOpen(e.ctx, e.r, d)
	e.must("BlobOpen", err)
	return ra
}

// rangeOf compares one ReadAt with what io.ReaderAt says about data.
func (e *env) rangeOf(ra io.ReaderAt, data []byte, off, n int) {
	e.t.Helper()
	p := make([]byte, n)
	got, err := ra.ReadAt(p, int64(off))
	want := data[min(off, len(data)):min(off+n, len(data))]
	if got != len(want) || !bytes.Equal(p[:got], want) {
		e.errorf("ReadAt of %d bytes at %d of %d: got %d bytes, want %d, or they are others", n, off, len(data), got, len(want))
	}
	if got < n && err != io.EOF || got == n && err != nil && err != io.EOF {
		e.errorf("ReadAt of %d bytes at %d of %d: %d bytes and error %v", n, off, len(data), got, err)
	}
}
