package smtp

import (
	"strconv"
	"strings"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
	"mailcutover/proxy/listen"
)

// dispatch answers one command, or, for a recipient, keeps it until those that came
// with it are read.
func (c *conn) dispatch(cmd command) {
	if cmd.verb != "RCPT" {
		if c.decide(); c.ending != nil {
			return
		}
	}
	if hasControl(cmd.arg) {
		c.violation(cmd, replyControl)
		return
	}
	switch cmd.verb {
	case "RCPT":
		c.rcpt(cmd)
	case "MAIL":
		c.mail(cmd)
	case "DATA":
		c.data(cmd)
	case "BDAT":
		c.bdat(cmd)
	case "EHLO", "HELO", "LHLO":
		c.hello(cmd)
	case "STARTTLS":
		c.startTLSCommand(cmd)
	case "XFORWARD":
		c.xforward(cmd)
	case "QUIT":
		if len(cmd.arg) > 0 {
			c.violation(cmd, replyNoArgument)
			return
		}
		c.line(221, "2.0.0 Bye")
		c.end(errQuit)
	case "RSET":
		if len(cmd.arg) > 0 {
			c.violation(cmd, replyNoArgument)
		} else if c.idle() {
			c.resetTransaction()
			c.line(250, "2.0.0 OK")
		}
	case "NOOP":
		if c.idle() {
			c.line(250, "2.0.0 OK")
		}
	case "HELP":
		if c.idle() {
			c.line(214, "2.0.0 See RFC 5321")
		}
	case "VRFY":
		if len(cmd.arg) == 0 {
			c.violation(cmd, replyVrfy)
		} else if c.idle() {
			c.line(252, "2.5.2 Can't verify, but will take messages")
		}
	case "PROXY": // from a peer that must not send it, or it came too late
		c.quiet = true
		c.end(errProxy)
	case "":
		c.violation(cmd, replyUnknown)
	default:
		c.violation(cmd, replyNotHere)
	}
}

var (
	replyVrfy     = mail.NewReply(501, 5, 5, 4, "VRFY wants an address")
	replyName     = mail.NewReply(501, 5, 5, 4, "Want a host name of printable characters")
	replyLHLO     = mail.NewReply(500, 5, 5, 1, "This is LMTP, say LHLO")
	replyEHLO     = mail.NewReply(500, 5, 5, 1, "This is SMTP, say EHLO")
	replyGreet    = mail.NewReply(503, 5, 5, 1, "Say hello first")
	replyNested   = mail.NewReply(503, 5, 5, 1, "A transaction is under way")
	replyNoMail   = mail.NewReply(503, 5, 5, 1, "MAIL comes first")
	replyNoRcpt   = mail.NewReply(503, 5, 5, 1, "RCPT comes first")
	replyNoneLeft = mail.NewReply(554, 5, 5, 1, "No valid recipients")
	replyMailArg  = mail.NewReply(501, 5, 5, 4, "Want MAIL FROM:<address>")
	replyRcptArg  = mail.NewReply(501, 5, 5, 4, "Want RCPT TO:<address>")
	replySender   = mail.NewReply(501, 5, 1, 7, "Malformed sender address")
	replyTo       = mail.NewReply(501, 5, 1, 3, "Malformed recipient address")
	replyUTF8     = mail.NewReply(553, 5, 6, 7, "Address needs SMTPUTF8")
	replyHasTLS   = mail.NewReply(503, 5, 5, 1, "TLS is already in use")
	replyForward  = mail.NewReply(501, 5, 5, 4, "Malformed XFORWARD")
)

// hello answers HELO, EHLO and LHLO.
func (c *conn) hello(cmd command) {
	lmtp := c.srv.opts.Protocol == ProtocolLMTP
	if lmtp != (cmd.verb == "LHLO") {
		if lmtp {
			c.violation(cmd, replyLHLO)
		} else {
			c.violation(cmd, replyEHLO)
		}
		return
	}
	name, ok := greetingName(cmd.arg)
	if !ok {
		c.violation(cmd, replyName)
		return
	}
	if !c.idle() {
		return
	}
	c.resetTransaction()
	c.helo = name
	host := c.srv.opts.Hostname
	if cmd.verb == "HELO" {
		c.offer = offers{size: c.srv.opts.Limits.MessageBytes}
		c.with = "SMTP"
		c.line(250, host)
		return
	}
	c.offer = c.newOffer()
	c.with = "ESMTP"
	if lmtp {
		c.with = "LMTP"
	}
	if c.tls != nil {
		c.with += "S"
	}
	c.srv.observe.Reply(250)
	b := c.output()
	b = append(append(append(b, "250-"...), host...), "\r\n250-PIPELINING\r\n250-SIZE"...)
	if c.offer.size > 0 {
		b = strconv.AppendInt(append(b, ' '), c.offer.size, 10)
	}
	b = append(b, "\r\n"...)
	if c.offer.bit8 {
		b = append(b, "250-8BITMIME\r\n"...)
	}
	if c.offer.utf8 {
		b = append(b, "250-SMTPUTF8\r\n"...)
	}
	if c.srv.tls != nil && c.tls == nil {
		b = append(b, "250-STARTTLS\r\n"...)
	}
	if c.trusted() {
		b = append(b, "250-XFORWARD "+xforwardNames+"\r\n"...)
	}
	_ = c.setOutput(append(b, "250-CHUNKING\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES\r\n"...)) // kept in writeErr
}

// newOffer asks the settings what can be offered now.
func (c *conn) newOffer() offers {
	o := &c.srv.opts
	offer := offers{esmtp: true, bit8: o.Announce8Bit == nil || o.Announce8Bit(), utf8: o.AnnounceUTF8 == nil || o.AnnounceUTF8()}
	offer.size = o.Limits.MessageBytes
	if o.AnnounceSize != nil {
		if n := o.AnnounceSize(); n > 0 && (offer.size == 0 || n < offer.size) {
			offer.size = n
		}
	}
	return offer
}

// trusted reports whether the client may use XFORWARD.
func (c *conn) trusted() bool { return contains(c.srv.opts.XForwardNets, c.in.Addr().Addr()) }

// mail answers MAIL.
func (c *conn) mail(cmd command) {
	switch {
	case c.helo == "":
		c.violation(cmd, replyGreet)
		return
	case c.srv.opts.RequireTLS && c.tls == nil:
		c.violation(cmd, replyNoTLS)
		return
	case c.tx.begun:
		c.violation(cmd, replyNested)
		return
	}
	if l := c.srv.opts.Limits.Transactions; l > 0 && c.transactions >= l {
		c.reply(replyRenew)
		return
	}
	if c.refusals > c.srv.opts.Limits.Refusals {
		c.end(errTooMuch)
		c.reply(replyRefusals)
		return
	}
	path, params, ok := splitPath(string(cmd.arg), "FROM:")
	if !ok {
		c.violation(cmd, replyMailArg)
		return
	}
	opts, wrong := parseMailParams(params, c.offer)
	if wrong == replyTooBig {
		c.reply(wrong)
		return
	} else if wrong != nil {
		c.violation(cmd, wrong)
		return
	}
	from, err := mail.ParsePath(path, opts.UTF8)
	if err != nil || !from.IsNull() && from.Domain() == "" {
		c.violation(cmd, badPath(path, opts.UTF8, replySender))
		return
	}
	client := c.client()
	if c.forward != nil {
		c.forward.apply(&client)
	}
	if opts.UTF8 { // RFC 6531 section 4.3
		client.With = "UTF8" + strings.TrimPrefix(client.With, "E")
	}
	c.transactions++
	if c.session == nil {
		session, err := c.srv.backend.NewSession(c.in.Context(), client)
		if err != nil {
			c.end(errRefused)
			c.reply(sessionReply(err))
			return
		}
		c.session = session
	}
	if err := c.session.Mail(c.in.Context(), client, from, opts); err != nil {
		if c.idle() {
			c.reply(sessionReply(err))
		}
		return
	}
	c.tx.begun, c.tx.utf8 = true, opts.UTF8
	c.line(250, "2.1.0 Sender OK")
}

// badPath chooses the answer to an address that can't be parsed.
func badPath(path string, utf8OK bool, otherwise *mail.Reply) *mail.Reply {
	if !utf8OK && path != "" {
		if _, err := mail.ParsePath(path, true); err == nil {
			return replyUTF8
		}
	}
	return otherwise
}

// rcpt answers RCPT, or keeps it to be decided with those that follow.
func (c *conn) rcpt(cmd command) {
	if !c.tx.begun {
		c.violation(cmd, replyNoMail)
		return
	}
	path, params, ok := splitPath(string(cmd.arg), "TO:")
	if !ok {
		c.violation(cmd, replyRcptArg)
		return
	}
	opts, wrong := parseRcptParams(params, c.offer.esmtp, c.tx.utf8)
	if wrong != nil {
		c.violation(cmd, wrong)
		return
	}
	to, err := mail.ParsePath(path, c.tx.utf8)
	if err != nil || to.IsNull() {
		c.violation(cmd, badPath(path, c.tx.utf8, replyTo))
		return
	}
	limit := c.srv.opts.Limits.Recipients
	if max(c.tx.accepted, c.tx.refused)+len(c.tx.pending) >= limit {
		if c.decide(); c.ending != nil {
			return
		}
		if c.tx.accepted == 0 && c.tx.refused >= limit {
			c.refusals++
		}
		switch {
		case c.tooManyRefusals():
			c.end(errTooMuch)
			c.reply(replyRefusals)
			return
		case c.tx.accepted >= limit || c.tx.refused >= limit:
			c.reply(replyTooMany)
			return
		}
	}
	c.tx.pending = append(c.tx.pending, Recipient{To: to, Options: opts})
}

// decide asks the session about the recipients that arrived together.
func (c *conn) decide() {
	if len(c.tx.pending) == 0 {
		return
	}
	rcpts := c.tx.pending
	errs := c.session.Rcpts(c.in.Context(), rcpts)
	replies := make([]*mail.Reply, len(rcpts)) // nil: accepted
	for i := range rcpts {
		switch {
		case len(errs) != len(rcpts):
			replies[i] = replyLocal
		case errs[i] != nil:
			replies[i] = sessionReply(errs[i])
		}
		if r := replies[i]; r == nil {
			c.tx.accepted++
		} else if c.tx.refused++; isRefusal(r) {
			c.refusals++
		}
	}
	if c.tooManyRefusals() {
		c.end(errTooMuch)
		replies[len(replies)-1] = replyRefusals
	}
	for _, r := range replies {
		if r == nil {
			c.line(250, "2.1.5 Recipient OK")
		} else {
			c.reply(r)
		}
	}
	if len(errs) != len(rcpts) {
		c.srv.log.Error("session gave a wrong number of answers", "session", c.in.Session(), "rcpts", len(rcpts), "answers", len(errs))
	}
	c.tx.pending = nil
}

// tooManyRefusals reports whether the connection is to end: a transaction in which
// somebody was accepted goes on, since its message is for somebody.
func (c *conn) tooManyRefusals() bool {
	return c.refusals > c.srv.opts.Limits.Refusals && c.tx.accepted == 0
}

// isRefusal reports whether an answer to a recipient says that nobody has the address,
// or that it is not taken for good: what a peer that guesses addresses gets.
func isRefusal(r *mail.Reply) bool {
	return mail.IsPermanent(r) || r.Code == 451 && r.EnhancedCode == gosmtp.EnhancedCode{4, 1, 1}
}

// xforward answers XFORWARD.
func (c *conn) xforward(cmd command) {
	switch {
	case !c.trusted():
		c.violation(cmd, replyNotHere)
	case c.helo == "":
		c.violation(cmd, replyGreet)
	case c.tx.begun:
		c.violation(cmd, replyNested)
	default:
		next := xforward{}
		if c.forward != nil {
			next = *c.forward
		}
		if !next.parse(string(cmd.arg)) {
			c.violation(cmd, replyForward)
			return
		}
		if c.idle() {
			c.forward = &next
			c.line(250, "2.0.0 OK")
		}
	}
}

// startTLSCommand answers STARTTLS (RFC 3207). What the peer said in the clear is
// forgotten, all of it.
func (c *conn) startTLSCommand(cmd command) {
	switch {
	case len(cmd.arg) > 0:
		c.violation(cmd, replyNoArgument)
		return
	case c.srv.tls == nil:
		c.violation(cmd, replyNotHere)
		return
	case c.tls != nil:
		c.violation(cmd, replyHasTLS)
		return
	case c.helo == "":
		c.violation(cmd, replyGreet)
		return
	case c.tx.begun:
		c.violation(cmd, replyNested)
		return
	case len(c.unread()) > 0:
		c.end(errInjected)
		c.violation(cmd, replySequence)
		c.quiet = true
		return
	}
	c.line(220, "2.0.0 Go ahead")
	if err := c.flush(); err != nil {
		return
	}
	c.endSession()
	c.helo, c.with, c.offer = "", "", offers{}
	if err := c.shake(); err != nil {
		c.end(err)
	}
}

// shake brings TLS up. After a failure nothing more is said.
func (c *conn) shake() error {
	config := c.srv.tls.Config()
	if config == nil {
		c.quiet = true
		return listen.ErrNoCertificate
	}
	if err := c.startTLS(c.in.Context(), config, c.srv.opts.Limits.Handshake); err != nil {
		c.srv.observe.ConnectionRefused(listen.RefusedTLS)
		c.quiet = true
		return err
	}
	c.secured = listen.TLSText(c.tls.ConnectionState())
	return nil
}
