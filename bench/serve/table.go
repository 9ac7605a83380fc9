package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// table is what was measured.
type table struct {
	servers []*server
	lines   []line
}

// line is one row: what each server that can do it did in each round.
type line struct {
	row row
	got map[string][]load
}

// measure gives every server its turns.
func (t *table) measure(ctx context.Context, c config, r row) (err error) {
	var able []*server
	crowds := map[*server]*crowd{}
	defer func() {
		for _, one := range crowds {
			one.close()
		}
	}()
	fail := func(s *server, err error) error { return fmt.Errorf("%s, %s: %w", r.name, s.name, err) }
	for _, s := range t.servers {
		if s.static && r.writes {
			continue
		}
		g, err := gather(ctx, s, r.clients, r.make)
		if err != nil {
			return fail(s, err)
		}
		crowds[s] = g
		if err := r.check(g.conns[0]); err != nil {
			return fail(s, err)
		}
		if _, err := g.press(ctx, c.round/5); err != nil { // to warm up
			return fail(s, err)
		}
		able = append(able, s)
	}
	l := line{r, map[string][]load{}}
	for range c.rounds {
		for _, s := range able {
			server, clients := s.spent(), spentHere()
			got, err := crowds[s].press(ctx, c.round)
			if err != nil {
				return fail(s, err)
			}
			got.cpu, got.clients = got.each(s.spent()-server), got.each(spentHere()-clients)
			l.got[s.name] = append(l.got[s.name], got)
		}
		able = append(able[1:], able[0]) // nobody always comes after the same one
	}
	t.lines = append(t.lines, l)
	fmt.Fprintf(os.Stderr, "%s, %d clients\n", r.name, r.clients)
	return nil
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// of is the median of a server's rounds.
func (l line) of(name string, get func(load) float64) float64 {
	var v []float64
	for _, one := range l.got[name] {
		v = append(v, get(one))
	}
	return median(v)
}

func perSecond(l load) float64 { return l.perSecond }

// cpuPerSecond is how much would be done in a second of processor time, of the server and the clients together: where
// nothing else is waited for, and nobody else is there, it is as good as perSecond.
func cpuPerSecond(l load) float64 {
	if l.cpu <= 0 {
		return 0
	}
	return 1 / (l.cpu + l.clients).Seconds()
}

// times is how many times as much a does as b: the median of what it is in each round. It is 0 when one of them did nothing.
func (l line) times(a, b string, get func(load) float64) float64 {
	var v []float64
	for i := range min(len(l.got[a]), len(l.got[b])) {
		if of := get(l.got[b][i]); of > 0 {
			v = append(v, get(l.got[a][i])/of)
		}
	}
	return median(v)
}

// ours and floor are the columns that are compared.
const (
	ours     = "ocisync"
	oursAuth = "ocisync+auth+log"
	floor    = "nginx"
)

// registries are the servers that ours is compared with.
func (t *table) registries() []string {
	var all []string
	for _, s := range t.servers {
		if s.name != ours && s.name != oursAuth && s.name != floor {
			all = append(all, s.name)
		}
	}
	return all
}

// print writes Markdown.
func (t *table) print(w io.Writer) {
	fmt.Fprint(w, "| op/s · p99 ms · CPU µs | clients |")
	for _, s := range t.servers {
		fmt.Fprintf(w, " %s |", s.name)
	}
	fmt.Fprintf(w, " × nginx | × next registry |\n|%s\n", strings.Repeat("---|", len(t.servers)+4))
	for _, l := range t.lines {
		fmt.Fprintf(w, "| %s | %d |", l.row.name, l.row.clients)
		for _, s := range t.servers {
			fmt.Fprintf(w, " %s |", l.cell(s.name))
		}
		next := 0.0
		for _, name := range t.registries() {
			if v := l.times(ours, name, perSecond); v > 0 && (next == 0 || v < next) {
				next = v
			}
		}
		fmt.Fprintf(w, " %s | %s |\n", ratio(l.times(ours, floor, perSecond)), ratio(next))
	}
	t.bounds(w)
}

func (l line) cell(name string) string {
	if len(l.got[name]) == 0 {
		return "–"
	}
	rate := fmt.Sprintf("%.0f", l.of(name, perSecond))
	if l.row.bytes > 0 {
		rate = fmt.Sprintf("%.0f MiB/s", l.of(name, perSecond)*float64(l.row.bytes)/(1<<20))
	}
	late := l.of(name, func(l load) float64 { return float64(l.p99) / float64(time.Millisecond) })
	cpu := l.of(name, func(l load) float64 { return float64(l.cpu) / float64(time.Microsecond) })
	return fmt.Sprintf("%s · %.1f · %.0f", rate, late, cpu)
}

func ratio(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", v)
}

// bound is what must hold: us does at least least times what other does, in rows whose name begins so.
type bound struct {
	row, us, other string
	least          float64
}

var mustHold = []bound{
	{"GET manifest by tag", ours, "olareg", 5},
	{"GET manifest", ours, floor, 0.6},
	{"GET manifest", oursAuth, floor, 0.5},
	{"GET blob of 64 KiB", ours, floor, 0.5},
	{"GET blob of 512 MiB", ours, floor, 0.9},
	{"", ours, "olareg", 1},
	{"", ours, "distribution", 1},
	{"", ours, "zot", 1},
}

// bounds says which of them are kept. Those that are, by a factor, are not worth a line each.
func (t *table) bounds(w io.Writer) {
	fmt.Fprintf(w, "\nMust hold, by op/s (by processor time, of server and clients):\n\n")
	for _, b := range mustHold {
		for _, l := range t.lines {
			got := l.times(b.us, b.other, perSecond)
			if !strings.HasPrefix(l.row.name, b.row) || got == 0 || b.row == "" && got >= 1.5 {
				continue
			}
			word := "holds"
			if got < b.least {
				word = "DOES NOT HOLD"
			}
			fmt.Fprintf(w, "- %s, %d clients: %s %.2f (%s) × %s, at least %.1f: %s\n", l.row.name, l.row.clients, b.us, got, ratio(l.times(b.us, b.other, cpuPerSecond)), b.other, b.least, word)
		}
	}
}
