package smtp

import (
	"errors"
	"io"

	"mailcutover/mail"
)

// errOver is what a session gets that reads from a message after its Data returned.
var errOver = errors.New("the message is over")

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
	if c.poll() {
		// The peer did not wait for 354 (RFC 2920 section 3.1). Whether what follows is
		// the message, or commands of a peer that expected a refusal, can't be known.
		c.end(errOutOfSync)
		c.violation(cmd, replyEarly)
		return
	}
	c.message(&body{c: c, scan: scanner{dots: true}, limit: c.offer.size, before: c.received})
}

// bdat answers the first BDAT of a message, and those that are out of place, whose
// bytes must be read all the same (RFC 3030 section 2).
func (c *conn) bdat(cmd command) {
	size, last, ok := parseChunk(cmd.arg)
	if !ok {
		c.end(errOutOfSync)
		c.violation(cmd, replyChunk)
		return
	}
	b := &body{c: c, chunked: true, left: size, last: last, limit: c.offer.size, before: c.received}
	wrong := c.noMessage()
	if !c.offer.esmtp && wrong == nil {
		wrong = replySequence
	}
	if wrong == nil {
		c.message(b)
		return
	}
	if b.discard(); b.lost != nil {
		c.end(b.lost)
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
	case c.tx.refused > 0 && c.srv.opts.Protocol == ProtocolSMTP: // LMTP wants 503 (RFC 2033 section 4.2)
		return replyNoneLeft
	default:
		return replyNoRcpt
	}
}

// message hands the message to the session, and its results to the peer.
func (c *conn) message(b *body) {
	errs := c.session.Data(c.in.Context(), b)
	complete := b.err == io.EOF
	b.err = errOver
	if b.started || b.chunked {
		b.discard()
	}
	if b.started {
		c.srv.observe.MessageEnded(b.size, b.scan.repaired, complete)
	}
	if b.lost != nil {
		c.end(b.lost)
		return
	}
	if b.command == nil {
		c.results(b, errs, complete)
	}
	c.resetTransaction()
	switch {
	case b.command != nil:
		c.dispatch(*b.command)
	case !b.chunked && !b.started && c.poll():
		// The message was refused without a 354, but its bytes are here already: they
		// must not be taken as commands.
		c.end(errOutOfSync)
		c.violation(command{verb: "DATA"}, replyEarly)
	case b.scan.doubtful:
		c.srv.log.Warn("protocol violation", "session", c.in.Session(), "peer", c.in.Peer(), "client", c.in.Addr(),
			"command", "DATA", "reason", errDoubtful.Error())
		c.end(errDoubtful)
		c.reply(replyDoubtful)
	}
}

// results answers a message. Only one that the session read up to io.EOF can have been
// accepted.
func (c *conn) results(b *body, errs []error, complete bool) {
	n := 1
	if c.srv.opts.Protocol == ProtocolLMTP && (!b.chunked || b.last) {
		n = c.tx.accepted
	}
	want := n
	if c.srv.opts.Protocol == ProtocolLMTP {
		want = c.tx.accepted
	}
	if len(errs) != want {
		c.srv.log.Error("session gave a wrong number of answers", "session", c.in.Session(), "rcpts", want, "answers", len(errs))
	}
	accepted := false
	for i := range n {
		switch {
		case b.fault != nil:
			c.reply(b.fault)
		case len(errs) != want:
			c.reply(replyLocal)
		case errs[i] != nil:
			c.reply(sessionReply(errs[i]))
		case !complete:
			c.srv.log.Error("session accepted a message that it has not read to the end", "session", c.in.Session())
			c.reply(replyLocal)
		default:
			accepted = true
			c.line(250, "2.0.0 Message accepted")
		}
	}
	if accepted {
		c.messages++
		c.strikes, c.refusals, c.idles = 0, 0, 0
	}
}
