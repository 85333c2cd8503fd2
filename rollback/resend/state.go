package resend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// State is what has become of a copy for one of its mailboxes.
type State uint8

const (
	StateUnknown State = iota
	Unsent             // it was not handed to the spool
	UnderWay           // the spool has it, and will deliver it or give it up
	Delivered          // a platform took it, or may have
	Failed             // it won't be delivered: it is in quarantine, or people dropped it
)

// Each calls f for each copy of what went to a platform for an agency since a time, and each of its
// mailboxes, with what has become of it. Copies that can't be read are left out. It ends with ctx,
// or with the error of f, the spool or the ledger.
func (r *Resender) Each(ctx context.Context, agency routing.AgencyID, from routing.PlatformID, since time.Time, f func(mail.TransactionID, routing.MailboxID, State) error) error {
	for c, err := range r.o.Copies.Find(ctx, retained.Query{Agency: agency, Platform: from, Since: since}) {
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			continue // Deliver names it
		}
		for i := range c.Recipients {
			one := c
			one.Recipients = c.Recipients[i : i+1 : i+1]
			state, err := r.state(ctx, &one)
			if err == nil {
				err = f(c.Transaction, c.Recipients[i].Mailbox, state)
			}
			if err != nil {
				return fmt.Errorf("look at retained copies of agency %s: %w", agency, err)
			}
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("look at retained copies of agency %s: %w", agency, ctx.Err())
	}
	return nil
}

// state returns what has become of a copy for its only recipient.
func (r *Resender) state(ctx context.Context, c *retained.Copy) (State, error) {
	id, err := ID(c)
	if err != nil {
		return StateUnknown, fmt.Errorf("retained copy %s: %w", c, err)
	}
	if s, ok := r.ended.Load(id); ok {
		return s.(State), nil
	}
	state, err := r.spooled(id)
	if err == nil && state == StateUnknown {
		state, err = r.noted(ctx, id)
	}
	if err != nil {
		return StateUnknown, fmt.Errorf("retained copy %s: %w", c, err)
	}
	if state == Delivered {
		r.ended.Store(id, state)
	}
	return state, nil
}

// spooled returns what the spool has of a delivery; StateUnknown: nothing.
func (r *Resender) spooled(id mail.TransactionID) (State, error) {
	m, err := r.o.Spool.Get(id)
	if errors.Is(err, spool.ErrUnknown) {
		return StateUnknown, nil
	}
	if err != nil {
		return StateUnknown, err
	}
	for i := range m.Recipients {
		switch m.Recipients[i].State {
		case spool.StateHeld, spool.StateWaiting:
			return UnderWay, nil
		case spool.StateDelivered:
			return Delivered, nil
		}
	}
	return Failed, nil
}

// noted returns what the ledger has of a delivery that isn't in the spool.
func (r *Resender) noted(ctx context.Context, id mail.TransactionID) (State, error) {
	state := Unsent
	for one, err := range r.o.Ledger.Find(ctx, ledger.Query{Transaction: id}) {
		if err != nil {
			return StateUnknown, err
		}
		switch result := one.Answer(0).Result; {
		case one.Local && (result == ledger.ResultNotSent || result == ledger.ResultNotAcknowledged):
			// It never came in, or there is another record.
		case one.Local:
			state = Failed // unless a platform has it
		case result == ledger.ResultDelivered, result == ledger.ResultNotAcknowledged, result == ledger.ResultInDoubt:
			return Delivered, nil
		}
	}
	return state, nil
}
