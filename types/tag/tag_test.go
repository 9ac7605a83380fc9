package tag_test

import (
	"slices"
	"testing"

	"github.com/ocisync/ocisync/types/tag"
)

func TestPagesOfEverySizeJoinToTheWhole(t *testing.T) {
	all := []string{"1", "1.0", "a", "b", "latest"}
	for n := 1; n <= len(all)+1; n++ {
		var got []string
		last := ""
		for range len(all) + 2 {
			p := tag.Page(all, last, n)
			got = append(got, p.Tags...)
			if !p.More {
				break
			}
			last = p.Tags[len(p.Tags)-1]
		}
		if !slices.Equal(got, all) {
			t.Errorf("pages of %d: %v", n, got)
		}
	}
}

func TestPage(t *testing.T) {
	all := []string{"a", "c", "e"}
	if p := tag.Page(all, "b", -1); !slices.Equal(p.Tags, []string{"c", "e"}) || p.More {
		t.Errorf("last need not exist: %+v", p)
	}
	if p := tag.Page(all, "", 0); len(p.Tags) != 0 || p.More {
		t.Errorf("a limit of 0 gives none, and no next page: %+v", p)
	}
	if p := tag.Page(all, "z", 2); len(p.Tags) != 0 || p.More {
		t.Errorf("after the end: %+v", p)
	}
}
