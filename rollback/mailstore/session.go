package mailstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailcutover/routing"
)

// session is one mailbox's connection.
type session struct {
	p       *IMAP
	mailbox routing.MailboxID
	login   string // never logged

	g     *guard
	c     *imapclient.Client
	caps  imap.CapSet
	names *names
	held  bool  // it has one of the platform's slots
	dead  error // why no further call can be made
	// refused: the platform didn't want a literal. go-imap closes the connection then; the
	// next call makes another.
	refused bool

	folder string // selected; empty: none
	write  bool
}

// connect dials and logs in, and waits where the platform asks for time.
func (s *session) connect(ctx context.Context) error {
	var wait pauses
	for {
		err := s.connectOnce(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrThrottled) {
			return err
		}
		if !wait.more(ctx, s.p.o, err) {
			return s.p.putOff(ctx, err)
		}
	}
}

func (s *session) connectOnce(ctx context.Context) error {
	g, c, err := s.p.dial(ctx)
	if err != nil {
		return err
	}
	s.g, s.c, s.refused = g, c, false
	err = s.guarded(ctx, 0, func() error { return s.p.o.Access.logIn(ctx, c, s.login) })
	if s.g.late() {
		err = s.kind(err)
	}
	if err = s.p.judge(err); err != nil {
		s.hangUp()
		return fmt.Errorf("log in: %w", s.kind(err))
	}
	err = s.guarded(ctx, 0, func() error {
		if s.caps = c.Caps(); s.caps == nil {
			return errors.New("capabilities not told")
		}
		s.names = nil
		if !s.caps.Has(imap.CapNamespace) {
			s.names = newNames(nil)
			return nil
		}
		spaces, err := c.Namespace().Wait()
		s.names = newNames(spaces)
		return err
	})
	if err != nil {
		s.hangUp()
		return fmt.Errorf("ask for the namespace: %w", s.kind(err))
	}
	return nil
}

// hangUp closes the connection at once.
func (s *session) hangUp() {
	_ = s.g.Close() // what it failed with before is the error that counts
	_ = s.c.Close() // waits for go-imap's goroutine
}

// guarded runs f, which asks the platform something, with a time limit (0: the usual one)
// and until ctx ends.
func (s *session) guarded(ctx context.Context, limit time.Duration, f func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.g.Close() })
	s.g.arm(limit)
	err := f()
	s.g.disarm()
	if !stop() && err != nil {
		return context.Cause(ctx)
	}
	return err
}

// kind gives an error of go-imap's its kind.
func (s *session) kind(err error) error {
	var said *imap.Error
	switch {
	case err == nil, isKind(err):
		return err
	case s.g.flood():
		return fmt.Errorf("%w: %w: more than %d bytes", ErrProtocol, errFlood, maxAnswer)
	case s.g.late():
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &said):
		return answered(said)
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

// isKind reports whether an error has its kind already.
func isKind(err error) bool {
	for _, k := range []error{ErrTimeout, ErrUnavailable, ErrAuth, ErrThrottled, ErrNoMailbox, ErrNoFolder, ErrTooLarge, ErrRefused, ErrNoMove, ErrNoSpace, ErrProtocol} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// over reports whether nothing more can be asked after err: anything but a platform's NO.
func over(err error) bool {
	if err == nil {
		return false
	}
	for _, k := range []error{ErrThrottled, ErrNoFolder, ErrTooLarge, ErrRefused, ErrNoMove, ErrNoSpace} {
		if errors.Is(err, k) {
			return false
		}
	}
	return true
}

// call runs a command that can be repeated, and repeats it, with pauses, while the platform
// asks for time.
func (s *session) call(ctx context.Context, doing string, f func() error) error {
	var wait pauses
	for {
		err := s.once(ctx, f)
		if err == nil {
			return nil
		}
		if s.dead != nil || !errors.Is(err, ErrThrottled) || !wait.more(ctx, s.p.o, err) {
			return fmt.Errorf("%s in mailbox %s on %s: %w", doing, s.mailbox, s.p.o.Platform, err)
		}
	}
}

// once runs f and closes the connection if that leaves it in a state that isn't known.
func (s *session) once(ctx context.Context, f func() error) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	err := s.kind(s.guarded(ctx, 0, f))
	if over(err) {
		s.end(err)
	}
	return err
}

// ready makes a new connection where go-imap closed the last one for no fault of the
// platform's.
func (s *session) ready(ctx context.Context) error {
	if s.dead != nil {
		return s.dead
	}
	if !s.refused {
		return nil
	}
	s.hangUp()
	if err := s.connect(ctx); err != nil {
		s.dead = err
		return err
	}
	if s.folder == "" {
		return nil
	}
	_, err := s.sel(ctx)
	if err != nil {
		s.end(err)
	}
	return err
}

// end closes the connection for good.
func (s *session) end(err error) {
	if s.dead == nil {
		s.dead = err
		s.hangUp()
	}
}

// messageSize is the largest message, by setting or as the platform says (RFC 7889 section 3).
func (s *session) messageSize() int64 {
	size := s.p.o.MessageSize
	for c := range s.caps {
		if limit := appendLimit(string(c)); limit > 0 && (size == 0 || limit < size) {
			size = limit
		}
	}
	return size
}

// Close implements [Session].
func (s *session) Close() error {
	if s.held {
		s.held = false
		defer func() { <-s.p.slots }()
	}
	if s.dead != nil {
		return nil
	}
	s.dead = errors.New("session is closed")
	if !s.refused {
		// Whatever comes of it, the connection is closed next.
		_ = s.guarded(context.Background(), min(logoutLimit, s.p.o.Command), func() error { return s.c.Logout().Wait() })
	}
	s.hangUp()
	return nil
}

// pauses are those between repetitions of one command.
type pauses struct {
	next, spent time.Duration
}

// more waits before another attempt, as long as the platform asked for or twice as long as
// the last time. False: it has been long enough, or ctx has ended.
func (w *pauses) more(ctx context.Context, o Options, err error) bool {
	if w.next == 0 {
		w.next = o.RetryFirst
	}
	pause := w.next
	var t *ThrottledError
	if errors.As(err, &t) && t.After > pause {
		pause = t.After
	}
	if w.spent+pause > o.RetryMax {
		return false
	}
	w.spent += pause
	w.next = min(2*w.next, o.RetryMax)
	o.Logger.Info("platform asks for time", "platform", o.Platform, "pause", pause, "error", err)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
