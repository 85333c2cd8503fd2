package relay

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	gosmtp "github.com/emersion/go-smtp"
)

// errBadParameter is for an ENVID or ORCPT that is not xtext: the listener must not have
// let it in.
var errBadParameter = errors.New("parameter is not xtext")

// refuse ends the envelope: all recipients get err.
func (t *Transaction) refuse(err error) {
	t.stage, t.refusal = stageRefused, err
}

// needs returns an error if the message needs what the platform did not announce.
func (t *Transaction) needs() error {
	caps, o := &t.conn.caps, t.opts
	var err error
	switch {
	case o.Body == gosmtp.BodyBinaryMIME, o.Body == gosmtp.Body8BitMIME && !caps.EightBitMIME:
		err = ErrLacks8BitMIME
	case !t.from.IsASCII() && !caps.SMTPUTF8:
		err = ErrLacksSMTPUTF8
	case o.RequireTLS && !(caps.RequireTLS && t.conn.verified): // RFC 8689 section 4.2.1
		err = ErrLacksRequireTLS
	case caps.Size > 0 && o.Size > caps.Size:
		err = ErrTooLarge
	case !isXtext(o.EnvelopeID):
		return t.pool.connectionError(t.conn.host, "MAIL", fmt.Errorf("ENVID: %w", errBadParameter))
	default:
		return nil
	}
	return fmt.Errorf("platform %s at %s: %w", t.pool.ep.Platform, t.host, err)
}

// needsRcpt is needs for one recipient.
func (t *Transaction) needsRcpt(r Recipient) error {
	switch {
	case r.To.IsNull():
		return t.pool.connectionError(t.conn.host, "RCPT", errors.New("null path as a recipient"))
	case t.ascii && !isXtext(r.Options.OriginalRecipient):
		return fmt.Errorf("platform %s at %s: %w", t.pool.ep.Platform, t.host, ErrLacksSMTPUTF8)
	case !isXtext(r.Options.OriginalRecipient) && !t.utf8:
		return t.pool.connectionError(t.conn.host, "RCPT", fmt.Errorf("ORCPT: %w", errBadParameter))
	case r.To.IsASCII() || t.utf8:
		return nil
	case t.conn.caps.SMTPUTF8:
		return fmt.Errorf("platform %s at %s: %w", t.pool.ep.Platform, t.host, errLateUTF8)
	default:
		// Whatever the client gave: the address of a mailbox on a platform that can't take it
		// is a mistake of the table's.
		return fmt.Errorf("platform %s at %s: recipient %s: %w: %w", t.pool.ep.Platform, t.host, r.To, ErrNeedsOperator, errTableUTF8)
	}
}

// wantsUTF8 reports whether MAIL gets SMTPUTF8: if it came with it, or if an address needs it,
// and the platform has it.
//
// Many programs declare it for every message. One that has nothing beyond ASCII in its
// envelope and header needs it nowhere (RFC 6531 section 3.2), and goes without it.
func (t *Transaction) wantsUTF8(rcpts []Recipient) bool {
	if !t.conn.caps.SMTPUTF8 {
		return false // needs lets nothing beyond ASCII through
	}
	return t.opts.UTF8 || !t.from.IsASCII() || slices.ContainsFunc(rcpts, func(r Recipient) bool { return !r.To.IsASCII() })
}

// appendMail appends the MAIL command with what the platform announced.
func (t *Transaction) appendMail(b []byte) []byte {
	caps, o := &t.conn.caps, t.opts
	b = append(b, "MAIL FROM:<"...)
	b = append(b, t.from.String()...)
	b = append(b, '>')
	if caps.SizeKeyword && o.Size > 0 {
		b = strconv.AppendInt(append(b, " SIZE="...), o.Size, 10)
	}
	if caps.EightBitMIME && (o.Body == gosmtp.Body7Bit || o.Body == gosmtp.Body8BitMIME) {
		b = append(append(b, " BODY="...), o.Body...)
	}
	if t.utf8 {
		b = append(b, " SMTPUTF8"...)
	}
	if o.RequireTLS {
		b = append(b, " REQUIRETLS"...)
	}
	if caps.DSN {
		if o.Return == gosmtp.DSNReturnFull || o.Return == gosmtp.DSNReturnHeaders {
			b = append(append(b, " RET="...), o.Return...)
		}
		if o.EnvelopeID != "" {
			b = append(append(b, " ENVID="...), o.EnvelopeID...)
		}
	}
	return append(b, "\r\n"...)
}

// appendRcpt appends a RCPT command with what the platform announced.
func (t *Transaction) appendRcpt(b []byte, r Recipient) []byte {
	b = append(b, "RCPT TO:<"...)
	b = append(b, r.To.String()...)
	b = append(b, '>')
	if t.conn.caps.DSN {
		for i, n := range r.Options.Notify {
			if i == 0 {
				b = append(b, " NOTIFY="...)
			} else {
				b = append(b, ',')
			}
			b = append(b, n...)
		}
		if r.Options.OriginalRecipient != "" {
			b = append(append(b, " ORCPT="...), r.Options.OriginalRecipientType...)
			b = append(append(b, ';'), r.Options.OriginalRecipient...)
		}
	}
	return append(b, "\r\n"...)
}

// isXtext reports whether s has only printable ASCII without blanks, so that it can't
// begin another parameter or command.
func isXtext(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
