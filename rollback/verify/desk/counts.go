package desk

import (
	"time"

	"mailcutover/rollback/verify"
	"mailcutover/routing"
)

// Counts are figures of comparisons, for metrics.
type Counts struct {
	Running int                 // agencies that are being compared, by any node
	Open    map[verify.Kind]int // findings that somebody has still to see to; every kind is there
	Results []Age               // of the agencies whose mailboxes can be read, by id

	// Of this node, since its start.
	Compared, Unreadable uint64 // mailboxes
	Done, Failed         uint64 // runs that came to their end, and others
}

// Age is how old an agency's last comparison is.
type Age struct {
	Agency routing.AgencyID
	Age    time.Duration // -1: it was never compared
}

// Counts returns how comparisons stand in this node's copy of the table. What it can't read of a
// record is left out: Open says that it can't.
func (d *Desk) Counts() Counts {
	s, set, now := d.o.Replica.State(), d.o.Settings(), d.o.Now()
	c := Counts{
		Open:     make(map[verify.Kind]int),
		Compared: d.compared.Load(), Unreadable: d.unreadable.Load(), Done: d.runs.Load(), Failed: d.failures.Load(),
	}
	for _, k := range verify.Kinds() {
		c.Open[k] = 0
	}
	for _, a := range s.Agencies() {
		r, err := RecordOf(s, a.ID)
		if err != nil {
			continue
		}
		if r.Running != nil {
			c.Running++
		}
		if set.Mailboxes(a.Source) != nil && set.Mailboxes(a.Target) != nil {
			age := time.Duration(-1)
			if r.Last != nil {
				age = max(0, now.Sub(r.Last.Ended))
			}
			c.Results = append(c.Results, Age{a.ID, age})
		}
		found, err := Findings(s, a.ID)
		if err != nil {
			continue
		}
		for i := range found {
			if f := &found[i]; f.State.Open() {
				c.Open[f.Kind]++
			}
		}
	}
	return c
}
