package smtp

import (
	"context"
	"io"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
)

// Backend decides about what the listener's peers ask. It is safe for concurrent use.
type Backend interface {
	// NewSession is called when a connection may give its first MAIL. An error refuses
	// the connection with its reply (mail.AsReply).
	//
	// ctx ends with the connection, or when a drain's grace is over.
	NewSession(ctx context.Context, client mail.Client) (Session, error)
}

// Session is one peer's connection: transactions, one after the other. The listener
// calls its methods from one goroutine, in the order that RFC 5321 section 4.1.4
// allows; it has checked syntax and sequence before. An error is sent as the reply
// that mail.AsReply makes of it.
type Session interface {
	// Mail begins a transaction. In opts, EnvelopeID is as it stood on the wire: xtext
	// (RFC 3461 section 4), checked but not decoded, so that it passes unchanged.
	// client is as at this moment, after STARTTLS, XFORWARD and a second EHLO.
	Mail(ctx context.Context, client mail.Client, from mail.Path, opts *gosmtp.MailOptions) error

	// Rcpts decides about recipients: all those whose commands had arrived together,
	// so that a platform can be asked once for many. It returns one error, or nil, for each.
	Rcpts(ctx context.Context, rcpts []Recipient) []error

	// Data takes the message. As long as it has not read from body it may still refuse:
	// the first Read is what sends the 354. With LMTP it returns one error, or nil, for
	// each recipient that Rcpts took, in order; with SMTP a slice of one.
	//
	// A Read of body that returns io.EOF proves that the message is complete. Any other
	// error means that it is not: it must go nowhere. If Data returns before io.EOF the
	// listener discards the rest, up to the real end.
	//
	// body delivers whole lines' worth of bytes with CRLF line ends, dot-stuffing
	// removed, bare CR and LF repaired or the message refused, by setting.
	Data(ctx context.Context, body Body) []error

	// Reset ends the transaction, if there is one: RSET, EHLO, or the end of Data.
	Reset()

	// Close ends the session; Reset was called before.
	Close()
}

// Recipient is one RCPT.
type Recipient struct {
	To mail.Path
	// Options as of RFC 3461. OriginalRecipient is as it stood on the wire, behind
	// the address type: xtext or utf-8-addr-xtext (RFC 6533), checked but not decoded.
	Options gosmtp.RcptOptions
}

// Body is the message in transfer.
type Body interface {
	io.Reader

	// Repaired returns how many bare CR or LF were made CRLF so far.
	Repaired() int

	// Gone reports whether the peer has ended its side of the connection: then it won't
	// see the answer, and will send the message again. False says nothing: it may go, or
	// be out of reach, at any time.
	Gone() bool
}
