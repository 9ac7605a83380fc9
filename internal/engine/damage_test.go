package engine_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

// disk is a world whose target is a layout on the disk.
type disk struct {
	*world
	api *ocidir.OCIDir
}

func newDisk(t *testing.T) *disk {
	w := &world{t: t, src: newSpy(t), from: ref.Ref{Scheme: "src", Root: "a.example", Repo: "app", Tag: "latest"}}
	w.to = ref.Ref{Scheme: ref.SchemeOCIDir, Root: filepath.Join(t.TempDir(), "layout"), Tag: "latest"}
	d := &disk{world: w}
	d.reopen()
	return d
}

// reopen makes what follows the work of another process: it has seen no file yet.
func (d *disk) reopen() {
	d.api = ocidir.New(ocidir.WithDurability(ocidir.None))
	d.t.Cleanup(func() {
		if err := d.api.Close(); err != nil {
			d.t.Error(err)
		}
	})
	d.engine = engine.New(scheme.NewMux(map[string]scheme.API{"src": d.src, ref.SchemeOCIDir: d.api}), 2)
}

func (d *disk) file(desc types.Descriptor) string {
	return filepath.Join(d.to.Root, "blobs", desc.Digest.Algorithm().String(), desc.Digest.Encoded())
}

// flip damages content of the layout without changing its size, as another process would find it.
func (d *disk) flip(desc types.Descriptor) {
	d.t.Helper()
	data, err := os.ReadFile(d.file(desc))
	if err != nil {
		d.t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(d.file(desc), data, 0o644); err != nil {
		d.t.Fatal(err)
	}
	d.reopen()
}

func (d *disk) remove(desc types.Descriptor) {
	d.t.Helper()
	if err := os.Remove(d.file(desc)); err != nil {
		d.t.Fatal(err)
	}
	d.reopen()
}

// whole reports whether the layout has content with the digest that it is named by.
func (d *disk) whole(desc types.Descriptor) bool {
	d.t.Helper()
	data, err := os.ReadFile(d.file(desc))
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	return err == nil && desc.Digest.Algorithm().FromBytes(data) == desc.Digest
}

func TestADamagedManifestOfTheTargetIsReplaced(t *testing.T) {
	for _, which := range []string{"index", "image", "nested index"} {
		for _, o := range []engine.Options{{}, {Verify: true}, {AllTags: true}, {Platforms: []types.Platform{{OS: "linux", Architecture: "amd64"}}}} {
			w := newDisk(t)
			b := w.atSource()
			image := b.image([]string{"layer"})
			nested := b.index([]types.Descriptor{on(image, "linux/amd64")})
			index := b.index([]types.Descriptor{on(image, "linux/amd64"), nested}, "latest")
			if o.AllTags {
				w.from.Tag, w.to.Tag = "", ""
			}
			w.copy(o)
			bad := map[string]types.Descriptor{"index": index, "image": image, "nested index": nested}[which]
			w.flip(bad)
			if w.copy(o); !w.whole(bad) {
				t.Errorf("%s, %+v: it is still damaged", which, o)
			}
			w.reopen()
			if rep := w.copy(o); rep.Unchanged != 1 {
				t.Errorf("%s, %+v: copied again: %+v", which, o, rep)
			}
		}
	}
}

func TestADamagedIndexFileOfTheTargetIsAnError(t *testing.T) {
	w := newDisk(t)
	w.atSource().image([]string{"layer"}, "latest")
	w.copy(engine.Options{})
	path, torn := filepath.Join(w.to.Root, "index.json"), []byte(`{"manifests":[`)
	if err := os.WriteFile(path, torn, 0o644); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	_, err := w.engine.Copy(context.Background(), w.from, w.to, engine.Options{})
	if got, rerr := os.ReadFile(path); err == nil || rerr != nil || !bytes.Equal(got, torn) {
		t.Errorf("%v; index.json: %q, %v", err, got, rerr)
	}
}

func TestALostReferrerOfTheTargetIsPutAgain(t *testing.T) {
	for name, harm := range map[string]func(*disk, types.Descriptor){"flipped": (*disk).flip, "removed": (*disk).remove} {
		for _, o := range []engine.Options{{}, {Verify: true}} {
			w := newDisk(t)
			b := w.atSource()
			sig := b.artifact(b.image([]string{"layer"}, "latest"), "signature")
			w.copy(o)
			harm(w, sig)
			if w.copy(o); !w.whole(sig) {
				t.Errorf("%s, %+v: not repaired", name, o)
			}
			w.reopen()
			if rep := w.copy(o); rep.Unchanged != 1 {
				t.Errorf("%s, %+v: copied again: %+v", name, o, rep)
			}
		}
	}
}

func TestAnImageWhoseReferrersAreLostAtTheSourceFails(t *testing.T) {
	for name, harm := range map[string]func(*disk, types.Descriptor){"flipped": (*disk).flip, "removed": (*disk).remove} {
		w := newDisk(t)
		b := w.atSource()
		sig := b.artifact(b.image([]string{"layer"}, "latest"), "signature")
		w.copy(engine.Options{})
		harm(w, sig)
		onward := ref.Ref{Scheme: "src", Root: "b.example", Repo: "app", Tag: "latest"}
		if _, err := w.engine.Copy(context.Background(), w.to, onward, engine.Options{}); err == nil || errs.Hint(err) == "" {
			t.Errorf("%s: got %v, want an error with a hint", name, err)
		}
		if _, err := w.engine.Copy(context.Background(), w.to, onward, plain); err != nil {
			t.Errorf("%s: without referrers: %v", name, err)
		}
	}
}

func TestVerifyFindsADamagedBlobOfTheTarget(t *testing.T) {
	for _, o := range []engine.Options{{Verify: true}, {Verify: true, AllTags: true}} {
		w := newDisk(t)
		b := w.atSource()
		b.image([]string{"layer"}, "latest")
		if o.AllTags {
			w.from.Tag, w.to.Tag = "", ""
		}
		w.copy(o)
		bad := b.blob("layer")
		w.flip(bad)
		if rep, err := w.engine.Plan(context.Background(), w.from, w.to, o); err != nil || rep.Images[0].Outcome != transfer.WouldCopy || w.whole(bad) {
			t.Errorf("%+v: a plan of it: %+v, %v", o, rep, err)
		}
		if rep := w.copy(o); rep.Copied != 1 || !w.whole(bad) {
			t.Errorf("%+v: not repaired: %+v", o, rep)
		}
		w.reopen()
		if rep := w.copy(o); rep.Unchanged != 1 {
			t.Errorf("%+v: copied again: %+v", o, rep)
		}
	}
}

// A layout that shares files with a damaged one must not be linked to it, nor a damaged one to itself.
func TestVerifyRepairsALayoutFromAnother(t *testing.T) {
	w := newDisk(t)
	b := w.atSource()
	image := b.image([]string{"layer"}, "latest")
	w.copy(plain)
	good := w.to
	other := good
	other.Root = filepath.Join(t.TempDir(), "other")
	w.from, w.to = good, other
	w.copy(plain)
	for _, bad := range []types.Descriptor{b.blob("layer"), image} {
		data, err := os.ReadFile(w.file(bad))
		if err != nil {
			t.Fatal(err)
		}
		data[0] ^= 1
		if err := os.Remove(w.file(bad)); err != nil { // else the damage would reach the source's link, too
			t.Fatal(err)
		}
		if err := os.WriteFile(w.file(bad), data, 0o644); err != nil {
			t.Fatal(err)
		}
		w.reopen()
		if w.copy(engine.Options{NoReferrers: true, Verify: true}); !w.whole(bad) {
			t.Errorf("%s: not repaired", bad.MediaType)
		}
	}
}

func TestVerifyReadsTheManifestsOfAPlaceThatIsNotRemote(t *testing.T) {
	w := newWorld(t)
	w.from.Tag = "latest"
	image := w.atSource().image([]string{"layer"}, "latest")
	w.copy(plain)
	w.forget()
	w.dst.fails("ManifestGet "+string(image.Digest), errs.ErrDigestMismatch)
	if w.copy(engine.Options{NoReferrers: true, Verify: true}); w.dst.count("ManifestPut latest") != 1 {
		t.Errorf("what a HEAD did not see is not put again: %v", w.dst.seen())
	}
}
