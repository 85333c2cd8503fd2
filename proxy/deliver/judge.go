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
