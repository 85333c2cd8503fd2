package smtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"mailcutover/mail"
)

// Why a connection ends, where it isn't the peer's QUIT or a network error.
var (
	errQuit          = errors.New("quit")
	errDrain         = errors.New("drain")
	errTooMuch       = errors.New("too many errors or idle commands")
	errOutOfSync     = errors.New("out of sync")
	errRefused       = errors.New("refused")
	errTooLong       = errors.New("command line without end")
	errProxy         = errors.New("PROXY header refused")
	errInjected      = errors.New("bytes behind STARTTLS")
	errNoCertificate = errors.New("no certificate")
	errDoubtful      = errors.New("end of message open to doubt")
)

// conn is one peer's connection. All of it belongs to the connection's goroutine, but
// for nc's deadlines and cancel, which a drain uses.
type conn struct {
	wire
	srv     *Server
	ctx     context.Context // ends with the connection, or when it is cut
	cancel  context.CancelFunc
	client  mail.Client // without XFORWARD
	proxied bool        // the peer must send a PROXY header
	counted netip.Addr  // the address that this connection counts for

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
	if c.proxied {
		if err := c.readProxyHeader(); err != nil {
			c.quiet = true
			return err
		}
	}
	c.client.Origin = c.srv.opts.Origin
	if contains(c.srv.opts.InsideNets, c.client.Addr.Addr()) {
		c.client.Origin = mail.OriginInside
	}
	if c.srv.opts.ImplicitTLS {
		if err := c.shake(); err != nil {
			return err
		}
	}
	if c.srv.opts.Protocol == ProtocolLMTP {
		c.line(220, c.srv.opts.Hostname+" LMTP")
	} else {
		c.line(220, c.srv.opts.Hostname+" ESMTP")
	}
	return c.writeErr
}

// readProxyHeader reads the header that the peer must send, and believes it.
func (c *conn) readProxyHeader() error {
	deadline := time.Now().Add(c.srv.opts.Limits.Handshake)
	for {
		h, n, err := parseProxyHeader(c.unread())
		switch {
		case err == nil:
			c.take(n)
			if h.client.IsValid() {
				c.client.Addr, c.client.Local = h.client, h.local
			}
			c.srv.mu.Lock()
			ok := c.srv.countAddress(c)
			c.srv.mu.Unlock()
			if !ok {
				c.srv.observe.ConnectionRefused("connections-per-address")
				return errRefused
			}
			return nil
		case !errors.Is(err, errProxyShort):
			c.srv.observe.ConnectionRefused("proxy-header")
			return fmt.Errorf("%w: %w", errProxy, err)
		}
		if err := c.fillUntil(deadline); err != nil {
			c.srv.observe.ConnectionRefused("proxy-header")
			return fmt.Errorf("%w: %w", errProxy, err)
		}
	}
}

// step answers one command.
func (c *conn) step() error {
	if c.srv.at(stageDraining) && !c.tx.begun {
		return errDrain
	}
	line, err := c.readLine(time.Now().Add(c.srv.opts.Limits.Idle))
	if err != nil {
		return err
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
		linger = !c.srv.at(stageCut) && !errors.Is(err, errQuit) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
	}
	c.endSession()
	c.close(linger)
	c.srv.log.Info("connection ended", "session", c.client.Session, "peer", c.client.Peer, "client", c.client.Addr,
		"helo", c.client.Helo, "tls", c.client.TLS, "transactions", c.transactions, "messages", c.messages,
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
					c.srv.log.Error("session panicked again", "session", c.client.Session, "error", fmt.Sprint(p))
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

// stopped returns errDrain if the connection is to end where it stands.
func (c *conn) stopped() error {
	if c.srv.at(stageCut) || c.srv.at(stageDraining) && !c.tx.begun {
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
	case bytes.HasPrefix(c.unread(), []byte(proxyV2Signature[2:])): // from a peer that must not send it
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
	c.srv.log.Warn("protocol violation", "session", c.client.Session, "peer", c.client.Peer, "client", c.client.Addr,
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
