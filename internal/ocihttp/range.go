package ocihttp

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/ocisync/ocisync/types/errs"
)

// Range is one range of bytes that a reader asks for, both ends inclusive, as in the Range header. Exactly one of
// these forms: First and Last; First with Last -1, to the end; First -1, the last Last bytes.
type Range struct {
	First, Last int64
}

// ParseRange reads a Range header. Nothing to honour (no header, another unit, several ranges: RFC 9110 allows to
// send everything instead) is ok false without an error; errs.ErrRangeInvalid is a header that makes no sense.
func ParseRange(header string) (r Range, ok bool, err error) {
	spec, found := strings.CutPrefix(header, "bytes=")
	if !found || strings.Contains(spec, ",") {
		return Range{}, false, nil
	}
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	r = Range{First: -1, Last: -1}
	good := dash && (first != "" || last != "")
	if first != "" {
		r.First, good = number(first, good)
	}
	if last != "" {
		r.Last, good = number(last, good)
	}
	if !good || first != "" && last != "" && r.Last < r.First {
		return Range{}, false, fmt.Errorf("%w: %.64q", errs.ErrRangeInvalid, header)
	}
	return r, true, nil
}

// String prints the header.
func (r Range) String() string {
	switch {
	case r.First < 0:
		return "bytes=-" + strconv.FormatInt(r.Last, 10)
	case r.Last < 0:
		return "bytes=" + strconv.FormatInt(r.First, 10) + "-"
	default:
		return "bytes=" + span(r.First, r.Last)
	}
}

// Resolve says which part of content of the given size r asks for; it ends with the content. A range that begins
// behind the end, or is empty, is errs.ErrRangeInvalid.
func (r Range) Resolve(size int64) (offset, length int64, err error) {
	first, last := r.First, r.Last
	switch {
	case first < 0:
		first, last = max(size-last, 0), size-1
		if r.Last == 0 {
			first = size
		}
	case last < 0 || last >= size:
		last = size - 1
	}
	if first >= size || last < first {
		return 0, 0, fmt.Errorf("%w: %s of %d bytes", errs.ErrRangeInvalid, r, size)
	}
	return first, last - first + 1, nil
}

// ContentRange is the Content-Range header of an answer: which bytes, both ends inclusive, of how many. Total is -1
// when the sender does not know it. First is -1 in a 416, which says the total only.
type ContentRange struct {
	First, Last, Total int64
}

// ParseContentRange reads the header of a 206 or 416. Its error is errs.ErrRangeInvalid.
func ParseContentRange(header string) (ContentRange, error) {
	bad := fmt.Errorf("%w: Content-Range %.64q", errs.ErrRangeInvalid, header)
	spec, ok := strings.CutPrefix(strings.TrimSpace(header), "bytes ")
	part, total, slash := strings.Cut(strings.TrimSpace(spec), "/")
	if !ok || !slash {
		return ContentRange{}, bad
	}
	c := ContentRange{First: -1, Last: -1, Total: -1}
	good := true
	if total != "*" {
		c.Total, good = number(total, good)
	}
	if part != "*" {
		first, last, dash := strings.Cut(part, "-")
		c.First, good = number(first, good && dash)
		c.Last, good = number(last, good)
		good = good && c.First <= c.Last && (c.Total < 0 || c.Last < c.Total)
	} else if c.Total < 0 {
		good = false
	}
	if !good {
		return ContentRange{}, bad
	}
	return c, nil
}

// String prints the header.
func (c ContentRange) String() string {
	part, total := "*", "*"
	if c.First >= 0 {
		part = span(c.First, c.Last)
	}
	if c.Total >= 0 {
		total = strconv.FormatInt(c.Total, 10)
	}
	return "bytes " + part + "/" + total
}

// FormatChunkRange prints the Content-Range of a chunk, which has a form of its own: no unit and no total. length
// should be positive: the specification's form cannot say that a chunk is empty.
func FormatChunkRange(offset, length int64) string { return span(offset, offset+length-1) }

// ParseChunkRange reads the Content-Range of a chunk. The range that ends one before it begins is an empty chunk, as
// cue-labs' ociclient says it when it closes an upload ("1000000-999999"). Its error is errs.ErrUploadInvalid.
func ParseChunkRange(header string) (offset, length int64, err error) {
	first, last, dash := strings.Cut(header, "-")
	offset, good := number(first, dash)
	end, good := number(last, good)
	if !good || end < offset-1 || end == math.MaxInt64 {
		return 0, 0, fmt.Errorf("%w: Content-Range %.64q is not FIRST-LAST", errs.ErrUploadInvalid, header)
	}
	return offset, end - offset + 1, nil
}

// FormatUploadRange prints the Range header of an upload's status: what has been received. Nothing and one byte look
// alike, as the specification has no form for nothing.
func FormatUploadRange(received int64) string { return span(0, max(received-1, 0)) }

// ParseUploadRange reads how many bytes a server has received. "0-0" is nothing or one byte; it gives 0 and exact is
// false. No header at all is nothing, exactly. Its error is errs.ErrRangeInvalid.
func ParseUploadRange(header string) (received int64, exact bool, err error) {
	if header == "" {
		return 0, true, nil
	}
	first, last, dash := strings.Cut(strings.TrimPrefix(header, "bytes="), "-") // some servers add the unit
	start, good := number(first, dash)
	end, good := number(last, good)
	if !good || start != 0 || end == math.MaxInt64 {
		return 0, false, fmt.Errorf("%w: upload Range %.64q", errs.ErrRangeInvalid, header)
	}
	if end == 0 {
		return 0, false, nil
	}
	return end + 1, true, nil
}

// number reads digits only: no sign, no space. good is handed through, so that calls can be chained.
func number(s string, good bool) (int64, bool) {
	if !good || s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func span(first, last int64) string {
	return strconv.FormatInt(first, 10) + "-" + strconv.FormatInt(last, 10)
}
