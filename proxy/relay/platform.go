package relay

import (
	"net/netip"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
)

// Platform is one platform as those see it who send to it: transfer and deliver. The
// relay for notices is one, too.
type Platform struct {
	ID routing.PlatformID

	// Nets are the source addresses from which the platform itself sends mail.
	Nets []netip.Prefix

	// RelaysInside says that the platform's MTA hands us also the mail between its own
	// mailboxes, as Open-Xchange's Postfix does; without it such mail is a forward
	// that was left behind.
	RelaysInside bool

	// ConnectionLimit is the time after which the platform closes any connection; a
	// message in doubt stays so until it has passed.
	ConnectionLimit time.Duration

	// Outside and Inside are the endpoints for either origin; they may be the same.
	Outside, Inside *Pool
}

// Pool returns the platform's endpoint for an origin, or nil.
func (p *Platform) Pool(origin mail.Origin) *Pool {
	if origin == mail.OriginInside {
		return p.Inside
	}
	return p.Outside
}

// Sends reports whether a client is the platform's own MTA.
func (p *Platform) Sends(client *mail.Client) bool {
	addr := client.Source.Addr().Unmap()
	for _, net := range p.Nets {
		if net.Contains(addr) {
			return true
		}
	}
	return false
}

// IsContent reports whether a permanent answer to MAIL, DATA or the dot is about the
// message itself: then another try would change nothing, wherever the mailbox is. X.6 is
// media, X.7 security and policy, X.3.4 and X.2.3 are about the message's length (RFC 3463
// section 3). That a mailbox takes no mail from this sender is not about the message: it is
// another platform's rule for the same mailbox. Without an enhanced code, which reads X.0.0, 552 and 554 count.
func IsContent(r *mail.Reply) bool {
	switch c := r.EnhancedCode; {
	case c[0] != 5, c[1] == 0 && c[2] == 0:
		return r.Code == 552 || r.Code == 554
	case c[1] == 6, c[1] == 7:
		return !restricted(r)
	default:
		return c[1] == 3 && c[2] == 4 || c[1] == 2 && c[2] == 3
	}
}
