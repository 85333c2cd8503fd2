package login

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"mailcutover/node"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/splice"
)

// ErrUnauthenticate is for Authenticate to wrap when a platform announces UNAUTHENTICATE
// (RFC 8437 for IMAP, RFC 5804 section 2.14.1 for ManageSieve): after it a second user could
// log in over the first one's route. It raises an alarm.
var ErrUnauthenticate = errors.New("the platform announces UNAUTHENTICATE")

// ErrLacks is for Authenticate to wrap when a platform lacks what its client was offered in the
// name of all platforms (Offers). It raises an alarm.
var ErrLacks = errors.New("the platform lacks what clients are offered")

// ErrReauthenticate is for Authenticate to wrap when a platform announces behind a login what
// would let the client begin anew there as another user, over the first one's route. It
// raises an alarm.
var ErrReauthenticate = errors.New("the platform lets a client begin anew behind its login")

// errUnreachable is for a platform none of whose hosts can be used now. It was told nothing of the
// client, and may be back in a moment.
var errUnreachable = errors.New("no host of the platform can be used now")

// isUnreachable reports whether err is a refusal because of errUnreachable, and not of a session
// that was ended meanwhile.
func isUnreachable(err error) bool {
	refused := (*Refusal)(nil)
	return errors.As(err, &refused) && refused.Cause == CausePlatform && errors.Is(err, errUnreachable)
}

// hopeless reports whether an attempt with a host failed for what nobody cures in a moment.
func hopeless(err error) bool {
	return errors.Is(err, dial.ErrTLS) || errors.Is(err, ErrUnauthenticate) || errors.Is(err, ErrReauthenticate) || errors.Is(err, ErrLacks)
}

// errNoEndpoint is for a platform without an endpoint for this protocol.
var errNoEndpoint = errors.New("the platform takes no logins of this protocol")

// at logs in at the platform of the last decision. After errStale the decision is to be made
// anew; nothing of the login is left then, nor after any other error.
func (t *try) at() (_ *Session, _ Welcome, err error) {
	h, p, d := t.h, t.p, t.who.d
	ep := p.endpoint(d.Platform, h.s.l.Dialogue.Protocol())
	if ep == nil {
		return nil, Welcome{}, refuse(CausePlatform, errNoEndpoint)
	}
	login := t.who.login
	if t.who.shared != "" {
		if ep.Delegate == "" {
			t.failed()
			return nil, Welcome{}, refuse(CauseName, errNoShared)
		}
		login += ep.Delegate + t.who.shared
	}
	t.login, t.ep = login, ep
	if ep.Master != nil {
		if err := t.verify(); err != nil { // before there is a ticket: a drain doesn't wait for a directory
			return nil, Welcome{}, err
		}
	}
	s := &Session{
		p: p, server: h.s, conn: h.conn, id: h.conn.Session(), client: h.c.Client().Addr, listener: h.s.l.ID, d: d, login: login,
		since: time.Now(), dialogue: h.s.l.Dialogue, tracker: h.s.l.Dialogue.Tracker(),
	}
	ctx, cancel := context.WithCancel(h.ctx)
	s.cancel = cancel
	if err := p.enter(s); err != nil {
		cancel()
		return nil, Welcome{}, refuse(CauseLimit, err)
	}
	h.opening.Store(s) // who cuts the client from now on ends s, too
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	if h.ctx.Err() != nil {
		return nil, Welcome{}, fmt.Errorf("login: %w", h.ctx.Err())
	}
	if s.ticket, err = p.o.Gate.Enter(&d, s.cut); err != nil {
		return nil, Welcome{}, asStale(err)
	}
	t.a.Login, t.a.Master = login, ep.Master // another mailbox is part of the login, in the form that the platform takes
	welcome, err := t.authenticate(ctx, s, ep)
	if err != nil {
		return nil, Welcome{}, t.explain(s, ep, err)
	}
	t.calm(ep)
	if err := p.seat(s); err != nil {
		return nil, Welcome{}, refuse(CauseLimit, err)
	}
	return s, welcome, nil
}

// verify checks the client's own credentials, where those of a master user will be sent.
func (t *try) verify() error {
	if t.verified == t.who.user && !t.verified.IsZero() {
		return nil // by an attempt that was for nothing
	}
	if t.p.o.Verifier == nil {
		return refuse(CausePlatform, errors.New("nobody checks the client's credentials"))
	}
	err := t.p.o.Verifier.Verify(t.h.ctx, t.who.user, t.a)
	switch {
	case err == nil:
		t.verified = t.who.user
		return nil
	case t.h.ctx.Err() != nil:
		return fmt.Errorf("login: %w", t.h.ctx.Err())
	case errors.Is(err, ErrRefused):
		t.failed()
		return refuse(CauseWrong, err)
	default:
		return refuse(CausePlatform, fmt.Errorf("check credentials: %w", err))
	}
}

// authenticate connects to the endpoint's hosts in turn until one can be asked, and asks it.
func (t *try) authenticate(ctx context.Context, s *Session, ep *endpoint) (Welcome, error) {
	var last error
	for range ep.Way.Hosts {
		asked := false
		t.a.SetLast(func() error {
			asked = true
			if err := s.ended(); err != nil {
				return err
			}
			return s.ticket.Open(ctx)
		})
		raw, host, err := ep.dialer.Dial(ctx)
		if err != nil {
			if last != nil && errors.Is(err, dial.ErrNoHost) {
				err = last
			}
			return Welcome{}, unreachable(err)
		}
		leg, welcome, err := t.ask(ctx, s, ep, raw, host)
		var rejected *Rejection
		var refused *Refusal
		switch {
		case err == nil:
			ep.dialer.Succeeded(host)
			if err := s.ticket.Acknowledge(); err != nil {
				return Welcome{}, asStale(err)
			}
			if err := s.ticket.Flows(); err != nil {
				return Welcome{}, asStale(err)
			}
			if !s.opened(leg.nc, leg.Rest()) {
				return Welcome{}, errEnded
			}
			return welcome, nil
		case s.ended() != nil || ctx.Err() != nil:
			ep.dialer.Dropped(host)
			return Welcome{}, err // not the host's fault
		case errors.As(err, &rejected), errors.As(err, &refused):
			ep.dialer.Succeeded(host)
			return Welcome{}, err
		case asked:
			ep.dialer.Dropped(host)
			return Welcome{}, err // the credentials may be there: not a second time
		}
		ep.dialer.Failed(host, err)
		_ = raw.Close()
		last = err
	}
	return Welcome{}, unreachable(last)
}

func unreachable(err error) error {
	if err == nil || hopeless(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnreachable, err)
}

// ask speaks with one host.
func (t *try) ask(ctx context.Context, s *Session, ep *endpoint, raw net.Conn, host string) (*Leg, Welcome, error) {
	s.mu.Lock()
	s.raw = raw
	ended := s.cause != CauseUnknown
	s.mu.Unlock()
	if ended {
		_ = raw.Close()
		return nil, Welcome{}, errEnded
	}
	way := &ep.Way
	if ep.Identity == IdentityProxyV2 {
		if err := raw.SetWriteDeadline(time.Now().Add(ep.Answer)); err != nil {
			return nil, Welcome{}, err
		}
		if _, err := raw.Write(dial.AppendProxyV2(nil, s.client, t.h.c.Client().Local)); err != nil {
			return nil, Welcome{}, fmt.Errorf("PROXY header to %s: %w", host, err)
		}
	}
	nc := splice.Under(raw)
	o := LegOptions{
		Net: nc, Greeting: ep.Greeting, Answer: ep.Answer, Login: ep.Login, Write: ep.Answer,
		Handshake: ep.dialer.Endpoint().HandshakeTimeout, Ended: s.ended, pool: &t.p.buffers,
		Target: Target{
			Platform: string(ep.Platform), Host: host, Helo: t.p.o.Hostname, Identity: ep.Identity, Client: t.clientInfo(),
		},
	}
	var leg *Leg
	o.MaySend = func(bool) error { return ep.dialer.MaySend(leg.nc) }
	switch {
	case way.TLS.Implicit:
		o.Target.TLS, o.Encrypted = LegImplicit, true
		t, err := ep.dialer.Handshake(ctx, nc, host)
		if err != nil {
			return nil, Welcome{}, err
		}
		o.Net = t
	case way.TLS.Policy != dial.TLSNone:
		o.Target.TLS = LegStartTLS
		o.TLS = func(nc net.Conn) *tls.Conn { return tls.Client(nc, ep.tls[host]) }
	default:
		o.Target.TLS = LegPlain
	}
	leg = NewLeg(o)
	welcome, err := s.dialogue.Authenticate(leg, t.a)
	if err != nil {
		leg.Rest() // wipes what was read
	}
	return leg, welcome, err
}

// clientInfo is what the platform may be told of the client.
func (t *try) clientInfo() ClientInfo {
	c := t.h.c.Client()
	i := ClientInfo{Session: c.Session, Helo: t.a.Helo, EncryptedLine: c.TLS}
	if c.Addr.IsValid() {
		i.Addr, i.Port = c.Addr.Addr().Unmap().String(), strconv.Itoa(int(c.Addr.Port()))
	}
	if c.Local.IsValid() {
		i.Local, i.LocalPort = c.Local.Addr().Unmap().String(), strconv.Itoa(int(c.Local.Port()))
	}
	return i
}

// explain says what an error at the platform means for the client. A wrong password is one
// only if the platform said so under a decision that still holds, by a right that was never
// interrupted (docs/architecture/promises.md, P5): the losing platform of a switch may deny all
// logins.
func (t *try) explain(s *Session, ep *endpoint, err error) error {
	if t.h.ctx.Err() != nil {
		return fmt.Errorf("login: %w", t.h.ctx.Err())
	}
	if errors.Is(err, errStale) {
		return err
	}
	switch cause := s.causeOf(); cause {
	case CauseUnknown:
	case CauseMoved:
		return asStale(node.ErrClosed)
	default:
		return refuse(cause, err)
	}
	if errors.Is(err, node.ErrClosed) { // of Last
		return asStale(err)
	}
	var refused *Refusal
	if errors.As(err, &refused) {
		if refused.Cause == CauseWrong {
			return t.wrong(s, refused.Answer)
		}
		return refused
	}
	var rejected *Rejection
	if errors.As(err, &rejected) {
		return t.wrong(s, rejected.Answer)
	}
	t.alarm(ep, err)
	return refuse(CausePlatform, err)
}

// alarm raises what people have to see to, and calm clears it.
func (t *try) alarm(ep *endpoint, err error) {
	of := fmt.Sprintf("platform %s by %s", ep.Platform, ep.Protocol)
	switch {
	case errors.Is(err, ErrUnauthenticate):
		ep.alarmed.Store(true)
		t.p.o.Alarms.Raise(ep.alarmKey("unauthenticate"), "logins at "+of+" are refused: it announces UNAUTHENTICATE, and a second user could use the first one's route")
	case errors.Is(err, ErrReauthenticate):
		ep.alarmed.Store(true)
		t.p.o.Alarms.Raise(ep.alarmKey("reauthenticate"), "logins at "+of+" are refused: "+err.Error())
	case errors.Is(err, ErrLacks):
		ep.alarmed.Store(true)
		t.p.o.Alarms.Raise(ep.alarmKey("offers"), "logins at "+of+" are refused: "+err.Error())
	case errors.Is(err, dial.ErrTLS):
		ep.alarmed.Store(true)
		t.p.o.Alarms.Raise(ep.alarmKey("tls"), "logins at "+of+" fail: TLS as configured can't be had there")
	}
}

func (n *endpoint) alarmKey(what string) string {
	return "login-" + what + ":" + string(n.Platform) + ":" + n.Protocol
}

func (t *try) calm(ep *endpoint) {
	if ep.alarmed.Load() && ep.alarmed.Swap(false) {
		t.p.o.Alarms.Clear(ep.alarmKey("unauthenticate"))
		t.p.o.Alarms.Clear(ep.alarmKey("reauthenticate"))
		t.p.o.Alarms.Clear(ep.alarmKey("offers"))
		t.p.o.Alarms.Clear(ep.alarmKey("tls"))
	}
}

// wrong is for credentials that the platform refused.
func (t *try) wrong(s *Session, answer []byte) error {
	if err := s.ticket.Acknowledge(); err != nil {
		return asStale(err)
	}
	if err := s.ticket.Flows(); err != nil {
		return asStale(err)
	}
	t.failed()
	return &Refusal{Cause: CauseWrong, Answer: answer}
}
