package ref

import (
	"fmt"
	"strings"

	"github.com/ocisync/ocisync/types/errs"
)

// escapePath writes the characters of a path that Parse would read as something else.
func escapePath(p string) string {
	drive := ""
	if hasDrive(p) {
		drive, p = p[:2], p[2:]
	}
	return drive + strings.NewReplacer("%", "%25", "@", "%40", ":", "%3A").Replace(p)
}

// unescapePath undoes escapePath. A '%' that begins none of the three escapes stands for itself.
func unescapePath(p string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '%' && i+2 < len(p) {
			switch strings.ToUpper(p[i : i+3]) {
			case "%25":
				b.WriteByte('%')
				i += 2
				continue
			case "%3A":
				b.WriteByte(':')
				i += 2
				continue
			case "%40":
				b.WriteByte('@')
				i += 2
				continue
			case "%00":
				return "", fmt.Errorf("%w path: %%00 is not allowed", errs.ErrInvalid)
			}
		}
		b.WriteByte(p[i])
	}
	return b.String(), nil
}
