package desk

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/rollback/recall"
	"mailcutover/routing"
)

// Share is how far a node is with its share of a run.
type Share struct {
	Node    routing.NodeID `json:"node"`
	Totals  Totals         `json:"totals"`
	Waiting string         `json:"waiting,omitempty"`      // for what everything here waits
	Since   time.Time      `json:"waiting_since,omitzero"` // since when
	Notes   []string       `json:"notes,omitempty"`
	Silent  []string       `json:"silent,omitempty"` // ledgers that are not counted in
	Left    time.Duration  `json:"left_ns"`          // estimated; 0: done; below 0: not known
	Brought bool           `json:"brought"`          // the share is brought
	Boxes   []BoxStatus    `json:"boxes,omitempty"`  // those that aren't done, or have something that isn't back
}

// BoxStatus is a mailbox of a share about which there is something to say.
type BoxStatus struct {
	Mailbox routing.MailboxID `json:"mailbox"`
	Address routing.Address   `json:"address"`
	Done    bool              `json:"done"`
	Aside   bool              `json:"aside,omitempty"`
	Reason  string            `json:"reason,omitempty"` // why it isn't done
	NotBack []recall.NotBack  `json:"not_back,omitempty"`
}

// Share returns how far this node is with a run. boxes asks for the mailboxes, too; of those
// without anything to say none is there.
func (d *Desk) Share(ctx context.Context, id ID, boxes bool) (Share, error) {
	s := d.o.Replica.State()
	r, ok := Find(s, id)
	if !ok {
		return Share{}, ErrNoRun
	}
	d.mu.Lock()
	w := d.works[id]
	d.mu.Unlock()
	if p, ok := r.Part(s, d.o.Node); ok && w == nil && !boxes {
		return Share{Node: d.o.Node, Totals: p.Totals, Notes: p.Notes, Silent: p.Totals.Ledgers, Brought: true}, nil
	}
	if w == nil || w.run.Version() != r.Version() {
		w = &work{d: d, run: r, after: r.After, boxes: make(map[routing.MailboxID]*box)}
		if err := w.load(ctx); err != nil {
			return Share{}, err
		}
		if _, journals, err := d.engine(&r, d.settings()); err == nil {
			if err := w.recall(journals); err != nil {
				return Share{}, err
			}
		}
	}
	v := Share{Node: d.o.Node, Totals: w.totals(), Brought: r.brought(s, d.o.Node)}
	w.mu.Lock()
	defer w.mu.Unlock()
	v.Waiting, v.Since, v.Notes = w.waiting, w.since, slices.Clone(w.notes)
	if w.facts != nil {
		v.Silent = silentTexts(w.facts.silent)
	}
	if !v.Brought {
		v.Left = w.left()
	}
	if !boxes {
		return v, nil
	}
	for _, b := range w.order {
		if b.done && len(b.result.NotBack) == 0 || !b.done && b.reason == "" && len(b.result.NotBack) == 0 {
			continue
		}
		v.Boxes = append(v.Boxes, BoxStatus{
			Mailbox: b.row.Mailbox, Address: b.row.Addresses[0], Done: b.done, Aside: b.aside, Reason: b.reason, NotBack: slices.Clone(b.result.NotBack),
		})
	}
	return v, nil
}

// left estimates how long the share takes still; below 0: it isn't known. w.mu is held.
func (w *work) left() time.Duration {
	now := w.d.now()
	passed, open := 0, 0
	for _, b := range w.order {
		switch {
		case b.done && b.before: // how long others take here it doesn't say
		case b.ended(), b.known && b.result.Passes > 0 && b.reason == "":
			passed++ // what is missing is a pass that finds nothing, which is quick
		default:
			open++
		}
	}
	until := max(0, w.after.Sub(now))
	switch {
	case open == 0:
		return until
	case w.waiting != "" || w.began.IsZero() || passed == 0:
		return -1
	}
	took := now.Sub(w.began)
	return max(until, took/time.Duration(passed)*time.Duration(open))
}

// Text returns in words how far it is: the three numbers, and what isn't back.
func (t *Totals) Text() string {
	delivered := fmt.Sprintf("%d of %d back", t.DeliveredBack, t.Delivered)
	if t.DeliveredBack > t.Delivered { // by the journals of earlier runs, and the ledgers weren't asked yet
		delivered = fmt.Sprintf("%d back, of how many isn't known yet", t.DeliveredBack)
	}
	text := fmt.Sprintf("delivered by us: %s; made by users: %d; copied by the mover and skipped: %d; moved as on the other side: %d", delivered, t.ByUsers, t.Copied, t.Moved)
	if t.Gone > 0 {
		text += fmt.Sprintf("; deleted by users meanwhile: %d", t.Gone)
	}
	left := t.left()
	if open := t.Mailboxes - t.Done - t.Aside; open > 0 {
		left = strings.TrimPrefix(fmt.Sprintf("%s, and %d mailboxes that are not done", left, open), ", and ")
	}
	if left != "" {
		return text + "; left: " + left
	}
	return text + "; nothing is left"
}

// Counts are what metrics say of runs.
type Counts struct {
	Running   int // runs under way, of all nodes
	Mailboxes int // of this node's shares of them, those that are neither done nor put aside
	Left      int // messages not back and mailboxes put aside, of runs that are done and that nobody has accepted
}

// Counts returns those of now.
func (d *Desk) Counts() (c Counts) {
	s := d.o.Replica.State()
	runs, _ := Runs(s)
	for i := range runs {
		r := &runs[i]
		switch r.Stands(s) {
		case Running:
			c.Running++
			d.mu.Lock()
			w := d.works[r.ID]
			d.mu.Unlock()
			if w != nil && !r.brought(s, d.o.Node) {
				t := w.totals()
				c.Mailboxes += t.Mailboxes - t.Done - t.Aside
			}
		case Done:
			if t := r.Totals(s); r.Accepted == nil {
				c.Left += t.NotBack + t.Aside
			}
		}
	}
	return c
}
