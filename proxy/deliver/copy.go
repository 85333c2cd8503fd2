package deliver

import (
	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/routing"
)

// beginCopy begins a copy of what goes to the target of an agency, if its way back is open
// (docs/architecture/retained.md).
func (a *delivery) beginCopy() {
	if a.Retained == nil || a.Notice {
		return
	}
	var few [4]routing.AgencyID
	agencies := few[:0]
	for _, i := range a.taken {
		if d := &a.Recipients[i].Decision; d.Agency != "" && d.Phase.OnTarget() {
			agencies = append(agencies, d.Agency)
		}
	}
	if len(agencies) > 0 {
		a.copy = a.Retained.Begin(agencies...)
	}
}

// keepCopy keeps it for the recipients whom the platform took the message for.
func (a *delivery) keepCopy(noted []ledger.Answer) {
	if a.copy == nil {
		return
	}
	var rcpts []ledger.Recipient
	for j := range a.taken {
		if result := noted[j].Result; result == ledger.ResultDelivered || result == ledger.ResultNotAcknowledged {
			rcpts = append(rcpts, a.intent.Recipients[j])
		}
	}
	m := a.Message
	a.copy.Keep(&retained.Message{
		Transaction: m.Transaction, Platform: a.Platform, Origin: m.Client.Origin, From: m.From.String(),
		MessageID: m.MessageID, Options: m.Options, Digest: a.digest,
	}, rcpts)
}
