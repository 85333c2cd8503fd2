package deliver

import (
	"context"
	"log/slog"
	"sync/atomic"

	"mailcutover/ledger"
	"mailcutover/ledger/retained"
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

// Retainer keeps copies of what goes to targets whose way back is open; *retained.Store is one.
type Retainer interface {
	// Begin begins a copy for those of these agencies; nil if there are none.
	Begin(agencies ...routing.AgencyID) *retained.Incoming
}

// Options are a sender's settings. All are required, but for Answers and Retained.
type Options struct {
	// Answers ends when the node no longer waits for answers to a dot; what is still
	// under way then is in doubt. nil: it waits as long as the relay does.
	Answers context.Context

	Gate      Gate
	Ledger    Ledger
	Retained  Retainer // nil: no copies are kept
	Platforms []relay.Platform
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
	platforms map[routing.PlatformID]*relay.Platform
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
	set := &settings{Options: o, platforms: make(map[routing.PlatformID]*relay.Platform, len(o.Platforms))}
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
