package desk

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
)

// Ledger is this node's record of deliveries; *ledger.Ledger is one.
type Ledger interface {
	Find(ctx context.Context, q ledger.Query) iter.Seq2[ledger.Record, error]
}

// Query asks for what was delivered to a platform for mailboxes of an agency.
type Query struct {
	Agency   routing.AgencyID
	Platform routing.PlatformID
	Since    time.Time // zero: all that the ledgers have
}

// Delivered are the transactions that one node delivered, by mailbox.
type Delivered struct {
	Node    routing.NodeID                  `json:"node"`
	By      map[string][]mail.TransactionID `json:"by"`                // directory ids, as AD writes them
	Damaged int                             `json:"damaged,omitempty"` // segments that couldn't be read
}

// Count returns how many there are: a message for two mailboxes counts twice.
func (f *Delivered) Count() int {
	n := 0
	for _, all := range f.By {
		n += len(all)
	}
	return n
}

// Deliveries returns what this node's ledger has as delivered: what the platform took,
// whether or not its sender was told so. What is in doubt is not counted: if it is there, it
// is found.
func (d *Desk) Deliveries(ctx context.Context, q Query) (Delivered, error) {
	f := Delivered{Node: d.o.Node, By: make(map[string][]mail.TransactionID)}
	for r, err := range d.o.Ledger.Find(ctx, ledger.Query{Agency: q.Agency, Platform: q.Platform, Since: q.Since}) {
		if ctx.Err() != nil {
			return f, fmt.Errorf("deliveries of agency %s to %s: %w", q.Agency, q.Platform, ctx.Err())
		}
		if err != nil {
			f.Damaged++
			continue
		}
		if r.Local {
			continue
		}
		for i := range r.Recipients {
			to := &r.Recipients[i]
			if to.Agency != q.Agency || to.Mailbox.IsZero() {
				continue
			}
			switch r.Answer(i).Result {
			case ledger.ResultDelivered, ledger.ResultNotAcknowledged:
				f.By[to.Mailbox.String()] = append(f.By[to.Mailbox.String()], r.Transaction)
			}
		}
	}
	return f, nil
}

// facts are the deliveries of all nodes for one run.
type facts struct {
	by     map[routing.MailboxID][]mail.TransactionID
	silent []string // nodes that did not answer, and why; segments that couldn't be read
}

// factsPatience bounds one round of asking.
const factsPatience = 2 * time.Minute

// facts asks all ledgers.
func (d *Desk) facts(ctx context.Context, q Query) (*facts, error) {
	ctx, cancel := context.WithTimeout(ctx, factsPatience)
	defer cancel()
	own, err := d.Deliveries(ctx, q)
	if err != nil {
		return nil, err
	}
	all := []Delivered{own}
	f := &facts{by: make(map[routing.MailboxID][]mail.TransactionID)}
	if d.o.Nodes != nil {
		more, silent := d.o.Nodes.Deliveries(ctx, q)
		all, f.silent = append(all, more...), silent
	}
	for i := range all {
		for text, list := range all[i].By {
			id, err := routing.ParseMailboxID(text)
			if err != nil {
				return nil, fmt.Errorf("deliveries of node %s: %w", all[i].Node, err)
			}
			f.by[id] = append(f.by[id], list...)
		}
		if n := all[i].Damaged; n > 0 {
			f.silent = append(f.silent, fmt.Sprintf("%s: %d segments of its ledger can't be read", all[i].Node, n))
		}
	}
	for id, list := range f.by {
		slices.Sort(list)
		f.by[id] = slices.Compact(list)
	}
	return f, nil
}

// count returns how many deliveries there are.
func (f *facts) count() int {
	n := 0
	for _, all := range f.by {
		n += len(all)
	}
	return n
}
