package engine

import (
	"testing"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/transfer"
)

func TestWhatIsToldAfterTheEndIsDropped(t *testing.T) {
	told := 0
	rec := newRecorder(func(transfer.Event) { told++ }, false)
	it := item{im: &image{}, desc: types.Descriptor{Size: 7}}
	rec.report.Images = make([]transfer.Image, 1)
	m := &meter{rec: rec, it: it}
	m.reached(3)
	m.flush()
	rep := rec.done()
	m.reached(7) // a read that a put has left behind
	m.flush()
	rec.image(it.im, transfer.Event{Kind: transfer.ImageDone, Outcome: transfer.Copied})
	if told != 1 || rep.Bytes != 3 || rep.Copied != 0 {
		t.Errorf("%d events, %+v", told, rep)
	}
}
