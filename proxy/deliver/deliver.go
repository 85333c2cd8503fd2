package deliver

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/proxy/relay"
	"mailcutover/routing"
	"mailcutover/spool/queue"
)

// Alarms takes what a human has to see; key tells one alarm from another.
type Alarms interface {
	Raise(key, text string)
}

// Ledger notes what is about to be handed over, and what became of it.
type Ledger interface {
	Intend(*ledger.Intent) (ledger.Ticket, error)
	Outcome(ledger.Ticket, ...ledger.Answer)
}

// Gate is this node's right to decide. node.Gate is one.
type Gate interface {
	Enter(d *routing.Decision, cut func()) (*node.Ticket, error)
}

// Platform is one platform as the sender sees it; the relay for notices is one, too. Its
// fields are those of proxy/transfer's.
type Platform struct {
	ID routing.PlatformID

	// Nets are the source addresses from which the platform itself sends mail.
	Nets []netip.Prefix

	// RelaysInside says that the platform's MTA hands us also the mail between its own
	// mailboxes.
	RelaysInside bool

	// ConnectionLimit is the time after which the platform closes any connection; a
	// message in doubt rests until it has passed.
	ConnectionLimit time.Duration

	// Outside and Inside are the endpoints for either origin; they may be the same.
	Outside, Inside *relay.Pool
}

// Options are a sender's settings. All are required, but for Answers.
type Options struct {
	// Answers ends when the node no longer waits for answers to a dot; what is still
	// under way then is in doubt. nil: it waits as long as the relay does.
	Answers context.Context

	Gate      Gate
	Ledger    Ledger
	Platforms []Platform
	Alarms    Alarms
	Logger    *slog.Logger
}

// Sender delivers from the spool. Use [New].
type Sender struct {
	settings atomic.Pointer[settings]
}

// settings is one state of the options. A delivery keeps the one it began with.
type settings struct {
	Options
	platforms map[routing.PlatformID]*Platform
}

var _ queue.Sender = (*Sender)(nil)

// New returns a sender.
func New(o Options) *Sender {
	s := new(Sender)
	s.Configure(o)
	return s
}

// Configure replaces the options; deliveries under way end with the ones they have.
func (s *Sender) Configure(o Options) {
	set := &settings{Options: o, platforms: make(map[routing.PlatformID]*Platform, len(o.Platforms))}
	for i := range set.Platforms {
		set.platforms[o.Platforms[i].ID] = &set.Platforms[i]
	}
	s.settings.Store(set)
}

// patience returns the context of the wait for an answer to a dot.
func (s *settings) patience() context.Context {
	if s.Answers == nil {
		return context.Background()
	}
	return s.Answers
}

// Connections implements queue.Sender.
func (s *Sender) Connections(id routing.PlatformID) int {
	p := s.settings.Load().platforms[id]
	if p == nil {
		return 0
	}
	n := 0
	for _, pool := range []*relay.Pool{p.Outside, p.Inside} {
		if pool != nil {
			n = max(n, pool.Endpoint().Limits.Connections)
		}
	}
	return n
}

// pool returns the platform's endpoint for an origin, or nil.
func (p *Platform) pool(origin mail.Origin) *relay.Pool {
	if origin == mail.OriginInside {
		return p.Inside
	}
	return p.Outside
}

// sends reports whether a client is the platform's own MTA.
func (p *Platform) sends(client *mail.Client) bool {
	addr := client.Source.Addr().Unmap()
	for _, net := range p.Nets {
		if net.Contains(addr) {
			return true
		}
	}
	return false
}
