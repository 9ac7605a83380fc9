package mem_test

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var place = ref.MustParse("mem://test/a")

func open(t *testing.T, m *mem.Mem, key string) scheme.Upload {
	t.Helper()
	u, err := m.Ingest(t.Context(), place, key)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestLimitTakesWhatFitsIntoAnIngest(t *testing.T) {
	m := mem.New(mem.WithLimit(100))
	put(t, m, place, schemetest.Blob("there", 40))
	data := schemetest.Blob("ingest", 80)
	u := open(t, m, "k")
	n, err := u.Write(data)
	if n != 60 || !errors.Is(err, errs.ErrNoSpace) || u.Status().Offset != 60 {
		t.Fatalf("80 bytes where there is room for 60: took %d, error %v, offset %d", n, err, u.Status().Offset)
	}
	if _, err := m.BlobPut(t.Context(), place, types.Descriptor{}, bytes.NewReader([]byte("x"))); !errors.Is(err, errs.ErrNoSpace) {
		t.Fatalf("a put beside it: got %v, want ErrNoSpace", err)
	}
	if err := m.BlobDelete(t.Context(), place, types.Descriptor{Digest: digest.FromBytes(schemetest.Blob("there", 40))}); err != nil {
		t.Fatal(err)
	}
	if n, err := u.Write(data[60:]); n != 20 || err != nil {
		t.Fatalf("the rest, once there is room: took %d, error %v", n, err)
	}
	if _, err := u.Commit(t.Context(), types.Descriptor{Digest: digest.FromBytes(data), Size: 80}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestLimitGetsBackWhatAnIngestHad(t *testing.T) {
	for name, end := range map[string]func(u scheme.Upload, m *mem.Mem) error{
		"Abort":    func(u scheme.Upload, _ *mem.Mem) error { return u.Abort(t.Context()) },
		"Truncate": func(u scheme.Upload, _ *mem.Mem) error { return u.(scheme.Truncater).Truncate(t.Context(), 0) },
		"IngestAbort": func(u scheme.Upload, m *mem.Mem) error {
			return errors.Join(u.Close(), m.IngestAbort(t.Context(), place, "k"))
		},
		"IngestExpire": func(u scheme.Upload, m *mem.Mem) error {
			_, err := m.IngestExpire(t.Context(), place, 0)
			return errors.Join(err, u.Close(), func() error { _, err := m.IngestExpire(t.Context(), place, 0); return err }())
		},
		"Commit of what is there": func(u scheme.Upload, m *mem.Mem) error {
			put(t, m, place, schemetest.Blob("whole", 40))
			d, err := u.Commit(t.Context(), types.Descriptor{}, nil)
			if !errors.Is(err, errs.ErrExists) {
				return errors.Join(errors.New("it was not there"), err)
			}
			return m.BlobDelete(t.Context(), place, d)
		},
	} {
		m := mem.New(mem.WithLimit(100))
		u := open(t, m, "k")
		if _, err := u.Write(schemetest.Blob("whole", 40)); err != nil {
			t.Fatal(err)
		}
		if err := end(u, m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := m.BlobPut(t.Context(), place, types.Descriptor{}, bytes.NewReader(make([]byte, 100))); err != nil {
			t.Errorf("all the room after %s: %v", name, err)
		}
	}
}

func TestCloseEndsWhatIsOpenAndKeepsWhatIsStored(t *testing.T) {
	first := mem.New()
	second := first.Share()
	d := put(t, first, place, []byte("stored"))
	mine, others := open(t, first, "mine"), open(t, second, "others")
	for _, u := range []scheme.Upload{mine, others} {
		if _, err := u.Write([]byte("written")); err != nil {
			t.Fatal(err)
		}
	}
	if err := scheme.Close(first); err != nil {
		t.Fatal(err)
	}
	if _, err := mine.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Write to what Close ended: got %v, want fs.ErrClosed", err)
	}
	if _, err := others.Write([]byte("x")); err != nil {
		t.Errorf("Write to what another user has open: %v", err)
	}
	if got := open(t, second, "mine").Status().Offset; got != 7 {
		t.Errorf("what was written is kept: got %d bytes, want 7", got)
	}
	if _, err := second.BlobHead(t.Context(), place, d); err != nil {
		t.Errorf("what was stored: %v", err)
	}
}

// TestADeleteForgetsLeases holds that memory does not grow with what was put and deleted: what is put anew by somebody
// who ends is garbage, although another user put the same before.
func TestADeleteForgetsLeases(t *testing.T) {
	m := mem.New()
	d := put(t, m, place, []byte("x"))
	if err := m.BlobDelete(t.Context(), place, d); err != nil {
		t.Fatal(err)
	}
	other := m.Share()
	put(t, other, place, []byte("x"))
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	report, err := m.Collect(t.Context(), place, scheme.WithGrace(0))
	if err != nil || len(report.Removed) != 1 {
		t.Errorf("removed %v, error %v, want the blob that nobody leases", report.Removed, err)
	}
}
