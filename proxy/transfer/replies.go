package transfer

import (
	"errors"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/proxy/relay"
	"mailcutover/routing"
	"mailcutover/spool"
)

// Replies that a sender gets from us and not from a platform.
var (
	errForeign     = mail.NewReply(550, 5, 7, 1, "Not a domain of ours, relaying denied")
	errUnknown     = mail.NewReply(451, 4, 1, 1, "No record of this recipient, try again later")
	errNobody      = mail.NewReply(550, 5, 1, 1, "No such recipient here")
	errTable       = mail.NewReply(451, 4, 4, 3, "Routing table unavailable, try again later")
	errClosed      = mail.NewReply(451, 4, 3, 2, "Mailbox is being moved, try again later")
	errOtherWay    = mail.NewReply(452, 4, 5, 3, "Recipient needs a transaction of its own, try again")
	errBadAddress  = mail.NewReply(553, 5, 1, 3, "Not a valid address")
	errNoMaster    = mail.NewReply(451, 4, 3, 5, "No postmaster configured, try again later")
	errForwardLeft = mail.NewReply(451, 4, 4, 6, "This mail comes from the platform it would go to, try again later")
	errLoop        = mail.NewReply(554, 5, 4, 6, "Too many hops, the message loops")
	errSuspected   = mail.NewReply(451, 4, 4, 6, "The message seems to loop, try again later")
	errRefused     = mail.NewReply(451, 4, 2, 0, "The mailbox's platform does not take the message now, try again later")
	errNotKnown    = mail.NewReply(451, 4, 4, 2, "The platform's answer was lost, try again later")
	errFull        = mail.NewReply(452, 4, 3, 1, "Spool full, try again later")
	errSpool       = mail.NewReply(451, 4, 3, 0, "Spool out of service, try again later")
	errAbandoned   = mail.NewReply(451, 4, 3, 0, "Local error, try again later")
)

// reply maps an error to all that the sender may learn of it.
func reply(err error) *mail.Reply {
	var doubt *relay.ConnectionError
	switch {
	case errors.Is(err, node.ErrLapsed):
		return errTable
	case errors.Is(err, node.ErrClosed):
		return errClosed
	case errors.As(err, &doubt) && doubt.InDoubt:
		return errNotKnown
	case errors.Is(err, spool.ErrFull):
		return errFull
	case errors.Is(err, spool.ErrBroken), errors.Is(err, spool.ErrAdopted), errors.Is(err, ledger.ErrUnavailable):
		return errSpool
	default:
		return mail.AsReply(err)
	}
}

// decided returns the reply for a recipient that can't be delivered to, or nil.
func decided(d *routing.Decision) *mail.Reply {
	switch {
	case d.Deliver():
		return nil
	case d.Closed():
		return errClosed
	case d.Reason == routing.ReasonForeign:
		return errForeign
	case d.Reason == routing.ReasonNoSuchName:
		return errUnknown
	default:
		return errTable
	}
}
