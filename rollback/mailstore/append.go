package mailstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// aheadMessages is how many messages may be sent before the first is answered.
const aheadMessages = 32

// AppendMany implements [Session].
func (s *session) AppendMany(ctx context.Context, folder string) Appender {
	return &appender{s: s, ctx: ctx, folder: folder, told: s.names.told(folder)}
}

// appender sends APPENDs one after the other. The time limit is about sending one, and about
// waiting for an answer; what passes between two calls doesn't count.
type appender struct {
	s       *session
	ctx     context.Context // of the call of AppendMany, until Close
	folder  string
	told    string
	waiting []sent
}

// sent is an APPEND that isn't answered.
type sent struct {
	cmd  *imapclient.AppendCommand
	done func(Appended, error)
}

// Add implements [Appender].
func (a *appender) Add(m Append, done func(Appended, error)) error {
	if limit := a.s.messageSize(); limit > 0 && m.Size > limit {
		done(Appended{}, a.wrap(fmt.Errorf("%w: %d bytes, the platform takes %d", ErrTooLarge, m.Size, limit)))
		return nil
	}
	if a.s.refused {
		a.answers(0) // all were answered before the refusal
	}
	if err := a.s.ready(a.ctx); err != nil {
		err = a.wrap(err)
		a.fail(err)
		done(Appended{}, err)
		return err
	}
	if err := a.answers(aheadMessages - 1); err != nil {
		done(Appended{}, err)
		return err
	}
	options := &imap.AppendOptions{Time: m.Internal}
	for _, f := range m.Flags {
		options.Flags = append(options.Flags, imap.Flag(f))
	}
	var cmd *imapclient.AppendCommand
	var half error // the literal was begun and not ended
	err := a.s.guarded(a.ctx, 0, func() error {
		cmd = a.s.c.Append(a.told, m.Size, options)
		n, err := io.CopyBuffer(onlyWriter{cmd}, io.LimitReader(m.Body, m.Size), make([]byte, 32<<10))
		if err == nil && n < m.Size {
			err = fmt.Errorf("%w: %d of %d bytes", errCutOff, n, m.Size)
		}
		if err != nil {
			var said *imap.Error
			if !errors.As(err, &said) {
				half = err
				_ = a.s.g.Close() // half a message must not be ended
			} else {
				a.s.refused = true
			}
		}
		if closing := cmd.Close(); err == nil {
			err = closing
		}
		return err
	})
	switch {
	case half != nil:
		_, answer := cmd.Wait()
		err = a.s.kind(errors.Join(half, err))
		if !isKind(half) && !errors.Is(half, errCutOff) && answer != nil && a.s.g.late() {
			err = fmt.Errorf("%w: %w", ErrTimeout, half)
		}
		a.s.end(err)
		err = a.wrap(err)
		a.fail(err)
		done(Appended{}, err)
		return err
	case err != nil && !a.s.refused:
		err = a.s.kind(err)
		a.s.end(err)
		err = a.wrap(err)
		a.fail(err)
		done(Appended{}, err)
		return err
	}
	a.waiting = append(a.waiting, sent{cmd, done})
	return nil
}

// onlyWriter keeps io.Copy from looking for other methods.
type onlyWriter struct{ io.Writer }

// answers waits until at most left messages aren't answered.
func (a *appender) answers(left int) error {
	for len(a.waiting) > left {
		first := a.waiting[0]
		a.waiting = a.waiting[1:]
		var at Appended
		err := a.s.guarded(a.ctx, 0, func() error {
			data, err := first.cmd.Wait()
			if err == nil {
				at = Appended{UIDValidity: data.UIDValidity, UID: uint32(data.UID)}
			}
			return err
		})
		if err = a.s.kind(err); err == nil {
			first.done(at, nil)
			continue
		}
		err = a.wrap(err)
		first.done(Appended{}, err)
		if over(err) {
			a.s.end(err)
			a.fail(err)
			return err
		}
	}
	return nil
}

// fail tells all that wait that the session is over.
func (a *appender) fail(err error) {
	for _, w := range a.waiting {
		w.done(Appended{}, err)
	}
	a.waiting = nil
}

// Close implements [Appender].
func (a *appender) Close() error { return a.answers(0) }

// wrap says what was attempted.
func (a *appender) wrap(err error) error {
	return fmt.Errorf("put a message into mailbox %s on %s: %w", a.s.mailbox, a.s.p.o.Platform, err)
}
