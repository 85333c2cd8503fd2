package login

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"mailcutover/node"
	"mailcutover/proxy/listen"
	"mailcutover/proxy/splice"
	"mailcutover/routing"
)

// Session is a login at a platform: from the decision on, and after the platform has taken it
// joined with the client.
//
// It is made, opened and joined by the goroutine of the client's connection. Its agency's
// change, the end of the node, an operator and the engine that joins reach it from others; mu
// says which of them is first.
type Session struct {
	p        *Proxy
	server   *Server // nil in tests of dialogues
	conn     *listen.Conn
	id       string
	client   netip.AddrPort
	listener string
	d        routing.Decision
	login    string // what the platform is told
	since    time.Time
	dialogue Dialogue
	tracker  Tracker            // belongs to the engine after the join; nil: none
	cancel   context.CancelFunc // ends the way to the platform; until it is joined
	ticket   *node.Ticket
	seated   bool // it has one of its mailbox's places; under p.mu

	mu      sync.Mutex
	phase   sessionPhase
	raw     net.Conn // the platform's socket; nil: none yet
	leg     net.Conn // the same, or TLS over it
	rest    []byte   // what the platform sent beyond its answer
	joint   *splice.Joint
	cause   Cause  // why it is ended by us; CauseUnknown: it isn't
	reason  string // the same for the log
	spread  time.Duration
	timer   *time.Timer // of a planned end; nil: none
	stalled time.Time   // since when it is suspended; zero: it isn't
}

// sessionPhase says who uses the platform's socket.
type sessionPhase uint8

const (
	phaseConnecting sessionPhase = iota // the goroutine that logs in
	phaseOpen                           // nobody: the client is being told
	phaseJoined                         // the engine
	phaseOver                           // nobody any more
)

func (s *Session) key() mailboxKey { return mailboxKey{s.d.Agency, s.d.Mailbox} }

// matches reports whether f picks s.
func (s *Session) matches(f *Filter) bool {
	return (f.ID == "" || f.ID == s.id) &&
		(f.Protocol == "" || f.Protocol == s.dialogue.Protocol()) &&
		(f.Agency == "" || f.Agency == s.d.Agency) &&
		(f.Mailbox == routing.MailboxID{} || f.Mailbox == s.d.Mailbox) &&
		(f.Login == "" || strings.EqualFold(f.Login, s.login)) &&
		(!f.Address.IsValid() || f.Address.Unmap() == s.client.Addr().Unmap()) &&
		(f.Platform == "" || f.Platform == s.d.Platform)
}

func (s *Session) state() SessionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cause != CauseUnknown || s.phase == phaseOver:
		return StateEnding
	case s.phase != phaseJoined:
		return StateOpening
	case !s.stalled.IsZero():
		return StateSuspended
	}
	return StateJoined
}

func (s *Session) info() SessionInfo {
	i := SessionInfo{
		ID: s.id, Protocol: s.dialogue.Protocol(), Agency: s.d.Agency, Mailbox: s.d.Mailbox, Login: s.login,
		Client: s.client, Listener: s.listener, Platform: s.d.Platform, Epoch: s.d.Epoch, Since: s.since, State: s.state(),
	}
	s.mu.Lock()
	joint := s.joint
	s.mu.Unlock()
	if joint != nil {
		stats := joint.Stats()
		i.ToPlatform, i.ToClient = stats.ToPlatform, stats.ToClient
	}
	return i
}

// isJoined reports whether bytes may flow, or stand still.
func (s *Session) isJoined() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase == phaseJoined && s.cause == CauseUnknown
}

// causeOf returns why the session is ended by us.
func (s *Session) causeOf() Cause {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// errEnded is what a login gets whose session was ended.
var errEnded = errors.New("session was ended")

// ended says why the way to the platform is to end; nil while it isn't.
func (s *Session) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != CauseUnknown {
		return errEnded
	}
	return nil
}

// cut is called by the gate when the agency's record has changed.
func (s *Session) cut() { s.end(CauseMoved, "", s.p.o.Spread) }

// end ends the session for this cause: the platform's side at once, or as the dialogue wants it
// when the agency closes, and the client's within spread. The first cause stays, a later call
// can only bring the client's end forward. first reports whether it is the first. It doesn't block.
func (s *Session) end(cause Cause, reason string, spread time.Duration) (first bool) {
	s.mu.Lock()
	first = s.cause == CauseUnknown
	if first {
		s.cause, s.reason, s.spread = cause, reason, spread
	} else {
		s.spread = min(s.spread, spread)
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	phase, joint, raw := s.phase, s.joint, s.raw
	if phase == phaseOpen {
		s.phase = phaseOver // under mu: nobody joins it any more
	}
	s.mu.Unlock()
	switch phase {
	case phaseConnecting:
		// The goroutine that logs in notices by its context, or by the socket, and
		// ends the ticket when it doesn't use it any more.
		s.cancel()
		if raw != nil {
			_ = raw.Close()
		}
	case phaseOpen:
		s.cancel()
		_ = raw.Close()
		s.ticket.End()
	case phaseJoined:
		if e := s.dialogue.Ending(); cause == CauseMoved && e.Silence > 0 {
			joint.CutWhenSilent(e.Silence, e.Within) // the client follows in PlatformGone
		} else {
			joint.EndClient(s.words, randomly(spread))
		}
	}
	return first
}

// randomly returns a time from 0 to d, so that not all come back at once.
func randomly(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// endWithin plans the end at a time by chance within spread. Until then the session goes on.
func (s *Session) endWithin(cause Cause, reason string, spread time.Duration) {
	wait := randomly(spread)
	if wait == 0 {
		s.end(cause, reason, 0)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != CauseUnknown || s.phase == phaseOver || s.timer != nil {
		return
	}
	s.timer = time.AfterFunc(wait, func() { s.end(cause, reason, 0) })
}

// words returns what the client is told at the end, where that can be understood.
func (s *Session) words() []byte {
	s.mu.Lock()
	cause := s.cause
	s.mu.Unlock()
	return s.farewell(cause)
}

func (s *Session) farewell(cause Cause) []byte {
	if s.tracker == nil || !s.tracker.AtStart() {
		return nil
	}
	return s.dialogue.Farewell(cause, true)
}

// opened says that the platform took the login, over leg. It is false if the session was ended
// meanwhile.
func (s *Session) opened(leg net.Conn, rest []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != CauseUnknown {
		return false
	}
	s.phase, s.leg, s.rest = phaseOpen, leg, rest
	return true
}

// abandon ends a session that isn't joined, and that nobody else uses.
func (s *Session) abandon() {
	s.mu.Lock()
	was, raw := s.phase, s.raw
	s.phase = phaseOver
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	if was == phaseJoined {
		return
	}
	if s.cancel != nil {
		s.cancel()
	}
	if raw != nil {
		_ = raw.Close()
	}
	if s.ticket != nil {
		s.ticket.End()
	}
	s.p.leave(s)
}

// join joins the session with its client, which has been told of its login. It is false if the
// session was ended meanwhile: then the client is still the caller's.
func (s *Session) join(client net.Conn, rest []byte) (joined bool, err error) {
	s.mu.Lock()
	if s.phase != phaseOpen {
		s.mu.Unlock()
		return false, nil
	}
	joint, err := s.server.engine.Join(splice.Pair{
		Client: client, Platform: s.leg, ToPlatform: rest, ToClient: s.rest, Owner: (*owner)(s),
	})
	if err != nil {
		s.mu.Unlock()
		return false, err
	}
	s.phase, s.joint = phaseJoined, joint
	s.raw, s.leg, s.rest, s.cancel = nil, nil, nil, nil // nothing but the engine needs them
	s.mu.Unlock()
	s.p.o.Observer.SessionOpened(s.dialogue.Protocol(), s.d.Platform)
	s.conn.Notify(s.stage)
	if s.p.o.Gate.Resting() {
		s.endWithin(CauseDrain, "maintenance", s.p.o.Spread) // decided just before it began
	}
	joint.Start()
	return true, nil
}

// stage follows the end of the listener.
func (s *Session) stage(at listen.Stage) {
	switch at {
	case listen.Draining:
		s.endWithin(CauseDrain, "", s.p.o.Spread)
	case listen.Cut:
		s.end(CauseDrain, "", 0)
	}
}

// owner is a session as the engine sees it.
type owner Session

// Flow implements [splice.Owner].
func (o *owner) Flow() error {
	s := (*Session)(o)
	switch err := s.ticket.Flows(); {
	case err == nil:
		return nil
	case err == node.ErrLapsed: // bare: it wraps ErrClosed
		if !s.suspend() {
			return err
		}
		return splice.ErrSuspended
	case s.dialogue.Ending().Silence > 0 && s.ticket.Acknowledge() == nil:
		// It ends when it is silent. The drain waits for it, and the right holds, so
		// nobody has the agency yet.
		return nil
	default:
		return err
	}
}

// suspend notes that the session stands still. It is false if it is being ended anyway.
func (s *Session) suspend() bool {
	s.mu.Lock()
	if s.cause != CauseUnknown {
		s.mu.Unlock()
		return false
	}
	first := s.stalled.IsZero() // not by the warden, or the engine, already
	if first {
		s.stalled = time.Now()
	}
	s.mu.Unlock()
	if first {
		s.p.o.Observer.SessionSuspended(s.dialogue.Protocol())
	}
	s.p.warden.add(s)
	return true
}

// resume goes on.
func (s *Session) resume() {
	s.mu.Lock()
	s.stalled = time.Time{}
	joint := s.joint
	s.mu.Unlock()
	joint.Resume()
}

// ToClientSeen implements [splice.Owner].
func (o *owner) ToClientSeen(p []byte) {
	if o.tracker != nil {
		o.tracker.Observe(p)
	}
}

// PlatformGone implements [splice.Owner]: what the drain waits for.
func (o *owner) PlatformGone() {
	s := (*Session)(o)
	s.ticket.End()
	s.mu.Lock()
	cause, joint, spread := s.cause, s.joint, s.spread
	s.mu.Unlock()
	switch {
	case cause == CauseMoved && s.dialogue.Ending().Silence > 0:
		joint.EndClient(s.words, randomly(spread)) // the cut has waited for silence
	case cause == CauseUnknown && joint.By() == splice.ByLimit:
		joint.EndClient(func() []byte { return s.farewell(CauseIdle) }, 0)
	}
}

// Done implements [splice.Owner].
func (o *owner) Done(e splice.Ended) {
	s := (*Session)(o)
	s.mu.Lock()
	s.phase = phaseOver
	if s.timer != nil {
		s.timer.Stop()
	}
	cause, reason := s.cause, s.reason
	s.mu.Unlock()
	s.ticket.End() // for certain: PlatformGone did
	s.p.warden.remove(s)
	s.p.leave(s)
	by := e.By.String()
	if cause != CauseUnknown {
		by = cause.String()
	}
	lasted := time.Since(s.since)
	s.p.o.Observer.SessionEnded(s.dialogue.Protocol(), s.d.Platform, by, e.Stats.ToPlatform, e.Stats.ToClient, lasted)
	s.p.logSession(s, by, reason, e, lasted)
	s.conn.Leave()
}
