package smtp

import (
	"errors"
	"io"

	"mailcutover/mail"
)

var errNoCertificate = errors.New("there is no certificate")

// data answers DATA.
func (c *conn) data(cmd command) {
	if len(cmd.arg) > 0 {
		c.violation(cmd, replyNoArgument)
		return
	}
	if wrong := c.noMessage(); wrong != nil {
		c.violation(cmd, wrong)
		return
	}
	if len(c.unread()) > 0 {
		// The peer did not wait for 354 (RFC 2920 section 3.1). Whether what follows is
		// the message, or commands of a peer that expected a refusal, can't be known.
		c.violation(cmd, replyEarly)
		c.end(errOutOfSync)
		return
	}
	c.message(body{c: c, scan: scanner{dots: true}, limit: c.offer.size})
}

// bdat answers the first BDAT of a message, and those that are out of place, whose
// bytes must be read all the same (RFC 3030 section 2).
func (c *conn) bdat(cmd command) {
	size, last, ok := parseChunk(cmd.arg)
	if !ok {
		c.violation(cmd, replyChunk)
		c.end(errOutOfSync)
		return
	}
	b := body{c: c, chunked: true, left: size, last: last, limit: c.offer.size}
	wrong := c.noMessage()
	if !c.offer.esmtp && wrong == nil {
		wrong = replySequence
	}
	if wrong == nil {
		c.message(b)
		return
	}
	c.body = b
	c.body.discard()
	if err := c.body.lost; err != nil {
		c.end(err)
		return
	}
	c.violation(cmd, wrong)
}

// noMessage returns why no message may come now, or nil.
func (c *conn) noMessage() *mail.Reply {
	switch {
	case !c.tx.begun:
		return replyNoMail
	case c.tx.accepted > 0:
		return nil
	case c.tx.refused > 0:
		return replyNoneLeft
	default:
		return replyNoRcpt
	}
}

// message hands the message to the session, and its results to the peer.
func (c *conn) message(b body) {
	c.body = b
	errs := c.session.Data(c.ctx, &c.body)
	complete := c.body.err == io.EOF
	c.rest()
	c.srv.observe.MessageEnded(c.body.size, c.body.scan.repaired, complete)
	if c.body.lost != nil {
		c.end(c.body.lost)
		return
	}
	next := c.body.command
	if next == nil {
		c.results(errs, complete)
	}
	doubtful, early := c.body.scan.doubtful, !c.body.chunked && !c.body.started && c.poll()
	c.resetTransaction()
	c.body = body{}
	switch {
	case next != nil:
		c.dispatch(*next)
	case early:
		// The message was refused without a 354, but its bytes are here already: they
		// must not be taken as commands.
		c.violation(command{verb: "DATA"}, replyEarly)
		c.end(errOutOfSync)
	case doubtful:
		c.srv.log.Warn("protocol violation", "session", c.client.Session, "peer", c.client.Peer, "client", c.client.Addr,
			"command", "DATA", "reason", errDoubtful.Error())
		c.reply(mail.NewReply(421, 4, 7, 0, "Connection closed behind a malformed end of message"))
		c.end(errDoubtful)
	}
}

// rest discards what the session did not read, so that the next bytes are a command.
func (c *conn) rest() {
	b := &c.body
	if b.lost != nil || b.command != nil || b.ended || !b.chunked && !b.started {
		return
	}
	b.discard()
}

// results answers a message. Only one that the session read up to io.EOF can have been
// accepted.
func (c *conn) results(errs []error, complete bool) {
	n := 1
	if c.srv.opts.Protocol == ProtocolLMTP && (!c.body.chunked || c.body.last) {
		n = c.tx.accepted
	}
	want := n
	if c.srv.opts.Protocol == ProtocolLMTP {
		want = c.tx.accepted
	}
	if len(errs) != want {
		c.srv.log.Error("session gave a wrong number of answers", "session", c.client.Session, "rcpts", want, "answers", len(errs))
	}
	accepted := false
	for i := range n {
		switch {
		case c.body.fault != nil:
			c.reply(c.body.fault)
		case len(errs) != want:
			c.reply(replyLocal)
		case errs[i] != nil:
			c.reply(sessionReply(errs[i]))
		case !complete:
			c.srv.log.Error("session accepted a message that it has not read to the end", "session", c.client.Session)
			c.reply(replyLocal)
		default:
			accepted = true
			c.line(250, "2.0.0 Message accepted")
		}
	}
	if accepted {
		c.messages++
		c.idles = 0
	}
}
