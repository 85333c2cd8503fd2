package transfer

import (
	"context"
	"log/slog"
	"sync/atomic"

	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
	"mailcutover/routing"
	"mailcutover/spool"
)

// Alarms takes what a human has to see; key tells one alarm from another.
type Alarms interface {
	Raise(key, text string)
}

// Observer counts, for metrics. Its methods must not block.
type Observer interface {
	// Decided is called for each recipient's routing decision.
	Decided(reason routing.Reason)
	// Delivered is called for each recipient of a message that reached its end, with the
	// code of the answer that the sender got.
	Delivered(platform routing.PlatformID, origin mail.Origin, code int)
	// Spooled is called for each recipient that went into the spool.
	Spooled(state spool.State)
	// InDoubt is called for each message whose answer was lost after the dot.
	InDoubt(platform routing.PlatformID)
}

// Spool keeps mail that can't be delivered now; *spool.Store is one.
type Spool interface {
	Begin(spool.Envelope) (*spool.Incoming, error)
	// Held reports whether held mail of a mailbox or fixed address is there: then later
	// mail goes behind it.
	Held(spool.Key) bool
	// Room returns an error that wraps spool.ErrFull if an agency's share is used up; size
	// is the message's, 0 if it isn't known.
	Room(agency routing.AgencyID, size int64) error
}

// Ledger records what is handed to platforms; *ledger.Ledger is one.
type Ledger interface {
	Intend(*ledger.Intent) (ledger.Ticket, error)
	Outcome(ledger.Ticket, ...ledger.Answer)
}

// Retainer keeps copies of what goes to targets whose way back is open; *retained.Store is one.
type Retainer interface {
	// Begin begins a copy for those of these agencies; nil if there are none.
	Begin(agencies ...routing.AgencyID) *retained.Incoming
}

// Names knows more of names than the table: the directories.
type Names interface {
	// Absent returns nil only if it is proven that nobody has an address, also without its
	// detail (docs/architecture/promises.md, P5). It takes two seconds at most.
	Absent(ctx context.Context, a routing.Address) error
	// Encapsulated returns the address in the table of the mailbox that an address with an
	// X.500 name in it (IMCEAEX) means; ok is false if there is none. It must not block.
	Encapsulated(a routing.Address) (in routing.Address, ok bool)
}

// Options are a transfer's settings. All are required, but for Postmaster, Spool with
// what belongs to it, Names, Ledger, Retained and Answers.
type Options struct {
	Gate      *node.Gate
	Platforms []relay.Platform

	// Spool keeps what can't be streamed. nil: it is put off.
	Spool Spool
	// Added is told of the recipients of each message that the spool took, as soon as they
	// are durable: of those whose index in the spool is first and up. It must not block.
	Added func(id mail.TransactionID, first int)
	// PutOff are the agencies whose mail is put off and not held while they are closed.
	PutOff map[routing.AgencyID]struct{}

	Ledger Ledger

	// Retained keeps a copy of what a target took, until the way back is over. nil: nothing does.
	Retained Retainer

	// Names is asked for what the table has no record of. nil: it is put off.
	Names Names

	// Postmaster is where mail to <postmaster> without a domain goes (RFC 5321 section
	// 4.5.1). Empty: it is put off.
	Postmaster routing.Address

	Node         string // our host name in Received
	Installation string // the word that marks our own Received lines

	// HopLimit is the number of Received fields beyond which a message is taken to loop;
	// OwnLimit that of those that we wrote.
	HopLimit, OwnLimit int

	// Answers ends when the node no longer waits for answers to a dot; what is still
	// under way then is in doubt. nil: it waits as long as the relay does.
	Answers context.Context

	Alarms   Alarms
	Observer Observer
	Logger   *slog.Logger
}

// patience returns the context of the wait for an answer to a dot.
func (s *settings) patience() context.Context {
	if s.Answers == nil {
		return context.Background()
	}
	return s.Answers
}

// Transfer is the backend of the SMTP and LMTP listeners.
type Transfer struct {
	settings atomic.Pointer[settings]
}

// settings is one state of the options, with what follows from them. A transaction keeps
// the settings it began with.
type settings struct {
	Options
	platforms map[routing.PlatformID]*relay.Platform
}

var _ smtp.Backend = (*Transfer)(nil)

// New returns a transfer.
func New(o Options) *Transfer {
	t := new(Transfer)
	t.Configure(o)
	return t
}

// Configure replaces the options; transactions under way end with the ones they have.
func (t *Transfer) Configure(o Options) {
	s := &settings{Options: o, platforms: make(map[routing.PlatformID]*relay.Platform, len(o.Platforms))}
	for i := range o.Platforms {
		s.platforms[o.Platforms[i].ID] = &s.Platforms[i]
	}
	t.settings.Store(s)
}

// NewSession implements smtp.Backend.
func (t *Transfer) NewSession(context.Context, mail.Client) (smtp.Session, error) {
	return &session{transfer: t}, nil
}

// sender returns the platform whose own MTA the peer is, or nil.
func (s *settings) sender(client *mail.Client) *relay.Platform {
	for i := range s.Platforms {
		if p := &s.Platforms[i]; p.Sends(client) {
			return p
		}
	}
	return nil
}
