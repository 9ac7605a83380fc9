package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ocisync/ocisync/internal/yamlfile"
)

// size prints a number of bytes in decimal units: 999 B, 1.2 kB, 45.2 MB.
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), 0
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	for v >= 999.95 && unit < len(units)-1 {
		v /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f %s", v, units[unit])
}

// elapsed prints a duration for people: 0.3 s, 12.5 s, 4m05s, 3h12m.
func elapsed(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	default:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
}

// count prints a number with its noun: 1 blob, 12 blobs.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "y") {
		noun = strings.TrimSuffix(noun, "y") + "ie"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// byteSize is a number of bytes that people write: 4MiB, 1.5GB, 4096.
type byteSize int64

// UnmarshalText reads one.
func (b *byteSize) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	number := strings.TrimRight(s, "KMGTiBk")
	factor, known := map[string]float64{
		"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	}[strings.TrimSpace(s[len(number):])]
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !known || !(n >= 0 && n*factor < 1<<62) {
		return yamlfile.At("", fmt.Errorf("%q is no number of bytes", s), "as in 4MiB, 1.5GB or 4096")
	}
	*b = byteSize(n * factor)
	return nil
}

// String prints what UnmarshalText reads.
func (b byteSize) String() string {
	for _, unit := range []struct {
		name string
		n    byteSize
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if b >= unit.n && b%unit.n == 0 {
			return fmt.Sprintf("%d%s", b/unit.n, unit.name)
		}
	}
	return fmt.Sprintf("%d", int64(b))
}

// Set makes byteSize a flag's value.
func (b *byteSize) Set(s string) error { return b.UnmarshalText([]byte(s)) }

// Type is what help calls such a value.
func (b *byteSize) Type() string { return "SIZE" }
