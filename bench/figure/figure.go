// Package figure holds measured figures and prints them, as a table for people or as JSON
// for programs.
//
// It promises that a figure is printed with its runs' median, least and greatest value,
// and that what it is held to stands beside it. It refuses nothing: a figure without runs
// prints as a dash. It can't fail but by its writer. Its callers are the programs in
// bench, each from one goroutine.
package figure

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Figure is one measured thing.
type Figure struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Runs   int     `json:"runs"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`

	// Ratio is that of mailcutover to this figure in the same round, median of the rounds,
	// or that of this figure to its bar. 0: neither.
	Ratio float64 `json:"ratio,omitempty"`

	Bar     string `json:"bar,omitempty"`     // what is to be reached, in words; empty: nothing
	Reached *bool  `json:"reached,omitempty"` // nil if there is no bar
}

// New returns the figure of these runs.
func New(name, unit string, runs ...float64) Figure {
	f := Figure{Name: name, Unit: unit, Runs: len(runs)}
	if len(runs) > 0 {
		f.Median, f.Min, f.Max = Median(runs), slices.Min(runs), slices.Max(runs)
	}
	return f
}

// AtMost holds the figure's median to a bar.
func (f Figure) AtMost(bar float64) Figure {
	reached := f.Runs > 0 && f.Median <= bar
	f.Bar, f.Reached = strings.TrimSpace("at most "+number(bar)+" "+f.Unit), &reached
	if bar > 0 {
		f.Ratio = f.Median / bar
	}
	return f
}

// EachAtMost holds the greatest value to a bar.
func (f Figure) EachAtMost(bar float64) Figure {
	reached := f.Runs > 0 && f.Max <= bar
	f.Bar, f.Reached = strings.TrimSpace("each at most "+number(bar)+" "+f.Unit), &reached
	return f
}

// EachAtLeast holds the least value to a bar.
func (f Figure) EachAtLeast(bar float64) Figure {
	reached := f.Runs > 0 && f.Min >= bar
	f.Bar, f.Reached = strings.TrimSpace("each at least "+number(bar)+" "+f.Unit), &reached
	return f
}

// Against says how mailcutover compares to this figure, round by round, without a bar.
func (f Figure) Against(ratios []float64) Figure {
	f.Ratio = Median(ratios)
	return f
}

// RatioAtLeast is Against with the least ratio that is to be reached.
func (f Figure) RatioAtLeast(bar float64, ratios []float64) Figure {
	f = f.Against(ratios)
	reached := f.Ratio >= bar
	f.Bar, f.Reached = "ratio at least "+number(bar), &reached
	return f
}

// RatioAtMost is Against with the greatest ratio that is allowed.
func (f Figure) RatioAtMost(bar float64, ratios []float64) Figure {
	f = f.Against(ratios)
	reached := len(ratios) > 0 && f.Ratio <= bar
	f.Bar, f.Reached = "ratio at most "+number(bar), &reached
	return f
}

// Missed reports whether the figure has a bar and didn't reach it.
func (f Figure) Missed() bool { return f.Reached != nil && !*f.Reached }

// Median returns the middle value, that of the two middle ones which is less; 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}

// Part is figures that belong together.
type Part struct {
	Name    string   `json:"name"`
	Notes   []string `json:"notes,omitempty"`
	Seconds float64  `json:"seconds,omitempty"` // that it took to measure
	Figures []Figure `json:"figures"`
}

// Print writes the part as a table.
func (p *Part) Print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s\n", p.Name)
	for _, note := range p.Notes {
		fmt.Fprintf(w, "  %s\n", note)
	}
	t := newTable(w)
	for i := range p.Figures {
		t.row(&p.Figures[i])
	}
	return t.Flush()
}

// PrintCompared writes one table of all figures that have a ratio or a bar, of all parts, and
// how many bars were reached.
func PrintCompared(w io.Writer, parts []Part) error {
	bars, reached := 0, 0
	t := newTable(w)
	for i := range parts {
		p := &parts[i]
		fmt.Fprintf(t, "  %s\t\t\t\t\t\t\t\t\n", strings.ToUpper(p.Name))
		for k := range p.Figures {
			f := &p.Figures[k]
			if f.Reached != nil {
				bars++
				if *f.Reached {
					reached++
				}
			}
			if f.Reached != nil || f.Ratio > 0 {
				t.row(f)
			}
		}
	}
	fmt.Fprintf(w, "\nAll that is compared: %d of %d bars are reached\n", reached, bars)
	return t.Flush()
}

// table writes figures in columns.
type table struct{ *tabwriter.Writer }

// newTable begins a table; nothing is written before its Flush.
func newTable(w io.Writer) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t, "  name\tunit\truns\tmedian\tmin\tmax\tratio\tbar\treached")
	return t
}

func (t table) row(f *Figure) {
	ratio, bar, reached := "-", "-", "-"
	if f.Ratio > 0 {
		ratio = strconv.FormatFloat(f.Ratio, 'f', 2, 64)
	}
	if f.Reached != nil {
		bar, reached = f.Bar, "yes"
		if !*f.Reached {
			reached = "NO"
		}
	}
	fmt.Fprintf(t, "  %s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Name, f.Unit, f.Runs, number(f.Median), number(f.Min), number(f.Max), ratio, bar, reached)
}

// PrintJSON writes v, indented.
func PrintJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// number prints three digits or more.
func number(v float64) string {
	switch {
	case v == float64(int64(v)) || v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10 || v <= -10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
