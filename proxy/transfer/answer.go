package transfer

import (
	"fmt"

	"mailcutover/mail"
	"mailcutover/routing"
)

// Answer says, for people, what a sender would be answered for a recipient with this
// decision, as far as that follows from the decision alone: a platform that can't be
// reached, or what it says, doesn't.
func (t *Transfer) Answer(d *routing.Decision) string {
	s := t.settings.Load()
	_, off := s.PutOff[d.Agency]
	switch r := decided(d); {
	case r == nil:
		return "what the platform says"
	case d.Closed() && d.Agency != "" && s.Spool != nil && !off:
		return "250: the message is held here until the agency is open"
	default:
		return replyText(r)
	}
}

// replyText returns a reply as it stands on the wire.
func replyText(r *mail.Reply) string {
	e := r.EnhancedCode
	return fmt.Sprintf("%d %d.%d.%d %s", r.Code, e[0], e[1], e[2], r.Message)
}
