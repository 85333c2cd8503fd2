package deliver

import (
	"errors"

	"mailcutover/mail"
	"mailcutover/proxy/relay"
	"mailcutover/spool"
)

// isDamaged reports whether the spool's copy is the reason: it isn't whole, or has bytes
// that no listener lets in.
func isDamaged(err error) bool {
	return errors.Is(err, spool.ErrDamaged) || errors.Is(err, relay.ErrBareLineEnd)
}

// isOverload reports whether a temporary answer is about the platform and not about one
// mailbox or message: of the classes of RFC 3463 section 3, X.3 is the mail system and
// X.4 the network. Without an enhanced code 421 and 451 count as such.
func isOverload(p *relay.PlatformReply) bool {
	if !mail.IsTemporary(p.Reply) {
		return false
	}
	switch c := p.Reply.EnhancedCode; {
	case p.Reply.Code == 421:
		return true
	case c == [3]int{4, 0, 0}:
		return p.Reply.Code == 451
	default:
		return c[1] == 3 && c[2] != 4 || c[1] == 4
	}
}

// isContent reports whether a platform's permanent answer to the message is about the
// message itself, as in proxy/transfer: then another try would change nothing, wherever
// the mailbox is. X.6 is media, X.7 security and policy, X.3.4 and X.2.3 are about the
// message's length (RFC 3463 section 3). Without an enhanced code 552 and 554 count.
func isContent(r *mail.Reply) bool {
	switch c := r.EnhancedCode; {
	case c == [3]int{5, 0, 0}, c[0] != 5:
		return r.Code == 552 || r.Code == 554
	case c[1] == 6, c[1] == 7:
		return true
	default:
		return c[1] == 3 && c[2] == 4 || c[1] == 2 && c[2] == 3
	}
}
