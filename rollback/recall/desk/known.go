package desk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/mail"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/resend"
	"mailcutover/routing"
)

// ErrNotYet is about a run that this node knows in another version, or still works on by one.
var ErrNotYet = errors.New("this node doesn't work by this version of the recall yet")

// Known is what one node knows of mailboxes that another one brings, or a page of it.
type Known struct {
	Node     routing.NodeID    `json:"node"`
	Journals map[string][]byte `json:"journals,omitempty"` // by mailbox, as recall.Journals.Export returns them

	// Copied and Held are transactions by mailbox of which this node has delivered retained copies,
	// and of which it is about to.
	Copied map[string][]mail.TransactionID `json:"copied,omitempty"`
	Held   map[string][]mail.TransactionID `json:"held,omitempty"`

	Next string `json:"next,omitempty"` // the mailbox behind which the next page begins; empty: it is the last
}

// knownPage is how many bytes of journals a page has, or one journal more.
const knownPage = 4 << 20

// agreed returns a run, if this node works on it in this version, or doesn't work on it.
func (d *Desk) agreed(id ID, v Version) (Run, error) {
	r, ok := Find(d.o.Replica.State(), id)
	if !ok {
		return Run{}, ErrNoRun
	}
	d.mu.Lock()
	w := d.works[id]
	d.mu.Unlock()
	if r.Version() != v || w != nil && w.run.Version() != v && !w.stopped() {
		return r, ErrNotYet
	}
	return r, nil
}

// Known returns what this node knows of the mailboxes that node brings in a run, from behind a
// mailbox on (empty: from the first). ErrNotYet: it works by another version of the run.
func (d *Desk) Known(ctx context.Context, id ID, v Version, node routing.NodeID, after string) (Known, error) {
	k := Known{Node: d.o.Node}
	r, err := d.agreed(id, v)
	if err != nil {
		return k, err
	}
	if after == "" {
		if k.Copied, k.Held, err = d.copied(ctx, &r, node); err != nil {
			return k, err
		}
	}
	_, journals, err := d.engine(&r, d.settings())
	if errors.Is(err, ErrMailboxes) {
		return k, nil // so there are none
	}
	if err != nil {
		return k, err
	}
	rows, err := d.rowsOf(ctx, &r, node)
	if err != nil {
		return k, err
	}
	here, err := journals.Mailboxes()
	if err != nil {
		return k, err
	}
	journaled := make(map[routing.MailboxID]bool, len(here))
	for _, id := range here {
		journaled[id] = true
	}
	rows = slices.DeleteFunc(rows, func(row routing.Row) bool { return !journaled[row.Mailbox] })
	slices.SortFunc(rows, func(a, b routing.Row) int { return bytes.Compare(a.Mailbox[:], b.Mailbox[:]) })
	first, size := routing.MailboxID{}, 0
	if after != "" {
		if first, err = routing.ParseMailboxID(after); err != nil {
			return k, err
		}
	}
	for i := range rows {
		box := rows[i].Mailbox
		if after != "" && bytes.Compare(box[:], first[:]) <= 0 {
			continue
		}
		text, err := journals.Export(box)
		if err != nil {
			return k, err
		}
		if text == nil {
			continue
		}
		if k.Journals == nil {
			k.Journals = make(map[string][]byte)
		}
		k.Journals[box.String()] = text
		if size += len(text); size >= knownPage {
			k.Next = box.String()
			break
		}
	}
	return k, nil
}

// copying reports whether retained copies are, or were, delivered by this run or one before it that
// brings the same.
func copying(s *routing.State, r *Run) bool {
	runs, _ := Runs(s)
	return r.Copies || slices.ContainsFunc(runs, func(o Run) bool {
		return o.Copies && o.Agency == r.Agency && o.Operation == r.Operation && o.From == r.From
	})
}

// copied returns of which transactions this node's retained copies were delivered for the mailboxes
// that node brings, and of which they are about to be.
func (d *Desk) copied(ctx context.Context, r *Run, node routing.NodeID) (done, held map[string][]mail.TransactionID, err error) {
	s := d.o.Replica.State()
	if d.o.Copies == nil || !copying(s, r) {
		return nil, nil, nil
	}
	d.mu.Lock()
	w := d.works[r.ID]
	d.mu.Unlock()
	// What is neither handed over nor about to be is for the mailboxes alone.
	coming := r.Copies && r.Stands(s) == Running && !r.brought(s, d.o.Node) && (w == nil || !w.copiesDone())
	done, held = make(map[string][]mail.TransactionID), make(map[string][]mail.TransactionID)
	err = d.o.Copies.Each(ctx, r.Agency, r.From, r.Since, func(t mail.TransactionID, box routing.MailboxID, state resend.State) error {
		switch {
		case r.Owner(box) != node:
		case state == resend.Delivered:
			done[box.String()] = append(done[box.String()], t)
		case state == resend.UnderWay, state == resend.Unsent && coming:
			held[box.String()] = append(held[box.String()], t)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("look at the retained copies for recall %s: %w", r.ID, err)
	}
	return done, held, nil
}

// known is what all nodes have told about this node's share.
type known struct {
	held   map[routing.MailboxID][]mail.TransactionID
	silent []Silent
}

// knownPatience bounds one round of asking.
const knownPatience = 5 * time.Minute

// ask asks all nodes what they know of this share, and keeps it.
func (w *work) ask(ctx context.Context, journals Journals) (*known, error) {
	ctx, cancel := context.WithTimeout(ctx, knownPatience)
	defer cancel()
	k := &known{held: make(map[routing.MailboxID][]mail.TransactionID)}
	take := func(theirs *Known) error {
		for text, journal := range theirs.Journals {
			id, err := routing.ParseMailboxID(text)
			if err == nil && theirs.Node != w.d.o.Node {
				err = journals.Take(id, theirs.Node, journal)
			}
			if err != nil && !errors.Is(err, recall.ErrBusy) {
				return err
			}
		}
		for text, all := range theirs.Copied {
			id, err := routing.ParseMailboxID(text)
			if err == nil {
				err = journals.Sent(id, all...)
			}
			if err != nil && !errors.Is(err, recall.ErrBusy) {
				return err
			}
			if err != nil { // asked again, and held until then
				k.held[id] = append(k.held[id], all...)
			}
		}
		for text, all := range theirs.Held {
			id, err := routing.ParseMailboxID(text)
			if err != nil {
				return err
			}
			k.held[id] = append(k.held[id], all...)
		}
		return nil
	}
	own := Known{Node: w.d.o.Node}
	var err error
	if own.Copied, own.Held, err = w.d.copied(ctx, &w.run, w.d.o.Node); err != nil {
		return nil, err
	}
	if err := take(&own); err != nil {
		return nil, err
	}
	k.silent = w.d.gone(w.d.o.Replica.State(), w.run.Agency)
	if w.d.o.Nodes != nil {
		k.silent = append(k.silent, w.d.o.Nodes.Known(ctx, w.run.ID, w.run.Version(), w.d.o.Node, take)...)
	}
	return k, nil
}

// awaited reports whether a node that is silent is waited for: one that shares the run does its part
// itself, so without it the run isn't done anyway. People say that it is gone. One that is there all
// the same, and hasn't ended its part yet, tells what it knows then.
func (w *work) awaited(s Silent) bool { return !s.Lost && (s.Later || w.run.shares(s.Node)) }

// former returns who says which nodes brought a mailbox before, in this run or others that bring
// the same. An agency has many mailboxes, so the runs are read once.
func former(s *routing.State, r *Run) func(routing.MailboxID) []routing.NodeID {
	var rounds []Run // each run once for each set of nodes that it had
	runs, _ := Runs(s)
	for i := range runs {
		o := &runs[i]
		if o.Agency != r.Agency || o.Operation != r.Operation || o.From != r.From || o.Begun.After(r.Begun) {
			continue
		}
		for n := range len(o.Without) + 1 {
			was := *o
			was.Without = o.Without[:n]
			rounds = append(rounds, was)
		}
	}
	return func(id routing.MailboxID) (all []routing.NodeID) {
		for i := range rounds {
			if owner := rounds[i].Owner(id); owner != "" && !slices.Contains(all, owner) {
				all = append(all, owner)
			}
		}
		return all
	}
}

// learn asks all nodes, and takes what they say: mailboxes wait for what is to be known about them
// first, and those that were done and of which more was delivered are looked at again.
func (w *work) learn(ctx context.Context, journals Journals) error {
	f, err := w.d.facts(ctx, Query{Agency: w.run.Agency, Platform: w.run.From, Since: w.run.deliveredSince()})
	if err != nil {
		return err
	}
	k, err := w.ask(ctx, journals)
	if err != nil {
		return err
	}
	formerly := former(w.d.o.Replica.State(), &w.run)
	waits, lost := make(map[routing.NodeID]string), make(map[routing.NodeID]bool)
	for _, one := range k.silent {
		if w.awaited(one) {
			waits[one.Node] = one.String()
		} else {
			lost[one.Node] = true
		}
	}
	notes := make(map[string]bool)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.facts, w.known = f, k
	for _, b := range w.order {
		b.waits = ""
		for _, n := range formerly(b.row.Mailbox) {
			if n == w.d.o.Node {
				continue
			}
			if text, ok := waits[n]; ok {
				b.waits = "it brought mailboxes of this share before: " + text
			}
			if lost[n] {
				notes[fmt.Sprintf("what node %s had brought before isn't known: it counts as copied, and what users have deleted since may come back once", n)] = true
			}
		}
		if w.run.Copies {
			for _, text := range waits {
				b.waits = "it may have copies that are delivered: " + text
			}
		}
		if b.done && len(f.by[b.row.Mailbox]) > b.result.Delivered {
			b.done, b.next = false, time.Time{}
		}
	}
	for text := range notes {
		if !slices.Contains(w.notes, text) {
			w.notes = append(w.notes, text)
		}
	}
	w.late = ""
	for _, one := range slices.Concat(f.silent, k.silent) {
		switch {
		case !w.awaited(one):
		case w.run.shares(one.Node):
			w.late = fmt.Sprintf("%s. If it is lost: mailcutover recall take-over %s --without-node %s --reason ...", one, w.run.ID, one.Node)
		case w.late == "":
			w.late = one.String()
		}
	}
	return nil
}

// goOn asks again, at growing intervals, while nodes are silent or copies are on their way.
func (w *work) goOn(ctx context.Context, journals Journals) {
	for pauseNow := w.d.o.FirstPause; ; {
		w.mu.Lock()
		coming := len(w.known.held) > 0
		open := coming || w.late != "" || slices.ContainsFunc(w.facts.silent, func(s Silent) bool { return !s.Lost })
		w.mu.Unlock()
		if !open || !pause(ctx, pauseNow) {
			return
		}
		if pauseNow = min(2*pauseNow, silentPause); coming {
			pauseNow = w.d.o.FirstPause
		}
		if err := w.learn(ctx, journals); err != nil && ctx.Err() == nil {
			w.d.o.Logger.Warn("recall: other nodes are not asked", "run", w.run.ID, "agency", w.run.Agency, "error", err)
		}
	}
}

// pause waits; false: ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
