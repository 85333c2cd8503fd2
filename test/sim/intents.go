package sim

import (
	"slices"
	"sync/atomic"
	"time"

	"mailcutover/ledger"
	"mailcutover/spool/queue"
)

// intents is a node's ledger, which the oracle reads along.
type intents struct {
	*ledger.Ledger
	run  *Run
	node string
	open map[ledger.Ticket]*ledger.Intent
	late atomic.Bool // an outcome is told that had to wait for the disk: it was in force before
}

// store is a node's spool, which says when an outcome had to wait for it.
type store struct {
	queue.Store
	book *intents
}

// Written implements queue.Store.
func (s store) Written(f func()) {
	var waited atomic.Bool
	s.Store.Written(func() {
		s.book.late.Store(waited.Load())
		f()
		s.book.late.Store(false)
	})
	waited.Store(true)
}

// Intend implements transfer.Ledger.
func (i *intents) Intend(in *ledger.Intent) (ledger.Ticket, error) {
	t, err := i.Ledger.Intend(in)
	w := i.run.World
	w.mu.Lock()
	defer w.mu.Unlock()
	if in.Local {
		for _, r := range in.Recipients {
			i.run.oracle.kept[string(in.Transaction)+" "+string(r.Address)] = true
		}
	}
	if err == nil {
		if i.open == nil {
			i.open = map[ledger.Ticket]*ledger.Intent{}
		}
		kept := *in
		kept.Recipients = slices.Clone(in.Recipients)
		i.open[t] = &kept
		for _, r := range in.Recipients {
			i.run.oracle.intended[intent{string(in.Transaction), r.Agency}] = intended{i.node, time.Now()}
		}
		i.run.oracle.sent[i.node] = append(i.run.oracle.sent[i.node], string(in.Transaction))
		w.note("%s intends %s to %s, epoch %s", i.node, in.Transaction, in.Platform, in.Recipients[0].Epoch)
	}
	return t, err
}

// Outcome implements transfer.Ledger.
func (i *intents) Outcome(t ledger.Ticket, answers ...ledger.Answer) {
	i.Ledger.Outcome(t, answers...)
	w := i.run.World
	w.mu.Lock()
	in := i.open[t]
	delete(i.open, t)
	w.mu.Unlock()
	if in == nil {
		return
	}
	for n, a := range answers {
		if a.Result == ledger.ResultDelivered && !i.late.Load() {
			i.run.oracle.passedOn(i.node, in, n, len(answers))
		}
		if a.Result == ledger.ResultInDoubt || a.Result == ledger.ResultNotAcknowledged {
			i.run.oracle.doubt(string(in.Transaction), i.node+" says "+a.Result.String())
			return
		}
	}
}
