package scheme

import (
	"fmt"
	"maps"
	"strings"

	"github.com/ocisync/ocisync/types/errs"
)

// ValidLabels reports, as errs.ErrInvalid, which label is above MaxLabel.
func ValidLabels(labels map[string]string) error {
	for k, v := range labels {
		if n := len(k) + len(v); n > MaxLabel {
			return fmt.Errorf("%w: the label %.64q has %d bytes with its value, more than %d", errs.ErrInvalid, k, n, MaxLabel)
		}
	}
	return nil
}

// Relabel returns what the labels have become when want replaces those that fields name, as Labeler says. Places that
// keep labels use it. The result is a map of its own. Its error is errs.ErrInvalid.
func Relabel(have, want map[string]string, fields ...string) (map[string]string, error) {
	if len(fields) == 0 {
		fields = []string{"labels"}
	}
	next := map[string]string{}
	maps.Copy(next, have)
	for _, f := range fields {
		key, one := strings.CutPrefix(f, "labels.")
		switch {
		case f == "labels":
			clear(next)
			maps.Copy(next, want)
		case !one || key == "":
			return nil, fmt.Errorf("%w: the field %.64q cannot be changed, only labels and labels.KEY", errs.ErrInvalid, f)
		case want[key] == "":
			delete(next, key)
		default:
			next[key] = want[key]
		}
	}
	return next, ValidLabels(next)
}
