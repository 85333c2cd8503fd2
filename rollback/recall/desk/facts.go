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

// Silent is a node that did not say what it was asked for, in whole or in part.
type Silent struct {
	Node   routing.NodeID
	Reason string

	// Lost says that asking again is of no use by itself: the node is out of the table, it can't be
	// called by the configuration, or its disk doesn't have it.
	Lost bool

	// Later says that the node is there and works by another version of the run (ErrNotYet): it
	// answers soon.
	Later bool
}

func (s Silent) String() string { return fmt.Sprintf("node %s: %s", s.Node, s.Reason) }

// texts are the words of all of them, each once, sorted.
func silentTexts(all []Silent) []string {
	var texts []string
	for _, s := range all {
		texts = append(texts, s.String())
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

// gone names the nodes whose ledgers and journals nobody asks any more, and which were still in the
// table when the agency was cut over: what they delivered isn't known.
func (d *Desk) gone(s *routing.State, agency routing.AgencyID) []Silent {
	var all []Silent
	_, since := knownOf(s, agency)
	for _, m := range s.Members() {
		switch {
		case m.Node == d.o.Node || m.Revision < since:
		case m.Evicted:
			all = append(all, Silent{Node: m.Node, Reason: "it is evicted, and can't be asked", Lost: true})
		case m.Attested == m.Instance:
			all = append(all, Silent{Node: m.Node, Reason: "it is attested to be off, and can't be asked", Lost: true})
		}
	}
	return all
}

// facts are the deliveries of all nodes for one run.
type facts struct {
	by     map[routing.MailboxID][]mail.TransactionID
	silent []Silent // nodes that did not answer, and why; segments that couldn't be read
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
	f := &facts{by: make(map[routing.MailboxID][]mail.TransactionID), silent: d.gone(d.o.Replica.State(), q.Agency)}
	if d.o.Nodes != nil {
		more, silent := d.o.Nodes.Deliveries(ctx, q)
		all, f.silent = append(all, more...), append(f.silent, silent...)
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
			f.silent = append(f.silent, Silent{Node: all[i].Node, Reason: fmt.Sprintf("%d segments of its ledger can't be read", n), Lost: true})
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
