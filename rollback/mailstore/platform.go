package mailstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"golang.org/x/time/rate"

	"mailcutover/routing"
)

// strangers is after how many logins in a row that were refused it is our credentials that
// are wrong, and not the mailboxes.
const strangers = 5

// IMAP is a [Store] over IMAP. It is safe for concurrent use.
type IMAP struct {
	o       Options
	slots   chan struct{} // one for each open session
	limiter *rate.Limiter // nil: none
	next    atomic.Uint32 // host

	mu      sync.Mutex
	welcome bool // a login has succeeded
	refused int  // logins in a row that were refused
}

// New returns a platform's mailboxes. Nothing is connected yet. The error says all that is
// wrong with o.
func New(o Options) (*IMAP, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	p := &IMAP{o: o, slots: make(chan struct{}, o.Connections)}
	if o.Bytes > 0 {
		p.limiter = rate.NewLimiter(rate.Limit(o.Bytes), int(max(o.Bytes, 64<<10)))
	}
	return p, nil
}

// Open implements [Store].
func (p *IMAP) Open(ctx context.Context, row routing.Row, side Side) (Session, error) {
	if side != Source && side != Target {
		return nil, fmt.Errorf("open a mailbox on %s: side %v", p.o.Platform, side)
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("open mailbox %s on %s: wait for a connection: %w", row.Mailbox, p.o.Platform, context.Cause(ctx))
	}
	s := &session{p: p, mailbox: row.Mailbox, login: row.At(side == Target).Login, held: true}
	if err := s.connect(ctx); err != nil {
		<-p.slots
		return nil, fmt.Errorf("open mailbox %s on %s: %w", row.Mailbox, p.o.Platform, err)
	}
	return s, nil
}

// dial connects to the next host that can be reached.
func (p *IMAP) dial(ctx context.Context) (*guard, *imapclient.Client, error) {
	var errs []error
	first := p.next.Add(1)
	for i := range p.o.Hosts {
		host := p.o.Hosts[(int(first)+i)%len(p.o.Hosts)]
		g, c, err := p.greet(ctx, host)
		if err == nil {
			return g, c, nil
		}
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		errs = append(errs, fmt.Errorf("%s: %w", host, err))
	}
	return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(errs...))
}

// greet connects to a host, with TLS as it is set.
func (p *IMAP) greet(ctx context.Context, host string) (*guard, *imapclient.Client, error) {
	dialling, cancel := context.WithTimeout(ctx, p.o.Dial)
	defer cancel()
	conn, err := p.o.Dialer(dialling, "tcp", host)
	if err != nil {
		return nil, nil, err
	}
	g := &guard{Conn: conn, limit: p.o.Command, limiter: p.limiter, closed: make(chan struct{})}
	g.arm(0)
	defer g.disarm()
	stop := context.AfterFunc(ctx, func() { _ = g.Close() })
	defer stop()
	c, err := p.client(g, host)
	if err == nil {
		if err = c.WaitGreeting(); err != nil {
			_ = c.Close() // nothing was asked yet
		}
	}
	if err != nil {
		_ = g.Close()
		if g.late() {
			err = fmt.Errorf("%w: %w", ErrTimeout, err)
		}
		return nil, nil, err
	}
	return g, c, nil
}

// client makes go-imap's client of a connection.
func (p *IMAP) client(g *guard, host string) (*imapclient.Client, error) {
	o := &imapclient.Options{}
	if p.o.TLS == nil {
		if err := onThisHost(g.RemoteAddr()); err != nil {
			return nil, err
		}
		return imapclient.New(g, o), nil
	}
	settings := p.o.TLS(host)
	if !p.o.Implicit {
		o.TLSConfig = settings
		return imapclient.NewStartTLS(g, o)
	}
	return imapclient.New(tlsOver(g, settings), o), nil
}

// judge says what a refused login is about: this mailbox, or us.
func (p *IMAP) judge(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.welcome, p.refused = true, 0
		return nil
	}
	var said *imap.Error
	switch {
	case errors.As(err, &said):
	case isKind(err), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case p.welcome && p.refused < strangers:
		// Dovecot 2.3 hangs up when a master user logs in at a mailbox that doesn't exist.
		p.refused++
		return fmt.Errorf("%w: the platform ended the connection: %w", ErrNoMailbox, err)
	default:
		return err
	}
	err = answered(said)
	if !errors.Is(err, ErrAuth) && !errors.Is(err, ErrRefused) {
		return err
	}
	p.refused++
	text := clip(said.Error())
	if !p.welcome || p.refused >= strangers {
		return fmt.Errorf("%w, or there is no such mailbox: %s", ErrAuth, text)
	}
	return fmt.Errorf("%w: %s", ErrNoMailbox, text) // with a master user both get the same answer
}

// putOff says what a login is about that the platform has put off to the end, with all pauses. A
// mailbox that doesn't exist is also answered NO [UNAVAILABLE] by Dovecot 2.3, or it hangs up,
// whichever of its processes is quicker: where others open it is this mailbox, and the platform
// doesn't have to wait for it.
func (p *IMAP) putOff(ctx context.Context, err error) error {
	t, ok := errors.AsType[*ThrottledError](err)
	if !ok || !t.unavailable || ctx.Err() != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.welcome || p.refused >= strangers {
		return err
	}
	p.refused++
	return fmt.Errorf("%w: %s", ErrNoMailbox, t.Err)
}

// logoutLimit is how long a platform may take to say goodbye.
const logoutLimit = 2 * time.Second
