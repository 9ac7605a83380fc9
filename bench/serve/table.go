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

// line is one row: the medians of each server that can do it, by name.
type line struct {
	row row
	got map[string]load
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
	for _, s := range t.servers {
		if s.static && r.writes {
			continue
		}
		g, err := gather(ctx, s.addr, r.clients)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", r.name, s.name, err)
		}
		crowds[s] = g
		if err := r.check(g.conns[0], s); err != nil {
			return fmt.Errorf("%s, %s: %w", r.name, s.name, err)
		}
		if _, err := g.press(ctx, c.round/5, r.make(s)); err != nil { // to warm up
			return fmt.Errorf("%s, %s: %w", r.name, s.name, err)
		}
		able = append(able, s)
	}
	all := map[string][]load{}
	for range c.rounds {
		for _, s := range able {
			cpu := s.spent()
			l, err := crowds[s].press(ctx, c.round, r.make(s))
			if err != nil {
				return fmt.Errorf("%s, %s: %w", r.name, s.name, err)
			}
			l.cpu = time.Duration(float64(s.spent()-cpu) / (l.perSecond * l.took.Seconds()))
			all[s.name] = append(all[s.name], l)
		}
		able = append(able[1:], able[0]) // nobody always comes after the same one
	}
	got := map[string]load{}
	for name, ls := range all {
		got[name] = load{perSecond: median(ls, func(l load) float64 { return l.perSecond }), p99: time.Duration(median(ls, func(l load) float64 { return float64(l.p99) })), cpu: time.Duration(median(ls, func(l load) float64 { return float64(l.cpu) }))}
	}
	t.lines = append(t.lines, line{r, got})
	fmt.Fprintf(os.Stderr, "%s, %d clients\n", r.name, r.clients)
	return nil
}

func median(all []load, of func(load) float64) float64 {
	v := make([]float64, len(all))
	for i, l := range all {
		v[i] = of(l)
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// print writes Markdown.
func (t *table) print(w io.Writer) {
	fmt.Fprint(w, "| op/s · p99 ms · CPU µs | clients |")
	for _, s := range t.servers {
		fmt.Fprintf(w, " %s |", s.name)
	}
	fmt.Fprintf(w, " ocisync × nginx | ocisync × next registry |\n|%s\n", strings.Repeat("---|", len(t.servers)+4))
	for _, l := range t.lines {
		fmt.Fprintf(w, "| %s | %d |", l.row.name, l.row.clients)
		for _, s := range t.servers {
			fmt.Fprintf(w, " %s |", l.cell(s.name))
		}
		best := 0.0
		for name, g := range l.got {
			if name != "nginx" && name != "ocisync" {
				best = max(best, g.perSecond)
			}
		}
		fmt.Fprintf(w, " %s | %s |\n", times(l.got["ocisync"].perSecond, l.got["nginx"].perSecond), times(l.got["ocisync"].perSecond, best))
	}
	t.bounds(w)
}

func (l line) cell(name string) string {
	g, ok := l.got[name]
	if !ok {
		return "–"
	}
	if l.row.bytes > 0 {
		return fmt.Sprintf("%.0f MiB/s · %s · %.0f", g.perSecond*float64(l.row.bytes)/(1<<20), ms(g.p99), float64(g.cpu.Microseconds()))
	}
	return fmt.Sprintf("%.0f · %s · %.0f", g.perSecond, ms(g.p99), float64(g.cpu.Microseconds()))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }

func times(a, b float64) string {
	if a == 0 || b == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", a/b)
}

// bound is what must hold: ocisync does at least least times what the other does, in rows whose name begins so.
type bound struct {
	row   string
	other string
	least float64
}

var mustHold = []bound{
	{"GET manifest by tag", "olareg", 5},
	{"GET manifest by tag", "nginx", 0.6},
	{"GET manifest by digest", "nginx", 0.6},
	{"GET blob of 64 KiB", "nginx", 0.5},
	{"GET blob of 512 MiB", "nginx", 0.9},
}

// bounds says which bounds are kept, and that ocisync is first among the registries.
func (t *table) bounds(w io.Writer) {
	fmt.Fprintln(w)
	say := func(l line, other string, least float64) {
		a, b := l.got["ocisync"].perSecond, l.got[other].perSecond
		if a == 0 || b == 0 {
			return
		}
		word := "holds"
		if a < least*b {
			word = "DOES NOT HOLD"
		}
		fmt.Fprintf(w, "- %s, %d clients: %.2f × %s, at least %.1f: %s\n", l.row.name, l.row.clients, a/b, other, least, word)
	}
	for _, l := range t.lines {
		for _, b := range mustHold {
			if strings.HasPrefix(l.row.name, b.row) {
				say(l, b.other, b.least)
			}
		}
		for _, s := range t.servers {
			if s.name != "nginx" && s.name != "ocisync" && l.got["ocisync"].perSecond < l.got[s.name].perSecond {
				say(l, s.name, 1)
			}
		}
	}
}
