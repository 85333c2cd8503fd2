package transfer

import (
	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/routing"
)

// beginCopy begins a copy of what is streamed to the target of an agency, if its way back is
// open: after a rollback the mailbox there may be out of reach (docs/architecture/retained.md).
func (m *message) beginCopy() {
	if m.Retained == nil || m.leg == nil {
		return
	}
	var few [4]routing.AgencyID
	agencies := few[:0]
	for i := range m.rcpt {
		if r := &m.rcpt[i]; r.ticket != nil && r.decision.Agency != "" && r.decision.Phase.OnTarget() {
			agencies = append(agencies, r.decision.Agency)
		}
	}
	if len(agencies) > 0 {
		m.copy = m.Retained.Begin(agencies...)
	}
}

// keepCopy keeps it for the recipients whom the platform took the message for, whether its sender
// learns that or not.
func (m *message) keepCopy() {
	if m.copy == nil {
		return
	}
	var rcpts []ledger.Recipient
	n := 0
	for i := range m.rcpt {
		r := &m.rcpt[i]
		if r.dotted == nil {
			continue
		}
		if result := m.notes[n].Result; result == ledger.ResultDelivered || result == ledger.ResultNotAcknowledged {
			rcpts = append(rcpts, r.noted())
		}
		n++
	}
	m.copy.Keep(&retained.Message{
		Transaction: m.transactionID(), Platform: m.leg.platform.ID, Origin: m.client.Origin, From: m.from.String(),
		MessageID: m.messageID, Options: *m.opts, Digest: m.digest,
	}, rcpts)
}
