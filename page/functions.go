package page

import (
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
	"time"

	"mailcutover/admin"
)

// functions are what the templates call.
var functions = template.FuncMap{
	"time":     clock,
	"ago":      ago,
	"seconds":  seconds,
	"short":    short,
	"join":     strings.Join,
	"state":    stateOf,
	"newkey":   newKey,
	"bytes":    bytesText,
	"subject":  subjectOf,
	"zoned":    zoned,
	"moved":    moved,
	"next":     next,
	"duration": func(from *time.Time) string { return seconds(time.Since(*from).Seconds()) },
}

// clock returns a time as people read it, in UTC: nodes and people may be in several zones.
func clock(at any) string {
	switch t := at.(type) {
	case time.Time:
		if !t.IsZero() {
			return t.UTC().Format("2006-01-02 15:04:05 UTC")
		}
	case *time.Time:
		if t != nil {
			return clock(*t)
		}
	}
	return "–"
}

// zoned returns a time as the clocks of a zone show it.
func zoned(at *time.Time, zone string) string {
	if at == nil || at.IsZero() {
		return "–"
	}
	place, err := time.LoadLocation(zone)
	if err != nil {
		return clock(at)
	}
	return at.In(place).Format("2006-01-02 15:04 MST")
}

// moved returns how many agencies of a wave are on their target by it.
func moved(w admin.Wave) (n int) {
	for _, a := range w.Agencies {
		if a.State == "done" {
			n++
		}
	}
	return n
}

// next returns the agency of a wave that comes next; empty: none waits.
func next(w admin.Wave) string {
	for _, a := range w.Agencies {
		if a.State == "waiting" {
			return a.Agency
		}
	}
	return ""
}

// ago returns how long ago a time was, roughly; it must not change each second, or the page
// would.
func ago(l Language, at time.Time) string {
	if at.IsZero() {
		return "–"
	}
	switch d := time.Since(at); {
	case d < time.Minute:
		return l.T("just now")
	case d < time.Hour:
		return l.T("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return l.T("%d h ago", int(d.Hours()))
	default:
		return l.T("%d days ago", int(d.Hours()/24))
	}
}

func seconds(s float64) string {
	switch {
	case s < 0.1:
		return fmt.Sprintf("%.0f ms", s*1000)
	case s < 60:
		return fmt.Sprintf("%.1f s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %02d s", int(s)/60, int(s)%60)
	default:
		return fmt.Sprintf("%d h %02d min", int(s)/3600, int(s)/60%60)
	}
}

// short returns the beginning of a digest or id.
func short(s string) string { return s[:min(len(s), 8)] }

func bytesText(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	default:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
