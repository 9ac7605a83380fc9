package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// The points at which a collector is stopped. At the last two it has the lock.
var collectPoints = map[string]func(step, name string) bool{
	"between mark and sweep":     func(step, name string) bool { return step == stepSweep && name == blobsDir },
	"before a blob is buried":    func(step, name string) bool { return step == stepRename && strings.HasPrefix(name, trashDir) },
	"before a blob is destroyed": func(step, name string) bool { return step == stepRemove && strings.HasPrefix(name, trashDir) },
}

// pausing returns a hook that calls fn once, when point says so.
func pausing(point func(step, name string) bool, fn func()) []Option {
	var once sync.Once
	return []Option{withHook(func(step, name string) error {
		if point(step, name) {
			once.Do(fn)
		}
		return nil
	})}
}

func blobReads(t *testing.T, o *OCIDir, r ref.Ref, d digest.Digest) error {
	t.Helper()
	rdr, err := o.BlobGet(t.Context(), r, types.Descriptor{Digest: d})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, rdr)
	return errors.Join(err, rdr.Close())
}

// Whatever is put, found, mounted or leased while a collector is at work is there when it is done.
func TestCollectStoppedWhileOthersFindItsGarbage(t *testing.T) {
	garbage := types.Descriptor{Digest: digest.FromString("garbage"), Size: 7}
	for what, do := range map[string]func(o *OCIDir, src, r ref.Ref) error{
		"head": func(o *OCIDir, _, r ref.Ref) error {
			_, err := o.BlobHead(t.Context(), r, garbage)
			return err
		},
		"put": func(o *OCIDir, _, r ref.Ref) error {
			_, err := o.BlobPut(t.Context(), r, garbage, strings.NewReader("garbage"))
			return err
		},
		"put of unknown digest": func(o *OCIDir, _, r ref.Ref) error {
			_, err := o.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader("garbage"))
			return err
		},
		"mount": func(o *OCIDir, src, r ref.Ref) error { return o.BlobMount(t.Context(), src, r, garbage) },
		"mount by put": func(o *OCIDir, src, r ref.Ref) error {
			_, err := o.BlobPut(t.Context(), r, garbage, errReader{}, scheme.WithMountFrom(src))
			return err
		},
		"commit of an ingest": func(o *OCIDir, _, r ref.Ref) error {
			u, err := o.Ingest(t.Context(), r, "key")
			if err != nil {
				return err
			}
			if _, err := u.Write([]byte("garbage")); err != nil {
				return err
			}
			if _, err = u.Commit(t.Context(), garbage, nil); errors.Is(err, errs.ErrExists) {
				err = nil
			}
			return err
		},
		"lease and head": func(o *OCIDir, _, r ref.Ref) error {
			if _, err := o.Lease(t.Context(), r, garbage.Digest); err != nil {
				return err
			}
			_, err := o.BlobHead(t.Context(), r, garbage)
			return err
		},
	} {
		for when, point := range collectPoints {
			t.Run(what+" "+when, func(t *testing.T) {
				dir := t.TempDir()
				r, src := place(dir+"/tgt"), place(dir+"/src")
				litter(t, r, "garbage", "more garbage")
				litter(t, src, "garbage")
				o := open(t)
				putBlob(t, o, r, []byte("mine")) // so that it needs no lock any more
				called, found := false, true
				rep, err := collectWith(t, r, pausing(point, func() {
					called = true
					err := do(o, src, r)
					if errors.Is(err, errs.ErrNotFound) {
						found = false // nobody was told that it is there
					} else if err != nil {
						t.Error(err)
					}
				}))
				if err != nil || !called {
					t.Fatalf("called %v, %v", called, err)
				}
				if err := blobReads(t, o, r, garbage.Digest); found && err != nil {
					t.Error(err)
				}
				for _, g := range rep.Removed {
					if found && g.Digest == garbage.Digest {
						t.Error("the report says that it was removed")
					}
				}
				blobNames(t, r)
			})
		}
	}
}

const noEntries = `{"schemaVersion":2,"manifests":[]}`

func TestCollectStoppedWhileOthersCommit(t *testing.T) {
	it := schemetest.Image("image")
	ix := schemetest.Index([]*schemetest.Item{it}, schemetest.Annotation("x", "y"))
	for what, do := range map[string]func(o *OCIDir, r ref.Ref) error{
		"an image": func(o *OCIDir, r ref.Ref) error {
			_, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest)
			return err
		},
		"an index of it": func(o *OCIDir, r ref.Ref) error {
			_, err := o.ManifestPut(t.Context(), r.WithTag("v1"), ix.Manifest)
			return err
		},
		"another process that ends": func(_ *OCIDir, r ref.Ref) error {
			o := New()
			_, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest)
			return errors.Join(err, o.Close())
		},
	} {
		for _, untagged := range []bool{false, true} {
			t.Run(fmt.Sprint(what, " untagged ", untagged), func(t *testing.T) {
				r := place(t.TempDir())
				alone(t, func(o *OCIDir) error { return it.Push(t.Context(), o, r.WithTag("old")) })
				alone(t, func(o *OCIDir) error { return o.TagDelete(t.Context(), r.WithTag("old")) })
				opts := []scheme.CollectOption{scheme.WithUntagged()}
				point := func(step, name string) bool { return step == stepSweep && name == indexName }
				if !untagged { // nothing lists it any more
					alone(t, func(o *OCIDir) error { return o.IndexPut(t.Context(), r, nil, []byte(noEntries)) })
					opts = nil
					point = collectPoints["between mark and sweep"]
				}
				o := open(t)
				called := false
				rep, err := collectWith(t, r, pausing(point, func() {
					called = true
					if err := do(o, r); err != nil {
						t.Error(err)
					}
				}), opts...)
				if err != nil || !called || len(rep.Removed) > 0 {
					t.Errorf("called %v, %d removed, %v", called, len(rep.Removed), err)
				}
				if tags := valid(t, r); len(tags) != 1 {
					t.Errorf("the tags are %q", tags)
				}
				for _, b := range it.Blobs {
					if err := blobReads(t, o, r, digest.FromBytes(b)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// A manifest that was looked at before its entry went is still put with all that it needs.
func TestManifestThatWasFoundKeepsWhatItNeeds(t *testing.T) {
	r := place(t.TempDir())
	it := schemetest.Image("image")
	ix := schemetest.Index([]*schemetest.Item{it})
	alone(t, func(o *OCIDir) error { return pushWithChildren(t, o, r.WithTag("old"), ix) })
	o := open(t)
	if _, err := o.ManifestHead(t.Context(), r.WithTag("old")); err != nil {
		t.Fatal(err)
	}
	alone(t, func(o *OCIDir) error { return o.IndexPut(t.Context(), r, nil, []byte(noEntries)) })
	rep, err := collect(t, r, scheme.WithUntagged(), scheme.WithVanished())
	if err != nil || len(rep.Removed) > 0 || rep.Leased != 5 {
		t.Errorf("%+v, %v", rep, err)
	}
	if _, err := o.ManifestPut(t.Context(), r.WithTag("new"), ix.Manifest); err != nil {
		t.Fatal(err)
	}
	for _, b := range it.Blobs {
		if err := blobReads(t, o, r, digest.FromBytes(b)); err != nil {
			t.Error(err)
		}
	}
}

// What a collector that died left in the trash is there for everybody who looks for it.
func TestTrashOfADeadCollector(t *testing.T) {
	it := schemetest.Image("image")
	for what, do := range map[string]func(o *OCIDir, r ref.Ref, d types.Descriptor) error{
		"head": func(o *OCIDir, r ref.Ref, d types.Descriptor) error {
			_, err := o.BlobHead(t.Context(), r, d)
			return err
		},
		"get": func(o *OCIDir, r ref.Ref, d types.Descriptor) error { return blobReads(t, o, r, d.Digest) },
		"put of its manifest": func(o *OCIDir, r ref.Ref, _ types.Descriptor) error {
			_, err := o.ManifestPut(t.Context(), r.WithTag("v2"), it.Manifest)
			return err
		},
		"mount from there": func(o *OCIDir, r ref.Ref, d types.Descriptor) error {
			return o.BlobMount(t.Context(), r, place(t.TempDir()), d)
		},
		"the next collector": func(_ *OCIDir, r ref.Ref, _ types.Descriptor) error {
			_, err := collect(t, r)
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := place(t.TempDir())
			o := open(t)
			if err := it.Push(t.Context(), o, r.WithTag("v1")); err != nil {
				t.Fatal(err)
			}
			d := digest.FromBytes(it.Blobs[1])
			err := errors.Join(os.MkdirAll(filepath.Join(r.Path(), trashDir), 0o755),
				os.Rename(blobFileOf(r, d), filepath.Join(r.Path(), trashName(d))))
			if err != nil {
				t.Fatal(err)
			}
			if err := do(o, r, types.Descriptor{Digest: d}); err != nil {
				t.Error(err)
			}
			blobNames(t, r) // nothing is in the trash
			valid(t, r)
		})
	}
}

// Where there are no hard links a blob is renamed back.
func TestTrashWithoutHardLinks(t *testing.T) {
	r := place(t.TempDir())
	litter(t, r, "garbage", "more")
	o, other := open(t), digest.FromString("more")
	d := digest.FromString("garbage")
	putBlob(t, o, r, []byte("mine"))
	rep, err := collectWith(t, r, []Option{withHook(func(step, name string) error {
		switch {
		case step == stepLink:
			return syscall.EPERM
		case step == stepRename && name == trashName(d):
			_, err := o.Lease(t.Context(), r, d)
			return err
		}
		return nil
	})})
	if err != nil || len(rep.Removed) != 1 || rep.Removed[0].Digest != other || rep.Leased != 2 {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := blobReads(t, o, r, d); err != nil {
		t.Error(err)
	}
	blobNames(t, r)
}

// .ocisync may be deleted at any time; with it go the leases, and a run that is under way ends.
func TestStateIsDeletedWhileCollecting(t *testing.T) {
	for when, point := range collectPoints {
		s := newLitterScene(t)
		_, err := collectWith(t, s.r, pausing(point, func() {
			if err := os.RemoveAll(filepath.Join(s.r.Path(), stateDir)); err != nil {
				t.Error(err)
			}
		}), scheme.WithUntagged())
		over := err == nil && when == "before a blob is destroyed" // all was seen before, and this is the only step
		if !errors.Is(err, errs.ErrConflict) && !over {
			t.Errorf("%s: got %v", when, err)
		}
		if tags := valid(t, s.r); len(tags) != 1 {
			t.Errorf("%s: the tags are %q", when, tags)
		}
		if err := s.holder.Close(); err != nil {
			t.Error(err)
		}
		if _, err := collect(t, s.r); err != nil {
			t.Errorf("%s: the next run: %v", when, err)
		}
	}
}

func TestCollectEndsWithItsContext(t *testing.T) {
	s := newLitterScene(t)
	for when, point := range collectPoints {
		ctx, cancel := context.WithCancel(t.Context())
		o := New(pausing(point, cancel)...)
		rep, err := o.Collect(ctx, s.r, scheme.WithGrace(0), scheme.WithUntagged())
		if cerr := o.Close(); cerr != nil {
			t.Error(cerr)
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %d removed, %v", when, len(rep.Removed), err)
		}
		litter(t, s.r, "garbage for the next one")
	}
	s.check(t, "afterwards")
}

// A manifest that is another file by now is not removed; nor is what it names, which was listed as garbage with it.
func TestManifestThatChangedKeepsWhatItNeeds(t *testing.T) {
	for what, do := range map[string]func(r, other ref.Ref, d types.Descriptor) error{
		"linked": func(r, other ref.Ref, d types.Descriptor) error { // which changes its time
			o := New()
			return errors.Join(o.BlobMount(t.Context(), r, other, d), o.Close())
		},
		"locked": func(r, _ ref.Ref, d types.Descriptor) error {
			f, err := os.Open(blobFileOf(r, d.Digest))
			if err != nil {
				return err
			}
			t.Cleanup(func() { f.Close() })
			return lockFile(f, false)
		},
	} {
		r, other := place(t.TempDir()), place(t.TempDir())
		below := writeBlob(t, r, digest.SHA256, "below")
		m := writeBlob(t, r, digest.SHA256, `{"schemaVersion":2,"config":`+asJSON(below)+`,"layers":[]}`)
		writeBlob(t, r, digest.SHA256, "garbage")
		foreignIndex(t, r)
		rep, err := collectWith(t, r, pausing(collectPoints["between mark and sweep"], func() {
			if err := do(r, other, m); err != nil {
				t.Error(err)
			}
		}))
		if err != nil || len(rep.Removed) != 1 || rep.Young != 2 {
			t.Errorf("%s: %+v, %v", what, rep, err)
		}
		if n := len(blobNames(t, r)); n != 2 {
			t.Errorf("%s: %d blobs are left, want the manifest and what it needs", what, n)
		}
	}
}

// A manifest that an index lists may come while a collector is at work, of garbage that it is about to remove, from somebody who
// then ends: index.json does not change, and nobody leases anything any more.
func TestCollectorSeesAChildThatComesLate(t *testing.T) {
	for what, do := range map[string]func(o *OCIDir, r ref.Ref, c *schemetest.Item) error{
		"manifest": func(o *OCIDir, r ref.Ref, c *schemetest.Item) error {
			if err := c.PushContent(t.Context(), o, r); err != nil {
				return err
			}
			_, err := o.ManifestPut(t.Context(), r.Place().WithDigest(c.Manifest.Digest()), c.Manifest, scheme.WithChild())
			return err
		},
		"blob": func(o *OCIDir, r ref.Ref, c *schemetest.Item) error {
			return errors.Join(c.PushContent(t.Context(), o, r), putData(t.Context(), o, r, c.Manifest.Raw()))
		},
	} {
		for point, at := range collectPoints {
			t.Run(what+" "+point, func(t *testing.T) {
				r := place(t.TempDir())
				a, b := schemetest.Image("a"), schemetest.Image("b")
				ix := schemetest.Index([]*schemetest.Item{a, b})
				alone(t, func(o *OCIDir) error {
					if err := errors.Join(a.PushContent(t.Context(), o, r), b.PushContent(t.Context(), o, r)); err != nil {
						return err
					}
					_, err := o.ManifestPut(t.Context(), r.Place().WithDigest(a.Manifest.Digest()), a.Manifest, scheme.WithChild())
					if err == nil {
						_, err = o.ManifestPut(t.Context(), r.WithTag("v1"), ix.Manifest, scheme.WithSparse())
					}
					return err
				})
				litter(t, r, "garbage")
				other := open(t)
				must(t, putData(t.Context(), other, r, []byte("other"))) // a first put waits for the lock, which the collector may have
				_, err := collectWith(t, r, pausing(at, func() {
					if err := errors.Join(do(other, r, b), other.Close()); err != nil {
						t.Error(err)
					}
				}))
				must(t, err)
				o := open(t)
				if _, err := o.ManifestGet(t.Context(), r.Place().WithDigest(b.Manifest.Digest())); err != nil {
					t.Error(err)
				}
				for _, data := range b.Blobs {
					if err := blobReads(t, o, r, digest.FromBytes(data)); err != nil {
						t.Errorf("what the child needs: %v", err)
					}
				}
			})
		}
	}
}

// Who puts a manifest whose index is still to come was told that all it names is there.
func TestCollectorSparesWhatAChildWasPutFor(t *testing.T) {
	for point, at := range collectPoints {
		t.Run(point, func(t *testing.T) {
			r := place(t.TempDir())
			a := schemetest.Image("a")
			ix := schemetest.Index([]*schemetest.Item{a})
			alone(t, func(o *OCIDir) error {
				return errors.Join(a.PushContent(t.Context(), o, r), schemetest.Image("b").Push(t.Context(), o, r.WithTag("b")))
			})
			litter(t, r, "garbage")
			o := open(t)
			must(t, putData(t.Context(), o, r, []byte("other"))) // a first put waits for the lock, which the collector may have
			child := r.Place().WithDigest(a.Manifest.Digest())
			put := errors.New("not put")
			_, err := collectWith(t, r, pausing(at, func() {
				_, put = o.ManifestPut(t.Context(), child, a.Manifest, scheme.WithChild())
			}))
			must(t, err)
			if errors.Is(put, errs.ErrManifestBlobUnknown) {
				return
			}
			must(t, put)
			if _, err := o.ManifestPut(t.Context(), r.WithTag("v1"), ix.Manifest); err != nil {
				t.Error(err)
			}
			for _, data := range a.Blobs {
				if err := blobReads(t, o, r, digest.FromBytes(data)); err != nil {
					t.Errorf("what the child needs: %v", err)
				}
			}
		})
	}
}

// Who found a blob, and makes it durable while a collector has it in hand, finds it where it is.
func TestABlobThatIsBuriedIsMadeDurable(t *testing.T) {
	r, o := place(t.TempDir()), open(t)
	litter(t, r, "garbage")
	l := openedLayout(t, o, r)
	want := types.Descriptor{Digest: digest.FromString("garbage")}
	file, there, err := l.have(t.Context(), want)
	if err != nil || !there {
		t.Fatal(there, err)
	}
	if _, ok, err := l.bury(want.Digest, func(fileID) bool { return true }); err != nil || !ok {
		t.Fatal(ok, err)
	}
	must(t, l.acknowledge(t.Context(), file, false))
	must(t, blobReads(t, o, r, want.Digest))
}
