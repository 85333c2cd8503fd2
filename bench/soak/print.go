package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"mailcutover/test/cluster"
)

// print writes what came of the load.
func (w *work) print(rows []row, took time.Duration, v *cluster.Verdict) error {
	fmt.Fprintf(w.o.out, "\n%s of load on %d nodes: %d calls of the API, %d reads of /metrics; longest closed %.3f s\n",
		took.Round(time.Second), len(w.c.Nodes), w.calls.Load(), w.scrapes.Load(), w.longest)
	fmt.Fprintf(w.o.out, "with the warm-up: %s\n\n", v)
	t := tabwriter.NewWriter(w.o.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  what\tof\tunit\tbegin\tpeak\tend\tallowed\tback")
	for i := range rows {
		r := &rows[i]
		allowed, back := "-", "-"
		if r.bound {
			allowed, back = fmt.Sprintf("%.4g", r.allowed()), "yes"
			if r.left() {
				back = "NO"
			}
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%.4g\t%.4g\t%.4g\t%s\t%s\n", r.name, r.process, r.unit, r.begin, r.peak, r.end, allowed, back)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, text := range append(w.wrong(), v.Bad()...) {
		fmt.Fprintf(w.o.out, "  WRONG: %s\n", text)
	}
	return nil
}
