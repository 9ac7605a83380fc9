package ocidir

import (
	"fmt"
	"testing"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
)

// A copy of a tree may put a child into every repository before it puts the first index.
func TestLayoutsThatWaitForAnIndexAreClosed(t *testing.T) {
	o, root := open(t, WithDurability(None)), place(t.TempDir())
	subject := schemetest.Opaque("subject")
	child := schemetest.Image("child", schemetest.Subject(subject.Descriptor()))
	idx := schemetest.Index([]*schemetest.Item{child})
	const n = maxIdle + 20
	for i := range n {
		r := root.WithRepo(fmt.Sprint("r", i))
		if err := child.PushContent(t.Context(), o, r); err != nil {
			t.Fatal(err)
		}
		if _, err := o.ManifestPut(t.Context(), r.WithDigest(child.Manifest.Digest()), child.Manifest, scheme.WithChild()); err != nil {
			t.Fatal(err)
		}
	}
	count := func() (open, waiting int) {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.layouts), len(o.waiting)
	}
	if open, waiting := count(); open > maxIdle || waiting != n-maxIdle {
		t.Errorf("%d layouts are open, %d wait", open, waiting)
	}
	for i := range n {
		r := root.WithRepo(fmt.Sprint("r", i))
		if _, err := o.ManifestGet(t.Context(), r.WithDigest(child.Manifest.Digest())); err != nil {
			t.Errorf("%s: the process that put a child cannot read it: %v", r, err)
		}
		list, err := o.ReferrerList(t.Context(), r.WithDigest(subject.Manifest.Digest()))
		if err != nil || len(list.Descriptors) != 1 {
			t.Errorf("%s: the child is no referrer: %+v, %v", r, list, err)
		}
		if _, err := o.ManifestPut(t.Context(), r.WithTag("v1"), idx.Manifest); err != nil {
			t.Errorf("%s: %v", r, err)
		}
	}
	if open, waiting := count(); open > maxIdle || waiting != 0 {
		t.Errorf("after the indexes were put %d layouts are open, %d wait", open, waiting)
	}
}
