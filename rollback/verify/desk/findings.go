package desk

import (
	"cmp"
	"slices"
	"time"

	"mailcutover/rollback/verify"
	"mailcutover/routing"
)

// looked is what a run says about single findings.
type looked struct {
	run      string
	at       time.Time
	findings []verify.Finding
	// gone reports whether a run that would have found this finding again ended without it.
	gone func(*Tracked) bool
}

// merge brings findings up to date with a run. fresh are those of kinds that alarm which
// weren't open before.
func merge(was []Tracked, l *looked) (now []Tracked, fresh int) {
	known := make(map[string]int, len(was))
	now = slices.Clone(was)
	for i := range now {
		known[now[i].ID] = i
	}
	seen := make(map[string]bool, len(l.findings))
	for i := range l.findings {
		f := &l.findings[i]
		seen[f.ID] = true
		at, ok := known[f.ID]
		if !ok {
			now = append(now, Tracked{Finding: *f, State: Found, First: l.at, Seen: l.at, Run: l.run})
			if f.Kind.Alarms() {
				fresh++
			}
			continue
		}
		t := &now[at]
		grown := f.Messages > t.Messages+t.Messages/2+verifySlack || f.Kind.Alarms() && !t.Kind.Alarms()
		t.Finding, t.Seen, t.Run = *f, l.at, l.run
		switch t.State {
		case Dismissed:
			if grown { // more than what was dismissed
				t.State = Found
				fresh++
			}
		case Removed, Confirmed:
			t.State = Found
			t.Again++
			if f.Kind.Alarms() {
				fresh++
			}
		}
	}
	for i := range now {
		if t := &now[i]; !seen[t.ID] && t.State.Open() && l.gone(t) {
			t.State, t.Run, t.Time = Confirmed, l.run, l.at
		}
	}
	sortFindings(now)
	return now, fresh
}

// verifySlack is by how many messages a finding may grow without being another one.
const verifySlack = 5

// sortFindings puts what is open first, then what is worst.
func sortFindings(all []Tracked) {
	order := func(t *Tracked) int {
		switch {
		case !t.State.Open():
			return 2
		case !t.Kind.Alarms():
			return 1
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b Tracked) int {
		return cmp.Or(cmp.Compare(order(&a), order(&b)), cmp.Compare(b.Sure, a.Sure), cmp.Compare(a.Address, b.Address), cmp.Compare(a.ID, b.ID))
	})
}

// Tally counts findings that are open.
type Tally struct {
	Crossed  int `json:"crossed"`  // of kind crossed or foreign
	Clash    int `json:"clash"`    // UIDs that clash
	Possible int `json:"possible"` // that may be nothing
	Missing  int `json:"missing"`  // mailboxes of which much is missing
	Removed  int `json:"removed"`  // of all of these, said to be removed and not looked at again
}

// Alarms returns how many are a reason for an alarm.
func (t *Tally) Alarms() int { return t.Crossed + t.Clash }

// Open returns how many are open.
func (t *Tally) Open() int { return t.Crossed + t.Clash + t.Possible + t.Missing }

// Count counts the open ones.
func Count(all []Tracked) (t Tally) {
	for i := range all {
		f := &all[i]
		if !f.State.Open() {
			continue
		}
		if f.State == Removed {
			t.Removed++
		}
		switch f.Kind {
		case verify.Crossed, verify.Foreign:
			t.Crossed++
		case verify.Clash:
			t.Clash++
		case verify.Missing:
			t.Missing++
		default:
			t.Possible++
		}
	}
	return t
}

// again returns the mailboxes of findings that are said to be removed, and their owners.
func again(all []Tracked) (only, owners []routing.MailboxID) {
	for i := range all {
		if t := &all[i]; t.State == Removed {
			only = append(only, t.Mailbox)
			if !t.Owner.IsZero() {
				owners = append(owners, t.Owner)
			}
		}
	}
	return only, owners
}
