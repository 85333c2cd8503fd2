package desk

import (
	"context"
	"fmt"
	"slices"

	"mailcutover/mail"
	"mailcutover/rollback/msgkey"
	"mailcutover/routing"
)

// Back is what one node's journals have of a run: by mailbox, the keys of those transactions
// that were found on the winning platform.
type Back struct {
	Node routing.NodeID      `json:"node"`
	By   map[string][]string `json:"by"`
}

// Back returns what this node's journals have of a run. ErrNotYet: it works by another version of it.
func (d *Desk) Back(ctx context.Context, id ID, v Version) (Back, error) {
	b := Back{Node: d.o.Node, By: make(map[string][]string)}
	r, err := d.agreed(id, v)
	if err != nil {
		return b, err
	}
	_, journals, err := d.engine(&r, d.settings())
	if err != nil {
		return b, err
	}
	rows, err := d.rows(ctx, &r)
	if err != nil {
		return b, err
	}
	for i := range rows {
		keys, err := journals.Accounted(rows[i].Mailbox)
		if err != nil {
			return b, fmt.Errorf("read the journal of mailbox %s: %w", rows[i].Mailbox, err)
		}
		for _, k := range keys {
			b.By[rows[i].Mailbox.String()] = append(b.By[rows[i].Mailbox.String()], k.String())
		}
	}
	return b, nil
}

// backTries is how often nodes are asked that don't say what is back, with lookPause between.
const backTries = 10

// back asks all nodes what is back of the run, so that no copy of it is delivered. Nodes that
// don't answer for long keep no copy from being delivered: what they had brought comes twice, and is seen.
func (w *work) back(ctx context.Context) func(mail.TransactionID, routing.MailboxID) bool {
	var all []Back
	var silent []Silent
	for range backTries {
		all, silent = nil, nil
		if w.d.o.Nodes != nil {
			all, silent = w.d.o.Nodes.Back(ctx, w.run.ID, w.run.Version())
		}
		if !slices.ContainsFunc(silent, w.awaited) || !pause(ctx, lookPause) {
			break
		}
	}
	own, err := w.d.Back(ctx, w.run.ID, w.run.Version())
	if err != nil {
		silent = append(silent, Silent{Node: w.d.o.Node, Reason: err.Error(), Lost: true})
	}
	known := make(map[string]map[string]bool)
	for _, b := range append(all, own) {
		for id, keys := range b.By {
			if known[id] == nil {
				known[id] = make(map[string]bool)
			}
			for _, k := range keys {
				known[id][k] = true
			}
		}
	}
	for _, text := range silentTexts(silent) {
		w.d.o.Logger.Warn("recall: copies of what is back already may be delivered", "run", w.run.ID, "agency", w.run.Agency, "reason", text)
	}
	return func(t mail.TransactionID, id routing.MailboxID) bool {
		return known[id.String()][msgkey.TransactionKey(t).String()]
	}
}
