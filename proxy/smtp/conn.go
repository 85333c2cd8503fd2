package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"mailcutover/mail"
	"mailcutover/proxy/listen"
)

// Why a connection ends, where it isn't the peer's QUIT or a network error.
var (
	errQuit      = errors.New("quit")
	errDrain     = errors.New("drain")
	errTooMuch   = errors.New("too many errors or idle commands")
	errOutOfSync = errors.New("out of sync")
	errRefused   = errors.New("refused")
	errTooLong   = errors.New("command line without end")
	errProxy     = errors.New("PROXY header refused")
	errInjected  = errors.New("bytes behind STARTTLS")
	errDoubtful  = errors.New("end of message open to doubt")
)

// conn is one peer's connection. All of it belongs to the connection's goroutine, but
// for nc's deadlines, which a drain uses.
type conn struct {
	wire
	srv *Server
	in  *listen.Conn

	origin  mail.Origin
	helo    string // argument of HELO, EHLO or LHLO
	with    string // of the Received line: SMTP, ESMTP, ESMTPS, ...
	secured string // TLS's protocol and cipher; empty if plain

	session Session // nil before the first MAIL
	offer   offers
	forward *xforward // nil but for trusted peers that used it
	tx      transaction

	ending       error // why the connection is to end after the current command; nil: go on
	quiet        bool  // end without a word
	errors       int
	strikes      int // errors since the last accepted message
	refusals     int // recipients refused for good, or unknown, since the same
	idles        int // commands that moved no mail, since the same
	transactions int
	messages     int // accepted
}

// transaction is what the engine knows of the current transaction.
type transaction struct {
	begun    bool
	utf8     bool
	accepted int // recipients that the session took
	refused  int
	pending  []Recipient // recipients that arrived together and are still to be decided
}

// serve speaks with the peer until the connection ends.
func (c *conn) serve() {
	start := time.Now()
	err := c.open()
	for err == nil {
		err = c.step()
	}
	c.finish(err, start)
}

// open does what comes before the first command.
func (c *conn) open() error {
	c.origin = c.srv.opts.Origin
	if contains(c.srv.opts.InsideNets, c.in.Addr().Addr()) {
		c.origin = mail.OriginInside
	}
	if c.srv.opts.ImplicitTLS {
		if err := c.shake(); err != nil {
			return err
		}
	}
	if c.leaving() {
		return errDrain
	}
	if c.srv.opts.Protocol == ProtocolLMTP {
		c.line(220, c.srv.opts.Hostname+" LMTP")
	} else {
		c.line(220, c.srv.opts.Hostname+" ESMTP")
	}
	return c.writeErr
}

// client returns who the client is, without XFORWARD.
func (c *conn) client() mail.Client {
	m := c.in.Client()
	m.Origin, m.Helo, m.With, m.TLS = c.origin, c.helo, c.with, c.secured
	return m
}

// step answers one command.
func (c *conn) step() error {
	if c.leaving() {
		return errDrain
	}
	line, err := c.readLine(time.Now().Add(c.srv.opts.Limits.Idle))
	if err != nil {
		return err
	}
	if c.leaving() { // while it was idle
		return errDrain
	}
	return c.answer(line)
}

// answer answers one command. It is apart from step, as other things are from what
// waits, because an idle connection's stack is as large as its frames: below some
// 1,200 bytes the runtime shrinks it to 4 KiB.
func (c *conn) answer(line []byte) error {
	cmd := parseCommand(line)
	c.srv.observe.Command(cmd.name())
	c.dispatch(cmd)
	if c.ending == nil && c.writeErr != nil {
		return c.writeErr
	}
	return c.ending
}

// finish says the last words that err asks for, and closes.
func (c *conn) finish(err error, start time.Time) {
	linger := false
	if !c.quiet {
		switch {
		case errors.Is(err, errDrain):
			c.reply(replyDrain)
		case isTimeout(err) && c.writeErr == nil:
			c.reply(replyTimeout)
		}
		linger = c.in.Stage() < listen.Cut && !errors.Is(err, errQuit) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
	}
	c.endSession()
	c.close(linger)
	c.srv.log.Info("connection ended", "session", c.in.Session(), "peer", c.in.Peer(), "client", c.in.Addr(),
		"helo", c.helo, "tls", c.secured, "transactions", c.transactions, "messages", c.messages,
		"errors", c.errors, "seconds", time.Since(start).Seconds(), "reason", reason(err))
}

// abandon closes without a word, after a panic. The session is still told, since it
// may hold a platform's connection.
func (c *conn) abandon() {
	_ = c.nc.Close()
	if c.session == nil {
		return
	}
	for _, tell := range []func(){c.session.Reset, c.session.Close} {
		func() {
			defer func() {
				if p := recover(); p != nil {
					c.srv.log.Error("session panicked again", "session", c.in.Session(), "error", fmt.Sprint(p))
				}
			}()
			tell()
		}()
	}
}

// reason is how a connection's end is logged.
func reason(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "closed by peer"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "closed by peer within a message"
	}
	return err.Error()
}

// endSession ends the session, if there is one.
func (c *conn) endSession() {
	c.resetTransaction()
	if c.session != nil {
		c.session.Close()
		c.session = nil
	}
}

// resetTransaction ends the transaction, if there is one, and what holds for one only.
func (c *conn) resetTransaction() {
	if c.tx.begun {
		c.session.Reset()
	}
	c.tx = transaction{}
	c.forward = nil
}

// fillUntil reads more, and waits for it until the deadline, or until a drain wants
// the connection to end.
func (c *conn) fillUntil(deadline time.Time) error {
	for {
		if err := c.nc.SetReadDeadline(deadline); err != nil {
			return err
		}
		if err := c.stopped(); err != nil {
			return err
		}
		err := c.fill()
		if err == nil || c.writeErr != nil || !isTimeout(err) {
			return err
		}
		if stop := c.stopped(); stop != nil {
			return stop
		}
		if !time.Now().Before(deadline) {
			return err
		}
	}
}

// leaving reports whether nothing may begin on this connection any more, and nothing is under
// way on it: the server ends, or the node rests.
func (c *conn) leaving() bool {
	return !c.tx.begun && (c.in.Stage() >= listen.Draining || c.srv.opts.Resting != nil && c.srv.opts.Resting())
}

// stopped returns errDrain if the connection is to end where it stands.
func (c *conn) stopped() error {
	if at := c.in.Stage(); at == listen.Cut || at == listen.Draining && !c.tx.begun {
		return errDrain
	}
	return nil
}

// readLine returns the next command line without its CRLF; it is valid until the next
// read. What is wrong with a line is answered here. Recipients that are still to be
// decided are decided before it waits.
func (c *conn) readLine(deadline time.Time) ([]byte, error) {
	for {
		line, err := c.rawLine(deadline)
		if err != nil {
			return nil, err
		}
		if n := len(line) - 2; n > 0 && line[n] == '\r' {
			return line[:n], nil
		}
		if err := c.oddLine(line); err != nil {
			return nil, err
		}
	}
}

// oddLine answers a line that is empty or ends in a bare LF.
func (c *conn) oddLine(line []byte) error {
	wrong := replyUnknown
	switch {
	case string(line) != "\r\n":
		wrong = replyLineEnd
	case bytes.HasPrefix(c.unread(), []byte(listen.SignatureV2[2:])): // from a peer that must not send it
		c.quiet = true
		return errProxy
	}
	if !c.violation(command{}, wrong) {
		return errTooMuch
	}
	return nil
}

// rawLine returns the next line with its LF. One that is too long is answered and
// skipped, up to a bound.
func (c *conn) rawLine(deadline time.Time) ([]byte, error) {
	for skipped := 0; ; {
		b := c.unread()
		i := bytes.IndexByte(b, '\n')
		if n := c.srv.opts.Limits.CommandBytes; skipped > 0 || i >= n || i < 0 && len(b) >= n {
			var err error
			if skipped, err = c.skip(skipped, i); err != nil {
				return nil, err
			}
			if i >= 0 {
				continue
			}
		} else if i >= 0 {
			c.take(i + 1)
			return b[:i+1], nil
		}
		if c.decide(); c.ending != nil {
			return nil, c.ending
		}
		if err := c.fillUntil(deadline); err != nil {
			return nil, err
		}
	}
}

// skip takes what is unread of a line that is too long, up to its end at lf, if that is
// there. It returns how much of the line was skipped so far.
func (c *conn) skip(skipped, lf int) (int, error) {
	if lf >= 0 {
		c.take(lf + 1)
		if !c.violation(command{}, replyTooLong) {
			return 0, errTooMuch
		}
		return 0, nil
	}
	skipped += len(c.unread())
	c.take(len(c.unread()))
	if skipped > 16*c.srv.opts.Limits.CommandBytes {
		c.violation(command{}, replyTooLong)
		return skipped, errTooLong
	}
	return skipped, nil
}

// violation answers a command that is wrong in itself or in its place, and reports
// whether the connection may go on.
func (c *conn) violation(cmd command, r *mail.Reply) bool {
	c.decide()
	c.errors++
	c.strikes++
	c.srv.log.Warn("protocol violation", "session", c.in.Session(), "peer", c.in.Peer(), "client", c.in.Addr(),
		"command", cmd.name(), "code", r.Code, "reason", r.Message)
	if c.strikes > c.srv.opts.Limits.Errors {
		c.end(errTooMuch)
		c.reply(replyErrors)
		return false
	}
	c.reply(r)
	return true
}

// idle counts a command that moves no mail, and reports whether the connection may go on.
func (c *conn) idle() bool {
	if c.idles++; c.idles <= c.srv.opts.Limits.Idles {
		return true
	}
	c.end(errTooMuch)
	c.reply(replyIdles)
	return false
}

// end makes the connection end after the current command; the first reason stays.
func (c *conn) end(err error) {
	if c.ending == nil {
		c.ending = err
	}
}

// reply collects r; a 421 ends the connection (RFC 5321 section 3.8).
func (c *conn) reply(r *mail.Reply) {
	c.srv.observe.Reply(r.Code)
	_ = c.setOutput(appendReply(c.output(), r)) // kept in writeErr
	if r.Code == 421 {
		c.end(errRefused)
	}
}

// line collects an answer of one line, its enhanced code included.
func (c *conn) line(code int, text string) {
	c.srv.observe.Reply(code)
	b := c.output()
	b = append(b, byte('0'+code/100), byte('0'+code/10%10), byte('0'+code%10), ' ')
	b = append(b, text...)
	_ = c.setOutput(append(b, '\r', '\n')) // kept in writeErr
}
