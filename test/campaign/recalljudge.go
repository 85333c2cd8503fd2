package campaign

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/admin"
	"mailcutover/mail"
	"mailcutover/test/cluster"
)

// Turn is an agency's way to the target and back. All times are of the test's clock, and so are those
// of the platforms.
type Turn struct {
	Agency string
	Left   time.Time // when the cutover was asked for
	There  time.Time // when it was told as done
	Back   time.Time // when the rollback was
	Dead   bool      // the target was called lost then: retained copies were delivered
	Acts   []Act     // of users: on the source before Left and after Back, on the target in between

	// Source and Target are the mailboxes before the rollback was asked for: the source as it stays
	// until then, the target as it is at least.
	Source, Target Boxes
	Runs           []*RunSeen
}

// RunSeen is a recall, and what was in the mailboxes when it was told as done. No user is at work
// then; mail still comes to the source.
type RunSeen struct {
	ID             string
	From, To       time.Time
	State          string
	Lost           string // node that was killed for good meanwhile; empty: none
	Last           admin.Recall
	Source, Target Boxes
}

// Open reports whether something is named as not brought that another run may bring.
func (r *RunSeen) Open() bool {
	return r.State != "done" || r.Last.Totals.Aside+r.Last.Totals.NotBack > 0
}

// may reports whether the run says that what users had deleted may come back once.
func (r *RunSeen) may() bool {
	return slices.ContainsFunc(r.Last.Nodes, func(n admin.RecallNode) bool {
		return n.State == "handed over" || slices.ContainsFunc(n.Notes, func(note string) bool { return strings.Contains(note, "may come back once") })
	})
}

// names reports whether the run names a message, as it lies on the losing platform, as not brought.
func (r *RunSeen) names(mailbox string, c *Copy) bool {
	for _, n := range r.Last.Nodes {
		for _, b := range n.Boxes {
			if b.Address == mailbox && (b.Aside || !b.Done || slices.ContainsFunc(b.NotBack, func(m admin.RecallNotBack) bool { return m.Folder == c.Folder && m.UID == c.UID })) {
				return true
			}
		}
	}
	return false
}

// named reports whether one of the runs before k names a message as not brought, as one that its user
// deleted before it was found. The next run tries it again.
func (t *Turn) named(k int, mailbox string, key Key) bool {
	return slices.ContainsFunc(t.Runs[:k], func(r *RunSeen) bool {
		c := r.Target.find(mailbox, key)
		return c != nil && r.names(mailbox, c)
	})
}

// RecallHistory is a round with recalls.
type RecallHistory struct {
	Turns  []*Turn
	End    map[string]Boxes // by platform, when all was delivered
	Record *cluster.Record
}

// RecallFindings are what the judge of a round with recalls has to say.
type RecallFindings struct {
	Bad      []string // what must not be, the promise first
	Messages int      // that were answered 250
	Turns    int      // there and back
	Runs     int
	Brought  int // copies that were on the target alone before a rollback, and are on the source after it
	Deleted  int // that users deleted for certain, and that had to stay so
	Returned int // deleted on the source while a run was under way and something failed, and back again: once, as is said
	Named    int // not brought, and named
	Copies   int // that stand twice on the source, and are named as in doubt
	Switches int // done
}

// String is a line.
func (f *RecallFindings) String() string {
	return fmt.Sprintf("%d messages answered 250; %d turns, %d runs; %d brought; %d deleted and gone, %d back once; %d named as not back; %d named copies; %d switches",
		f.Messages, f.Turns, f.Runs, f.Brought, f.Deleted, f.Returned, f.Named, f.Copies, f.Switches)
}

// count adds what a round had.
func (f *RecallFindings) count(t *Tally) {
	for what, n := range map[string]int{
		"messages answered 250": f.Messages, "turns": f.Turns, "runs": f.Runs, "messages brought": f.Brought, "deleted by users, and gone": f.Deleted,
		"deleted while something failed, and back once": f.Returned, "messages named as not back": f.Named, "copies named as in doubt": f.Copies,
	} {
		t.Add("recalled", what, n)
	}
	t.Add("switch", "done", f.Switches)
}

// recallJudge judges one history.
type recallJudge struct {
	h       *RecallHistory
	f       *RecallFindings
	owner   map[int]string // mailbox of each message that was sent
	doubts  map[mail.TransactionID]int
	resent  map[[6]byte]int // the same of retained copies, by what their ids have of the first transaction's
	unsure  map[spot]int    // copies that a mail program may have left behind
	touched map[spot]bool   // by which users may have deleted
	brought map[spot]bool   // counted
	earlier []*Turn         // of the agency whose turn is judged
}

// spot is a message in a mailbox.
type spot struct {
	Mailbox string
	Key     Key
}

// JudgeRecalls goes by what was in the mailboxes and what was answered, and wants (P8) that what came
// to the target is on the source when a recall is done, in its folder and with its flags, once; that
// what a user deleted stays deleted; that nothing else is lost or changed on either side; that each
// message that was answered 250 is in its mailbox on the source in the end (P1), and in nobody
// else's (P3).
func JudgeRecalls(h *RecallHistory) *RecallFindings {
	j := &recallJudge{h: h, f: &RecallFindings{}, owner: make(map[int]string), doubts: make(map[mail.TransactionID]int), resent: make(map[[6]byte]int), unsure: make(map[spot]int), touched: make(map[spot]bool), brought: make(map[spot]bool)}
	for i := range h.Record.Sent {
		j.owner[h.Record.Sent[i].ID] = h.Record.Sent[i].Rcpt
	}
	for tx, n := range h.Record.Doubts {
		j.doubts[tx] = n
		if b, err := tx.Bytes(); err == nil && b[6]>>4 == 8 {
			j.resent[[6]byte(b[:6])] += n
		}
	}
	for _, t := range h.Turns {
		for i := range t.Acts {
			switch a := &t.Acts[i]; {
			case a.What == actDelete:
				j.touched[spot{a.Mailbox, a.Key}] = true
			case !a.Sure && (a.What == actMove || a.What == actMake):
				j.unsure[spot{a.Mailbox, a.Key}]++
			}
			if a := &t.Acts[i]; a.What == actMake {
				j.owner[a.Key.ID] = a.Mailbox
			}
		}
	}
	for i, t := range h.Turns {
		j.f.Turns++
		j.earlier = slices.DeleteFunc(slices.Clone(h.Turns[:i]), func(o *Turn) bool { return o.Agency != t.Agency })
		for k, r := range t.Runs {
			j.f.Runs++
			if r.State == "done" {
				j.run(t, k, len(j.earlier) > 0)
			}
		}
	}
	j.end()
	for _, s := range h.Record.Switches {
		if s.Done {
			j.f.Switches++
		}
	}
	return j.f
}

func (j *recallJudge) bad(format string, args ...any) {
	j.f.Bad = append(j.f.Bad, fmt.Sprintf(format, args...))
}

// count returns how often a mailbox has a message.
func (b Boxes) count(mailbox string, k Key) (n int) {
	for i := range b[mailbox] {
		if b[mailbox][i].Key == k {
			n++
		}
	}
	return n
}

// find returns a copy of a message, nil if there is none.
func (b Boxes) find(mailbox string, k Key) *Copy {
	for i := range b[mailbox] {
		if b[mailbox][i].Key == k {
			return &b[mailbox][i]
		}
	}
	return nil
}

// run judges the mailboxes at the end of a turn's run k. again: the agency has been there before.
func (j *recallJudge) run(t *Turn, k int, again bool) {
	r := t.Runs[k]
	j.back(t, r)
	j.stays(t, r)
	j.once(r.Source, "after run "+r.ID)
	if !t.Dead { // copies lie where they were delivered to
		j.asLeft(t, r)
	}
	j.gone(t, k, again)
	if !again {
		j.numbers(t, r)
	}
}

// back wants all that the target had to be on the source.
func (j *recallJudge) back(t *Turn, r *RunSeen) {
	for mailbox, all := range t.Target {
		for i := range all {
			c := &all[i]
			at := spot{mailbox, c.Key}
			switch {
			case r.Source.find(mailbox, c.Key) != nil:
				if t.Source.find(mailbox, c.Key) == nil && !j.brought[at] {
					j.brought[at] = true
					j.f.Brought++
				}
			case j.touched[at]: // its user doesn't want it
			case r.names(mailbox, c):
				j.f.Named++
			default:
				j.bad("P8: message %d (%s) lay in %s of %s on the target before the rollback of %s, and isn't on the source after run %s, which doesn't name it", c.ID, c.Transaction, c.Folder, mailbox, t.Back.Format(clock), r.ID)
			}
		}
	}
}

// stays wants that a run takes nothing away on either side.
func (j *recallJudge) stays(t *Turn, r *RunSeen) {
	for _, side := range []struct {
		name          string
		before, after Boxes
	}{{"source", t.Source, r.Source}, {"target", t.Target, r.Target}} {
		for mailbox, all := range side.before {
			for i := range all {
				if k := all[i].Key; side.after.find(mailbox, k) == nil && !(side.name == "source" && j.touched[spot{mailbox, k}]) {
					j.bad("P8: message %d (%s) of %s was on the %s before the rollback of %s, and isn't any more after run %s", k.ID, k.Transaction, mailbox, side.name, t.Back.Format(clock), r.ID)
				}
			}
		}
	}
}

// once wants that no mailbox has a message twice without anything that says why, nor anybody else's.
func (j *recallJudge) once(boxes Boxes, when string) {
	for mailbox, all := range boxes {
		seen := make(map[Key]int)
		for i := range all {
			seen[all[i].Key]++
			if owner := j.owner[all[i].ID]; owner != mailbox {
				j.bad("P3: %s has message %d of %q in %s, %s", mailbox, all[i].ID, owner, all[i].Folder, when)
			}
		}
		for k, n := range seen {
			switch extra := n - 1; {
			case extra > j.inDoubt(k.Transaction)+j.unsure[spot{mailbox, k}] && !j.unsynced(boxes, mailbox, k):
				j.bad("P8: %s has message %d (%s) %d times, %s; in doubt are %d", mailbox, k.ID, k.Transaction, n, when, j.inDoubt(k.Transaction))
			case extra > 0:
				j.f.Copies += extra
			}
		}
	}
}

// inDoubt returns how many copies of a message ledgers name as in doubt, of its delivery and of that of
// its retained copy, whose id begins as the transaction's (rollback/resend.ID).
func (j *recallJudge) inDoubt(tx mail.TransactionID) int {
	n := j.doubts[tx]
	if b, err := tx.Bytes(); err == nil {
		n += j.resent[[6]byte(b[:6])]
	}
	return n
}

// unsynced reports whether a message was delivered shortly before a disk lost what wasn't synced: the
// ledger, which names copies, is synced once a second.
func (j *recallJudge) unsynced(boxes Boxes, mailbox string, k Key) bool {
	for i := range boxes[mailbox] {
		c := &boxes[mailbox][i]
		if c.Key == k && j.lost(c.Arrived.Add(-time.Second), c.Arrived.Add(2*time.Second)) {
			return true
		}
	}
	return false
}

// lost reports whether a disk lost what was done between these times.
func (j *recallJudge) lost(from, to time.Time) bool {
	return slices.ContainsFunc(j.h.Record.Faults, func(f cluster.Fault) bool {
		return (f.Name == powerLost || f.Name == diskFailed) && to.After(f.From.Add(-3*time.Second)) && (f.To.IsZero() || from.Before(f.To))
	})
}

// troubled reports whether anything was done to nodes, Redis or platforms between these times.
func (j *recallJudge) troubled(from, to time.Time) bool {
	return slices.ContainsFunc(j.h.Record.Faults, func(f cluster.Fault) bool {
		return to.After(f.From) && (f.To.IsZero() || from.Before(f.To.Add(settled)))
	})
}

// settled is after how long without a fault what a run has brought stands in its journal.
const settled = 5 * time.Second

// soughtFor is how long a run looks for what it has brought.
const soughtFor = 3 * time.Second

// asLeft wants what was brought to lie where its user had put it on the target, with the flags that
// he gave it there, unless he did something to it since.
func (j *recallJudge) asLeft(t *Turn, r *RunSeen) {
	for i := range t.Acts {
		a := &t.Acts[i]
		if a.Platform != cluster.OX || !a.Sure || t.Source.find(a.Mailbox, a.Key) != nil {
			continue
		}
		was, is := t.Target.find(a.Mailbox, a.Key), r.Source.find(a.Mailbox, a.Key)
		if was == nil || is == nil || r.Source.count(a.Mailbox, a.Key) > 1 || t.Target.count(a.Mailbox, a.Key) > 1 {
			continue
		}
		moved := slices.ContainsFunc(t.Acts, func(o Act) bool {
			return o.What == actMove && o.Platform == cluster.Exchange && o.Mailbox == a.Mailbox && o.Key == a.Key
		})
		switch {
		case a.What == actMove && !moved && is.Folder != was.Folder:
			j.bad("P8: message %d (%s) of %s is in %s after run %s, and its user had moved it to %s", a.Key.ID, a.Key.Transaction, a.Mailbox, is.Folder, r.ID, was.Folder)
		case a.What == actFlag && !slices.Contains(is.Flags, a.Flag):
			j.bad("P8: message %d (%s) of %s has %q after run %s, without %s, which its user had given it", a.Key.ID, a.Key.Transaction, a.Mailbox, is.Flags, r.ID, a.Flag)
		}
	}
}

// gone wants what users deleted to be gone after run k of a turn.
func (j *recallJudge) gone(t *Turn, k int, again bool) {
	r := t.Runs[k]
	for i := range t.Acts {
		a := &t.Acts[i]
		if a.What != actDelete || !a.Sure || j.inDoubt(a.Key.Transaction) > 0 || j.unsure[spot{a.Mailbox, a.Key}] > 0 {
			continue
		}
		n := r.Source.count(a.Mailbox, a.Key)
		// What was delivered twice may have been deleted once. Retained copies have transactions of their own.
		if n > 0 && a.Platform == cluster.Exchange && (j.unsynced(r.Source, a.Mailbox, a.Key) || t.Dead && j.troubled(t.Back, r.To)) {
			continue
		}
		switch {
		case n > 0 && j.old(a.Mailbox, a.Key):
			j.f.Returned++ // each turn has journals of its own: docs/known-issues.md
			continue
		case a.Platform == cluster.OX:
			if t.Dead || t.Target.find(a.Mailbox, a.Key) != nil || t.Source.find(a.Mailbox, a.Key) != nil || j.lost(t.There, t.Back) {
				continue // another copy of it was there
			}
			if n > 0 {
				j.bad("P8: message %d (%s) of %s was deleted on the target at %s, and is on the source after run %s", a.Key.ID, a.Key.Transaction, a.Mailbox, a.At.Format(clock), r.ID)
				continue
			}
		case a.At.After(r.To):
			continue
		case a.At.Before(t.Left):
			if again || t.Target.find(a.Mailbox, a.Key) != nil && j.lost(time.Time{}, t.Left) {
				continue // the target may have it since the last turn
			}
			if n > 0 {
				j.bad("P8: message %d (%s) of %s was deleted on the source at %s, before the cutover, and is there after run %s", a.Key.ID, a.Key.Transaction, a.Mailbox, a.At.Format(clock), r.ID)
				continue
			}
		case k > 0 && a.At.Before(r.From): // in an earlier run of this turn, or after it
			before := t.Runs[k-1]
			if a.At.Before(before.To) && before.Source.find(a.Mailbox, a.Key) != nil {
				continue // it had come back by then
			}
			if n > 0 && !r.may() && !t.named(k, a.Mailbox, a.Key) && before.State == "done" {
				j.bad("P8: message %d (%s) of %s was deleted on the source at %s, and is there again after run %s, which doesn't say that it may be", a.Key.ID, a.Key.Transaction, a.Mailbox, a.At.Format(clock), r.ID)
				continue
			}
			if n > 0 {
				j.f.Returned++
				continue
			}
		default: // while this run was under way, or just before it
			known := k > 0 && t.Runs[k-1].Source.find(a.Mailbox, a.Key) != nil
			sought := r.To.Sub(a.At) > soughtFor // and not found, so it may have been brought again
			if n > 0 && !r.may() && !t.named(k, a.Mailbox, a.Key) && (known || !sought && !j.troubled(t.Back, a.At.Add(settled))) {
				j.bad("P8: message %d (%s) of %s was deleted on the source at %s, and is there again after run %s, while nothing failed", a.Key.ID, a.Key.Transaction, a.Mailbox, a.At.Format(clock), r.ID)
				continue
			}
			if n > 0 {
				j.f.Returned++
				continue
			}
		}
		j.f.Deleted++
	}
}

// old reports whether the target has a message since an earlier turn.
func (j *recallJudge) old(mailbox string, k Key) bool {
	return slices.ContainsFunc(j.earlier, func(t *Turn) bool {
		return t.Target.find(mailbox, k) != nil || slices.ContainsFunc(t.Runs, func(r *RunSeen) bool { return r.Target.find(mailbox, k) != nil })
	})
}

// numbers wants what the run says to be so: no fewer deliveries than the target had, and none of them
// unaccounted for.
func (j *recallJudge) numbers(t *Turn, r *RunSeen) {
	got := r.Last.Totals
	if open := got.Delivered - got.DeliveredBack - got.Gone - got.NotBack; open > 0 && got.Aside == 0 {
		j.bad("P8: run %s says nothing of %d messages that were delivered to the target: %s", r.ID, open, r.Last.Text)
	}
	if len(got.Ledgers) > 0 || r.may() || j.lost(t.Left, r.To) {
		return // it says that it may not know all
	}
	delivered := make(map[spot]bool)
	for mailbox, all := range t.Target {
		for i := range all {
			if k := all[i].Key; k.Transaction != "" && t.Source.find(mailbox, k) == nil && j.inDoubt(k.Transaction) == 0 {
				delivered[spot{mailbox, k}] = true
			}
		}
	}
	for i := range t.Acts {
		if a := &t.Acts[i]; a.Platform == cluster.OX && a.What == actDelete && a.Key.Transaction != "" && t.Source.find(a.Mailbox, a.Key) == nil && j.inDoubt(a.Key.Transaction) == 0 {
			delivered[spot{a.Mailbox, a.Key}] = true
		}
	}
	if got.Delivered < len(delivered) {
		j.bad("P8: run %s counts %d messages delivered to the target, and %d were there: %s", r.ID, got.Delivered, len(delivered), r.Last.Text)
	}
}

// answered reports whether a message was answered 250.
func answered(s *cluster.Sent) bool {
	return slices.ContainsFunc(s.Tries, func(t cluster.Try) bool { return t.Dotted && strings.HasPrefix(t.Answer, "250") })
}

// end judges the mailboxes after all.
func (j *recallJudge) end() {
	source := j.h.End[cluster.Exchange]
	for platform, boxes := range j.h.End {
		if platform == cluster.Exchange {
			j.once(boxes, "in the end")
			continue
		}
		for mailbox, all := range boxes {
			for i := range all {
				if owner := j.owner[all[i].ID]; owner != mailbox {
					j.bad("P3: %s has message %d of %q on the target", mailbox, all[i].ID, owner)
				}
			}
		}
	}
	have, deleted := make(map[int]bool), make(map[int]bool)
	for mailbox, all := range source {
		for i := range all {
			if j.owner[all[i].ID] == mailbox {
				have[all[i].ID] = true
			}
		}
	}
	for at := range j.touched {
		deleted[at.Key.ID] = true
	}
	for i := range j.h.Record.Sent {
		s := &j.h.Record.Sent[i]
		if !answered(s) {
			continue
		}
		j.f.Messages++
		if !have[s.ID] && !deleted[s.ID] {
			last := s.Tries[len(s.Tries)-1]
			j.bad("P1: message %d for %s was answered %q by node %d at %s, and isn't on the source in the end", s.ID, s.Rcpt, last.Answer, s.Node, last.Ended.Format(clock))
		}
	}
	for _, t := range j.h.Turns {
		for i := range t.Acts {
			if a := &t.Acts[i]; a.What == actMake && a.Sure && !have[a.Key.ID] && !deleted[a.Key.ID] {
				j.bad("P8: message %d, which %s made on %s at %s, isn't on the source in the end", a.Key.ID, a.Mailbox, a.Platform, a.At.Format(clock))
			}
		}
	}
}
