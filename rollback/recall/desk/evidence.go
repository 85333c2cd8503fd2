package desk

import (
	"context"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
)

const (
	// evidenceAge is how long what the ledgers said of an agency is believed.
	evidenceAge = 5 * time.Minute

	// evidenceBefore is how long before an agency's last cutover its deliveries are evidence: mail
	// that came while the mover copied.
	evidenceBefore = 7 * 24 * time.Hour
)

// evidence is what the nodes delivered for an agency.
type evidence struct {
	asked time.Time
	has   map[delivery]struct{}
}

// delivery is a message for a mailbox.
type delivery struct {
	mailbox     routing.MailboxID
	transaction mail.TransactionID
}

// DeliveredTo reports whether the ledger of any node has a transaction as delivered to a mailbox of
// an agency, on whichever platform, since a week before the agency's last cutover. False also where
// nobody could say. All nodes are asked once in five minutes, and a caller may wait for them.
func (d *Desk) DeliveredTo(ctx context.Context, agency routing.AgencyID, mailbox routing.MailboxID, id mail.TransactionID) bool {
	d.asking.Lock()
	defer d.asking.Unlock()
	e := d.evidence[agency]
	if e == nil || d.now().Sub(e.asked) > evidenceAge {
		if e = d.gather(ctx, agency); ctx.Err() != nil {
			return false
		}
		for old, was := range d.evidence {
			if d.now().Sub(was.asked) > evidenceAge {
				delete(d.evidence, old)
			}
		}
		d.evidence[agency] = e
	}
	_, ok := e.has[delivery{mailbox, id}]
	return ok
}

// gather asks all ledgers.
func (d *Desk) gather(ctx context.Context, agency routing.AgencyID) *evidence {
	e := &evidence{asked: d.now(), has: make(map[delivery]struct{})}
	s := d.o.Replica.State()
	a, ok := s.Agency(agency)
	if !ok {
		return e
	}
	q := Query{Agency: agency}
	if k, _ := knownOf(s, agency); !k.Since.IsZero() {
		q.Since = k.Since.Add(-evidenceBefore)
	}
	for _, p := range []routing.PlatformID{a.Source, a.Target} {
		q.Platform = p
		f, err := d.facts(ctx, q)
		if err != nil {
			d.o.Logger.Warn("recall: ledgers are not read as evidence", "agency", agency, "platform", p, "error", err)
			continue
		}
		for _, one := range f.silent {
			d.o.Logger.Warn("recall: a ledger isn't among the evidence", "agency", agency, "platform", p, "reason", one.String())
		}
		for id, all := range f.by {
			for _, t := range all {
				e.has[delivery{id, t}] = struct{}{}
			}
		}
	}
	return e
}
