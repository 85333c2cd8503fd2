// Package chart draws small charts as SVG, to stand in a page.
//
// A chart is drawn without scripts and colours of its own: its parts have classes, and the
// page's style sheet colours them for light and dark. Who can't see it has its title, and the
// table that the page shows beside it.
package chart

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"
)

// Point is a value at a time.
type Point struct {
	At    time.Time
	Value float64
}

// Line is a row of values, in order of time.
type Line struct {
	Name   string
	Points []Point
}

// Bar is one value.
type Bar struct {
	Name  string
	Note  string // shown when it is pointed at
	Value float64
}

// Chart has either lines over a time, or bars.
type Chart struct {
	Title    string
	Unit     string
	From, To time.Time // of the lines
	Lines    []Line
	Bars     []Bar
}

// Size in units of the drawing, which the page scales.
const (
	width, height       = 480, 160
	left, right         = 44, 8
	top, bottom         = 10, 22
	plotWidth           = width - left - right
	plotHeight          = height - top - bottom
	maxLines            = 6 // classes of colours
	minutesWhereShorter = 2 * time.Minute
)

// SVG returns the drawing. Values that aren't finite or are negative count as 0.
func (c *Chart) SVG() template.HTML {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="chart" viewBox="0 0 %d %d" role="img" aria-label="%s">`, width, height, template.HTMLEscapeString(c.Title))
	most := c.ceiling()
	for i := range 3 { // lines to read the height by
		y := top + float64(plotHeight)*float64(i)/2
		fmt.Fprintf(&b, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text class="tick" x="%d" y="%.1f" text-anchor="end">%s%s</text>`,
			left, y, width-right, y, left-6, y+4, number(most*float64(2-i)/2), template.HTMLEscapeString(c.Unit))
	}
	if len(c.Bars) > 0 {
		c.bars(&b, most)
	} else {
		c.lines(&b, most)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // numbers, and texts that were escaped
}

func (c *Chart) lines(b *strings.Builder, most float64) {
	span := c.To.Sub(c.From)
	if span <= 0 {
		return
	}
	for i, l := range c.Lines {
		fmt.Fprintf(b, `<polyline class="line line%d" points="`, i%maxLines)
		for _, p := range l.Points {
			x := left + float64(plotWidth)*float64(p.At.Sub(c.From))/float64(span)
			fmt.Fprintf(b, "%.1f,%.1f ", x, top+float64(plotHeight)*(1-sane(p.Value)/most))
		}
		fmt.Fprintf(b, `"><title>%s</title></polyline>`, template.HTMLEscapeString(l.Name))
	}
	layout := "15:04"
	if span < minutesWhereShorter {
		layout = "15:04:05"
	}
	fmt.Fprintf(b, `<text class="tick" x="%d" y="%d">%s</text><text class="tick" x="%d" y="%d" text-anchor="end">%s</text>`,
		left, height-6, c.From.Format(layout), width-right, height-6, c.To.Format(layout))
}

func (c *Chart) bars(b *strings.Builder, most float64) {
	step := float64(plotWidth) / float64(len(c.Bars))
	for i, one := range c.Bars {
		h := float64(plotHeight) * sane(one.Value) / most
		fmt.Fprintf(b, `<rect class="bar" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s</title></rect>`,
			left+step*(float64(i)+0.15), top+float64(plotHeight)-h, min(step*0.7, 40), h,
			template.HTMLEscapeString(fmt.Sprintf("%s %s: %s%s", one.Name, one.Note, number(one.Value), c.Unit)))
	}
}

// ceiling returns a round number that no value is above.
func (c *Chart) ceiling() float64 {
	most := 0.0
	for _, l := range c.Lines {
		for _, p := range l.Points {
			most = max(most, sane(p.Value))
		}
	}
	for _, one := range c.Bars {
		most = max(most, sane(one.Value))
	}
	if most == 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(most)))
	for _, step := range []float64{1, 2, 5, 10} {
		if most <= unit*step {
			return unit * step
		}
	}
	return most
}

func sane(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return 0
	}
	return v
}

func number(v float64) string {
	switch {
	case v >= 10_000:
		return fmt.Sprintf("%.0fk", v/1000)
	case v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case v < 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.1f", v)
	}
}
