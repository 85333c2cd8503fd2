package campaign

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/audit"
	"mailcutover/test/cluster"
)

// Roster is what people have said in a round about whose mailbox is whose. All times are of the
// test's clock.
type Roster struct {
	Entries  []Entry
	Holdings []Holding // of each address in their order; the first as it was at the beginning
	Lists    []Activated
	Complete map[string]time.Time // domains, and since when they may have been called complete
	Armed    map[string]time.Time // agencies that don't move, and since when they are armed
}

// Entry is a mailbox that was entered in the directory.
type Entry struct {
	Address string
	Began   time.Time // from when on the directory may know it
	Ended   time.Time // from when on it does
	Listed  time.Time // when people were told that a list in force names it; zero: that was not seen

	Left    time.Time // from when on the directory may not know it any more; zero: it stays
	Retired time.Time // when people were told that the table doesn't have it any more
}

// Holding is an address that is one of a mailbox's.
type Holding struct {
	Address, Mailbox string
	Asked            time.Time // from when on it may be so
	Told             time.Time // when people were told that it is
}

// Activated is a list that people were told to be in force.
type Activated struct {
	List, Proposal string
	Asked, Told    time.Time
}

// entry returns when an address was entered, if it was not there from the beginning.
func (o *Roster) entry(address string) *Entry {
	for i := range o.Entries {
		if o.Entries[i].Address == address {
			return &o.Entries[i]
		}
	}
	return nil
}

// holders are the mailboxes that may have had an address at a time.
func (o *Roster) holders(address string, at time.Time) (all []string) {
	for _, h := range o.Holdings {
		if h.Address != address || at.Before(h.Asked) {
			continue
		}
		if !at.Before(h.Told) {
			all = nil // whoever had it before has it no more
		}
		all = append(all, h.Mailbox)
	}
	return all
}

// checkEntries wants that nobody's mail is taken before the directory knows him, nor when he is
// retired, and that all whom a list in force names get theirs.
func checkEntries(r *cluster.Record, o *Roster) (bad []string) {
	got := make(map[string]int)
	for _, a := range r.Arrived {
		e := o.entry(a.Rcpt)
		if e == nil {
			continue
		}
		got[a.Rcpt]++
		if a.At.Before(e.Began) {
			bad = append(bad, fmt.Sprintf("P3: message %d for %s at %s, %s, before anybody had entered it, at %s", a.ID, a.Rcpt, a.Platform, a.At.Format(clock), e.Began.Format(clock)))
		}
		if !e.Retired.IsZero() && a.At.After(e.Retired) {
			bad = append(bad, fmt.Sprintf("P3: message %d for %s at %s, %s, which was retired at %s", a.ID, a.Rcpt, a.Platform, a.At.Format(clock), e.Retired.Format(clock)))
		}
	}
	for i := range o.Entries {
		if e := &o.Entries[i]; !e.Listed.IsZero() && got[e.Address] == 0 {
			bad = append(bad, fmt.Sprintf("P1: %s, which a list in force names since %s, got no mail", e.Address, e.Listed.Format(clock)))
		}
	}
	return bad
}

// early counts the attempts for mailboxes that no list named yet, and that were put off.
func early(r *cluster.Record, o *Roster) (n int) {
	for i := range r.Sent {
		e := o.entry(r.Sent[i].Rcpt)
		for _, t := range r.Sent[i].Tries {
			if e != nil && t.Ended.Before(e.Listed) && strings.HasPrefix(t.Answer, "4") {
				n++
			}
		}
	}
	return n
}

// settleHoldings wants that mail for an address that goes from one mailbox to another comes to who
// has it then. What is right stands in the record as mail for the address from now on, as
// [cluster.Check] wants it: in the order in which it was taken, also across the change.
func settleHoldings(r *cluster.Record, o *Roster) (bad []string) {
	to := make(map[int]string)
	for i := range r.Sent {
		s := &r.Sent[i]
		if slices.ContainsFunc(o.Holdings, func(h Holding) bool { return h.Address == s.Rcpt }) {
			to[s.ID] = s.Rcpt
		}
	}
	for i := range r.Arrived {
		a := &r.Arrived[i]
		address, ok := to[a.ID]
		if !ok || a.Null {
			continue
		}
		if all := o.holders(address, a.At); !slices.Contains(all, a.Rcpt) {
			bad = append(bad, fmt.Sprintf("P3: message %d for %s came to %s at %s, %s, when it was an address of %v", a.ID, address, a.Rcpt, a.Platform, a.At.Format(clock), all))
			continue
		}
		a.Rcpt = address
	}
	return bad
}

// denied reports whether an attempt was told that nobody has the address, though it may have been
// so: in a domain that was complete, before the directory knew it for certain, or when it didn't any
// more.
func (o *Roster) denied(s *cluster.Sent, t *cluster.Try) bool {
	if !strings.HasPrefix(t.Answer, "550 5.1.1 ") {
		return false
	}
	_, domain, _ := strings.Cut(s.Rcpt, "@")
	since, complete := o.Complete[domain]
	e := o.entry(s.Rcpt)
	return complete && !t.Ended.Before(since) && e != nil && (!t.Began.After(e.Ended) || e.mayBeGone(t.Ended))
}

// mayBeGone reports whether the directory may not know it any more.
func (e *Entry) mayBeGone(at time.Time) bool { return !e.Left.IsZero() && !at.Before(e.Left) }

// settleDenied takes the denials that are right out of the record, and names those of addresses that
// the directory knew, or of which nothing was proven.
func settleDenied(r *cluster.Record, o *Roster) (bad []string, right int) {
	for i := range r.Sent {
		s := &r.Sent[i]
		var kept []cluster.Try
		for j := range s.Tries {
			t := &s.Tries[j]
			if o.denied(s, t) {
				right++
				continue
			}
			if e := o.entry(s.Rcpt); e != nil && strings.HasPrefix(t.Answer, "550 5.1.1 ") && t.Began.After(e.Ended) && !e.mayBeGone(t.Ended) {
				bad = append(bad, fmt.Sprintf("P5: message %d for %s was told %q by node %d, %s to %s, which the directory knew since %s", s.ID, s.Rcpt, t.Answer, s.Node, t.Began.Format(clock), t.Ended.Format(clock), e.Ended.Format(clock)))
			}
			kept = append(kept, *t)
		}
		s.Tries = kept
	}
	return bad, right
}

// checkLists wants each list that was told to be in force to stand in an audit log before that, under
// a proposal that another person had approved (P9).
func checkLists(o *Roster, all []audit.Record) (bad []string) {
	for _, l := range o.Lists {
		var person string
		var at time.Time
		for i := range all {
			if r := &all[i]; r.Proposal == l.Proposal && r.Error == "" && !r.Time.After(l.Told) && r.What != "approve-proposal" && r.Time.After(l.Asked.Add(-time.Second)) {
				person, at = r.Person, r.Time
			}
		}
		switch {
		case person == "":
			bad = append(bad, fmt.Sprintf("P9: list %s, proposed at %s and told to be in force at %s, stands in no audit log", l.List, l.Asked.Format(clock), l.Told.Format(clock)))
		case !slices.ContainsFunc(all, func(r audit.Record) bool {
			return r.Proposal == l.Proposal && r.What == "approve-proposal" && r.Error == "" && r.Person != person && !r.Time.After(at)
		}):
			bad = append(bad, fmt.Sprintf("P9: list %s came into force without another person's word", l.List))
		}
	}
	return bad
}
